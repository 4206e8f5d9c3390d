"""How far a 2-D picture can be trusted, point by point (Venna & Kaski 2001).

Trustworthiness falls with points that are neighbors in the picture but not in the data, continuity with neighbors
of the data that the picture tears apart. The mean over points equals `sklearn.manifold.trustworthiness`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.geometry import knn
from labkit.metrics.pairs import Array, as_pair, blocks

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def trustworthiness(x_high: Float[Array, "n d"], x_low: Float[Array, "n 2"], k: int) -> Float[Tensor, " n"]:
    """How far the k nearest neighbors of each point in the projection are its neighbors in the data, too.

    `T_i = 1 - 2 / (k (2n - 3k - 1)) sum_{j in U_k(i)} (r(i, j) - k)`: U_k(i) are the k nearest of i in `x_low`
    that are not among the k nearest in `x_high`, r(i, j) is the rank of j from i in `x_high` (eq. 1 of Venna &
    Kaski 2001, per point). Range [0, 1], higher is better; the mean is about .5 for a random projection. Euclidean
    distances, self excluded, ties in the order of the samples.

    Raises:
        ValueError: k outside [1, n / 2), rows that differ, or values that are not finite.
    """
    x_high, x_low = as_pair(x_high, x_low)
    n = len(x_high)
    if not 1 <= k < n / 2:
        raise ValueError(f"k must be at least 1 and below n / 2 = {n / 2:g} for the measure to be in [0, 1]; got {k}")
    near = knn(x_low, k, metric="euclidean")
    intrusion = torch.cat([_excess_rank(x_high, near[at], at) for at in blocks(n, n)])
    return 1 - intrusion * 2 / (k * (2 * n - 3 * k - 1))


def reference_trustworthiness(
    x_high: Float[Tensor, "n d"], x_low: Float[Tensor, "n 2"], references: Int[Tensor, " m"], k: int
) -> Float[Tensor, " n"]:
    """Trustworthiness of every point among some reference points only: `n m` distances instead of `n n`.

    Each point is measured as if it and the first m - 1 other references were all there is, so the neighborhoods are
    wider than those of all points: see `trustworthiness` for the formula.

    Raises:
        ValueError: k outside [1, m / 2).
    """
    m = len(references)
    if not 1 <= k < m / 2:
        raise ValueError(f"k must be at least 1 and below m / 2 = {m / 2:g}; got {k}")
    sums = []
    for at in blocks(len(x_high), m):
        rows = torch.arange(len(x_high))[at]
        own = rows[:, None] == references
        own[~own.any(dim=1), -1] = True  # every point is measured against m - 1 others
        clouds = (x_high.float(), x_low.float())
        high, low = (torch.cdist(x[at], x[references]).masked_fill_(own, torch.inf) for x in clouds)
        near = low.topk(k, largest=False).indices
        rank = (high[:, None, :] < high.gather(1, near)[..., None]).sum(dim=2) + 1
        sums.append((rank - k).clamp(min=0).sum(dim=1))
    return 1 - torch.cat(sums).double() * 2 / (k * (2 * m - 3 * k - 1))


def continuity(x_high: Float[Array, "n d"], x_low: Float[Array, "n 2"], k: int) -> Float[Tensor, " n"]:
    """Share of each point's k nearest neighbors in the data that stay near in the projection.

    `trustworthiness` with the two spaces swapped (Venna & Kaski 2001, eq. 2): same range and direction.

    Raises:
        ValueError: k outside [1, n / 2), rows that differ, or values that are not finite.
    """
    return trustworthiness(x_low, x_high, k)


def _excess_rank(x_high: Float[Tensor, "n d"], near: Int[Tensor, "b k"], at: slice) -> Float[Tensor, " b"]:
    """Sum over the neighbors `near` of how far their rank in `x_high` exceeds k; ties in the order of the samples."""
    query = torch.arange(len(x_high), device=x_high.device)[at]
    distance = torch.cdist(x_high[at], x_high, compute_mode="use_mm_for_euclid_dist")
    distance[torch.arange(len(query), device=x_high.device), query] = torch.inf
    theirs = distance.gather(1, near)
    column = torch.arange(len(x_high), device=x_high.device)
    before = [
        ((distance < own[:, None]) | ((distance == own[:, None]) & (column < which[:, None]))).sum(dim=1)
        for own, which in zip(theirs.T, near.T, strict=True)
    ]
    return (torch.stack(before, dim=1) + 1 - near.shape[1]).clamp(min=0).sum(dim=1).double()
