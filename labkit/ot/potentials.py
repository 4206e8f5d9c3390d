"""Sinkhorn's iteration: the dual potentials of an entropic transport problem.

    f_i <- -tau_a epsilon log sum_j b_j exp((g_j - C_ij) / epsilon),   g likewise with a and f.

Three things make it fast and safe. (1) Epsilon scaling: solve roughly for a large epsilon first and pass the
potentials on. (2) Kernel domain with absorption: K = exp((f + g - C) / epsilon) is built once, then an update is
one matrix-vector product; when the potentials leave the range in which K is accurate, K is built anew, after a
log-sum-exp sweep if anything overflowed. (3) One cloud with itself: f <- (f + S f) / 2 converges in few steps.
Unbalanced problems shift (f, g) by (+c, -c) with the best c, which plain iterations find very slowly.

Chizat et al. 2018 (Math. Comp. 87, absorption, unbalanced); Schmitzer 2019 (SIAM J. Sci. Comput. 41, scaling);
Feydy et al. 2019 (AISTATS, symmetric update); Sejourne, Vialard, Peyre 2022 (AISTATS, translation).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float

# Steps between two looks at the error: a look costs a half step, and on an accelerator a synchronisation.
CHECK_EVERY = 5
STAGE_RATIO = 4.0
STAGE_ITERATIONS = 10
STAGE_TOLERANCE = 0.05
# Largest |log scaling| on top of K before it is built anew: what K lost to underflow stays below rounding.
SAFE_RANGE = {torch.float32: 30.0, torch.float64: 200.0}


class Potentials(NamedTuple):
    """Dual potentials in scaled units, and the number of iterations (over all stages) that made them."""

    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    n_iterations: int


def relaxation(rho: float, epsilon: float) -> float:
    """The factor tau = rho / (rho + epsilon) on an update; 1 for an infinite rho."""
    return 1 / (1 + epsilon / rho)


def prescribed_marginal(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
    """The marginal w exp(-f / rho) that optimal potentials prescribe; the weights themselves when rho is infinite."""
    # Masked before the exponential: a weight 0 times an overflow would be NaN.
    return weights * torch.exp(-torch.where(weights > 0, potential, 0.0) / rho)


class _Kernel:
    """Soft minima by matrix-vector products with a kernel that has absorbed potentials f0, g0."""

    def __init__(self, problem: Problem, f: Tensor, g: Tensor, epsilon: float) -> None:
        self.a, self.b, self.f0, self.g0, self.epsilon = problem.a, problem.b, f, g, epsilon
        self.values = (f[..., :, None] + g[..., None, :]).sub_(problem.cost).div_(epsilon).exp_()

    def rows(self, g: Tensor) -> Tensor:
        """-epsilon log sum_j b_j exp((g_j - C_ij) / epsilon)."""
        weights = self.b * torch.exp((g - self.g0) / self.epsilon)
        return self.f0 - self.epsilon * torch.log(_row_times(weights, self.values.mT))

    def columns(self, f: Tensor) -> Tensor:
        """-epsilon log sum_i a_i exp((f_i - C_ij) / epsilon)."""
        weights = self.a * torch.exp((f - self.f0) / self.epsilon)
        return self.g0 - self.epsilon * torch.log(_row_times(weights, self.values))

    def trusts(self, f: Tensor, g: Tensor) -> bool:
        """Whether (f, g) is finite and near enough to what was absorbed for K to be accurate."""
        distance = torch.maximum((f - self.f0).abs().max(), (g - self.g0).abs().max())
        return bool(distance <= SAFE_RANGE[f.dtype] * self.epsilon)


def _row_times(row: Tensor, matrix: Tensor) -> Tensor:
    # Batched matrix-times-column is 3-14 times slower on CPU than row-times-matrix.
    return row @ matrix if row.ndim == 1 else (row[..., None, :] @ matrix)[..., 0, :]


def _log_softmin(cost: Tensor, weights: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """-epsilon log sum_j w_j exp((g_j - C_ij) / epsilon): slow, but nothing can overflow."""
    exponent = (potential[..., None, :] - cost) / epsilon + weights.log()[..., None, :]
    return -epsilon * torch.logsumexp(exponent, -1)


def _log_sweep(problem: Problem, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """One update of f and g that cannot overflow."""
    f = relaxation(problem.rho_a, epsilon) * _log_softmin(problem.cost, problem.b, g, epsilon)
    g = relaxation(problem.rho_b, epsilon) * _log_softmin(problem.cost.mT, problem.a, f, epsilon)
    return ((f + g) / 2, (f + g) / 2) if problem.symmetric else (f, g)


def extend_potentials(problem: Problem, cost: Tensor, potentials: Potentials) -> Potentials:
    """Potentials at points of weight zero from their true scaled `cost`: what an infinitesimal mass would have."""
    epsilon, (f, g, n_iterations) = problem.epsilon, potentials
    f_all = relaxation(problem.rho_a, epsilon) * _log_softmin(cost, problem.b, g, epsilon)
    g_all = relaxation(problem.rho_b, epsilon) * _log_softmin(cost.mT, problem.a, f, epsilon)
    return Potentials(torch.where(problem.a > 0, f, f_all), torch.where(problem.b > 0, g, g_all), n_iterations)


def _best_shift(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """The c for which (f + c, g - c) has the largest dual value; the plan does not depend on it."""
    log_a = torch.logsumexp(problem.a.log() - f / problem.rho_a, -1)
    log_b = torch.logsumexp(problem.b.log() - g / problem.rho_b, -1)
    return ((log_a - log_b) / (1 / problem.rho_a + 1 / problem.rho_b))[..., None]


def _row_error(problem: Problem, f: Tensor, softmin: Tensor, epsilon: float) -> Tensor:
    """L1 distance of the plan's row sums to the prescribed ones, as a fraction of the mean mass; the worst problem."""
    rows = problem.a * torch.exp((f - softmin) / epsilon)
    missing = (rows - prescribed_marginal(problem.a, f, problem.rho_a)).abs().sum(-1)
    error = 2 * missing / (problem.a.sum(-1) + problem.b.sum(-1))
    return (2 * error if problem.symmetric else error).max()


def _steps(problem: Problem, kernel: _Kernel, f: Tensor, g: Tensor, count: int) -> tuple[Tensor, Tensor]:
    tau_a, tau_b = relaxation(problem.rho_a, kernel.epsilon), relaxation(problem.rho_b, kernel.epsilon)
    if problem.symmetric:
        for _ in range(count):
            f = (f + tau_a * kernel.rows(f)) / 2
        return f, f
    if not math.isinf(min(problem.rho_a, problem.rho_b)):
        shift = _best_shift(problem, f, g)
        f, g = f + shift, g - shift
    for _ in range(count):
        f = tau_a * kernel.rows(g)
        g = tau_b * kernel.columns(f)
    return f, g


def _stage(
    problem: Problem, f: Tensor, g: Tensor, epsilon: float, tolerance: float, budget: int
) -> tuple[Tensor, Tensor, int]:
    """Iterate at one epsilon until the error is within `tolerance` or `budget` iterations are spent."""
    kernel = _Kernel(problem, f, g, epsilon)
    done = 0
    while done < budget:
        count = min(CHECK_EVERY, budget - done)
        f_new, g_new = _steps(problem, kernel, f, g, count)
        done += count
        if kernel.trusts(f_new, g_new):
            f, g = f_new, g_new
            if _row_error(problem, f, kernel.rows(g), epsilon) <= tolerance:
                break
            continue
        finite = torch.isfinite(f_new).all() and torch.isfinite(g_new).all()
        f, g = (f_new, g_new) if finite else _log_sweep(problem, g, epsilon)
        kernel = _Kernel(problem, f, g, epsilon)
    return f, g, done


def epsilon_schedule(start: float, epsilon: float) -> list[float]:
    """Geometric sequence from `start` down to `epsilon` (its last entry) with steps of at most STAGE_RATIO."""
    stages = math.ceil(math.log(start / epsilon) / math.log(STAGE_RATIO)) if start > epsilon else 0
    return [epsilon * (start / epsilon) ** (k / stages) for k in range(stages, 0, -1)] + [epsilon]


def _typical_cost(problem: Problem) -> float:
    """Mean |C| under a b^T, of the problem of the batch where it is largest."""
    mean = (problem.a * (problem.cost.abs() @ problem.b[..., None])[..., 0]).sum(-1)
    return float((mean / (problem.a.sum(-1) * problem.b.sum(-1))).max())


@torch.no_grad()
def solve_potentials(
    problem: Problem, *, tolerance: float, max_iterations: int, init: tuple[Tensor, Tensor] | None = None
) -> Potentials:
    """Potentials whose plan has an L1 marginal error within `tolerance`, if `max_iterations` suffice.

    With `init` (scaled units) the iteration starts there at the final epsilon; otherwise from zero with epsilon
    scaling, whose rough stages take at most half of the iterations.
    """
    if init is None:
        f, g = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
        schedule = epsilon_schedule(_typical_cost(problem), problem.epsilon)
    else:
        (f, g), schedule = init, [problem.epsilon]
    rough = min(STAGE_ITERATIONS, max_iterations // (2 * len(schedule)))
    used = 0
    for epsilon in schedule[:-1]:
        f, g, done = _stage(problem, f, g, epsilon, STAGE_TOLERANCE, rough)
        used += done
    # The columns carry rounding too: stop a little below, so that the measured sum is within the tolerance.
    f, g, done = _stage(problem, f, g, problem.epsilon, 0.9 * tolerance, max_iterations - used)
    return Potentials(f, g, used + done)
