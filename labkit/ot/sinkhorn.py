"""Entropic optimal transport between two weighted clouds.

    OT = min_P <C, P> + epsilon KL(P | a b^T) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b)

Cuturi 2013 (NeurIPS) for fixed marginals, Chizat et al. 2018 (Math. Comp. 87) for relaxed ones. As a training loss
use `sinkhorn_divergence`: this value is biased, it is smallest for a target that has shrunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, full_precision
from labkit.ot.coupling import Coupling, entropic_plan, warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.potentials import Potentials, extend_potentials, prescribed_marginal, solve_potentials
from labkit.ot.problem import Problem, Scale, Settings, make_problem

if TYPE_CHECKING:
    from jaxtyping import Float

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
    init: tuple[Tensor, Tensor] | None = None,
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
        init: Potentials (f, g) of a similar problem, in the cost's units: skips epsilon scaling.

    Returns:
        The coupling. `regularized_cost` has gradients with respect to x and y, or the cost matrix, and a and b
        (up to a constant if balanced), by the envelope theorem; a second derivative raises.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed; the message says what to change.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    settings = Settings(epsilon, scale_cost, tau_a, tau_b, tolerance, max_iterations)
    coupling = solve(geometry, a, b, settings, init)
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
    with full_precision(geometry.device):
        cost = geometry.matrix()
        with torch.no_grad():
            problem = make_problem(geometry, cost.detach(), a, b, settings)
            start = None if init is None else _checked_init(init, problem)
            potentials = solve_potentials(
                problem, tolerance=settings.tolerance, max_iterations=settings.max_iterations, init=start
            )
            unit_epsilon = torch.full_like(problem.scale, problem.epsilon)
            plan = entropic_plan(problem.cost, problem.a, problem.b, potentials.f, potentials.g, unit_epsilon)
            error = _marginal_error(problem, potentials, plan)
            value = _dual_value(problem, potentials, plan)
            _require_numbers(error + value)
            if problem.absent:
                potentials = extend_potentials(problem, cost.detach() / problem.scale[..., None, None], potentials)
        return Coupling(
            geometry=geometry,
            a=problem.a,
            b=problem.b,
            f=potentials.f * problem.scale[..., None],
            g=potentials.g * problem.scale[..., None],
            epsilon=problem.epsilon,
            epsilon_absolute=problem.scale * problem.epsilon,
            cost=(problem.cost * plan).sum((-2, -1)) * problem.scale,
            regularized_cost=_differentiable((cost, a, b), problem, potentials, plan, value),
            marginal_error=error,
            tolerance=settings.tolerance,
            n_iterations=potentials.n_iterations,
            converged=bool((error <= settings.tolerance).all()),
        )


def _checked_init(init: tuple[Tensor, Tensor], problem: Problem) -> tuple[Tensor, Tensor]:
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


def _marginal_error(problem: Problem, potentials: Potentials, plan: Tensor) -> Tensor:
    rows = plan.sum(-1) - prescribed_marginal(problem.a, potentials.f, problem.rho_a)
    columns = plan.sum(-2) - prescribed_marginal(problem.b, potentials.g, problem.rho_b)
    mass = (problem.a.sum(-1) + problem.b.sum(-1)) / 2
    return (rows.abs().sum(-1) + columns.abs().sum(-1)) / mass


def _conjugate(potential: Tensor, rho: float) -> Tensor:
    """-rho (exp(-f / rho) - 1): what a unit of mass adds to the dual value; f itself when rho is infinite."""
    return potential if rho == float("inf") else -rho * torch.expm1(-potential / rho)


def _dual_value(problem: Problem, potentials: Potentials, plan: Tensor) -> Tensor:
    # The dual value is a lower bound whose error is of second order in that of the potentials.
    value = 0
    for weights, potential, rho in (
        (problem.a, potentials.f, problem.rho_a),
        (problem.b, potentials.g, problem.rho_b),
    ):
        value = value + (weights * _conjugate(torch.where(weights > 0, potential, 0.0), rho)).sum(-1)
    return value - problem.epsilon * (plan.sum((-2, -1)) - problem.a.sum(-1) * problem.b.sum(-1))


def _require_numbers(summary: Tensor) -> None:
    if not torch.isfinite(summary).all():
        raise FloatingPointError(
            "Sinkhorn overflowed: epsilon is too small for the range of the costs in this dtype. Raise epsilon, "
            "use float64, or remove outlying points."
        )


def _differentiable(
    arguments: tuple[Tensor, Tensor | None, Tensor | None],
    problem: Problem,
    potentials: Potentials,
    plan: Tensor,
    value: Tensor,
) -> Tensor:
    """The value in the cost's units, with the gradients P for the cost and, for weights, those of the dual."""
    scale = problem.scale
    value = value * scale
    if not torch.is_grad_enabled():
        return value
    cost, a, b = arguments
    terms = [(cost, plan)] if cost.requires_grad else []
    sides = (
        (a, potentials.f, problem.rho_a, problem.b),
        (b, potentials.g, problem.rho_b, problem.a),
    )
    for weight, potential, rho, other in sides:
        if weight is not None and weight.requires_grad:
            # Optimal potentials have sum_j b_j exp((f_i + g_j - C_ij) / epsilon) = exp(-f_i / rho).
            overlap = torch.exp(-potential / rho) - other.sum(-1, keepdim=True)
            partial = (_conjugate(potential, rho) - problem.epsilon * overlap) * scale[..., None]
            terms.append((weight.to(problem.cost).broadcast_to(potential.shape), partial))
    return with_envelope_gradient(value, *terms)
