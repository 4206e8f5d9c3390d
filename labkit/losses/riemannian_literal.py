"""The Riemannian losses as the proposals write them, to show what their sound readings change; and the one of LLE.

Literal forms are sums over one modality's neighbor sets, not normalized: their value grows with the number of neighbors
and with the scale of the embeddings, and scale 0 minimizes them. Rows are taken as they are, not normalized inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.geometry import knn, nearest, shortest_paths
from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RIDGE = 1e-3  # of the neighbors' Gram matrix, relative to its trace, as in scikit-learn


@LOSSES.register("rc_literal")
@full_precision
def rc_literal(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Riemannian consistency as proposed: one-sided, in the units of the embeddings; 0 for isometric copies.

    Formula: 1/N sum_i sum_{j in N_k(x_i)} (g_x(i, j) - g_y(i, j))^2, g the length of the shortest path in the
    modality's own neighborhood graph. Unsound: constants make it 0, only neighbors in x count, and its scale is that of
    the embeddings, so that shrinking them lowers it. Where N_k is looked up among the same rows, g_x is the edge
    itself. `rc` and `rc_global` are the sound readings.

    Args:
        x: the modality whose neighbors count.
        y: the other, paired.
        neighbors_x: neighbors of each sample; the k nearest rows of x by default.
        k: neighbors where they are not given, and of both graphs.

    Raises:
        ValueError: x and y are not two matrices of one shape, or have no k neighbors.

    Source:
        GOTMA proposal, section 2.2.3 (L_RC).
    """
    check_paired(x, y)
    neighbors_x = nearest(x, k).index if neighbors_x is None else neighbors_x
    here = torch.arange(len(x), device=x.device)[:, None].expand_as(neighbors_x)
    pairs = torch.stack([here.flatten(), neighbors_x.flatten()], dim=1)
    g_x, g_y = (shortest_paths(z, pairs, k=k).lengths(z) for z in (x, y))
    return (g_x - g_y).square().sum() / len(x)


@LOSSES.register("rma_literal")
@full_precision
def rma_literal(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Riemannian manifold alignment as proposed: each x near the partners of its neighbors; 0 only at constants.

    Formula: sum_i sum_{j in N_k(x_i)} |x_i - y_j|^2. Unsound: positive at perfect alignment, where it is the neighbors'
    own distance, 0 where all rows are equal or zero, and it grows with N and k. N_k could also be the rows of y nearest
    to x_i: that would not see the pairing at all. `rma_isometric` and `rma_lle` are the sound readings.

    Args:
        x: the modality of the anchors (text in the proposal).
        y: the other, paired.
        neighbors_x: neighbors of each sample; the k nearest rows of x by default.
        k: neighbors where they are not given.

    Raises:
        ValueError: x and y are not two matrices of one shape, or have no k neighbors.

    Source:
        Geometric alignment proposal, L_RMA, N_k read as indices in the anchor's own modality.
    """
    check_paired(x, y)
    neighbors_x = nearest(x, k).index if neighbors_x is None else neighbors_x
    return (x[:, None] - y[neighbors_x]).square().sum()


@LOSSES.register("rma_lle")
@full_precision
def rma_lle(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    neighbors_y: Int[Tensor, "n k"] | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Each modality is rebuilt by the other's weights of locally linear embedding; small, not 0, at alignment.

    Formula: 1/N sum_i |y_i - sum_{j in N_k(x_i)} w_ij y_j|^2, averaged with x and y exchanged; w_i minimizes
    |x_i - sum_j w_ij x_j|^2 with sum_j w_ij = 1 and has a gradient, too. Blind to a rotation of one modality
    against the other. Rows are normalized inside; constants make it 0.

    Args:
        x: one modality.
        y: the other, paired.
        neighbors_x: neighbors of each sample in the first modality; the k nearest rows of x by default.
        neighbors_y: the same for the second.
        k: neighbors where they are not given.

    Raises:
        ValueError: x and y are not two matrices of one shape, or have no k neighbors.

    Source:
        Roweis and Saul 2000, Science 290; Geometric alignment proposal, L_RMA, read as what the neighbors say of the
        anchor.
    """
    check_paired(x, y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    neighbors_x = knn(x, k) if neighbors_x is None else neighbors_x
    neighbors_y = knn(y, k) if neighbors_y is None else neighbors_y
    return (_rebuilt(x, y, neighbors_x) + _rebuilt(y, x, neighbors_y)) / 2


def _rebuilt(x: Tensor, y: Tensor, neighbors: Tensor) -> Tensor:
    """Mean squared error of y from its neighbors by the weights of x."""
    weights = _lle_weights(x, neighbors)
    return (y - (weights[:, :, None] * y[neighbors]).sum(dim=1)).square().sum(dim=1).mean()


def _lle_weights(x: Tensor, neighbors: Tensor) -> Float[Tensor, "n k"]:
    towards = (x[neighbors] - x[:, None]).double()
    gram = towards @ towards.mT
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    # coinciding neighbors have a zero matrix: then all weights are equal
    ridge = torch.where(trace > 0, RIDGE * trace, torch.ones_like(trace))
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram, gram.new_ones(gram.shape[:2]))
    return (weights / weights.sum(dim=1, keepdim=True)).to(x.dtype)
