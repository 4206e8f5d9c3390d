"""The transport term of the variants that have one, by whichever solver their options name."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from labkit.losses import (
    entropic_ot,
    exact_ot,
    low_rank_divergence,
    sinkhorn_divergence,
    sliced_wasserstein,
    third_lower_bound,
    unbalanced_divergence,
)
from labkit.losses.transport import Cost
from labkit.variants._trained import Pair

Solver = Literal["divergence", "entropic", "unbalanced", "exact", "low_rank", "sliced", "lower_bound"]


def transport(pair: Pair, solver: Solver, *, epsilon: float, cost: Cost = "cosine", tau: float = 0.9) -> Tensor:
    """Transport between the clouds of two modalities.

    divergence   Sinkhorn divergence: zero for equal clouds; the sound one to train with
    entropic     without its debiasing, as the proposals write it
    unbalanced   the divergence with relaxed marginals, by tau in (0, 1): the smaller, the more may stay unmatched
    exact        unregularized
    low_rank     debiased, over plans of rank 8; cosine cost, no epsilon
    sliced       on 256 random lines; cosine cost, no epsilon
    lower_bound  third lower bound of Gromov-Wasserstein, blind to where the clouds are; neither cost nor epsilon
    """
    x, y = pair.cloud_x, pair.cloud_y
    if solver == "divergence":
        return sinkhorn_divergence(x, y, epsilon=epsilon, cost=cost)
    if solver == "entropic":
        return entropic_ot(x, y, epsilon=epsilon, cost=cost)
    if solver == "unbalanced":
        return unbalanced_divergence(x, y, epsilon=epsilon, tau=tau, cost=cost)
    if solver == "exact":
        return exact_ot(x, y, cost=cost)
    if solver == "low_rank":
        return low_rank_divergence(x, y)
    return sliced_wasserstein(x, y) if solver == "sliced" else third_lower_bound(x, y)
