"""Riemannian losses: distances to neighbours agree between modalities.

Both take neighbour index sets as given (combinatorics carries no gradient), look them up in either modality and average
the two readings, so the loss is symmetric and its weight means the same for any number of samples, neighbours and
modalities. Constants make both zero: a variant that uses them carries a contrastive or variance term as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.geometry import knn, sphere_distance
from labkit.losses import LOSSES

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@LOSSES.register("rma_isometric", aliases=("rma",))
def rma_isometric(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    neighbors_y: Int[Tensor, "n k"] | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Riemannian manifold alignment, isometric reading; 0 at x = y.

    Formula: 1/(N k) sum_i sum_{j in N_k(x_i)} (|x_i - x_j| - |x_i - y_j|)^2, averaged with x and y exchanged:
    the neighbours of an anchor, carried over by the pairing, keep their distance to it. Unit rows.

    Args:
        x: one modality.
        y: the other, paired.
        neighbors_x: neighbours of each sample in the first modality; the k nearest rows of x by default.
        neighbors_y: the same for the second.
        k: neighbours where they are not given.

    Source:
        Geometric alignment proposal, L_RMA; its literal form |x_i - y_j|^2 is positive at perfect alignment and
        minimal at the constant map, hence the isometric reading.
    """
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    neighbors_x = knn(x, k) if neighbors_x is None else neighbors_x
    neighbors_y = knn(y, k) if neighbors_y is None else neighbors_y

    def one_sided(anchor: Tensor, other: Tensor, neighbors: Tensor) -> Tensor:
        inside = _distance(anchor[:, None], anchor[neighbors])
        across = _distance(anchor[:, None], other[neighbors])
        return (inside - across).square().mean()

    return (one_sided(x, y, neighbors_x) + one_sided(y, x, neighbors_y)) / 2


@LOSSES.register("rc")
def rc(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    neighbors_x: Int[Tensor, "n k"] | None = None,
    neighbors_y: Int[Tensor, "n k"] | None = None,
    k: int = 10,
) -> Float[Tensor, ""]:
    """Riemannian consistency, symmetrised; 0 when neighbour distances agree, in particular for isometric copies.

    Formula: 1/(N k) sum_i sum_{j in N_k(i)} (d(x_i, x_j)/mean d_x - d(y_i, y_j)/mean d_y)^2, over the
    neighbour sets of both modalities together; d is the geodesic of the unit sphere that the rows lie on.

    Args:
        x: one modality.
        y: the other, paired.
        neighbors_x: neighbours of each sample in the first modality; the k nearest rows of x by default.
        neighbors_y: the same for the second.
        k: neighbours where they are not given.

    Source:
        GOTMA proposal, section 2.2.3 (L_RC); symmetrised, divided by k and scale-normalised.
    """
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    neighbors_x = knn(x, k) if neighbors_x is None else neighbors_x
    neighbors_y = knn(y, k) if neighbors_y is None else neighbors_y
    neighbors = torch.cat([neighbors_x, neighbors_y], dim=1)
    d_x = sphere_distance(x[:, None], x[neighbors]) / _mean_angle(x)
    d_y = sphere_distance(y[:, None], y[neighbors]) / _mean_angle(y)
    return (d_x - d_y).square().mean()


def _mean_angle(unit: Tensor) -> Tensor:
    """Mean great-circle distance over all pairs, from the Gram matrix (n^2 numbers, not n^2 d)."""
    cosine = (unit @ unit.T).clamp(-1, 1)
    # the offset bounds the gradient of the square roots on the diagonal
    return (2 * torch.atan2((1 - cosine + 1e-6).sqrt(), (1 + cosine + 1e-6).sqrt())).mean()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    # the offset keeps the gradient finite where two samples coincide
    return ((a - b).square().sum(-1) + 1e-12).sqrt()
