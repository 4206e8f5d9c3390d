"""A sample of a large transport problem that starts and corrects its potentials: a two-level method.

Plain Sinkhorn removes quickly what is rough in the error of the potentials and slowly what is smooth, and what is
smooth is seen on a few thousand points, half of them drawn from where the last pass changed most. The sampled problem
replaces sums over all points by sums over the sample,
    f = tau_a softmin_S(g) + rho,      g = tau_b softmin_R(f) + sigma,
where rho and sigma are chosen so that the current potentials of the large problem satisfy the equations of the
sample up to their own residual. It is again an entropic transport problem, with the weights a exp(rho / epsilon) and
b exp(sigma / epsilon), and goes to the dense solver; its change is carried to all points by a soft minimum.
Full approximation scheme: Brandt 1977 (Math. Comp. 31), section 5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.blocks import StreamedProblem, part, softmin, transposed
from labkit.ot.kernel import log_softmin
from labkit.ot.potentials import solve_potentials
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# At most this many points, and at most this share of all.
SAMPLE_POINTS = 4096
SAMPLE_SHARE = 4
SAMPLE_ITERATIONS = 500
# Changes count up to this many times their mean.
LARGEST_CHANGE = 50


class Sample:
    """The sampled problem of a streamed one.

    Args:
        problem: The streamed one, with mass at every point.
        generator: Source of randomness, on the CPU.
        changes: By how much the last pass changed f and g at each point. Half of the sample goes where that is large,
            with weights that make up for it: there the sample has to be fine.
    """

    def __init__(
        self, problem: StreamedProblem, generator: torch.Generator, changes: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.problem = problem
        self.absolute = problem.epsilon * float(problem.scale)
        of_f, of_g = (None, None) if changes is None else changes
        self.rows, self.a = _draw(problem.a, of_f, generator)
        self.columns, self.b = _draw(problem.b, of_g, generator)
        geometry = problem.geometry
        every_row, every_column = (torch.arange(k, device=problem.a.device) for k in geometry.shape)
        self.cost = part(geometry, self.rows, self.columns).matrix() / problem.scale
        self.all_rows = part(geometry, every_row, self.columns)
        self.all_columns = transposed(part(geometry, self.rows, every_column))

    def start(self, tolerance: float) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
        """Potentials of the whole problem that extend those of the sample."""
        f, g = self._solve(self.a, self.b, None, tolerance)
        return self._to_rows(g, self.b), self._to_columns(f, self.a)

    def correct(self, f: Tensor, g: Tensor, g_new: Tensor, tolerance: float) -> Float[Tensor, " m"]:
        """What to add to `g_new`, given a pass from g over f to g_new: zero once they agree."""
        problem, epsilon = self.problem, self.problem.epsilon
        f_here, g_here = f[self.rows], g_new[self.columns]
        # These are f - rho and g - sigma.
        f_sample = problem.tau_a * log_softmin(self.cost, self.b, g[self.columns], epsilon)
        g_sample = problem.tau_b * log_softmin(self.cost.mT, self.a, f_here, epsilon)
        a = self.a * torch.exp((f_here - f_sample) / epsilon)
        b = self.b * torch.exp((g_here - g_sample) / epsilon)
        f_better, _ = self._solve(a, b, (f_sample, g_sample), tolerance)
        return self._to_columns(f_better, a) - self._to_columns(f_sample, a)

    def _solve(
        self, a: Tensor, b: Tensor, init: tuple[Tensor, Tensor] | None, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        problem = self.problem
        sampled = Problem(
            cost=self.cost,
            a=a,
            b=b * (a.sum() / b.sum()) if math.isinf(problem.rho_a) and math.isinf(problem.rho_b) else b,
            epsilon=problem.epsilon,
            scale=problem.scale,
            rho_a=problem.rho_a,
            rho_b=problem.rho_b,
            symmetric=False,
            absent=False,
        )
        f, g, _ = solve_potentials(sampled, tolerance=tolerance, max_iterations=SAMPLE_ITERATIONS, init=init)
        return f, g

    def _to_rows(self, g: Tensor, b: Tensor) -> Tensor:
        epsilon = self.problem.epsilon
        return self.problem.tau_a * epsilon * softmin(self.all_rows, g / epsilon, b.log(), self.absolute)

    def _to_columns(self, f: Tensor, a: Tensor) -> Tensor:
        epsilon = self.problem.epsilon
        return self.problem.tau_b * epsilon * softmin(self.all_columns, f / epsilon, a.log(), self.absolute)


def _draw(
    weights: Tensor, change: Tensor | None, generator: torch.Generator
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Points drawn by weight and change, one from each of equal strata, and the weights that they stand for.

    The strata follow the given order of the points: if it means something, no part of it goes without a sample.
    """
    count = min(SAMPLE_POINTS, max(1, len(weights) // SAMPLE_SHARE))
    share = weights.double() / weights.double().sum()
    chance = share
    if change is not None and bool((change > 0).any()):
        # A few wild points may not take the whole sample.
        size = change.double().clamp_max(LARGEST_CHANGE * change.double().mean())
        chance = (share + share * size / (share @ size)) / 2
    within = torch.rand(count, generator=generator, dtype=torch.float64)
    level = ((torch.arange(count) + within) / count).to(weights.device)
    total = chance.cumsum(0)
    drawn = torch.searchsorted(total / total[-1], level).clamp_max(len(weights) - 1)
    index, times = drawn.unique_consecutive(return_counts=True)
    return index, (times / count * share[index] / chance[index]).to(weights) * weights.sum()
