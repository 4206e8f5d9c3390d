"""Neighborhood preservation: how many of a point's k nearest neighbors stay the same between two spaces.

`s = |N_k^x(i) & N_k^y(i)| / k`, self excluded, cosine similarity (mutual kNN of Huh et al. 2024; L_NP of the
GOTMA proposal). Chance is c = k / (n - 1), and the registered metrics report `(s - c) / (1 - c)`: 1 identical,
0 unrelated. Where a tie straddles the k-th place its members count with the probability of being drawn, and
independently in both spaces, so the result depends on no order of the samples and two constant spaces score 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from labkit.metrics import METRICS
from labkit.metrics.pairs import Array, as_pair, blocks, cosine_similarity, rows_with, spread, unordered_pairs
from labkit.types import Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int

K = 10  # neighbors of the registered metrics, as in the literature


def neighborhood_overlap(x: Float[Array, "n d"], y: Float[Array, "n e"], k: int) -> Float[Tensor, " n"]:
    """Share of the k nearest neighbors (cosine, self excluded) that each point has in common in `x` and `y`.

    Range [0, 1], higher is better, not chance-corrected: k / (n - 1) is expected of unrelated spaces.

    Raises:
        ValueError: k outside [1, n - 1], rows that differ, or values that are not finite.
    """
    n = len(as_pair(x, y)[0])
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and n - 1 = {n - 1}, as a point is not its own neighbor; got {k}")
    x = torch.as_tensor(x)
    y = torch.as_tensor(y, device=x.device)
    return torch.cat([_overlap(x, y, at, k) for at in blocks(n, n)])


@METRICS.register("neighborhood_preservation", aliases=("np_score", "mutual_knn"))
def neighborhood_preservation(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Chance-corrected overlap of the 10 nearest neighbors of a sample in two modalities of the shared space.

    Neighbors are sought among the samples that have both modalities; pairs with fewer than 12 of them have no
    Score. `per_point` is corrected too. At most 1, chance 0, higher is better; symmetric, so each pair once.
    """
    scores = []
    for source, target in unordered_pairs(aligned):
        rows = rows_with(aligned, source, target)
        scores += _score("neighborhood_preservation", aligned.z[source], aligned.z[target], rows, (source, target))
    return scores


@METRICS.register("neighborhood_kept")
def neighborhood_kept(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Chance-corrected overlap of a sample's 10 nearest neighbors in the encoder's space and after alignment.

    One Score per modality (`source`), over the samples that have it; fewer than 12 give none. `per_point` is
    corrected too. At most 1 (the alignment kept every neighborhood), chance 0, higher is better.

    Raises:
        ValueError: `raw` has other samples than `aligned`, or lacks a modality.
    """
    if not np.array_equal(aligned.key, raw.key):
        raise ValueError("aligned and raw must hold the same samples in the same order; their keys differ")
    scores = []
    for modality, space in raw.select(aligned.modalities).z.items():
        rows = (aligned.present[modality].cpu() & raw.present[modality].cpu()).nonzero().flatten()
        scores += _score("neighborhood_kept", aligned.z[modality], space, rows, (modality, ""))
    return scores


def _score(name: str, x: Tensor, y: Tensor, rows: Int[Tensor, " q"], pair: tuple[str, str]) -> list[Score]:
    n = len(rows)
    if n < K + 2:  # with n = k + 1 all others are neighbors and chance is 1
        return []
    chance = K / (n - 1)
    values = (neighborhood_overlap(x[rows], y[rows], K) - chance) / (1 - chance)
    return [
        Score(
            name=name,
            value=float(values.mean()),
            higher_is_better=True,
            n=n,
            per_point=spread(values, rows, len(x)),
            chance=0.0,
            source=pair[0],
            target=pair[1],
        )
    ]


def _overlap(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], at: slice, k: int) -> Float[Tensor, " b"]:
    return (_membership(x, at, k) * _membership(y, at, k)).sum(dim=1) / k


def _membership(x: Float[Tensor, "n d"], at: slice, k: int) -> Float[Tensor, "b n"]:
    """Probability of each point to be among the k nearest of each query when ties are broken at random."""
    similarity = cosine_similarity(x[at], x)
    query = torch.arange(len(x), device=x.device)[at]
    similarity[torch.arange(len(query), device=x.device), query] = -torch.inf
    kth = similarity.topk(k, dim=1).values[:, -1:]
    nearer, tied = similarity > kth, similarity == kth
    left = k - nearer.sum(dim=1, keepdim=True)
    return nearer + tied * (left.double() / tied.sum(dim=1, keepdim=True))
