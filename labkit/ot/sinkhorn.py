"""Entropic optimal transport between two weighted clouds.

    OT = min_P <C, P> + epsilon KL(P | a b^T) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b)

Cuturi 2013 (NeurIPS) for fixed marginals, Chizat et al. 2018 (Math. Comp. 87) for relaxed ones. As a training loss
use `sinkhorn_divergence`: this value is biased, it is smallest for a target that has shrunk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, PointCloud, full_precision
from labkit.ot.coupling import Coupling, dual_part, warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.implicit import SecondPartials, Solution, with_implicit_gradient
from labkit.ot.kernel import prescribed_marginal
from labkit.ot.plan import PlanSums, Pullback, measure_plan
from labkit.ot.potentials import Potentials, extend_potentials, solve_potentials
from labkit.ot.problem import Problem, Scale, Settings, make_problem, match_mass, settle

if TYPE_CHECKING:
    from jaxtyping import Float

    from labkit.ot.blocks import StreamedProblem

NOT_CONVERGED = (
    "Sinkhorn did not reach tolerance={tolerance} in max_iterations={max_iterations}: raise epsilon or "
    "max_iterations, accept a larger tolerance, or use float64; `marginal_error` says how far it got."
)


def sinkhorn(
    geometry: Geometry,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    scale_cost: Scale = "mean",
    tau_a: float = 1.0,
    tau_b: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
    init: Coupling | tuple[Tensor, Tensor] | None = None,
) -> Coupling:
    """Solve entropic transport, balanced or with relaxed marginals.

    Args:
        geometry: `PointCloud` or `CostMatrix`, batch dimensions in front.
        a: Source weights >= 0, uniform by default. Points of weight zero have no influence.
        b: Target weights; their total must be that of `a` unless a marginal is relaxed.
        epsilon: Strength of the entropy, relative to the scaled cost: .05 is smooth, .001 nearly exact.
        scale_cost: "mean" (of the cost under a b^T), "max", a number (a tensor for one per problem), or None for
            1, which makes epsilon absolute. A constant: no gradient flows through it.
        tau_a: rho_a / (rho_a + epsilon) in (0, 1]; 1 fixes the source marginal. `tau_b` likewise.
        tau_b: See `tau_a`.
        tolerance: L1 marginal error to reach, rows and columns, as a fraction of the mass.
        max_iterations: Over all stages of epsilon.
        init: Where to start: the coupling of a similar problem, or its potentials (f, g) in the cost's units. Skips
            epsilon scaling.

    Returns:
        The coupling, differentiable in x and y (or the cost matrix), a and b. `regularized_cost` takes its gradient
        from the envelope theorem, which costs next to nothing, and has second derivatives. f, g, plan, apply,
        barycenter and map are differentiated once, by the implicit function theorem: one linear solve in the
        backward pass, and none if nobody asks. Gradients err with the marginal error, so set `tolerance` accordingly.
        If balanced, b counts as rescaled to the total of a. At a weight of zero the derivative of the value is that
        of a vanishing mass; all others leave it at 0.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed; the message says what to change.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    settings = Settings(epsilon, scale_cost, tau_a, tau_b, tolerance, max_iterations)
    start = (init.f, init.g) if isinstance(init, Coupling) else init
    coupling = solve(geometry, a, b, settings, start)
    warn_unless(coupling.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    return coupling


def solve(
    geometry: Geometry,
    a: Tensor | None,
    b: Tensor | None,
    settings: Settings,
    init: tuple[Tensor, Tensor] | None = None,
) -> Coupling:
    """`sinkhorn` without the warning, for functions that solve several problems."""
    # Streaming builds on this module.
    from labkit.ot.stream import solve_streamed, streamable

    if streamable(geometry):
        return solve_streamed(geometry, a, b, settings, init)
    with full_precision(geometry.device):
        geometry = settle(geometry, a, b, balanced=settings.tau_a == settings.tau_b == 1)
        # What the cost is differentiated with: the points, or else the matrix itself.
        sources = _batched(geometry) if isinstance(geometry, PointCloud) else (geometry.matrix(),)
        with torch.no_grad():
            cost = geometry.matrix() if isinstance(geometry, PointCloud) else sources[0].detach()
            problem = make_problem(geometry, cost, a, b, settings)
            del cost
            start = None if init is None else checked_init(init, problem)
            potentials = solve_potentials(
                problem, tolerance=settings.tolerance, max_iterations=settings.max_iterations, init=start
            )
        arguments = (*live_weights(a, b, problem), *sources)
        return _conclude(geometry, problem, potentials, arguments, settings)


def _batched(cloud: PointCloud) -> tuple[Tensor, Tensor]:
    """Both clouds with the batch dimensions of the problem."""
    batch = cloud.shape[:-2]
    x, y = (z if z.shape[:-2] == batch else z.expand(*batch, *z.shape[-2:]) for z in (cloud.x, cloud.y))
    return x, y


def _conclude(
    geometry: Geometry,
    problem: Problem,
    potentials: Potentials,
    arguments: tuple[Tensor, ...],
    settings: Settings,
) -> Coupling:
    """The coupling of solved potentials, connected to what it depends on."""
    live = [torch.is_grad_enabled() and t.requires_grad for t in arguments]
    with torch.no_grad():
        gradients, sums = _measured(geometry, problem, potentials, arguments[2:], live[2:])
        error, value = marginal_error(problem, potentials, sums), dual_value(problem, potentials, sums)
        require_numbers(error + value)
        if problem.absent:
            cost = geometry.matrix() / problem.scale[..., None, None]
            potentials = extend_potentials(problem, cost, potentials)
            del cost
        scale = problem.scale
        solution = Solution(
            potentials.f * scale[..., None],
            potentials.g * scale[..., None],
            scale * problem.epsilon,
            settings.tau_a,
            settings.tau_b,
        )
    cost_name = geometry.cost if isinstance(geometry, PointCloud) else None
    f, g = with_implicit_gradient(solution, cost_name, arguments)
    value = value * scale
    if any(live):
        again = SecondPartials(solution, cost_name, arguments)
        partials = (*solution.weight_partials(f.detach(), g.detach(), problem.a, problem.b), *gradients)
        terms = [(t, p) for t, p, wanted in zip(arguments, partials, live, strict=True) if wanted]
        value = with_envelope_gradient(value, *terms, again=again)
    return Coupling(
        geometry=geometry,
        a=arguments[0],
        b=arguments[1],
        f=f,
        g=g,
        epsilon=problem.epsilon,
        epsilon_absolute=solution.epsilon,
        cost=sums.cost * scale,
        regularized_cost=value,
        marginal_error=error,
        tolerance=settings.tolerance,
        n_iterations=potentials.n_iterations,
        converged=bool((error <= settings.tolerance).all()),
        tau_a=settings.tau_a,
        tau_b=settings.tau_b,
    )


def _measured(
    geometry: Geometry, problem: Problem, potentials: Potentials, sources: tuple[Tensor, ...], wanted: list[bool]
) -> tuple[tuple[Tensor, ...], PlanSums]:
    """The derivatives of <C, P> by the wanted sources with P held, and the sums over the plan."""
    pullback = plan = None
    if any(wanted) and isinstance(geometry, PointCloud):
        x, y = sources
        pullback = Pullback(x, y, geometry.cost, mirrored=problem.symmetric, wanted=(wanted[0], wanted[1]))
    elif any(wanted):
        plan = torch.empty_like(problem.cost)
    sums = measure_plan(problem, potentials.f, potentials.g, pullback=pullback, plan=plan)
    if pullback is not None:
        return pullback.gradients(sums.rows, sums.columns), sums
    empty = problem.cost.new_empty(0)
    return (empty, empty) if isinstance(geometry, PointCloud) else (empty if plan is None else plan,), sums


def live_weights(a: Tensor | None, b: Tensor | None, problem: Problem | StreamedProblem) -> tuple[Tensor, Tensor]:
    """The weights of the problem as functions of those that were given."""
    fixed = (problem.a, problem.b)
    wanted = [torch.is_grad_enabled() and w is not None and w.requires_grad for w in (a, b)]
    if not any(wanted):
        return fixed
    live_a, live_b = (
        w.to(known).broadcast_to(known.shape) if isinstance(w, Tensor) and want else known
        for w, known, want in zip((a, b), fixed, wanted, strict=True)
    )
    balanced = problem.rho_a == problem.rho_b == math.inf
    return live_a, match_mass(live_a, live_b) if balanced else live_b


def checked_init(init: tuple[Tensor, Tensor], problem: Problem | StreamedProblem) -> tuple[Tensor, Tensor]:
    """Potentials of a user in scaled units.

    Raises:
        ValueError: A wrong shape, or numbers that are not finite.
    """
    start = []
    for name, potential, weights in (("f", init[0], problem.a), ("g", init[1], problem.b)):
        if potential.shape != weights.shape or not torch.isfinite(potential).all():
            raise ValueError(
                f"init {name} has shape {tuple(potential.shape)} and must be finite of shape {tuple(weights.shape)}: "
                "pass (f, g) of a coupling of the same size, or None to start afresh."
            )
        start.append(potential.detach().to(weights) / problem.scale[..., None])
    if problem.symmetric:
        start = [(start[0] + start[1]) / 2] * 2
    return start[0], start[1]


def marginal_error(problem: Problem | StreamedProblem, potentials: Potentials, sums: PlanSums) -> Tensor:
    """L1 distance of the marginals of a plan to the prescribed ones, as a fraction of the mass."""
    rows = sums.rows - prescribed_marginal(problem.a, potentials.f, problem.rho_a)
    columns = sums.columns - prescribed_marginal(problem.b, potentials.g, problem.rho_b)
    mass = (problem.a.sum(-1) + problem.b.sum(-1)) / 2
    return (rows.abs().sum(-1) + columns.abs().sum(-1)) / mass


def dual_value(problem: Problem | StreamedProblem, potentials: Potentials, sums: PlanSums) -> Tensor:
    """The dual objective in scaled units."""
    # The dual value is a lower bound whose error is of second order in that of the potentials.
    value = dual_part(problem.a, potentials.f, problem.rho_a) + dual_part(problem.b, potentials.g, problem.rho_b)
    return value - problem.epsilon * (sums.rows.sum(-1) - problem.a.sum(-1) * problem.b.sum(-1))


def require_numbers(summary: Tensor) -> None:
    """Refuse results that are not numbers.

    Raises:
        FloatingPointError: Something overflowed.
    """
    if not torch.isfinite(summary).all():
        raise FloatingPointError(
            "Sinkhorn overflowed: epsilon is too small for the range of the costs in this dtype. Raise epsilon, "
            "use float64, or remove outlying points."
        )
