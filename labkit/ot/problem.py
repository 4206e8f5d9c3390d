"""The entropic transport problem in the form that the solver works on: checked, scaled, detached.

    min_P  <C, P> + epsilon KL(P | a b^T) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b),
    KL(p | q) = sum p log(p / q) - p + q,      tau = rho / (rho + epsilon), tau = 1: the marginal is fixed.

The solver sees C / scale, so that one `epsilon` means the same for every cost; the plan does not depend on
whether one says (C / scale, epsilon) or (C, epsilon * scale).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, PointCloud, require_finite, require_floating
from labkit.ot.restricted import Restricted

if TYPE_CHECKING:
    from jaxtyping import Float

Scale = str | float | Tensor | None
MASS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """How to relax and when to stop; the fields are the parameters of `sinkhorn` with the same names.

    Raises:
        ValueError: A field is out of its range.
    """

    epsilon: float
    scale_cost: Scale
    tau_a: float
    tau_b: float
    tolerance: float
    max_iterations: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.epsilon > 0 or not math.isfinite(self.epsilon):
            raise ValueError(f"epsilon={self.epsilon} must be positive: .05 is usual, .001 is nearly exact transport.")
        for name, tau in (("tau_a", self.tau_a), ("tau_b", self.tau_b)):
            if not 0 < tau <= 1:
                raise ValueError(
                    f"{name}={tau} must be in (0, 1]: 1 fixes the marginal, rho / (rho + epsilon) relaxes it."
                )
        if not self.tolerance > 0:
            raise ValueError(f"tolerance={self.tolerance} must be positive: the marginal error never is exactly 0.")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations={self.max_iterations} must be at least 1.")


@dataclass(frozen=True, eq=False)
class Problem:
    """One checked problem (or a batch of them), in scaled units and without gradients.

    Attributes:
        cost: C / scale; +inf where a pair is forbidden.
        a: Source weights, b: target weights, both with the batch dimensions of the cost.
        epsilon: Relative to the scaled cost.
        scale: Divisor of the cost, one per problem of the batch.
        rho_a: Strength of the source marginal in scaled units; infinite when it is fixed. rho_b likewise.
        symmetric: Same points, weights and strengths on both sides.
        absent: Whether some weight is zero. Costs of such points are replaced by the least cost between points
            with mass: their own could overflow in potentials that nothing depends on.
        restricted: Whether some pairs are forbidden.
    """

    cost: Float[Tensor, "*batch n m"]
    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    epsilon: float
    scale: Float[Tensor, "*batch"]
    rho_a: float
    rho_b: float
    symmetric: bool
    absent: bool
    restricted: bool = False

    def mean_cost(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch"]:
        """<C, P> in scaled units, where a forbidden pair without mass costs nothing."""
        return inner_product(self.cost, plan, self.restricted)


def inner_product(cost: Tensor, plan: Tensor, restricted: bool) -> Tensor:
    """<C, P>, with inf * 0 = 0 at forbidden pairs."""
    product = cost * plan
    return (torch.where(plan > 0, product, 0.0) if restricted else product).sum((-2, -1))


def settle(geometry: Geometry, a: Tensor | None, b: Tensor | None, *, balanced: bool) -> Geometry:
    """The geometry with its fixed pairs worked out for these weights; itself if it has none.

    Raises:
        ValueError: The weights are not usable, or no plan has them as marginals.
    """
    if not isinstance(geometry, Restricted):
        return geometry
    like = torch.empty((), dtype=geometry.dtype, device=geometry.device)
    *batch, n, m = geometry.shape
    a, b = check_weights(a, (*batch, n), like, "a"), check_weights(b, (*batch, m), like, "b")
    return geometry.settled(a, match_mass(a, b) if balanced else b, balanced)


def make_problem(geometry: Geometry, cost: Tensor, a: Tensor | None, b: Tensor | None, settings: Settings) -> Problem:
    """Check and scale a problem; `cost` is the detached matrix of `geometry`, and that of a PointCloud is used up.

    Raises:
        ValueError: Weights or scale are not usable; the message says what to do.
    """
    symmetric = geometry.symmetric and a is b and settings.tau_a == settings.tau_b
    a = check_weights(a, cost.shape[:-1], cost, "a")
    b = check_weights(b, (*cost.shape[:-2], cost.shape[-1]), cost, "b")
    if settings.tau_a == settings.tau_b == 1:
        b = match_mass(a, b)
    forbidden = geometry.mask if isinstance(geometry, Restricted) else None
    scale = cost_scale(cost, a, b, settings.scale_cost, forbidden)
    absent = not bool((a > 0).all() and (b > 0).all())
    if absent:
        massive = (a > 0)[..., :, None] & (b > 0)[..., None, :]
        least = torch.where(massive, cost, math.inf).amin((-2, -1), keepdim=True)
        cost = torch.where(massive, cost, least)
    divisor = scale[..., None, None]
    return Problem(
        # The matrix of a cloud was made for this problem; another one may be the user's own.
        cost=cost.div_(divisor) if isinstance(geometry, PointCloud) else cost / divisor,
        a=a,
        b=b,
        epsilon=float(settings.epsilon),
        scale=scale,
        rho_a=strength(settings.tau_a, settings.epsilon),
        rho_b=strength(settings.tau_b, settings.epsilon),
        symmetric=symmetric,
        absent=absent,
        restricted=forbidden is not None,
    )


def strength(tau: float, epsilon: float) -> float:
    """The rho of a marginal that is relaxed by tau = rho / (rho + epsilon); infinite for tau = 1."""
    return math.inf if tau == 1 else epsilon * tau / (1 - tau)


def check_weights(weights: Tensor | None, shape: tuple[int, ...], like: Tensor, name: str) -> Tensor:
    """Detached weights with the given shape, dtype and device of `like`; uniform with total 1 for None.

    Raises:
        ValueError: Wrong shape or device, negative, not finite, or without any mass.
    """
    if weights is None:
        return like.new_full(shape, 1 / shape[-1])
    require_floating(weights, f"the weights {name}")
    if weights.device != like.device:
        raise ValueError(f"the weights {name} are on {weights.device}, the cost on {like.device}: move them.")
    require_finite(weights, f"the weights {name}")
    if weights.ndim == 0 or weights.shape[-1] != shape[-1]:
        raise ValueError(f"the weights {name} have shape {tuple(weights.shape)}, expected {tuple(shape)}.")
    weights = weights.detach().to(like.dtype)
    if (weights < 0).any():
        raise ValueError(f"the weights {name} have negative entries (least {weights.min():.3g}): weights are masses.")
    if (weights.sum(-1) <= 0).any():
        raise ValueError(f"the weights {name} have no mass: at least one point needs a positive weight.")
    try:
        return weights.broadcast_to(shape)
    except RuntimeError as error:
        raise ValueError(
            f"the weights {name} have shape {tuple(weights.shape)}, expected {tuple(shape)} or what broadcasts to it."
        ) from error


def match_mass(a: Tensor, b: Tensor) -> Tensor:
    """Target weights with exactly the total of the source weights, from which they may differ by rounding.

    Raises:
        ValueError: The totals differ by more than MASS_TOLERANCE, relative.
    """
    mass_a, mass_b = a.sum(-1), b.sum(-1)
    gap = ((mass_a - mass_b).abs() / mass_a).max()
    if gap > MASS_TOLERANCE:
        raise ValueError(
            f"a and b differ in total mass by {gap:.2%}, and balanced transport needs equal masses: "
            "divide each by its sum, or relax the marginals by tau_a, tau_b < 1."
        )
    # What is left is rounding; without it the marginal error could not fall below it.
    return b * (mass_a / mass_b)[..., None]


def cost_scale(
    cost: Tensor, a: Tensor, b: Tensor, scale_cost: Scale, forbidden: Tensor | None = None
) -> Float[Tensor, "*batch"]:
    """Divisor of the cost: its mean under a b^T, its maximum over points with mass, or the given number.

    Points of weight zero and forbidden pairs have no influence on either. A cost that is zero everywhere is left as
    it is.

    Raises:
        ValueError: An unknown name, or a scale that is negative or not finite.
    """
    if isinstance(scale_cost, str):
        if scale_cost == "mean":
            scale = _mean(cost, a, b, forbidden)
        elif scale_cost == "max":
            counts = (a > 0)[..., :, None] & (b > 0)[..., None, :]
            if forbidden is not None:
                counts = counts & ~forbidden
            scale = torch.where(counts, cost, -math.inf).amax((-2, -1))
        else:
            raise ValueError(f"scale_cost={scale_cost!r} is unknown, expected 'mean', 'max', a number or None.")
        if (scale < 0).any() or not torch.isfinite(scale).all():
            raise ValueError(
                f"scale_cost={scale_cost!r} gives {scale.flatten().tolist()[:4]}, which cannot divide a cost: rescale "
                "costs that overflow, and give costs that may be negative a positive number as scale_cost."
            )
        return torch.where(scale > 0, scale, 1.0)
    scale = torch.as_tensor(1.0 if scale_cost is None else scale_cost, dtype=cost.dtype, device=cost.device)
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"scale_cost={scale_cost} must be positive and finite: costs are divided by it.")
    return scale.broadcast_to(cost.shape[:-2])


def _mean(cost: Tensor, a: Tensor, b: Tensor, forbidden: Tensor | None) -> Tensor:
    share_a, share_b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    if forbidden is None:
        return (share_a * (cost @ share_b[..., None])[..., 0]).sum(-1)
    total = (share_a * (cost.masked_fill(forbidden, 0.0) @ share_b[..., None])[..., 0]).sum(-1)
    return total / (share_a * ((~forbidden).to(cost) @ share_b[..., None])[..., 0]).sum(-1)
