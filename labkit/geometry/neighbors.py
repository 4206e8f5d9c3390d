"""Nearest neighbors and geodesic distances in embedding spaces.

The sample itself is excluded by index, never by distance, so duplicates are neighbors of each other. Ties go to the
lower index, so results repeat across runs, devices and numbers of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from labkit.geometry import approximate
from labkit.geometry.cloud import require_cloud, scaled
from labkit.geometry.search import exact_neighbors

if TYPE_CHECKING:
    from jaxtyping import Float, Int


# added under square roots, so that their gradient at zero is finite
OFFSET = 1e-6
# points beyond which exact search on a CPU takes minutes
LARGEST_EXACT = 200_000


class Neighbors(NamedTuple):
    """Nearest other points of each point, nearest first, and how far they are.

    Attributes:
        index: rows of the neighbors.
        distance: in the precision of the points (float32 for half precision), without gradient.
        recall: share of the true neighbors that was found: 1 for exact search, else measured on 500 points.
    """

    index: Int[Tensor, "n k"]
    distance: Float[Tensor, "n k"]
    recall: float = 1.0


def nearest(z: Float[Tensor, "n d"], k: int, *, metric: str = "euclidean", exact: bool | None = None) -> Neighbors:
    """The k nearest other points of each point, ties to the lower index.

    Exact at every scale and distance from the origin, at the speed of a matrix product. More than 200,000 points on a
    CPU are searched approximately where faiss is installed.

    Args:
        z: finite points.
        k: neighbors; 1 <= k < n.
        metric: "euclidean", or "cosine": 1 - cosine similarity, 0..2. Zero vectors have similarity 1 with each other
            and 0 with all others.
        exact: True or False to decide otherwise than by the number of points.

    Raises:
        TypeError: z is not of a floating-point dtype.
        ValueError: z is no matrix of 2 finite points or more; k outside 1..n-1; an unknown metric; distances beyond
            the range of the dtype.
        ImportError: approximate search was asked for and faiss is not installed.
    """
    require_cloud(z)
    if len(z) < 2:
        raise ValueError("neighbors need at least 2 points; got 1")
    if not 1 <= k < len(z):
        raise ValueError(f"k must be between 1 and {len(z) - 1} for {len(z)} points; got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean'; got {metric!r}")
    points, unit = _directions(z) if metric == "cosine" else scaled(z)
    if exact is None:
        exact = len(z) <= LARGEST_EXACT or z.is_cuda or not approximate.available()
    found, recall = (exact_neighbors(points, k), 1.0) if exact else approximate.approximate_neighbors(points, k)
    distance = found.distance.square() / 2 if metric == "cosine" else found.distance * unit
    distance = distance.to(torch.promote_types(z.dtype, torch.float32))
    if not bool(torch.isfinite(distance).all()):
        raise ValueError(f"distances are beyond the range of {distance.dtype}: rescale z or pass it as float64")
    return Neighbors(found.index, distance, recall)


def knn(z: Float[Tensor, "n d"], k: int, *, metric: str = "cosine") -> Int[Tensor, "n k"]:
    """Indices of the k nearest other samples of each sample, nearest first: `nearest` by cosine, if not told otherwise.

    Raises:
        TypeError, ValueError: as `nearest` does.
    """
    return nearest(z, k, metric=metric).index


def _directions(z: Tensor) -> tuple[Tensor, float]:
    """Unit vectors in float64; zero vectors get a dimension of their own."""
    points = z.detach().double()
    points = points / points.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    points = torch.nn.functional.normalize(points, dim=1)
    zero = ~points.any(dim=1, keepdim=True)
    return (torch.cat([points, zero.double()], dim=1) if bool(zero.any()) else points), 1.0


def sphere_distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Geodesic (great-circle) distances between unit vectors, in radians, 0..pi.

    The shared space of the aligners is the unit sphere, so this is its Riemannian distance. Computed from the Gram
    matrix as 2 atan2(sqrt(1 - c), sqrt(1 + c)), whose gradient stays finite where that of arccos(c) does not: at
    coinciding and antipodal points. Distances below about 1e-3 lose digits to the offset that does it.
    """
    angle = _Angle.apply((x @ y.T).clamp(-1, 1))
    assert isinstance(angle, Tensor)
    return angle


class _Angle(torch.autograd.Function):
    """2 atan2(sqrt(u), sqrt(v)) of u = 1 - c + OFFSET, v = 1 + c + OFFSET, with its derivative -1 / sqrt(u v).

    The chain rule through both roots gives the same number in three times the time.
    """

    @staticmethod
    def forward(ctx: Any, cosine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine)
        return torch.atan2((1 - cosine).add_(OFFSET).sqrt_(), (1 + cosine).add_(OFFSET).sqrt_()).mul_(2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (cosine,) = ctx.saved_tensors
        return -grad_outputs[0] * ((1 - cosine + OFFSET) * (1 + cosine + OFFSET)).rsqrt()


def chord_distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Euclidean distances between unit vectors, 0..2, with a finite gradient at coinciding points."""
    return (2 - 2 * (x @ y.T).clamp(-1, 1) + OFFSET).sqrt()
