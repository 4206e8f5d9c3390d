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
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.kernel import Kernel, cast, log_softmin, log_sweep, relaxation
from labkit.ot.newton import row_times
from labkit.ot.problem import Problem
from labkit.ot.symmetric import solve_symmetric

if TYPE_CHECKING:
    from jaxtyping import Float

# Epsilon scaling: where it starts, as a fraction of the spread of the costs, and its steps.
STAGE_START = 0.25
STAGE_RATIO = 4.0
# A stage is done when less than a point is misplaced, and at most this share of the mass.
STAGE_TOLERANCE = 0.01
STAGE_SHARE = 0.5
# From this fraction of the spread up no stages are needed.
EASY_EPSILON = 0.05
# Passes between two looks at the error: on an accelerator a look synchronizes.
CHECK_EVERY = 5
# Predicted passes from which on Newton's method pays.
PATIENCE = 15
# From this many costs on, problems of a batch are solved one by one on a CPU.
LOOP_SIZE = 1 << 10


class Potentials(NamedTuple):
    """Dual potentials in scaled units, and the number of iterations (over all stages) that made them.

    An iteration is a pass over the kernel and its transpose: one of Sinkhorn's or a step of conjugate gradients.
    """

    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    n_iterations: int


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


def _least_costs(problem: Problem, spare: Tensor) -> tuple[Tensor, Tensor, float]:
    """Potentials f_i = min_j C_ij, g_j = min_i C_ij - f_i, and the mean of C - f - g, at worst over the batch.

    The kernel then has an entry 1 in each row and column, and none above, for any epsilon; the mean says from which
    epsilon on it is nearly constant. `spare` is memory of the shape of the cost.
    """
    a, b = problem.a, problem.b
    f = problem.cost.amin(-1)
    f = torch.where(torch.isfinite(f), f, 0.0)
    rest = torch.sub(problem.cost, f[..., :, None], out=spare)
    g = rest.amin(-2)
    g = torch.where(torch.isfinite(g), g, 0.0)
    if problem.restricted:
        rest.nan_to_num_(posinf=0.0)
    mass = a.sum(-1)
    total = (row_times(a, rest) * b).sum(-1) - mass * (g * b).sum(-1)
    return f, g, float((total / (mass * b.sum(-1))).max())


def improve(kernel: Kernel, tolerance: float, budget: int) -> None:
    """Improve the kernel's scalings until the error is within `tolerance` or `budget` iterations are spent."""
    end = kernel.used + budget
    v_safe, last, before = torch.ones_like(kernel.v), math.inf, kernel.used
    while True:
        v_safe = kernel.run(tolerance, PATIENCE, CHECK_EVERY, end - kernel.used, v_safe)
        if not kernel.trusted():
            v = torch.where(torch.isfinite(kernel.v) & (kernel.v > 0), kernel.v, v_safe)
            g = kernel.g0 + kernel.epsilon * v.log()
            kernel.absorb(*log_sweep(kernel.problem, g, kernel.epsilon))
        v_safe = kernel.v.clone()
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


def _solve(problem: Problem, tolerance: float, budget: int, init: tuple[Tensor, Tensor] | None) -> Potentials:
    """Solve one problem, or a batch in lockstep."""
    epsilon, used = problem.epsilon, 0
    if problem.symmetric:
        start = torch.zeros_like(problem.a) if init is None else init[0]
        f, halves = solve_symmetric(problem, start, tolerance, 2 * budget)
        used = (halves + 1) // 2
        if f is not None or used == budget:
            f = start if f is None else f
            return Potentials(f, f, used)
    matrix = torch.empty_like(problem.cost, memory_format=torch.contiguous_format)
    schedule = [epsilon]
    if init is None:
        f, g, spread = _least_costs(problem, matrix)
        if epsilon < EASY_EPSILON * spread:
            schedule = epsilon_schedule(STAGE_START * spread, epsilon)
    else:
        f, g = init
    rough = max(tolerance, min(STAGE_TOLERANCE, STAGE_SHARE / max(problem.cost.shape[-2:])))
    share = (budget - used) // (2 * len(schedule))
    if share and len(schedule) > 1:
        single = cast(problem, torch.float32)
        spare = matrix if single is problem else torch.empty_like(single.cost)
        for stage in schedule[:-1]:
            kernel = Kernel(single, f, g, stage, spare)
            improve(kernel, rough, share - 1)
            (f, g), used = kernel.potentials(), used + kernel.used
    kernel = Kernel(problem, f, g, epsilon, matrix)
    improve(kernel, tolerance, budget - used - 1)
    f, g = kernel.potentials()
    if problem.symmetric:
        f = g = (f + g) / 2
    return Potentials(f, g, used + kernel.used)


@torch.no_grad()
def solve_potentials(
    problem: Problem, *, tolerance: float, max_iterations: int, init: tuple[Tensor, Tensor] | None = None
) -> Potentials:
    """Potentials whose plan has an L1 marginal error within `tolerance`, if `max_iterations` suffice.

    With `init` (scaled units) the iteration starts there at the final epsilon; otherwise from the least costs with
    epsilon scaling, whose rough stages take at most half of the iterations. A batch of problems that are large
    enough is solved one after the other on a CPU (`n_iterations` is then the largest), otherwise in lockstep.
    """
    # The other side carries rounding too: stop a little below, so that the measured sum is within the tolerance.
    tolerance *= 0.9
    *batch, n, m = problem.cost.shape
    if not batch or problem.cost.is_cuda or n * m < LOOP_SIZE:
        return _solve(problem, tolerance, max_iterations, init)
    starts = repeat(None) if init is None else zip(*(t.flatten(0, -2) for t in init), strict=True)
    problems = zip(problem.cost.flatten(0, -3), problem.a.flatten(0, -2), problem.b.flatten(0, -2), strict=True)
    each = [
        _solve(replace(problem, cost=cost, a=a, b=b), tolerance, max_iterations, start)
        for (cost, a, b), start in zip(problems, starts, strict=False)
    ]
    f, g = (torch.stack(side).unflatten(0, batch) for side in list(zip(*each, strict=True))[:2])
    return Potentials(f, g, max(one.n_iterations for one in each))
