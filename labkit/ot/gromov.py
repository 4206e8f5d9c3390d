"""Entropic Gromov-Wasserstein: match two spaces by their inner distances, without a common space.

    G(P) = sum_ijkl (D_x[i, k] - D_y[j, l])^2 P_ij P_kl
    min_P  alpha G(P) + (1 - alpha) <M, P> + epsilon KL(P | a b^T),   P 1 = a,  P^T 1 = b

G is as written, without 1/2 and without root. Each step linearizes G at the current plan and solves entropic
transport: projected mirror descent, Peyre, Cuturi, Solomon 2016 (ICML, prop. 2); fused: Vayer et al. 2019 (ICML).
The problem is not convex: one run finds a local optimum that depends on where it started.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision, require_finite
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.problem import Settings, check_weights, cost_scale, match_mass
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float

# The inner problems are solved closer than the outer one, whose error they would otherwise set.
INNER_RATIO = 0.1
INNER_ITERATIONS = 2000
NOT_CONVERGED = (
    "Gromov-Wasserstein did not settle to tolerance={tolerance} in max_iterations={max_iterations}: raise epsilon or "
    "max_iterations, accept a larger tolerance, or start nearer by init_plan."
)


def gromov_wasserstein(
    geom_x: Geometry,
    geom_y: Geometry,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
    init_plan: Float[Tensor, "*batch n m"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> Coupling:
    """Couple two spaces so that pairs at some distance go to pairs at the same distance.

    Args:
        geom_x: Distances within the first space: `PointCloud(x, x, "euclidean")` or a symmetric `CostMatrix`.
        geom_y: Distances within the second space; it may have another dimension and number of points.
        a: Weights of the first space, uniform by default.
        b: Weights of the second; their total must be that of `a`.
        epsilon: Strength of the entropy, relative to the objective of the product coupling: for the pure problem
            the mean of |D_x - D_y|^2.
        scale_cost: "mean" divides each distance matrix (and `fused_cost`) by its mean, so that G is a pure number
            and the units of the spaces do not matter; None takes them as they are, and epsilon as absolute.
        fused_cost: M, a cost between points of the two spaces, for the fused problem.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.
        init_plan: Where to start; the product a b^T by default.
        tolerance: L1 change of the plan in one step to reach, as a fraction of the mass. The marginals are kept to
            a tenth of it.
        max_iterations: Steps.

    Returns:
        The coupling. `cost` is alpha G + (1 - alpha) <M, P> of its plan in the units described under `scale_cost`;
        `regularized_cost` adds the entropy and is differentiable once in both geometries and `fused_cost` (not in
        the weights), at the local optimum. f, g and epsilon_absolute are those of the last linearization, whose
        cost is `geometry`.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough, here or in a linearized problem.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha} must be in (0, 1]: the weight of the structure; for 0 use ot.sinkhorn.")
    if max_iterations < 1:
        raise ValueError(f"max_iterations={max_iterations} must be at least 1.")
    with full_precision(geom_x.device):
        spaces = _make_spaces(geom_x, geom_y, (a, b), scale_cost, (fused_cost, alpha))
        inner = Settings(epsilon, spaces.unit, 1.0, 1.0, INNER_RATIO * tolerance, INNER_ITERATIONS)
        with torch.no_grad():
            start = spaces.a[..., :, None] * spaces.b[..., None, :] / spaces.a.sum(-1)[..., None, None]
            if init_plan is not None:
                start = _checked_plan(init_plan, start)
            coupling, steps, settled = _descend(spaces, start, inner, max_iterations)
        warn_unless(settled, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
        cost = _objective(spaces, coupling.plan)
        regularized = cost + coupling.epsilon_absolute * _relative_entropy(coupling.plan, spaces.a, spaces.b)
        if torch.is_grad_enabled():
            regularized = with_envelope_gradient(regularized, *_partials(spaces, coupling.plan))
    return replace(coupling, cost=cost, regularized_cost=regularized, n_iterations=steps, converged=settled)


@dataclass(frozen=True, eq=False)
class _Spaces:
    """Two checked and scaled spaces; the matrices keep their gradients.

    Attributes:
        x: Distances within the first space, y: within the second.
        a: Weights of the first, b: of the second.
        fused: Cost between the spaces, None for the pure problem; its weight is 1 - alpha.
        alpha: Weight of the structure.
        unit: What epsilon is relative to.
    """

    x: Float[Tensor, "*batch n n"]
    y: Float[Tensor, "*batch m m"]
    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    fused: Float[Tensor, "*batch n m"] | None
    alpha: float
    unit: Float[Tensor, "*batch"]


def _make_spaces(
    geom_x: Geometry,
    geom_y: Geometry,
    weights: tuple[Tensor | None, Tensor | None],
    scale_cost: str | None,
    fusion: tuple[Tensor | None, float],
) -> _Spaces:
    if scale_cost not in ("mean", None):
        raise ValueError(f"scale_cost={scale_cost!r} is unknown, expected 'mean' or None.")
    x, y = _distances(geom_x, "geom_x"), _distances(geom_y, "geom_y")
    if x.device != y.device:
        raise ValueError(f"geom_x is on {x.device} and geom_y on {y.device}: move both to one device.")
    dtype = torch.promote_types(x.dtype, y.dtype)
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (d.to(dtype).broadcast_to((*batch, *d.shape[-2:])) for d in (x, y))
    a, b = check_weights(weights[0], x.shape[:-1], x, "a"), check_weights(weights[1], y.shape[:-1], y, "b")
    b = match_mass(a, b)
    fused, alpha = fusion
    if fused is None:
        alpha = 1.0
    else:
        require_finite(fused, "fused_cost")
        shape = (*x.shape[:-1], y.shape[-1])
        if fused.shape != shape:
            raise ValueError(f"fused_cost has shape {tuple(fused.shape)}, expected {tuple(shape)}.")
        fused = fused.to(dtype)
    unit = torch.ones_like(a[..., 0])
    if scale_cost == "mean":
        x, y = (d / cost_scale(d.detach(), w, w, "mean")[..., None, None] for d, w in ((x, a), (y, b)))
        if fused is not None:
            fused = fused / cost_scale(fused.detach(), a, b, "mean")[..., None, None]
        share_a, share_b = (w / w.sum(-1, keepdim=True) for w in (a, b))
        product = share_a[..., :, None] * share_b[..., None, :]
        unit = _objective(_Spaces(x, y, share_a, share_b, fused, alpha, unit), product)
        unit = torch.where(unit > 0, unit, 1.0)
    return _Spaces(x, y, a, b, fused, alpha, unit)


def _distances(geometry: Geometry, name: str) -> Tensor:
    matrix = geometry.matrix()
    detached = matrix.detach()
    if matrix.shape[-1] != matrix.shape[-2] or not torch.allclose(
        detached, detached.mT, rtol=1e-4, atol=1e-5 * float(detached.abs().max())
    ):
        raise ValueError(
            f"{name} has a matrix of shape {tuple(matrix.shape)} that is not symmetric: Gromov-Wasserstein compares "
            "the distances within each space, so pass PointCloud(x, x) or a symmetric CostMatrix."
        )
    return matrix


def _checked_plan(plan: Tensor, like: Tensor) -> Tensor:
    require_finite(plan, "init_plan")
    if plan.shape != like.shape or (plan < 0).any():
        raise ValueError(f"init_plan has shape {tuple(plan.shape)}, expected masses >= 0 of shape {tuple(like.shape)}.")
    return plan.detach().to(like)


def _transported(spaces: _Spaces, plan: Tensor) -> Tensor:
    """L_ij = sum_kl (D_x[i, k] - D_y[j, l])^2 P_kl, without gradients."""
    x, y = spaces.x.detach(), spaces.y.detach()
    rows = x.square() @ plan.sum(-1)[..., None]
    columns = y.square() @ plan.sum(-2)[..., None]
    return rows + columns.mT - 2 * x @ plan @ y


def _objective(spaces: _Spaces, plan: Tensor) -> Tensor:
    value = spaces.alpha * (_transported(spaces, plan) * plan).sum((-2, -1))
    if spaces.fused is None:
        return value
    return value + (1 - spaces.alpha) * (spaces.fused.detach() * plan).sum((-2, -1))


def _relative_entropy(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """KL(P | a b^T) = sum P log(P / ab) - P + ab."""
    product = a[..., :, None] * b[..., None, :]
    ratio = torch.where(plan > 0, plan / product, 1.0)
    return (plan * ratio.log() - plan + product).sum((-2, -1))


def _partials(spaces: _Spaces, plan: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Derivatives of the objective with the plan held, for the matrices that want them."""
    p, q = plan.sum(-1), plan.sum(-2)
    x, y = spaces.x.detach(), spaces.y.detach()
    terms = []
    if spaces.x.requires_grad:
        partial = x * p[..., :, None] * p[..., None, :] - plan @ y @ plan.mT
        terms.append((spaces.x, 2 * spaces.alpha * partial))
    if spaces.y.requires_grad:
        partial = y * q[..., :, None] * q[..., None, :] - plan.mT @ x @ plan
        terms.append((spaces.y, 2 * spaces.alpha * partial))
    if spaces.fused is not None and spaces.fused.requires_grad:
        terms.append((spaces.fused, (1 - spaces.alpha) * plan))
    return terms


def _descend(spaces: _Spaces, plan: Tensor, inner: Settings, max_iterations: int) -> tuple[Coupling, int, bool]:
    """Linearize, transport, repeat, until the plan stops moving; also says after how many steps and whether it did."""
    mass = spaces.a.sum(-1)
    coupling, steps, settled = None, 0, False
    while steps < max_iterations and not settled:
        gradient = 2 * spaces.alpha * _transported(spaces, plan)
        if spaces.fused is not None:
            gradient = gradient + (1 - spaces.alpha) * spaces.fused.detach()
        init = None if coupling is None else (coupling.f, coupling.g)
        coupling = solve(CostMatrix(gradient), spaces.a, spaces.b, inner, init)
        change = (coupling.plan - plan).abs().sum((-2, -1)) / mass
        settled = coupling.converged and bool((change <= inner.tolerance / INNER_RATIO).all())
        plan, steps = coupling.plan, steps + 1
    assert coupling is not None  # max_iterations >= 1
    return coupling, steps, settled
