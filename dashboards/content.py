"""What the pages show of one run, read once per change on disk and shared by all sessions (never modified)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from labkit.store import Run, Store

SPACES = {"shared space": "final", "encoder's own space": "raw"}
LONGEST = 200  # letters of a search
LARGE = 20_000  # samples of a run whose vectors are not held in memory
MOST = 5_000  # samples that are ranked at once, of a run that is not large
MOST_LARGE = 1_000  # the same of a large one, against twice as many targets
_PART = 65_536  # vectors read at a time
_CHANCE = 2_000  # random pairs that tell what a distance is worth
_CHUNK = 1024  # rows of a similarity matrix held at a time


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the partners of some samples are.

    Attributes:
        rank: of each partner, from 1.
        distance: cosine distance to it.
        pairs: how many pairs there are; `rank` may be a sample of them.
        last: the largest possible rank, the median over rows; smaller than the targets where they were sampled.
        chance: cosine distances of random pairs of other groups.
        gap: distance between the mean vectors of both ends of the pairs (Liang et al. 2022), all of them unit vectors.
    """

    rank: np.ndarray
    distance: np.ndarray
    pairs: int
    last: int
    chance: np.ndarray
    gap: float


@dataclass(frozen=True, eq=False)
class Content:
    """Tables and arrays of one run.

    Attributes:
        run: the run.
        stamp: when its record last changed.
    """

    run: Run
    stamp: int

    @cached_property
    def points(self) -> pd.DataFrame:
        """Samples of the run."""
        return self.run.points()

    @cached_property
    def modalities(self) -> list[str]:
        """Modalities of the run."""
        return list(self.run.info["modalities"])

    @cached_property
    def groups(self) -> np.ndarray:
        """Caption group of every sample."""
        return self.points["group"].to_numpy()

    @cached_property
    def steps(self) -> list[str]:
        """Steps of the training that have vectors or a frame, first to last; raw features are no step."""
        kinds = (self.run.steps("projections"), self.run.steps("embeddings"))
        found = {step for kind in kinds for steps in kind.values() for step in steps} - {"raw"}
        return sorted(found - {"final"}, key=int) + ["final"] * ("final" in found)

    @cached_property
    def has_curves(self) -> bool:
        """Whether the run was measured under corruptions."""
        return self.run.has("scores") and bool((self.run.scores()["corruption"] != "none").any())

    @cached_property
    def index(self) -> pd.Index:
        """Keys of the samples."""
        return pd.Index(self.points["key"])

    def rows_of(self, keys: Iterable[str]) -> np.ndarray:
        """Rows of the samples with these keys; unknown keys are left out."""
        rows = self.index.get_indexer(list(keys))
        return np.unique(rows[rows >= 0])

    def present(self, modality: str) -> np.ndarray:
        """Rows that have the modality."""
        return np.flatnonzero(self._has(modality))

    def _has(self, modality: str) -> np.ndarray:
        return self.points[f"present_{modality}"].to_numpy(dtype=bool)

    @property
    def is_large(self) -> bool:
        """Whether vectors are read in parts, and ranks are estimated from samples."""
        return len(self.points) > LARGE

    def search(self, text: str) -> np.ndarray:
        """Rows whose caption (key, where there are no captions) contains the text, whatever the case."""
        texts = self.points["caption"] if "caption" in self.points else self.points["key"]
        found = texts.fillna("").str.contains(text.strip()[:LONGEST], case=False, regex=False)
        return np.flatnonzero(found.to_numpy(dtype=bool))

    def vectors(self, modality: str, step: str, rows: np.ndarray | slice) -> np.ndarray:
        """Unit vectors of some samples, zero where absent.

        Raises:
            NotComputedError: they are not stored.
        """
        if self.is_large:
            return _unit(self.run.embedding(modality, step)[rows])
        return _unit_vectors(str(self.run.folder), self.stamp, modality, step)[rows]

    def field(self, metric: str) -> pd.DataFrame:
        """Clean per-sample values of a metric: key, source, value.

        A value of a pair of modalities without a direction counts for both of them.

        Raises:
            NotComputedError: it is not stored.
        """
        field = self.run.field(metric, where={"corruption": "none"})[["key", "source", "target", "value"]]
        pairs = set(zip(field["source"], field["target"], strict=True))
        if all(b and (b, a) not in pairs for a, b in pairs):
            field = pd.concat([field, field.rename(columns={"source": "target", "target": "source"})])
        return field[["key", "source", "value"]]

    def nearest(self, row: int, modality: str, *, step: str, k: int) -> np.ndarray:
        """Rows of the k samples most similar to `row` within a modality, itself excluded; empty where it is absent."""
        if row not in self.present(modality):
            return np.array([], dtype=int)
        own = self.vectors(modality, step, np.array([row]))[0]
        return self.most_similar(own, modality, step=step, k=k, but=row)[0]

    def most_similar(
        self, vector: np.ndarray, modality: str, *, step: str, k: int, but: int = -1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the k samples of a modality most similar to a unit vector, and their cosine similarities.

        Args:
            vector: in the space of `step`.
            modality: of the samples.
            step: see `vectors`.
            k: how many.
            but: a row that does not count.
        """
        similarity, rows = self.similarities(vector, modality, step), self.present(modality)
        rows = rows[rows != but]
        near = rows[np.argpartition(-similarity[rows], k)[: 4 * k]] if len(rows) > 4 * k else rows
        near = rows[similarity[rows] >= similarity[near].min()] if len(rows) > 4 * k else rows
        near = near[np.argsort(-similarity[near], kind="stable")[:k]]
        return near, similarity[near]

    def similarities(self, vector: np.ndarray, modality: str, step: str) -> np.ndarray:
        """Cosine similarity of every sample to a unit vector, 0 where the modality is absent."""
        starts = range(0, len(self.points), _PART)
        return np.concatenate([self.vectors(modality, step, slice(at, at + _PART)) @ vector for at in starts])

    def partner_ranks(self, rows: np.ndarray, source: str, target: str, step: str = "final") -> Ranks:
        """Rank (from 1) of each row's own partner among the targets in the shared space, and their cosine distance.

        `rows` has no row twice; those that have both modalities count. Samples of the row's own caption group are no
        competitors: they would be right answers too. Ties rank the partner last, so a collapsed space earns nothing.
        Of large runs, and of many rows, a sample is ranked, of large runs against a sample of the targets.
        """
        gallery = self.present(target)
        rows = rows[self._has(source)[rows] & self._has(target)[rows]]
        pairs, random = len(rows), np.random.default_rng(0)
        most, against = (MOST_LARGE if self.is_large else MOST), 2 * MOST_LARGE if self.is_large else len(gallery)
        if pairs > most:
            rows = np.sort(random.choice(rows, most, replace=False))
        if len(gallery) > against:
            gallery = np.sort(random.choice(gallery, against, replace=False))
        x, y = self.vectors(source, step, rows), self.vectors(target, step, gallery)
        partner = self.vectors(target, step, rows)
        own = np.einsum("ij,ij->i", x, partner)
        ranks = np.ones(len(rows), dtype=int)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            above = x[part] @ y.T >= own[part, None] - 1e-6
            rival = self.groups[gallery] != self.groups[rows[part], None]
            ranks[part] += (above & rival).sum(axis=1)
        gap = float(np.linalg.norm(x.mean(axis=0) - partner.mean(axis=0))) if pairs else np.nan
        i, j = random.integers(0, max(len(rows), 1), (2, _CHANCE if len(rows) > 1 else 0))
        other = self.groups[rows[i]] != self.groups[rows[j]]
        chance = 1 - np.einsum("ij,ij->i", x[i[other]], partner[j[other]])
        return Ranks(ranks, 1 - own, pairs, self._last(rows, gallery), chance, gap)

    def _last(self, rows: np.ndarray, gallery: np.ndarray) -> int:
        """Largest possible rank of a partner: itself and the targets of other groups, the median over rows."""
        counts = pd.Series(self.groups[gallery]).value_counts()
        own = counts.reindex(self.groups[rows]).fillna(0).to_numpy()
        return int(np.median(counts.sum() - own + 1)) if len(rows) else 0


def load(store: Store, run_id: str) -> Content:
    """Content of a run, from the cache unless its folder changed.

    Raises:
        StoreError: no such run, or it cannot be read.
    """
    run = store.open(run_id)
    return at(str(run.folder), stamp(run))


def stamp(run: Run) -> int:
    """When the run's record last changed; everything cached is keyed by it."""
    return (run.folder / "run.json").stat().st_mtime_ns


@lru_cache(maxsize=8)
def at(folder: str, stamp: int) -> Content:
    """Content of the folder of a run as it was at `stamp`."""
    return Content(Run(Path(folder)), stamp)


@lru_cache(maxsize=64)
def _unit_vectors(folder: str, stamp: int, modality: str, step: str) -> np.ndarray:
    return _unit(Run(Path(folder)).embedding(modality, step))


def _unit(stored: np.ndarray) -> np.ndarray:
    vectors = np.asarray(stored, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
