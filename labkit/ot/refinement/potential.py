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
        self.task, self.g = task, torch.zeros_like(task.offset)
        self.samples: list[_Sample] = []

    def add(self, generator: torch.Generator) -> None:
        """Solve one more sample and average it in."""
        sample = _solve_sample(self.task, generator)
        self.samples.append(sample)
        g = _extend(self.task, sample, self.task.v, self.task.offset)
        self.g += (g - self.g) / len(self.samples)

    def at(self, points: Float[Tensor, "k d"], offset: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The potential at other points of the target space."""
        return torch.stack([_extend(self.task, sample, points, offset) for sample in self.samples]).mean(0)


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


def bound_slack(
    task: Task, g: Tensor, target: Int[Tensor, " n"], known: Float[Tensor, " n"], rows: Int[Tensor, " k"] | None = None
) -> Slack:
    """Mean of [c(i, target i) - g_(target i)] - min_j (c_ij - g_j), plus what other counts could save.

    `known` is a reduced cost that each source is known to have. Slack against it is summed over all sources, so
    that a sample of `rows` has to tell only how much less the least one is. Without rows all is certain, in float64.
    """
    certain = rows is None
    if rows is None:
        task, g, rows = task.double(), g.double(), torch.arange(task.n, device=g.device)
    own = task.matched_cost(target) - g[target]
    best = own if certain else torch.minimum(own, known)
    price, parts = g - task.offset, []
    for part in rows.split(ROWS):
        least = best[part]
        for first in range(0, task.m, COLUMNS):
            column = slice(first, first + COLUMNS)
            least = torch.minimum(least, task.cost(task.u[part], task.v[column]).sub_(price[column]).amin(1))
        parts.append(best[part] - least)
    unseen = torch.cat(parts).double()
    counts = 0.0
    if not task.full:
        times, extra = divmod(task.n, task.m)
        least_sum = times * g.double().sum() + g.double().sort().values[:extra].sum()
        counts = float(g.double()[target].sum() - least_sum) / task.n
    error = 0.0 if certain or len(unseen) < 2 else float(unseen.std()) / math.sqrt(len(unseen))
    return Slack(float((own - best).double().mean() + unseen.mean()) + counts, error)
