"""The Sinkhorn divergence: entropic transport without its bias, the transport loss to train with.

    S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 + epsilon (m_a - m_b)^2 / 2

OT alone is not zero for equal clouds and pulls them together towards their mean; S is >= 0, zero for equal clouds,
and keeps their spread. The last term counts the masses, when relaxed marginals let them differ.
Genevay et al. 2018 (AISTATS); Feydy et al. 2019 (AISTATS, positivity); Sejourne et al. 2019 (arXiv:1910.12958, eq. 4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud
from labkit.ot.coupling import warn_unless
from labkit.ot.problem import Scale, Settings
from labkit.ot.sinkhorn import NOT_CONVERGED, solve

if TYPE_CHECKING:
    from jaxtyping import Float


def sinkhorn_divergence(
    x: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch m d"],
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    cost: str = "sqeuclidean",
    epsilon: float = 0.05,
    scale_cost: Scale = "mean",
    tau_a: float = 1.0,
    tau_b: float = 1.0,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> Float[Tensor, "*batch"]:
    """Distance between two clouds in the cost's units, >= 0, 0 for equal clouds; lower is nearer.

    Both hold up to `tolerance` times the largest cost, and mostly far better. Differentiable once in x, y, a and b,
    by the envelope theorem. It does not know which point belongs to which: permuting y changes nothing. In
    mini-batches it is biased upwards, so state the batch size with every value.

    Args:
        x: Source points.
        y: Target points.
        a: Source weights, uniform by default. Zero is allowed.
        b: Target weights.
        cost: "sqeuclidean", "euclidean" or "cosine".
        epsilon: Relative to the scaled cost.
        scale_cost: As in `sinkhorn`, taken once from the cost between x and y, without gradient: all three
            problems share the same absolute epsilon, without which this is no divergence.
        tau_a: rho_a / (rho_a + epsilon) in (0, 1]; 1 fixes the marginal.
        tau_b: As `tau_a`. If the two differ, S(x, x) = 0 holds but neither symmetry nor positivity.
        tolerance: L1 marginal error to reach in each problem.
        max_iterations: For each problem.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough for one of the problems.
    """
    clouds = PointCloud(x, y, cost)
    x, y = clouds.x, clouds.y
    settings = Settings(epsilon, scale_cost, tau_a, tau_b, tolerance, max_iterations)
    cross = solve(clouds, a, b, settings)
    scale = cross.epsilon_absolute / epsilon
    settings = replace(settings, scale_cost=scale)
    source = solve(PointCloud(x, x, cost), a, a, settings)
    target = solve(PointCloud(y, y, cost), b, b, settings)
    converged = cross.converged and source.converged and target.converged
    warn_unless(converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    value = cross.regularized_cost - (source.regularized_cost + target.regularized_cost) / 2
    masses = [torch.ones_like(scale) if w is None else w.to(scale).sum(-1) for w in (a, b)]
    return value + cross.epsilon_absolute * (masses[0] - masses[1]).square() / 2
