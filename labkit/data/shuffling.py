"""Training samples that are paired wrongly: what a method makes of mistakes in its pairs.

The items of the chosen samples change places within their modality, so that in a chosen sample no two items come from
the same group any more: a caption stands beside the picture of another thing. Which samples lack which modality does
not change, nor does the set of items. Who is chosen depends on the seed alone, and those of a smaller share are among
those of a larger one, so that runs with different shares are compared on nested data.
"""

from __future__ import annotations

import numpy as np
import torch

from labkit.types import Embeddings

ROUNDS = 1000


def shuffle_pairs(samples: Embeddings, share: float, *, seed: int) -> Embeddings:
    """Pair a share of the samples wrongly.

    Args:
        samples: what has two or more items counts as paired; what has one stays as it is.
        share: of the paired samples that are paired wrongly, in 0..1.
        seed: of the choice and of the new places.

    Returns:
        The same samples in the same order; key, label and group stay with the first item of each.

    Raises:
        ValueError: too few samples are chosen to pair all of them wrongly.
    """
    present = torch.stack([samples.present[m] for m in samples.modalities], dim=1).cpu().numpy()
    paired = np.flatnonzero(present.sum(axis=1) > 1)
    random = np.random.default_rng([seed, 2])
    chosen = np.sort(random.permutation(paired)[: round(share * len(paired))])
    if not len(chosen):
        return samples
    group = samples.groups.cpu().numpy()
    # column by column, the groups of the items that a sample has so far; no group is below 0
    source = np.full((len(samples), len(samples.modalities)), -1)
    z = {}
    for i, m in enumerate(samples.modalities):
        rows = chosen[present[chosen, i]]
        first = present[rows, :i].sum(axis=1) == 0
        given = _away(group[rows], source[rows, :i], first, random)
        if given is None:
            raise ValueError(
                f"data.shuffled is {share}: {len(rows)} of {len(paired)} paired training samples were to get an item "
                f"of {m!r} of another group than their other items, which cannot be done; raise it, or set it to 0"
            )
        source[rows, i] = group[rows[given]]
        order = np.arange(len(samples))
        order[rows] = rows[given]
        z[m] = samples.z[m][torch.as_tensor(order, device=samples.device)]
    return samples.with_z(z)


def _away(group: np.ndarray, taken: np.ndarray, first: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
    """A permutation after which row i has an item of no group in `taken[i]`; a row's first item stays.

    None if none is found: bad places are exchanged with random ones until there is none, which takes a few rounds where
    groups are small.
    """
    given, movable = np.arange(len(group)), np.flatnonzero(~first)
    given[movable] = random.permutation(movable)
    for _ in range(ROUNDS):
        wrong = movable[(group[given[movable], None] == taken[movable]).any(axis=1)]
        if not len(wrong):
            return given
        for i, j in zip(wrong, random.choice(movable, size=len(wrong)), strict=True):
            given[[i, j]] = given[[j, i]]
    return None
