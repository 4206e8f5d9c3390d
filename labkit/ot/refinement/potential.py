"""Dual potentials of a matching: from samples, for all targets, and the bound that they prove.

A sample of a few thousand points on each side is solved with entropy; its potential extends to any target by the
soft c-transform g(v) = -epsilon log sum_i a_i exp((f_i - c(u_i, v)) / epsilon). Potentials of several samples are
averaged, which takes out the noise of the samples (Pooladian, Niles-Weed 2021 on the extension).

Any g bounds the cost of every matching from below (weak duality):
    sum_i c(i, match i) >= sum_i min_j (c_ij - g_j) + least sum_j n_j g_j over allowed counts n_j.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix
from labkit.ot.problem import Settings
from labkit.ot.refinement.task import Task
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SAMPLE = 2048
EPSILON = 0.03
SETTINGS = Settings(EPSILON, "mean", tau_a=1.0, tau_b=1.0, tolerance=0.01, max_iterations=1000)
ROWS, COLUMNS = 512, 4096


class _Sample(NamedTuple):
    u: Float[Tensor, "k d"]
    score: Float[Tensor, " k"]  # (f + epsilon log a) / epsilon
    idle: float  # the same for the point that stands for sources which do not exist
    epsilon: float


class Potential:
    """Mean of the target potentials of several samples."""

    def __init__(self, task: Task) -> None:
        self.task, self.samples, self.g = task, [], torch.zeros_like(task.offset)

    def add(self, generator: torch.Generator) -> None:
        """Solve one more sample and average it in."""
        sample = _solve_sample(self.task, generator)
        self.samples.append(sample)
        g = _extend(self.task, sample, self.task.v, self.task.offset)
        self.g += (g - self.g) / len(self.samples)

    def at(self, points: Float[Tensor, "k d"], offset: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The potential at other points of the target space."""
        return sum(_extend(self.task, sample, points, offset) for sample in self.samples) / len(self.samples)


def _solve_sample(task: Task, generator: torch.Generator) -> _Sample:
    rows, columns = (
        torch.randperm(count, generator=generator)[:SAMPLE].to(task.u.device) for count in (task.n, task.m)
    )
    u = task.u[rows]
    cost = task.cost(u, task.v[columns]) + task.offset[columns]
    a = u.new_full((len(u),), min(1.0, task.n / task.m) / len(u))
    if task.n < task.m:
        # A target that no source needs goes to one more source at no cost.
        cost = torch.cat([cost, cost.new_zeros(1, cost.shape[1])])
        a = torch.cat([a, a.new_tensor([1 - task.n / task.m])])
    least = cost.min()
    coupling = solve(CostMatrix(cost - least), a, None, SETTINGS)
    epsilon = float(coupling.epsilon_absolute)
    score = (coupling.f + least) / epsilon + a.log()
    idle = float(score[-1]) if task.n < task.m else -math.inf
    return _Sample(u, score[: len(u)], idle, epsilon)


def _extend(task: Task, sample: _Sample, points: Tensor, offset: Tensor) -> Tensor:
    parts = []
    for v in points.split(ROWS):
        exponent = task.cost(v, sample.u).div_(-sample.epsilon).add_(sample.score)
        top = exponent.amax(1, keepdim=True)
        parts.append(exponent.sub_(top).exp_().sum(1).log_().add_(top[:, 0]))
    g = offset - sample.epsilon * torch.cat(parts)
    return -sample.epsilon * torch.logaddexp(-g / sample.epsilon, g.new_tensor(sample.idle))


class Slack(NamedTuple):
    """How far a matching may be from the best one, per source, and the standard error of that."""

    mean: float
    standard_error: float


def bound_slack(task: Task, g: Tensor, target: Int[Tensor, " n"], rows: Int[Tensor, " k"] | None = None) -> Slack:
    """Mean of [c(i, target i) - g_(target i)] - min_j (c_ij - g_j), plus what other counts could save.

    Over some of the sources it is an estimate, over all of them (rows=None, in float64) it is certain.
    """
    u, v, price = task.u, task.v, g - task.offset
    certain = rows is None
    if rows is None:
        u, v, price, rows = u.double(), v.double(), price.double(), torch.arange(task.n, device=u.device)
    parts = []
    for part in rows.split(ROWS):
        own, least = (torch.full_like(u[part, 0], torch.inf) for _ in range(2))
        for first in range(0, task.m, COLUMNS):
            reduced = task.cost(u[part], v[first : first + COLUMNS]).sub_(price[first : first + COLUMNS])
            least = torch.minimum(least, reduced.amin(1))
            # By the same arithmetic as the minimum, so that a best target has no slack at all.
            column = target[part] - first
            here = (column >= 0) & (column < reduced.shape[1])
            own = torch.where(here, reduced.gather(1, torch.where(here, column, 0)[:, None])[:, 0], own)
        parts.append(own - least)
    slack = torch.cat(parts).double()
    counts = 0.0
    if not task.full:
        times, extra = divmod(task.n, task.m)
        least = times * g.double().sum() + g.double().sort().values[:extra].sum()
        counts = float(g.double()[target].sum() - least) / task.n
    error = 0.0 if certain or len(slack) < 2 else float(slack.std()) / math.sqrt(len(slack))
    return Slack(float(slack.mean()) + counts, error)
