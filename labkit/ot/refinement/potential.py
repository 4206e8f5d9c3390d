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
ROWS = 512
# Up to so many pairs the bound is computed in full, beyond on a sample of sources.
CERTIFIED_PAIRS = 2**28
SAMPLED_PAIRS = 2**30


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
    rows, columns = (torch.randperm(count, generator=generator)[:SAMPLE].to(task.u.device) for count in (task.n, task.m))
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
    """How far a matching may be from the best one, per source, and the standard error of that (0: it is certain)."""

    mean: float
    standard_error: float


def bound_slack(task: Task, g: Tensor, match: Int[Tensor, " n"], generator: torch.Generator) -> Slack:
    """Mean over sources of [c(i, match i) - g_(match i)] - min_j (c_ij - g_j), and what the counts could save."""
    certified = task.n * task.m <= CERTIFIED_PAIRS
    rows = torch.arange(task.n, device=task.u.device)
    if not certified:
        count = min(task.n, max(256, SAMPLED_PAIRS // task.m))
        rows = torch.randperm(task.n, generator=generator)[:count].to(task.u.device)
    u, v, g64 = task.u, task.v, (g - task.offset)
    if certified:
        task = Task(u.double(), v.double(), task.squared, task.offset.double(), task.unit, task.product)
        g64 = g64.double()
    slack = []
    for part in rows.split(max(1, ROWS * SAMPLE // task.m)):
        reduced = task.cost(task.u[part], task.v).sub_(g64)
        slack.append(reduced.gather(1, match[part, None])[:, 0] - reduced.amin(1))
    slack = torch.cat(slack).double()
    counts = 0.0
    if not task.full:
        floor, extra = divmod(task.n, task.m)
        least = floor * g.double().sum() + g.double().sort().values[:extra].sum()
        counts = float(g.double()[match].sum() - least) / task.n
    error = 0.0 if certified or len(slack) < 2 else float(slack.std()) / math.sqrt(len(slack))
    return Slack(float(slack.mean()) + counts, error)
