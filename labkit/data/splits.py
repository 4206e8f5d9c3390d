"""Train, validation and test rows such that a group never straddles two of them.

Things with the same caption share a group: were they split, a test caption would have been seen in training, and
retrieval would be scored on leaked pairs. Groups are shuffled by the seed and dealt out in that order, each to the
split in which the middle of its things falls, so the shares hold for things, not for groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from labkit.types import Embeddings

SPLITS = {"train": 0.60, "validation": 0.15, "test": 0.25}


def split_groups(group: np.ndarray, seed: int) -> np.ndarray:
    """Name of the split of each row.

    Args:
        group: integers [n]; rows that share one stay together.
        seed: of the shuffle of the groups.

    Returns:
        Array [n] of "train", "validation" and "test" in the shares of `SPLITS`.

    Raises:
        ValueError: fewer than three groups, so that a split would be empty.
    """
    _, group_of_row, sizes = np.unique(group, return_inverse=True, return_counts=True)
    if len(sizes) < len(SPLITS):
        raise ValueError(f"a split into {', '.join(SPLITS)} needs at least {len(SPLITS)} groups; got {len(sizes)}")
    order = np.random.default_rng(seed).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    bounds = np.cumsum(list(SPLITS.values()))[:-1] * len(group_of_row)
    part = np.searchsorted(bounds, middle, side="right")
    part[0], part[-1] = 0, len(SPLITS) - 1  # tiny data: the ends are never empty
    if not (part == 1).any():
        part[-2] = 1
    part_of_group = np.empty(len(sizes), dtype=int)
    part_of_group[order] = part
    return np.array(list(SPLITS))[part_of_group[group_of_row]]


def split(embeddings: Embeddings, seed: int) -> dict[str, np.ndarray]:
    """Row indices of train (60 %), validation (15 %) and test (25 %), whole groups each.

    Raises:
        ValueError: fewer than three groups.
    """
    names = split_groups(embeddings.groups.cpu().numpy(), seed)
    return {name: np.flatnonzero(names == name) for name in SPLITS}
