"""The Sinkhorn divergence: entropic transport without its bias, the transport loss to train with.

    S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 + epsilon (m_a - m_b)^2 / 2

OT alone is not zero for equal clouds and pulls them together towards their mean; S is >= 0, zero for equal clouds,
and keeps their spread. The last term counts the masses, when relaxed marginals let them differ.
Genevay et al. 2018 (AISTATS); Feydy et al. 2019 (AISTATS, positivity); Sejourne et al. 2019 (arXiv:1910.12958, eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud, full_precision
from labkit.ot.coupling import warn_unless
from labkit.ot.problem import Scale, Settings, check_weights, cost_scale, match_mass
from labkit.ot.sinkhorn import NOT_CONVERGED, solve

if TYPE_CHECKING:
    from jaxtyping import Float

Start = tuple[Tensor, Tensor] | None


class WarmStart:
    """Memory between calls of `sinkhorn_divergence`: each call starts from the potentials of the last one.

    For a training loop that sees the same points in the same order in every step (a full batch, or one object for
    each fixed batch): the potentials then move little. Starting from those of other points is slower than starting
    afresh. Ignored when shape, dtype or device have changed; epsilon and weights may change.
    """

    def __init__(self) -> None:
        self._potentials: list[Start] = [None, None, None]

    def clear(self) -> None:
        """Forget, so that the next call starts afresh."""
        self._potentials = [None, None, None]

    def starts(self, clouds: PointCloud) -> list[Start]:
        """The remembered (f, g) of the three problems that these clouds make; None for each if they do not fit."""
        *batch, n, m = clouds.shape
        kept = self._potentials[0]
        fits = (
            kept is not None
            and kept[0].shape == (*batch, n)
            and kept[1].shape == (*batch, m)
            and (kept[0].dtype, kept[0].device) == (clouds.dtype, clouds.device)
        )
        return list(self._potentials) if fits else [None, None, None]

    def keep(self, potentials: list[tuple[Tensor, Tensor]]) -> None:
        """Remember the (f, g) of the three problems."""
        self._potentials = [(f.detach(), g.detach()) for f, g in potentials]


@dataclass(frozen=True, eq=False)
class Three:
    """The problems x to y, x to x, and y to y, solved at one absolute epsilon.

    Attributes:
        values: Their optimal values, in that order.
        potentials: Their (f, g).
        epsilon: Absolute.
        converged: Whether all of them reached their tolerance.
    """

    values: tuple[Tensor, Tensor, Tensor]
    potentials: list[tuple[Tensor, Tensor]]
    epsilon: Float[Tensor, "*batch"]
    converged: bool


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
    warm_start: WarmStart | None = None,
) -> Float[Tensor, "*batch"]:
    """Distance between two clouds in the cost's units, >= 0, 0 for equal clouds; lower is nearer.

    Both hold up to `tolerance` times the largest cost, and mostly far better. Differentiable in x, y, a and b by the
    envelope theorem, and twice by implicit differentiation. It does not know which point belongs to which: permuting
    y changes nothing. In mini-batches it is biased upwards, so state the batch size with every value.

    Args:
        x: Source points.
        y: Target points.
        a: Source weights, uniform by default. Zero is allowed.
        b: Target weights.
        cost: "sqeuclidean", "euclidean", "cosine" or "geodesic".
        epsilon: Relative to the scaled cost.
        scale_cost: As in `sinkhorn`, taken once from the cost between x and y, without gradient: all three
            problems share the same absolute epsilon, without which this is no divergence.
        tau_a: rho_a / (rho_a + epsilon) in (0, 1]; 1 fixes the marginal.
        tau_b: As `tau_a`. If the two differ, S(x, x) = 0 holds but neither symmetry nor positivity.
        tolerance: L1 marginal error to reach in each problem.
        max_iterations: For each problem.
        warm_start: Start from the potentials that it remembers, and let it remember the new ones.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough for one of the problems.
    """
    clouds = PointCloud(x, y, cost)
    settings = Settings(epsilon, scale_cost, tau_a, tau_b, tolerance, max_iterations)
    starts: list[Start] = [None, None, None] if warm_start is None else warm_start.starts(clouds)
    n, m = clouds.shape[-2:]
    # On an accelerator three small problems cost as much as one; on a CPU one cloud with itself is faster alone.
    three = (together if n == m and clouds.device.type != "cpu" else in_turn)(clouds, (a, b), settings, starts)
    if warm_start is not None:
        warm_start.keep(three.potentials)
    warn_unless(three.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    cross, source, target = three.values
    masses = [torch.ones_like(three.epsilon) if w is None else w.to(three.epsilon).sum(-1) for w in (a, b)]
    return cross - (source + target) / 2 + three.epsilon * (masses[0] - masses[1]).square() / 2


def in_turn(
    clouds: PointCloud, weights: tuple[Tensor | None, Tensor | None], settings: Settings, starts: list[Start]
) -> Three:
    """One problem after the other; one cloud with itself takes the symmetric iteration."""
    x, y, cost = clouds.x, clouds.y, clouds.cost
    a, b = weights
    # Clouds with other batch dimensions than the pair would make values of other shapes than the cross value.
    batch = clouds.shape[:-2]
    cross = solve(clouds, a, b, settings, starts[0])
    epsilon = cross.epsilon_absolute
    settings = replace(settings, scale_cost=epsilon / settings.epsilon)
    values, potentials, converged = [cross.regularized_cost], [(cross.f, cross.g)], cross.converged
    del cross
    for points, w, start in ((x, a, starts[1]), (y, b, starts[2])):
        points = points if points.shape[:-2] == batch else points.expand(*batch, *points.shape[-2:])
        coupling = solve(PointCloud(points, points, cost), w, w, settings, start)
        values.append(coupling.regularized_cost)
        potentials.append((coupling.f, coupling.g))
        converged = converged and coupling.converged
    return Three((values[0], values[1], values[2]), potentials, epsilon, converged)


def together(
    clouds: PointCloud, weights: tuple[Tensor | None, Tensor | None], settings: Settings, starts: list[Start]
) -> Three:
    """All three as one batch, for clouds of equal size."""
    *batch, n, _ = clouds.shape
    x, y = (z.expand(*batch, *z.shape[-2:]) for z in (clouds.x, clouds.y))
    a, b = weights
    with torch.no_grad(), full_precision(clouds.device):
        matrix = clouds.matrix()
        fixed_a, fixed_b = check_weights(a, (*batch, n), matrix, "a"), check_weights(b, (*batch, n), matrix, "b")
        if settings.tau_a == settings.tau_b == 1:
            match_mass(fixed_a, fixed_b)
        scale = cost_scale(matrix, fixed_a, fixed_b, settings.scale_cost)
        del matrix
    a, b = (fixed if w is None else w.to(fixed).expand(*batch, n) for w, fixed in ((a, fixed_a), (b, fixed_b)))
    known = [start for start in starts if start is not None]
    init = (torch.stack([f for f, _ in known]), torch.stack([g for _, g in known])) if len(known) == 3 else None
    coupling = solve(
        PointCloud(torch.stack([x, x, y]), torch.stack([y, x, y]), clouds.cost),
        torch.stack([a, a, b]),
        torch.stack([b, a, b]),
        replace(settings, scale_cost=scale.expand(3, *scale.shape)),
        init,
    )
    cross, source, target = coupling.regularized_cost
    potentials = list(zip(coupling.f, coupling.g, strict=True))
    return Three((cross, source, target), potentials, coupling.epsilon_absolute[0], coupling.converged)
