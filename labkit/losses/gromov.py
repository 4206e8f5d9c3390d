"""Gromov-Wasserstein losses: the inner distances of two clouds agree, whatever their coordinates.

Blind to rotation, and to which row belongs to which unless a fused cost or known pairs say so. The value is that of a
local optimum; its lower bounds are convex problems, cheaper, and zero for some clouds that are not isometric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit import ot
from labkit.geometry.neighbors import OFFSET
from labkit.losses import LOSSES
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float

TINY = 1e-18  # under the root where all distances are zero


@LOSSES.register("gromov_wasserstein", aliases=("gw",))
@full_precision
def gromov_wasserstein(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"], *, epsilon: float = 0.05) -> Float[Tensor, ""]:
    """Entropic Gromov-Wasserstein with squared Euclidean distances; at least 0, small for isometric clouds.

    Formula: min_P sum |D_x[i,k] - D_y[j,l]|^2 P_ij P_kl + epsilon KL(P | a b'), D squared distances divided by
    their means. The envelope gradient at the local optimum that annealing finds.

    Args:
        x: cloud of one modality.
        y: cloud of the other; rows and dimension may differ.
        epsilon: entropic regularization, in units of a squared mean distance.

    Raises:
        ValueError: a cloud with fewer than two points.

    Source:
        Peyre, Cuturi, Solomon 2016 (ICML), eq. 8; GOTMA proposal, D_GW, without its factor.
    """
    return ot.gromov_wasserstein(_space(x), _space(y), epsilon=epsilon, scale_cost=None).regularized_cost


@LOSSES.register("fused_gromov_wasserstein", aliases=("fgw",))
@full_precision
def fused_gromov_wasserstein(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, epsilon: float = 0.05, alpha: float = 0.5
) -> Float[Tensor, ""]:
    """Fused Gromov-Wasserstein: inner distances agree, and matched points are near each other in the shared space.

    Formula: min_P alpha G(P) + (1 - alpha) <M, P> + epsilon KL(P | a b'), G as in `gromov_wasserstein`, M the squared
    distances between the clouds divided by their mean.

    Args:
        x: cloud of one modality.
        y: cloud of the other, in the same space; it may have another number of rows.
        epsilon: entropic regularization, in units of a squared mean distance.
        alpha: weight of the structure, 0..1.

    Raises:
        ValueError: clouds of different dimensions, or alpha out of range.

    Source:
        Vayer et al. 2020, arXiv:1811.02834, eq. 8.
    """
    across = ot.PointCloud(x, y).matrix()
    across = across / across.mean().clamp(min=torch.finfo(x.dtype).tiny)
    return ot.gromov_wasserstein(
        _space(x), _space(y), epsilon=epsilon, scale_cost=None, fused_cost=across, alpha=alpha
    ).regularized_cost


@LOSSES.register("distance_distribution", aliases=("slb",))
@full_precision
def distance_distribution(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"]) -> Float[Tensor, ""]:
    """Second lower bound of Gromov-Wasserstein: the clouds have the same distances, in whatever places; 0 at best.

    Formula: W_2^2 of the two sets of pairwise distances, each divided by its mean: sorted, they are matched in order.
    Differentiable everywhere but at ties; n^2 log n.

    Raises:
        ValueError: a cloud of fewer than two points.

    Source:
        Memoli 2011, Found. Comput. Math. 11, section 6 (SLB), without his factor and root.
    """
    _check(x, y)
    first, second, width = _matched(*(_distances(z).flatten()[None].sort().values for z in (x, y)))
    return (width * (first - second).square()).sum()


@LOSSES.register("eccentricity", aliases=("flb",))
@full_precision
def eccentricity(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"]) -> Float[Tensor, ""]:
    """First lower bound of Gromov-Wasserstein: points are equally far from all others, in whatever order; 0 at best.

    Formula: W_2^2 of s_i = (mean_k D[i,k]^2)^1/2 in both clouds, D divided by its mean.

    Raises:
        ValueError: a cloud of fewer than two points.

    Source:
        Memoli 2011, Found. Comput. Math. 11, section 6 (FLB), without his factor and root.
    """
    _check(x, y)
    first, second, width = _matched(*(_eccentricities(z)[None].sort().values for z in (x, y)))
    return (width * (first - second).square()).sum()


@LOSSES.register("third_lower_bound", aliases=("tlb",))
@full_precision
def third_lower_bound(x: Float[Tensor, "n d"], y: Float[Tensor, "m e"]) -> Float[Tensor, ""]:
    """Third lower bound of Gromov-Wasserstein: each point has a partner with the same distances to all; 0 at best.

    Formula: min_P sum_ij P_ij W_2^2(D_x[i, .], D_y[j, .]), D divided by its mean. The highest of the three bounds, and
    like them blind to place: isometric clouds have 0. Exact transport between sorted rows, O(n^3).

    Raises:
        ValueError: a cloud of fewer than two points.

    Source:
        Memoli 2011, Found. Comput. Math. 11, section 6 (TLB), without his factor and root.
    """
    _check(x, y)
    first, second, width = _matched(*(_distances(z).sort().values for z in (x, y)))
    return ot.exact(ot.PointCloud(first * width.sqrt(), second * width.sqrt())).cost


def _space(z: Tensor) -> ot.PointCloud:
    """The cloud scaled to a mean squared distance of 1, with the gradient of that; constants stay as they are."""
    mean = 2 * (z - z.mean(dim=0)).square().sum(dim=1).mean()
    z = z / torch.where(mean > 0, mean, torch.ones_like(mean)).sqrt()
    return ot.PointCloud(z, z)


def _distances(z: Tensor) -> Tensor:
    """Euclidean distances off the diagonal [n n-1], divided by their mean; a finite gradient at coinciding points."""
    n = len(z)
    square = (z.square().sum(1)[:, None] + z.square().sum(1) - 2 * z @ z.T).clamp(min=0)
    apart = (
        square[~torch.eye(n, dtype=torch.bool, device=z.device)].view(n, n - 1) + OFFSET * square.mean() + TINY
    ).sqrt()
    return apart / apart.mean().clamp(min=torch.finfo(z.dtype).tiny)


def _eccentricities(z: Tensor) -> Tensor:
    return _distances(z).square().mean(dim=1).sqrt()


def _matched(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantiles of the sorted rows of both at the levels where either steps, and the widths between those levels."""
    n, m = first.shape[1], second.shape[1]
    if n == m:
        return first, second, first.new_full((n,), 1 / n)
    # in units of 1 / (n m), exactly
    steps = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique().to(first.device)
    width = torch.diff(steps, prepend=steps.new_zeros(1)).to(first.dtype) / (n * m)
    return first[:, (steps - 1) // m], second[:, (steps - 1) // n], width


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or min(len(x), len(y)) < 2:
        raise ValueError(f"needs two clouds of at least 2 points; got {list(x.shape)} and {list(y.shape)}")
