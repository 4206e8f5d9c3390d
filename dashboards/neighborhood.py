"""The neighbors of one sample in each modality, and where each of them stands in the others.

Neighbors are looked up among the stored vectors, never in a 2-D map, and a sample is no neighbor of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dashboards.content import Content


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest samples of a modality.

    Attributes:
        rows: nearest first.
        similarity: cosine of each.
        rank: other modality -> rank of each there, from 1; 0 where it has no such item.
    """

    rows: np.ndarray
    similarity: np.ndarray
    rank: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """What is near to one sample.

    Attributes:
        row: the sample.
        near: modality -> its neighbors there; modalities that the sample lacks are left out.
        others: modality -> samples that could be a neighbor there.
    """

    row: int
    near: Mapping[str, Near]
    others: Mapping[str, int]

    @property
    def rows(self) -> np.ndarray:
        """Neighbors in any modality."""
        return np.unique(np.concatenate([np.zeros(0, dtype=int), *(n.rows for n in self.near.values())]))

    def shared(self) -> list[tuple[str, str, int, int, float]]:
        """Each two modalities, how many neighbors they share, of how many, and how many two random lists would."""
        found = []
        for a, b in combinations(self.near, 2):
            x, y = self.near[a].rows, self.near[b].rows
            chance = len(x) * len(y) / max(self.others[a], self.others[b], 1)
            found.append((a, b, len(np.intersect1d(x, y)), min(len(x), len(y)), chance))
        return found

    def marked(self) -> set[int]:
        """Neighbors in two modalities or more."""
        every = np.concatenate([np.zeros(0, dtype=int), *(n.rows for n in self.near.values())])
        rows, counts = np.unique(every, return_counts=True)
        return set(rows[counts > 1].tolist())


def around(content: Content, row: int, *, step: str, k: int) -> Neighborhood:
    """The k nearest samples in each modality, itself excluded.

    Raises:
        NotComputedError: the vectors of this step are not stored.
    """
    has = [m for m in content.modalities if content.points[f"present_{m}"].iloc[row]]
    similarity = {m: content.similarities(content.vectors(m, step, np.array([row]))[0], m, step) for m in has}
    there = {m: content.present(m)[content.present(m) != row] for m in has}
    near = {}
    for m in has:
        rows = _largest(similarity[m], there[m], k)
        ranks = {other: _ranks(similarity[other], there[other], rows) for other in has if other != m}
        near[m] = Near(rows, similarity[m][rows], ranks)
    return Neighborhood(row, near, {m: len(rows) for m, rows in there.items()})


def _largest(similarity: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """The k rows of largest similarity, first rows first among equals."""
    found = similarity[rows]
    if len(rows) > k:
        least = np.partition(found, len(rows) - k)[len(rows) - k]
        rows, found = rows[found >= least], found[found >= least]
    return rows[np.argsort(-found, kind="stable")[:k]]


def _ranks(similarity: np.ndarray, there: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rank of some rows among those that are there; equals share the best rank."""
    order = np.sort(similarity[there])
    ranks = len(order) - np.searchsorted(order, similarity[rows], side="right") + 1
    return np.where(np.isin(rows, there), ranks, 0)
