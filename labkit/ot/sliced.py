"""Sliced Wasserstein: the mean transport cost of one-dimensional shadows of two clouds.

    SW_p^p = mean over directions u of  W_p^p(<u, x>, <u, y>),   W_p^p = int_0^m |F^-1(t) - G^-1(t)|^p dt

In one dimension transport is sorting: F^-1 and G^-1 are step functions that change at the cumulated weights. The
cost is n log n for each direction and no plan is made. Rabin et al. 2011 (SSVM); Bonneel et al. 2015 (J. Math.
Imaging Vis. 51); the error of the mean over random directions: Nadjahi et al. 2020 (NeurIPS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud, full_precision
from labkit.ot.problem import check_weights, match_mass

if TYPE_CHECKING:
    from jaxtyping import Float


class SlicedWasserstein(NamedTuple):
    """Estimate of SW_p^p, differentiable, and its standard error over the random directions, detached."""

    value: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]


def sliced_wasserstein(
    x: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch m d"],
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    n_projections: int = 100,
    p: float = 2.0,
    generator: torch.Generator | None = None,
) -> SlicedWasserstein:
    """Sliced Wasserstein distance to the power p, in units of length to the power p, >= 0; lower is nearer.

    Value ** (1 / p) is a distance; without the root the mean is unbiased and has a gradient at 0. For p = 2 it is
    at most W_2^2 / d. It does not know which point belongs to which: permuting y changes nothing.

    Args:
        x: Source points.
        y: Target points, in the same space.
        a: Source weights >= 0, uniform by default. Points of weight zero have no influence.
        b: Target weights, with the total of `a`; the value is proportional to that total.
        n_projections: Random directions, at least 2, shared by all problems of a batch.
        p: Power >= 1 of the distance.
        generator: Source of the directions; the global one by default.

    Returns:
        The estimate, differentiable in x, y and (up to a constant) a and b, with its standard error.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
    """
    if n_projections < 2:
        raise ValueError(f"n_projections={n_projections} must be at least 2: the standard error needs two.")
    if not 1 <= p < math.inf:
        raise ValueError(f"p={p} must be finite and at least 1.")
    clouds = PointCloud(x, y)
    *batch, n, m = clouds.shape
    with full_precision(clouds.device):
        directions = _directions(clouds, n_projections, generator)
        shadows = [(z @ directions).mT.expand(*batch, n_projections, -1) for z in (clouds.x, clouds.y)]
        if a is None and b is None and n == m:
            costs = _power(shadows[0].sort(-1).values - shadows[1].sort(-1).values, p).mean(-1)
        else:
            weights = _live_weights(a, b, (*batch, n), (*batch, m), clouds.x)
            costs = _quantile_cost(shadows, weights, p)
        deviation = costs.detach().std(-1) / math.sqrt(n_projections)
        return SlicedWasserstein(costs.mean(-1), deviation)


def _directions(clouds: PointCloud, count: int, generator: torch.Generator | None) -> Tensor:
    device = clouds.device if generator is None else generator.device
    size = (clouds.x.shape[-1], count)
    normal = torch.randn(size, generator=generator, device=device, dtype=clouds.dtype)
    return (normal / torch.linalg.vector_norm(normal, dim=0)).to(clouds.device)


def _live_weights(
    a: Tensor | None, b: Tensor | None, shape_a: tuple[int, ...], shape_b: tuple[int, ...], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Checked weights that keep their gradients, b with exactly the total of a."""
    checked = check_weights(a, shape_a, like, "a"), check_weights(b, shape_b, like, "b")
    rounding = match_mass(*checked).sum(-1, keepdim=True) / checked[1].sum(-1, keepdim=True)
    pairs = zip((a, b), checked, strict=True)
    live_a, live_b = (c if w is None else w.to(like.dtype).expand(c.shape) for w, c in pairs)
    return live_a, live_b * rounding


def _quantile_cost(shadows: list[Tensor], weights: tuple[Tensor, Tensor], p: float) -> Tensor:
    """W_p^p of each pair of one-dimensional clouds [..., directions, points]."""
    points, levels = [], []
    for shadow, weight in zip(shadows, weights, strict=True):
        shadow, order = shadow.sort(-1)
        points.append(shadow)
        # In single precision the sums would drift by more than one of many weights.
        levels.append(weight.double()[..., None, :].expand(shadow.shape).gather(-1, order).cumsum(-1))
    merged = torch.cat(levels, -1).sort(-1).values
    # Between two levels both quantile functions are constant; the first piece begins at 0.
    length = torch.diff(merged, dim=-1, prepend=torch.zeros_like(merged[..., :1])).to(points[0].dtype)
    quantiles = [
        point.gather(-1, torch.searchsorted(level.detach(), merged.detach()).clamp_max(point.shape[-1] - 1))
        for point, level in zip(points, levels, strict=True)
    ]
    return (length * _power(quantiles[0] - quantiles[1], p)).sum(-1)


def _power(difference: Tensor, p: float) -> Tensor:
    return difference.square() if p == 2 else difference.abs().pow(p)
