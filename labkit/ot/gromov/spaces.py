"""The two spaces that Gromov-Wasserstein compares, and the operators it needs: never n^4, and n^2 d if factorized.

    D = F C F^T      F [n, r] factor, C [r, r] core;  dense: F = I, C = D
    L_ij = sum_kl (D_x[i, k] - D_y[j, l])^2 P_kl = (D_x^2 p)_i + (D_y^2 q)_j - 2 F_x C_x Z C_y F_y^T,   Z = F_x^T P F_y

with p, q the marginals of P and squares by entry. Squared Euclidean distances have rank d + 2, cosine distances d + 1,
inner products d; for these the plan enters only through the small matrix Z, and L takes O(n m d). Any other matrix is
kept dense, or replaced by its leading eigenvectors (`rank`) with a measured error.
Peyre, Cuturi, Solomon 2016 (ICML, prop. 1); Scetbon, Peyre, Cuturi 2022 (ICML, section 3, factorized costs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, require_finite
from labkit.ot.gromov.factors import ROUNDING, InnerProduct, Space, make_space, mean_scale, points_of
from labkit.ot.problem import check_weights, cost_scale, match_mass

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Spaces:
    """Two checked and scaled spaces, their weights, and what else enters the objective.

        F(P) = alpha sum_ijkl (D_x[i, k] - D_y[j, l])^2 P_ij P_kl + (1 - alpha) <M, P>

    Attributes:
        x: Distances within the first space. y: within the second.
        a: Weights of the first space. b: of the second.
        fused: M, a cost between the spaces, None for the pure problem; keeps its gradient.
        alpha: Weight of the structure; 1 for the pure problem.
        unit: What epsilon is relative to.
    """

    x: Space
    y: Space
    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    fused: Float[Tensor, "*batch n m"] | None
    alpha: float
    unit: Float[Tensor, "*batch"]

    def state(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch r s"]:
        """Z = F_x^T P F_y: all that the objective knows of a plan, besides its marginals. The plan, if dense."""
        return self.y.compress(self.x.compress(plan).mT).mT

    def crossed(self, state: Tensor) -> Tensor:
        """C_x Z C_y, so that D_x P D_y = F_x (C_x Z C_y) F_y^T."""
        return self.x.core.detach() @ state @ self.y.core.detach()

    def linearize(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n m"]:
        """L_ij = sum_kl (D_x[i, k] - D_y[j, l])^2 P_kl for a plan with any marginals."""
        rows, columns = self.x.squares_times(plan.sum(-1)), self.y.squares_times(plan.sum(-2))
        return self.cost_from(-2 * self.crossed(self.state(plan)), rows, columns)

    def cost_from(self, crossed: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "*batch n m"]:
        """F_x X F_y^T + r 1^T + 1 c^T, what every linearized cost is made of."""
        if self.y.factor is None:
            return (self.x.expand(crossed) + rows[..., :, None]).add_(columns[..., None, :])
        ones_x, ones_y = torch.ones_like(rows)[..., None], torch.ones_like(columns)[..., None]
        # Row and column terms ride along in the product: one pass over the n m entries instead of three.
        left = torch.cat([self.x.expand(crossed), rows[..., None], ones_x], -1)
        right = torch.cat([self.y.factor.detach(), ones_y, columns[..., None]], -1)
        return left @ right.mT

    def distortion(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch"]:
        """G(P) = sum_ijkl (D_x[i, k] - D_y[j, l])^2 P_ij P_kl for a plan with any marginals; >= 0 up to rounding."""
        p, q, state = plan.sum(-1), plan.sum(-2), self.state(plan)
        squares = (self.x.squares_times(p) * p).sum(-1) + (self.y.squares_times(q) * q).sum(-1)
        return squares - 2 * (self.crossed(state) * state).sum((-2, -1))

    def objective(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch"]:
        """The value alpha G(P) + (1 - alpha) <M, P>, without entropy."""
        value = self.alpha * self.distortion(plan)
        if self.fused is None:
            return value
        return value + (1 - self.alpha) * (self.fused.detach() * plan).sum((-2, -1))

    def gradient(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n m"]:
        """Derivative of the objective by the plan, 2 alpha L + (1 - alpha) M."""
        value = self.linearize(plan).mul_(2 * self.alpha)
        return value if self.fused is None else value.add_(self.fused.detach(), alpha=1 - self.alpha)

    def cast(self, dtype: torch.dtype) -> Spaces:
        """The same in another precision; itself if it has that one."""
        if self.a.dtype == dtype:
            return self
        batch = self.a.shape[:-1]
        fused = None if self.fused is None else self.fused.to(dtype)
        return replace(
            self,
            x=self.x.to(dtype, batch),
            y=self.y.to(dtype, batch),
            a=self.a.to(dtype),
            b=self.b.to(dtype),
            fused=fused,
            unit=self.unit.to(dtype),
        )

    def repeat(self, count: int) -> Spaces:
        """The same problems `count` times, along a new first dimension, without copies."""

        def again(space: Space) -> Space:
            return space.to(self.a.dtype, torch.Size((count, *self.a.shape[:-1])))

        a, b, unit = (t.expand(count, *t.shape) for t in (self.a, self.b, self.unit))
        fused = None if self.fused is None else self.fused.expand(count, *self.fused.shape)
        return replace(self, x=again(self.x), y=again(self.y), a=a, b=b, fused=fused, unit=unit)

    def product(self) -> Float[Tensor, "*batch n m"]:
        """The coupling a b^T / sqrt(|a| |b|), which knows nothing; its marginals are a and b where the masses agree."""
        mass = (self.a.sum(-1) * self.b.sum(-1)).sqrt()
        return self.a[..., :, None] * (self.b / mass[..., None])[..., None, :]

    @cached_property
    def squares(self) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]]:
        """The row and column terms D_x^2 a and D_y^2 b of plans with the marginals a and b."""
        return self.x.squares_times(self.a), self.y.squares_times(self.b)

    @cached_property
    def product_objective(self) -> Float[Tensor, "*batch"]:
        """The objective of `product`, which is not made for it."""
        # Marginals a r and b / r have the same mass |a| r.
        ratio = self.b.sum(-1) / self.a.sum(-1)
        mass = (self.a.sum(-1) * self.b.sum(-1)).sqrt()
        rows, columns = self.squares
        value = ratio * (rows * self.a).sum(-1) + (columns * self.b).sum(-1) / ratio
        means = [(w * space.times(w[..., None])[..., 0]).sum(-1) for space, w in ((self.x, self.a), (self.y, self.b))]
        value = self.alpha * (value - 2 * means[0] * means[1] / mass.square())
        if self.fused is None:
            return value
        fused = (self.fused.detach() @ self.b[..., None])[..., 0]
        return value + (1 - self.alpha) * (fused * self.a).sum(-1) / mass


def make_spaces(
    geometries: tuple[Geometry | InnerProduct, Geometry | InnerProduct],
    weights: tuple[Tensor | None, Tensor | None],
    scale_cost: str | None,
    fusion: tuple[Tensor | None, float],
    *,
    rank: int | None = None,
    balanced: bool = True,
) -> Spaces:
    """Check and scale two spaces.

    Args:
        geometries: Of the first and the second space: `PointCloud(x, x)`, symmetric `CostMatrix`, `InnerProduct`.
        weights: Of their points; None is uniform.
        scale_cost: "mean" divides each distance matrix (and the fused cost) by its mean and makes epsilon relative
            to the objective of the product coupling; None leaves all as it is.
        fusion: Fused cost or None, and the weight alpha of the structure against it.
        rank: As in `make_space`.
        balanced: Whether the weights must have equal totals.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
    """
    if scale_cost not in ("mean", None):
        raise ValueError(f"scale_cost={scale_cost!r} is unknown, expected 'mean' or None.")
    points = [points_of(geometry) for geometry in geometries]
    if points[0].device != points[1].device:
        raise ValueError(f"geom_x is on {points[0].device} and geom_y on {points[1].device}: move both to one device.")
    dtype = torch.promote_types(points[0].dtype, points[1].dtype)
    batch = torch.broadcast_shapes(points[0].shape[:-2], points[1].shape[:-2])
    a, b = (
        check_weights(w, (*batch, p.shape[-2]), p.detach().to(dtype), name)
        for w, p, name in zip(weights, points, "ab", strict=True)
    )
    if balanced:
        b = match_mass(a, b)
    x, y = (
        make_space(geometry, name, w, rank)
        for geometry, name, w in zip(geometries, ("geom_x", "geom_y"), (a, b), strict=True)
    )
    x, y = x.to(dtype, batch), y.to(dtype, batch)
    fused, alpha = _checked_fusion(fusion, a, b)
    if scale_cost is None:
        return Spaces(x, y, a, b, fused, alpha, torch.ones_like(a[..., 0]))
    x, y = (s.divided(mean_scale(g, s, w)) for s, g, w in ((x, geometries[0], a), (y, geometries[1], b)))
    if fused is not None:
        fused = fused / cost_scale(fused.detach(), a, b, "mean")[..., None, None]
    share_a, share_b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    relative = Spaces(x, y, share_a, share_b, fused, alpha, torch.ones_like(a[..., 0]))
    unit = relative.product_objective
    # Mean distances are 1 now, so that less than this is rounding: the spaces are the same to the last digit.
    least = ROUNDING * torch.finfo(unit.dtype).eps
    return replace(relative, a=a, b=b, unit=torch.where(unit > least, unit, 1.0))


def _checked_fusion(fusion: tuple[Tensor | None, float], a: Tensor, b: Tensor) -> tuple[Tensor | None, float]:
    fused, alpha = fusion
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha} must be in (0, 1]: the weight of the structure; for 0 use ot.sinkhorn.")
    if fused is None:
        return None, 1.0
    require_finite(fused, "fused_cost")
    shape = (*a.shape, b.shape[-1])
    if fused.shape != shape:
        raise ValueError(f"fused_cost has shape {tuple(fused.shape)}, expected {tuple(shape)}.")
    return fused.to(a.dtype), alpha


def checked_plan(plan: Tensor, spaces: Spaces) -> Float[Tensor, "*batch n m"]:
    """A plan to start from, detached.

    Raises:
        TypeError: Not a floating-point tensor.
        ValueError: Another shape, negative, not finite, or without any mass.
    """
    require_finite(plan, "init_plan")
    shape = (*spaces.a.shape, spaces.b.shape[-1])
    if plan.shape != shape or (plan < 0).any():
        raise ValueError(f"init_plan has shape {tuple(plan.shape)}, expected masses >= 0 of shape {tuple(shape)}.")
    if (plan.sum((-2, -1)) <= 0).any():
        raise ValueError("init_plan has no mass: at least one pair needs a positive one.")
    return plan.detach().to(spaces.a)


def gradient_terms(spaces: Spaces, plan: Float[Tensor, "*batch n m"]) -> list[tuple[Tensor, Tensor]]:
    """Derivatives of the objective with the plan held, for whatever wants them: the terms of an envelope gradient."""
    terms = _space_terms(spaces.x, spaces.y, plan, spaces.alpha)
    terms += _space_terms(spaces.y, spaces.x, plan.mT, spaces.alpha)
    if spaces.fused is not None and spaces.fused.requires_grad:
        terms.append((spaces.fused, (1 - spaces.alpha) * plan))
    return terms


def _space_terms(space: Space, other: Space, plan: Tensor, alpha: float) -> list[tuple[Tensor, Tensor]]:
    """Derivative of alpha G by one space: dG / dD = 2 (D p p^T - P D' P^T), carried on to what D is made of."""
    p = plan.sum(-1)
    if space.factor is not None and space.factor.requires_grad:
        # D = F C F^T has dF = 2 (dG / dD) F C, for which no n x n matrix is made.
        directions = space.factor.detach() @ space.core.detach()
        own = p[..., None] * space.times(p[..., None] * directions)
        return [(space.factor, 4 * alpha * (own - plan @ other.times(plan.mT @ directions)))]
    distances = space.core if space.factor is None else space.truth
    if distances is None or not distances.requires_grad:
        return []
    moved = plan @ other.times(plan.mT)
    return [(distances, 2 * alpha * (distances.detach() * p[..., :, None] * p[..., None, :] - moved))]
