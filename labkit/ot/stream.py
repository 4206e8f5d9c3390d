"""Entropic transport between clouds that are too large for their cost matrix, in O((n + m) d) memory.

The potentials come from a sample of a few thousand points, and every pass over all pairs is followed by a correction
from that sample (`coarse`); Anderson's extrapolation takes care of what neither sees. On data whose structure the
sample resolves a handful of passes is enough; where it does not (epsilon small against the distances within the
sample), corrections that fail are dropped and more passes are needed.

Gradients of the value: envelope theorem, the costs computed again block by block in the backward pass.
Anderson 1965; Walker & Ni 2011 (SIAM J. Numer. Anal. 49, eq. 2.2).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from labkit.ot.blocks import Streamable, StreamedProblem, part, row_slices, softmin, sweep, transposed
from labkit.ot.coarse import Sample
from labkit.ot.cost import CostMatrix, Geometry, PointCloud, full_precision
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.function import CostFunction
from labkit.ot.implicit import Solution
from labkit.ot.plan import PlanSums
from labkit.ot.potentials import Potentials
from labkit.ot.problem import Settings, check_weights, cost_scale, match_mass, strength
from labkit.ot.restricted import Restricted
from labkit.ot.sinkhorn import checked_init, dual_value, live_weights, marginal_error, require_numbers
from labkit.ot.streamed_coupling import StreamedCoupling

# A cost matrix of more entries is streamed: 1 GB in float32, of which a dense solver needs two or three.
DENSE_ENTRIES = 2**28
# Residuals that Anderson's extrapolation looks back on.
MEMORY = 5
# Failed corrections from the sample after which no more are made.
FAILURES = 3
# An error that grows by this factor is a failure.
SETBACK = 1.5
# The sample is solved to this fraction of the error so far, and never more roughly than SAMPLE_TOLERANCE.
SAMPLE_FRACTION = 0.05
SAMPLE_TOLERANCE = 1e-3
# Gradients are taken in blocks that are so many times larger: their cost is one scatter over all points for each.
GRADIENT_BLOCK = 8


def streamable(geometry: Geometry) -> TypeGuard[Streamable]:
    """Whether a problem is to be streamed: its cost matrix would exceed DENSE_ENTRIES, and is not there already.

    Raises:
        ValueError: It would, and the geometry cannot be streamed.
    """
    *batch, n, m = geometry.shape
    base = geometry.geometry if isinstance(geometry, Restricted) else geometry
    if n * m <= DENSE_ENTRIES or isinstance(base, CostMatrix):
        return False
    if not isinstance(geometry, PointCloud | CostFunction):
        raise ValueError(
            f"{n} x {m} points are too many for a dense kernel, and a {type(geometry).__name__} geometry cannot be "
            "streamed: subsample the points, or give a CostFunction with a large cost for forbidden pairs."
        )
    if batch:
        raise ValueError(f"a batch of problems of {n} x {m} points cannot be streamed: solve them one at a time.")
    return True


def solve_streamed(
    geometry: Streamable,
    a: Tensor | None,
    b: Tensor | None,
    settings: Settings,
    init: tuple[Tensor, Tensor] | None = None,
) -> StreamedCoupling:
    """What `sinkhorn` does, without a matrix; the arguments are those of `sinkhorn.solve`.

    Raises:
        ValueError: Weights, scale or init are not usable; the message says what to do.
        FloatingPointError: The numbers overflowed.
    """
    with full_precision(geometry.device):
        with torch.no_grad():
            problem = _problem(geometry, a, b, settings)
            start = None if init is None else checked_init(init, problem)
            potentials = _solve_massive(problem, start, settings)
        live_a, live_b = live_weights(a, b, problem)
        linear, sums = _measured(problem, potentials)
        with torch.no_grad():
            error, value = marginal_error(problem, potentials, sums), dual_value(problem, potentials, sums)
            require_numbers(error + value)
            scale = problem.scale
            f, g = potentials.f * scale, potentials.g * scale
            solution = Solution(f, g, scale * problem.epsilon, settings.tau_a, settings.tau_b)
            partials = solution.weight_partials(f, g, problem.a, problem.b)
        terms = [(w, p) for w, p in zip((live_a, live_b), partials, strict=True) if w.requires_grad]
        # The sum has the derivatives of <C, P> with P held, and adds nothing to the value.
        value = with_envelope_gradient(value * scale, *terms) + (linear - linear.detach())
    return StreamedCoupling(
        geometry=geometry,
        a=live_a,
        b=live_b,
        f=f,
        g=g,
        epsilon=problem.epsilon,
        epsilon_absolute=solution.epsilon,
        cost=sums.cost * scale,
        regularized_cost=value,
        marginal_error=error,
        tolerance=settings.tolerance,
        n_iterations=potentials.n_iterations,
        converged=bool(error <= settings.tolerance),
        tau_a=settings.tau_a,
        tau_b=settings.tau_b,
    )


def _problem(geometry: Streamable, a: Tensor | None, b: Tensor | None, settings: Settings) -> StreamedProblem:
    like = torch.empty((), dtype=geometry.dtype, device=geometry.device)
    n, m = geometry.shape
    a, b = check_weights(a, (n,), like, "a"), check_weights(b, (m,), like, "b")
    if settings.tau_a == settings.tau_b == 1:
        b = match_mass(a, b)
    if isinstance(settings.scale_cost, str):
        # The checks and messages of the dense path, on the one number that the scale is.
        summary = _cost_summary(geometry, a, b, settings.scale_cost).reshape(1, 1)
        scale = cost_scale(summary, *(torch.ones_like(summary[0]),) * 2, settings.scale_cost)
    else:
        scale = cost_scale(like.new_zeros(1, 1), like, like, settings.scale_cost)
    rho_a, rho_b = (strength(tau, settings.epsilon) for tau in (settings.tau_a, settings.tau_b))
    return StreamedProblem(geometry, a, b, settings.epsilon, scale, rho_a, rho_b)


def _cost_summary(geometry: Streamable, a: Tensor, b: Tensor, name: str) -> Tensor:
    """The mean cost under a b^T, or the largest between points with mass."""
    if name == "mean" and isinstance(geometry, PointCloud) and geometry.cost == "sqeuclidean":
        shift = geometry.y.mean(0)
        sides = [(z - shift, w / w.sum()) for z, w in ((geometry.x, a), (geometry.y, b))]
        (x, share_a), (y, share_b) = sides
        return share_a @ x.square().sum(1) + share_b @ y.square().sum(1) - 2 * (share_a @ x) @ (share_b @ y)
    total, largest = a.new_zeros(()), a.new_tensor(-math.inf)
    rows, columns = ((w > 0).nonzero()[:, 0] for w in (a, b))
    massive, a, b = part(geometry, rows, columns), a[rows] / a.sum(), b[columns] / b.sum()
    for block in row_slices(*massive.shape, a.device):
        cost = massive.block(block, slice(None))
        total += a[block] @ (cost @ b)
        largest = torch.maximum(largest, cost.max())
    return total if name == "mean" else largest


def _solve_massive(
    problem: StreamedProblem, init: tuple[Tensor, Tensor] | None, settings: Settings
) -> Potentials:
    """Solve between the points with mass, then give all others the potential that a vanishing mass would have."""
    rows, columns = ((w > 0).nonzero()[:, 0] for w in (problem.a, problem.b))
    full = len(rows) == len(problem.a) and len(columns) == len(problem.b)
    if full:
        return _iterate(problem, init, settings)
    massive = replace(
        problem, geometry=part(problem.geometry, rows, columns), a=problem.a[rows], b=problem.b[columns]
    )
    start = None if init is None else (init[0][rows], init[1][columns])
    solved = _iterate(massive, start, settings)
    epsilon, absolute = problem.epsilon, problem.epsilon * float(problem.scale)
    everything = [torch.arange(k, device=rows.device) for k in problem.geometry.shape]
    f = softmin(part(problem.geometry, everything[0], columns), solved.g / epsilon, massive.b.log(), absolute)
    g = softmin(
        transposed(part(problem.geometry, rows, everything[1])), solved.f / epsilon, massive.a.log(), absolute
    )
    f, g = problem.tau_a * epsilon * f, problem.tau_b * epsilon * g
    return Potentials(f.index_copy(0, rows, solved.f), g.index_copy(0, columns, solved.g), solved.n_iterations)


def _iterate(problem: StreamedProblem, init: tuple[Tensor, Tensor] | None, settings: Settings) -> Potentials:
    """Passes with corrections from the sample until the marginal error is within the tolerance."""
    sample = Sample(problem)
    f, g = sample.start(SAMPLE_TOLERANCE) if init is None else init
    extrapolation, failures, best = _Extrapolation(problem), 0, None
    corrected = False
    for count in range(1, settings.max_iterations + 1):
        made = sweep(problem, f, g)
        if best is None or made.error < best.error:
            best = _Best(made.f, g, made.g, made.error)
        # The measured sum carries rounding too: stop a little below.
        if made.error <= 0.9 * settings.tolerance:
            break
        if made.error > SETBACK * best.error or not math.isfinite(made.error):
            failures += corrected
            extrapolation.forget()
            f, g, corrected = best.f, best.g_next, False
            continue
        f, step = made.f, made.g - g
        corrected = failures < FAILURES
        if corrected:
            tolerance = min(SAMPLE_TOLERANCE, SAMPLE_FRACTION * made.error)
            step += sample.correct(f, g, made.g, tolerance)
        g = extrapolation.next(g, step)
    return Potentials(best.f, best.g, count)


class _Best(NamedTuple):
    """The potentials with the least error so far, and the plain update of g from them."""

    f: Tensor
    g: Tensor
    g_next: Tensor
    error: float


class _Extrapolation:
    """Anderson's: the combination of the last steps whose residual is least, in the norm of the target weights."""

    def __init__(self, problem: StreamedProblem) -> None:
        self.weights = problem.b / problem.b.sum()
        # A balanced problem does not feel a constant in g.
        self.centered = math.isinf(problem.rho_a) and math.isinf(problem.rho_b)
        self.points: list[Tensor] = []
        self.steps: list[Tensor] = []

    def forget(self) -> None:
        """Start anew, from points that have nothing to do with the earlier ones."""
        self.points.clear()
        self.steps.clear()

    def next(self, point: Tensor, step: Tensor) -> Tensor:
        """Where to go from `point`, for which the iteration proposes `step`."""
        if self.centered:
            step = step - self.weights @ step
        self.points = [*self.points[1 - MEMORY :], point]
        self.steps = [*self.steps[1 - MEMORY :], step]
        if len(self.points) == 1:
            return point + step
        steps, points = torch.stack(self.steps).double(), torch.stack(self.points).double()
        differences = steps.diff(dim=0)
        root = self.weights.double().sqrt()
        share = torch.linalg.lstsq((differences * root).mT, (steps[-1] * root)[:, None]).solution[:, 0]
        return (points[-1] + steps[-1] - share @ (points.diff(dim=0) + differences)).to(point)


def _measured(problem: StreamedProblem, potentials: Potentials) -> tuple[Tensor, PlanSums]:
    """<C, P> in the cost's units, differentiable in C with P held, and the sums over the plan in scaled units."""
    epsilon, geometry = problem.epsilon, problem.geometry
    of_row = potentials.f / epsilon + problem.a.log()
    of_column = potentials.g / epsilon + problem.b.log()
    rows, columns = torch.empty_like(problem.a), torch.zeros_like(problem.b)

    def contribution(block: slice) -> tuple[Tensor, Tensor, Tensor]:
        cost = geometry.block(block, slice(None))
        with torch.no_grad():
            mass = torch.sub(of_column, cost, alpha=1 / (epsilon * float(problem.scale)))
            mass.add_(of_row[block, None]).exp_()
            total = (mass * cost).sum()
        if torch.is_grad_enabled() and cost.requires_grad:
            total = with_envelope_gradient(total, (cost, mass))
        return total, mass.sum(1), mass.sum(0)

    linear = problem.a.new_zeros(())
    n, m = geometry.shape
    for block in row_slices(n, m, columns.device, GRADIENT_BLOCK if torch.is_grad_enabled() else 1):
        total, rows[block], of_block = checkpoint(contribution, block, use_reentrant=False, preserve_rng_state=False)
        columns += of_block
        linear = linear + total
    return linear, PlanSums(rows, columns, linear.detach() / problem.scale)
