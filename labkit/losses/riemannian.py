"""Riemannian losses: distances to neighbors, or along the whole manifold, agree between modalities.

All take the combinatorics as given, neighbor index sets or shortest paths, which carry no gradient; they are made from
the rows where they are not given. All are symmetric, and their weight means the same for any number of samples,
neighbors and modalities. Constants make all zero: a variant that uses them carries a contrastive or variance term as
well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from labkit.geometry import knn, shortest_paths
from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision
from labkit.losses.distances import Distance, between, within

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from labkit.geometry import Paths


@LOSSES.register("rma_isometric", aliases=("rma",))
@full_precision
def rma_isometric(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    neighbors_y: Int[Tensor, "n k"] | None = None,
    k: int = 10,
    distance: Distance = "euclidean",
) -> Float[Tensor, ""]:
    """Riemannian manifold alignment, isometric reading; 0 at x = y.

    Formula: 1/(N k) sum_i sum_{j in N_k(x_i)} (d(x_i, x_j) - d(x_i, y_j))^2, averaged with x and y exchanged: the
    neighbors of an anchor, carried over by the pairing, keep their distance d to it, by default |x_i - x_j|. Rows are
    normalized inside.

    Args:
        x: one modality.
        y: the other, paired.
        neighbors_x: neighbors of each sample in the first modality; the k nearest rows of x by default.
        neighbors_y: the same for the second.
        k: neighbors where they are not given, and of the graph of "geodesic" and "diffusion".
        distance: "euclidean" (the chord), "sphere" (the angle), "cosine" (1 - cos), or, on the cloud of both modalities
            together, "geodesic" (shortest paths in its neighborhood graph) or "diffusion".

    Raises:
        ValueError: x and y are not two matrices of one shape, have no k neighbors, or the distance is unknown.

    Source:
        Geometric alignment proposal, L_RMA; its literal form |x_i - y_j|^2 is positive at perfect alignment and
        minimal at the constant map, hence the isometric reading.
    """
    check_paired(x, y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    neighbors_x, neighbors_y = _neighbor_sets((x, neighbors_x), (y, neighbors_y), k)
    d_x, d_y, across = between(x, y, distance, k=k)
    from_x = (d_x - across).gather(1, neighbors_x)
    from_y = (d_y - across.T).gather(1, neighbors_y)
    return (from_x.square().mean() + from_y.square().mean()) / 2


@LOSSES.register("rc")
@full_precision
def rc(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    neighbors_y: Int[Tensor, "n k"] | None = None,
    k: int = 10,
    distance: Distance = "sphere",
) -> Float[Tensor, ""]:
    """Riemannian consistency, symmetrized; 0 when neighbor distances agree, in particular for isometric copies.

    Formula: 1/(N k) sum_i sum_{j in N_k(i)} (d(x_i, x_j)/mean d_x - d(y_i, y_j)/mean d_y)^2, over the
    neighbor sets of both modalities together; d is by default the geodesic of the unit sphere that the rows lie on.

    Args:
        x: one modality.
        y: the other, paired.
        neighbors_x: neighbors of each sample in the first modality; the k nearest rows of x by default.
        neighbors_y: the same for the second.
        k: neighbors where they are not given, and of the graphs of "geodesic" and "diffusion".
        distance: "sphere" (the angle), "euclidean" (the chord), "cosine" (1 - cos), "geodesic" (shortest paths in the
            modality's neighborhood graph: between neighbors in the modality itself the chord, so it matters for the
            other one) or "diffusion". The last two take O(n^2 log n) and O(n^3).

    Raises:
        ValueError: x and y are not two matrices of one shape, have no k neighbors, or the distance is unknown.

    Source:
        GOTMA proposal, section 2.2.3 (L_RC); symmetrized, divided by k and scale-normalized.
    """
    check_paired(x, y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    neighbors_x, neighbors_y = _neighbor_sets((x, neighbors_x), (y, neighbors_y), k)
    d_x, d_y = (within(z, distance, k=k) for z in (x, y))
    # both neighbor sets at once, and the mean distance as a number: few passes over all pairs
    near = torch.cat([neighbors_x, neighbors_y], dim=1)
    stress = (d_x.gather(1, near) / _mean(d_x) - d_y.gather(1, near) / _mean(d_y)).square()
    of_x, of_y = stress.split([neighbors_x.shape[1], neighbors_y.shape[1]], dim=1)
    return (of_x.mean() + of_y.mean()) / 2


@LOSSES.register("rc_global")
@full_precision
def rc_global(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    paths_x: Paths | None = None,
    paths_y: Paths | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Riemannian consistency at all ranges: geodesic distances agree; 0 for isometric copies.

    Formula: 2/(N (N-1)) sum_{i<j} (g_x(i, j)/mean g_x - g_y(i, j)/mean g_y)^2, the stress of Isomap; g is the length
    of the shortest path in the neighborhood graph of the modality's own rows, which are normalized inside. The
    gradient goes through the lengths of the edges of fixed paths.

    Args:
        x: one modality.
        y: the other, paired.
        paths_x: `labkit.geometry.shortest_paths` of the normalized rows of the first modality, made now if not given.
            They take most of the time: a training loop may keep them for some steps of a fixed batch.
        paths_y: the same for the second, between the same pairs, which need not be all: then the means are over those.
        k: neighbors of the graphs where paths are not given.

    Raises:
        ValueError: x and y are not two matrices of one shape, or have no k neighbors; paths between other pairs or
            of another number of rows.

    Source:
        GOTMA proposal, section 2.2.3 (L_RC): between neighbors the geodesic is the edge itself, so only distances
        beyond them need the graph. Stress: Tenenbaum, de Silva & Langford, Science 290, 2000.
    """
    check_paired(x, y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    paths_x = shortest_paths(x, k=k) if paths_x is None else paths_x
    paths_y = shortest_paths(y, k=k) if paths_y is None else paths_y
    if not paths_x.pairs.equal(paths_y.pairs):
        raise ValueError("paths_x and paths_y must connect the same pairs in one order: make both of the same `pairs`")
    return (_relative(paths_x.lengths(x)) - _relative(paths_y.lengths(y))).square().mean()


def _relative(lengths: Tensor) -> Tensor:
    return lengths / _mean(lengths)


def _mean(lengths: Tensor) -> Tensor:
    return lengths.mean().clamp(min=torch.finfo(lengths.dtype).tiny)


def _neighbor_sets(
    first: tuple[Tensor, Tensor | None], second: tuple[Tensor, Tensor | None], k: int
) -> tuple[Tensor, Tensor]:
    """The neighbor sets that were given, looked up among the rows where they were not."""
    (x, given_x), (y, given_y) = first, second
    return knn(x, k) if given_x is None else given_x, knn(y, k) if given_y is None else given_y
