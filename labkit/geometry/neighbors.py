"""Nearest neighbours and geodesic distances in embedding spaces.

Exact neighbours by one matrix product; the sample itself is excluded by index, never by distance, so duplicates are
neighbours of each other. Ties go to the lower index, so results repeat across runs and devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def knn(z: Float[Tensor, "n d"], k: int, *, metric: str = "cosine") -> Int[Tensor, "n k"]:
    """Indices of the k nearest other samples of each sample, nearest first.

    Args:
        z: points.
        k: neighbours; 1 <= k < n.
        metric: "cosine" or "euclidean".

    Raises:
        ValueError: k outside 1..n-1, or an unknown metric.
    """
    n = len(z)
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and {n - 1} for {n} points; got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean'; got {metric!r}")
    z = z.detach()
    if metric == "cosine":
        unit = torch.nn.functional.normalize(z, dim=1)
        distance = -(unit @ unit.T)
    else:
        distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(torch.inf)
    return distance.sort(dim=1, stable=True).indices[:, :k]


def sphere_distance(x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, " ..."]:
    """Geodesic (great-circle) distance between unit vectors, in radians, 0..pi.

    The shared space of the aligners is the unit sphere, so this is its Riemannian distance. Computed as
    2 atan2(|x - y|, |x + y|) (Kahan), which keeps digits and a finite gradient where arccos(<x, y>) loses both.
    """
    # the offset keeps the gradient of the norm finite at x = y and x = -y
    near = ((x - y).square().sum(-1) + 1e-12).sqrt()
    far = ((x + y).square().sum(-1) + 1e-12).sqrt()
    return 2 * torch.atan2(near, far)
