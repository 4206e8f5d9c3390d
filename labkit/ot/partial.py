"""Partial transport: only a given mass moves, and the problem chooses which.

    min_P  <C, P> + epsilon [KL(P | a b^T) + KL(a - P 1 | (|a| - s) a) + KL(b - P^T 1 | (|b| - s) b)]
    P >= 0,   P 1 <= a,   P^T 1 <= b,   |P| = s

What stays behind goes to one more point on each side, at no cost, and nothing goes between these two: partial
transport is balanced transport of the clouds so extended (Chapel, Alaya, Gasso 2020, NeurIPS, section 3; Caffarelli,
McCann 2010). The entropy counts what stays as well, so that all of the mass (s = |a| = |b|) is plain `sinkhorn`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.problem import MASS_TOLERANCE, Scale, Settings, check_weights, cost_scale
from labkit.ot.restricted import Restricted
from labkit.ot.sinkhorn import NOT_CONVERGED, solve

if TYPE_CHECKING:
    from jaxtyping import Float


def partial_sinkhorn(
    geometry: Geometry,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    mass: float,
    epsilon: float = 0.05,
    scale_cost: Scale = "mean",
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> Coupling:
    """Move a given mass from one cloud to another at the least cost.

    Args:
        geometry: `PointCloud` or `CostMatrix`, batch dimensions in front.
        a: Source weights >= 0, uniform by default: at most this leaves each point.
        b: Target weights: at most this arrives. The totals may differ.
        mass: How much moves, in (0, min(|a|, |b|)], in the units of the weights.
        epsilon: Strength of the entropy, relative to the scaled cost.
        scale_cost: As in `sinkhorn`.
        tolerance: L1 marginal error to reach, slack included, as a fraction of |a| + |b| - mass.
        max_iterations: Over all stages of epsilon.

    Returns:
        The coupling of the points themselves. `regularized_cost` is differentiable once in the geometry.

    Raises:
        TypeError: Input that is not a floating-point tensor, or a Restricted geometry.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    if isinstance(geometry, Restricted):
        raise TypeError("partial transport takes no Restricted geometry: use ot.sinkhorn with tau_a, tau_b < 1.")
    with full_precision(geometry.device):
        cost = geometry.matrix()
        slack = with_slack(a, b, mass, cost.detach())
        scale = cost_scale(cost.detach(), slack.a, slack.b, scale_cost)
        settings = Settings(epsilon, scale, 1.0, 1.0, tolerance, max_iterations)
        coupling = slack.visible(slack.solve(cost, settings), geometry)
    warn_unless(coupling.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    return coupling


@dataclass(frozen=True, eq=False)
class Slack:
    """The weights of two clouds, and of the point on each side that takes what stays behind on the other.

    Attributes:
        a: Source weights. b: target weights. Checked and detached.
        left_a: Mass that stays in the source: the weight of the additional target.
        left_b: Mass that stays out of the target: the weight of the additional source.
    """

    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    left_a: Float[Tensor, "*batch"]
    left_b: Float[Tensor, "*batch"]

    @property
    def weights(self) -> tuple[Float[Tensor, "*batch n+1"], Float[Tensor, "*batch m+1"]]:
        """Weights of the extended clouds; their totals agree."""
        return torch.cat([self.a, self.left_b[..., None]], -1), torch.cat([self.b, self.left_a[..., None]], -1)

    def solve(self, cost: Tensor, settings: Settings, init: tuple[Tensor, Tensor] | None = None) -> Coupling:
        """Balanced transport of the extended clouds; `settings.scale_cost` must be a number or None."""
        extended = torch.nn.functional.pad(cost, (0, 1, 0, 1))
        corner = torch.zeros(extended.shape[-2:], dtype=torch.bool, device=cost.device)
        corner[-1, -1] = True
        return solve(Restricted(CostMatrix(extended), forbidden=corner), *self.weights, settings, init)

    def visible(self, extended: Coupling, geometry: Geometry) -> Coupling:
        """The part of an extended coupling that is between the points themselves."""
        coupling = replace(
            extended, geometry=geometry, a=self.a, b=self.b, f=extended.f[..., :-1], g=extended.g[..., :-1]
        )
        # The pair of additional points has no mass and counts for nothing.
        constant = extended.epsilon_absolute * self.left_a * self.left_b
        return replace(coupling, regularized_cost=extended.regularized_cost - constant)

    def extend(self, plan: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n+1 m+1"]:
        """A plan with what stays behind in one more column and row."""
        stays_a, stays_b = (self.a - plan.sum(-1)).clamp_min(0), (self.b - plan.sum(-2)).clamp_min(0)
        rows = torch.cat([plan, stays_a[..., None]], -1)
        last = torch.nn.functional.pad(stays_b, (0, 1))[..., None, :]
        return torch.cat([rows, last], -2)


def with_slack(a: Tensor | None, b: Tensor | None, mass: float, like: Float[Tensor, "*batch n m"]) -> Slack:
    """Check the weights and the mass for a cost of the shape of `like`.

    Raises:
        ValueError: Weights that are not usable, or a mass that is not in (0, min(|a|, |b|)].
    """
    a = check_weights(a, like.shape[:-1], like, "a")
    b = check_weights(b, (*like.shape[:-2], like.shape[-1]), like, "b")
    total_a, total_b = a.sum(-1), b.sum(-1)
    most = float(torch.minimum(total_a, total_b).min())
    if not (math.isfinite(mass) and 0 < mass <= most * (1 + MASS_TOLERANCE)):
        raise ValueError(f"mass={mass} must be in (0, {most:.6g}]: no more can move than either side has.")
    return Slack(a, b, (total_a - mass).clamp_min(0), (total_b - mass).clamp_min(0))
