"""Entropic transport between clouds that are too large for their cost matrix, in O((n + m) d) memory.

The potentials come from a sample of a few thousand points, and every pass over all pairs is followed by a correction
from that sample (`coarse`); Anderson's extrapolation takes care of what neither sees. On data whose structure the
sample resolves a handful of passes is enough; where it does not (epsilon small against the distances within the
sample), corrections that fail are dropped and more passes are needed.

Gradients of the value: envelope theorem, from the pass that measures the result; of a cost function, whose arguments
are not known, by computing the costs again in the backward pass.
Anderson 1965; Walker & Ni 2011 (SIAM J. Numer. Anal. 49, eq. 2.2).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from labkit.ot.blocks import (
    Exponents,
    Streamable,
    StreamedProblem,
    part,
    row_slices,
    softmin,
    sweep,
    sweep_symmetric,
    transposed,
)
from labkit.ot.coarse import Sample
from labkit.ot.cost import CostMatrix, Geometry, PointCloud, full_precision
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.function import CostFunction
from labkit.ot.implicit import Solution
from labkit.ot.plan import PlanSums, Pullback
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
        wanted = _wanted(geometry)
        with torch.no_grad():
            problem = _problem(geometry, a, b, settings)
            start = None if init is None else checked_init(init, problem)
            rows, columns = ((w > 0).nonzero()[:, 0] for w in (problem.a, problem.b))
            massive = _massive(problem, rows, columns)
            solved = _iterate(massive, None if start is None else (start[0][rows], start[1][columns]), settings)
            sums, gradients = _measured(massive, solved, wanted)
            error, value = marginal_error(massive, solved, sums), dual_value(massive, solved, sums)
            require_numbers(error + value)
            f, g, _ = solved if massive is problem else _extended(problem, rows, columns, solved)
            scale = problem.scale
            f, g, value = f * scale, g * scale, value * scale
            solution = Solution(f, g, scale * problem.epsilon, settings.tau_a, settings.tau_b)
            partials = solution.weight_partials(f, g, problem.a, problem.b)
        live_a, live_b = live_weights(a, b, problem)
        live = ((w, p) for w, p in zip((live_a, live_b), partials, strict=True) if w.requires_grad)
        terms = list(live) if torch.is_grad_enabled() else []
        if isinstance(geometry, PointCloud) and gradients:
            sides = zip((geometry.x, geometry.y), (rows, columns), gradients, wanted, strict=True)
            for points, index, gradient, want in sides:
                if want:
                    terms.append((points, torch.zeros_like(points).index_copy(0, index, gradient)))
        value = with_envelope_gradient(value, *terms)
        if isinstance(geometry, CostFunction) and any(wanted):
            linear = _linear(problem, solution)
            # This has the derivatives of <C, P> with P held, and adds nothing to the value.
            value = value + (linear - linear.detach())
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
        n_iterations=solved.n_iterations,
        converged=bool(error <= settings.tolerance),
        tau_a=settings.tau_a,
        tau_b=settings.tau_b,
    )


def _problem(geometry: Streamable, a: Tensor | None, b: Tensor | None, settings: Settings) -> StreamedProblem:
    like = torch.empty((), dtype=geometry.dtype, device=geometry.device)
    n, m = geometry.shape
    symmetric = geometry.symmetric and a is b and settings.tau_a == settings.tau_b
    a, b = check_weights(a, (n,), like, "a"), check_weights(b, (m,), like, "b")
    if settings.tau_a == settings.tau_b == 1:
        b = match_mass(a, b)
    if isinstance(settings.scale_cost, str):
        # The checks and messages of the dense path, on the one number that the scale is.
        summary = _cost_summary(geometry, a, b, settings.scale_cost).reshape(1, 1)
        scale = cost_scale(summary, summary.new_ones(1), summary.new_ones(1), settings.scale_cost)
    else:
        scale = cost_scale(like.new_zeros(1, 1), like, like, settings.scale_cost)
    rho_a, rho_b = (strength(tau, settings.epsilon) for tau in (settings.tau_a, settings.tau_b))
    return StreamedProblem(geometry, a, b, settings.epsilon, scale, rho_a, rho_b, symmetric)


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
    for block in row_slices(len(rows), len(columns), a.device):
        cost = massive.block(block, slice(None))
        total += a[block] @ (cost @ b)
        largest = torch.maximum(largest, cost.max())
    return total if name == "mean" else largest


def _wanted(geometry: Streamable) -> tuple[bool, bool]:
    """Whether the value is to be differentiated in the sources and the targets (for a function: in what it uses)."""
    if not torch.is_grad_enabled():
        return False, False
    if isinstance(geometry, PointCloud):
        return geometry.x.requires_grad, geometry.y.requires_grad
    live = geometry.block(slice(0, 1), slice(0, 1)).requires_grad
    return live, live


def _massive(problem: StreamedProblem, rows: Tensor, columns: Tensor) -> StreamedProblem:
    """The problem between the points with mass; itself if all have some."""
    if len(rows) == len(problem.a) and len(columns) == len(problem.b):
        return problem
    geometry = part(problem.geometry, rows, columns)
    return replace(problem, geometry=geometry, a=problem.a[rows], b=problem.b[columns])


def _extended(problem: StreamedProblem, rows: Tensor, columns: Tensor, solved: Potentials) -> Potentials:
    """Potentials of all points, from those with mass: what a vanishing mass would have."""
    epsilon, absolute = problem.epsilon, problem.epsilon * float(problem.scale)
    every_row, every_column = (torch.arange(k, device=rows.device) for k in problem.geometry.shape)
    to_rows = part(problem.geometry, every_row, columns)
    to_columns = transposed(part(problem.geometry, rows, every_column))
    f = problem.tau_a * epsilon * softmin(to_rows, solved.g / epsilon, problem.b[columns].log(), absolute)
    g = problem.tau_b * epsilon * softmin(to_columns, solved.f / epsilon, problem.a[rows].log(), absolute)
    return Potentials(f.index_copy(0, rows, solved.f), g.index_copy(0, columns, solved.g), solved.n_iterations)


def _iterate(problem: StreamedProblem, init: tuple[Tensor, Tensor] | None, settings: Settings) -> Potentials:
    """Passes with corrections from the sample until the marginal error is within the tolerance."""
    generator = torch.Generator().manual_seed(0)
    f, g = Sample(problem, generator).start(SAMPLE_TOLERANCE) if init is None else init
    if problem.symmetric:
        f = g = (f + g) / 2
    extrapolation, best = _Extrapolation(problem), _Best(f, g, g, math.inf)
    passes, failures, last = 0, 0, math.inf
    corrected, plain = False, True
    while passes < settings.max_iterations:
        made = sweep_symmetric(problem, g) if problem.symmetric else sweep(problem, f, g)
        passes += 1
        failures += corrected and not made.error < last
        setback = not plain and not made.error <= SETBACK * best.error
        last = made.error
        if made.error < best.error:
            best = _Best(made.f, g, made.g, made.error)
        # The measured sum carries rounding too: stop a little below.
        if best.error <= 0.9 * settings.tolerance or not (math.isfinite(made.error) or setback):
            break
        if setback:
            extrapolation.forget()
            f, g, corrected, plain = best.f, best.g_next, False, True
            continue
        step = made.g - g
        # One cloud with itself has no slow part: its plain iteration halves the error.
        corrected, plain = failures < FAILURES and not problem.symmetric, False
        if corrected:
            changes = ((made.f - f).abs(), (step - step.mean()).abs())
            tolerance = min(SAMPLE_TOLERANCE, SAMPLE_FRACTION * made.error)
            step = step + Sample(problem, generator, changes).correct(made.f, g, made.g, tolerance)
        f, g = made.f, extrapolation.next(g, step)
    return Potentials(best.f, best.g, passes)


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
        # A balanced problem does not feel a constant in g, unless f follows it.
        self.centered = math.isinf(problem.rho_a) and math.isinf(problem.rho_b) and not problem.symmetric
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


def _measured(
    problem: StreamedProblem, potentials: Potentials, wanted: tuple[bool, bool]
) -> tuple[PlanSums, tuple[Tensor, Tensor] | tuple[()]]:
    """The sums over the plan in scaled units, and the gradients of <C, P> with P held that a cloud wants."""
    geometry, epsilon = problem.geometry, problem.epsilon
    of_row, of_column = potentials.f / epsilon + problem.a.log(), potentials.g / epsilon + problem.b.log()
    exponents = Exponents(geometry, of_row, of_column, epsilon * float(problem.scale))
    pullback = None
    if isinstance(geometry, PointCloud) and any(wanted):
        pullback = Pullback(geometry.x, geometry.y, geometry.cost, wanted=wanted)
    rows, columns = torch.empty_like(problem.a), torch.zeros_like(problem.b)
    spent = problem.a.new_zeros((), dtype=torch.float64)
    for block in exponents.blocks():
        exponent = exponents.rows(block)
        mass = exponent.exp()
        rows[block] = mass.sum(1)
        columns += mass.sum(0)
        spent += torch.dot(mass.flatten(), exponent.flatten())
        if pullback is not None:
            pullback.add(block, mass)
    # C / epsilon = of_row + of_column - exponent.
    cost = epsilon * (rows.double() @ of_row.double() + columns.double() @ of_column.double() - spent)
    return PlanSums(rows, columns, cost.to(rows)), () if pullback is None else pullback.gradients(rows, columns)


def _linear(problem: StreamedProblem, solution: Solution) -> Tensor:
    """<C, P> in the cost's units, differentiable in what a cost function uses, with P held; costs are not kept."""
    of_row, of_column = (
        potential / solution.epsilon + weights.log()
        for potential, weights in ((solution.f, problem.a), (solution.g, problem.b))
    )

    def contribution(block: slice) -> Tensor:
        cost = problem.geometry.block(block, slice(None))
        with torch.no_grad():
            mass = torch.sub(of_column, cost / solution.epsilon).add_(of_row[block, None]).exp_()
        return with_envelope_gradient((mass * cost).sum(), (cost, mass))

    blocks = row_slices(len(problem.a), len(problem.b), problem.a.device)
    parts = [checkpoint(contribution, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.stack(parts).sum()
