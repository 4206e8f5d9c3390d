"""The dual potentials of an entropic transport problem, by Sinkhorn's iteration and Newton's method.

    f_i <- -tau_a epsilon log sum_j b_j exp((g_j - C_ij) / epsilon),   g likewise with a and f.

(1) Epsilon scaling: solve roughly for a large epsilon first and pass the potentials on, in single precision. (2) At
each epsilon, passes in scaling form on an absorbed kernel. (3) When the observed linear rate says that many more
passes would follow, Newton's method on the dual in g, by conjugate gradients on the same kernel. (4) One cloud with
itself: damped passes on one potential contract at a rate of 1/3 for a positive definite kernel.

Schmitzer 2019 (SIAM J. Sci. Comput. 41, scaling); Feydy et al. 2019 (AISTATS, symmetric update); Brauer, Clason,
Lorenz, Wirth 2017 (arXiv:1710.06635, Newton).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.kernel import Kernel, cast, log_softmin, log_sweep, relaxation
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float

# Epsilon scaling: where it starts, as a fraction of the typical cost, and its steps.
STAGE_START = 0.2
STAGE_RATIO = 4.0
STAGE_TOLERANCE = 0.01
# From here up no stages are needed.
EASY_EPSILON = 0.04
# Passes between two looks at the error on an accelerator, where a look synchronizes.
CHECK_EVERY = 5
# Passes before the first Newton step, and predicted passes from which on it pays.
WARM_UP = 5
PATIENCE = 15
# What single precision can bring the error to in a problem in double precision.
SINGLE_TOLERANCE = 1e-4


class Potentials(NamedTuple):
    """Dual potentials in scaled units, and the number of iterations (over all stages) that made them.

    An iteration is a pass over the kernel and its transpose: one of Sinkhorn's or a step of conjugate gradients.
    """

    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    n_iterations: int


def prescribed_marginal(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
    """The marginal w exp(-f / rho) that optimal potentials prescribe; the weights themselves when rho is infinite."""
    # Masked before the exponential: a weight 0 times an overflow would be NaN.
    return weights * torch.exp(-torch.where(weights > 0, potential, 0.0) / rho)


def extend_potentials(problem: Problem, cost: Tensor, potentials: Potentials) -> Potentials:
    """Potentials at points of weight zero from their true scaled `cost`: what an infinitesimal mass would have."""
    epsilon, (f, g, n_iterations) = problem.epsilon, potentials
    f_all = relaxation(problem.rho_a, epsilon) * log_softmin(cost, problem.b, g, epsilon)
    g_all = relaxation(problem.rho_b, epsilon) * log_softmin(cost.mT, problem.a, f, epsilon)
    return Potentials(torch.where(problem.a > 0, f, f_all), torch.where(problem.b > 0, g, g_all), n_iterations)


def epsilon_schedule(start: float, epsilon: float) -> list[float]:
    """Geometric sequence from `start` down to `epsilon` (its last entry) with steps of at most STAGE_RATIO."""
    stages = math.ceil(math.log(start / epsilon) / math.log(STAGE_RATIO)) if start > epsilon else 0
    return [epsilon * (start / epsilon) ** (k / stages) for k in range(stages, 0, -1)] + [epsilon]


def _typical_cost(problem: Problem) -> float:
    """Mean |C| under a b^T (forbidden pairs aside), of the problem of the batch where it is largest."""
    size = problem.cost.abs()
    if problem.restricted:
        size = torch.where(torch.isinf(size), 0.0, size)
    mean = (problem.a * (size @ problem.b[..., None])[..., 0]).sum(-1)
    return float((mean / (problem.a.sum(-1) * problem.b.sum(-1))).max())


def _first_potentials(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The least cost of every row, then of every column: an entry 1 in each row and column of the kernel, none above."""
    f = cost.amin(-1)
    f = torch.where(torch.isfinite(f), f, 0.0)
    g = (cost - f[..., :, None]).amin(-2)
    return f, torch.where(torch.isfinite(g), g, 0.0)


def improve(kernel: Kernel, tolerance: float, budget: int) -> None:
    """Improve the kernel's scalings until the error is within `tolerance` or `budget` iterations are spent."""
    end = kernel.used + budget
    g_safe, last, before = kernel.g0, math.inf, kernel.used
    while True:
        if not kernel.trusted():
            g = kernel.potentials()[1]
            kernel.absorb(*log_sweep(kernel.problem, torch.where(torch.isfinite(g), g, g_safe), kernel.epsilon))
        g_safe = kernel.potentials()[1]
        error = float(kernel.error().max())
        if error <= tolerance or kernel.used >= end:
            return
        passes, before = kernel.used - before, kernel.used
        if last < math.inf and _passes_left(last, error, tolerance, passes) > PATIENCE and end - kernel.used >= 4:
            kernel.newton(tolerance, end - kernel.used - 2)
            kernel.advance(1, tolerance)
            before = kernel.used
            continue
        last = error
        kernel.advance(min(CHECK_EVERY, end - kernel.used), tolerance)


def _passes_left(last: float, error: float, tolerance: float, count: int) -> float:
    """Passes until the tolerance at the linear rate of the last `count` of them."""
    if not error < last:
        return math.inf
    return count * math.log(error / tolerance) / math.log(last / error)


@torch.no_grad()
def solve_potentials(
    problem: Problem, *, tolerance: float, max_iterations: int, init: tuple[Tensor, Tensor] | None = None
) -> Potentials:
    """Potentials whose plan has an L1 marginal error within `tolerance`, if `max_iterations` suffice.

    With `init` (scaled units) the iteration starts there at the final epsilon; otherwise from the least costs with
    epsilon scaling, whose rough stages take at most half of the iterations.
    """
    single = cast(problem, torch.float32)
    epsilon = problem.epsilon
    if init is None:
        f, g = _first_potentials(single.cost)
        start = STAGE_START * _typical_cost(single)
        schedule = [epsilon] if epsilon * STAGE_START >= EASY_EPSILON * start else epsilon_schedule(start, epsilon)
    else:
        (f, g), schedule = init, [epsilon]
    used = 0
    for stage in schedule[:-1]:
        share = max_iterations // (2 * len(schedule))
        if share:
            kernel = Kernel(single, f, g, stage)
            improve(kernel, STAGE_TOLERANCE, share)
            (f, g), used = kernel.potentials(), used + kernel.used
    # The columns carry rounding too: stop a little below, so that the measured sum is within the tolerance.
    kernel = Kernel(problem, f, g, epsilon)
    improve(kernel, 0.9 * tolerance, max_iterations - used - 1)
    f, g = kernel.potentials()
    return Potentials(f, g, used + kernel.used)
