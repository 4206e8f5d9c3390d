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
_CHUNK = 1024  # rows of a similarity matrix held at a time


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
    def _row_of_key(self) -> pd.Index:
        return pd.Index(self.points["key"])

    def rows_of(self, keys: Iterable[str]) -> np.ndarray:
        """Rows of the samples with these keys; unknown keys are left out."""
        rows = self._row_of_key.get_indexer(list(keys))
        return np.unique(rows[rows >= 0])

    def present(self, modality: str) -> np.ndarray:
        """Rows that have the modality."""
        return np.flatnonzero(self.points[f"present_{modality}"].to_numpy(dtype=bool))

    def vectors(self, modality: str, step: str) -> np.ndarray:
        """Unit vectors of all samples, zero where absent.

        Raises:
            NotComputedError: they are not stored.
        """
        return _unit_vectors(str(self.run.folder), self.stamp, modality, step)

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
        rows = self.present(modality)
        if row not in rows:
            return np.array([], dtype=int)
        vectors = self.vectors(modality, step)
        rows = rows[rows != row]
        similarity = vectors[rows] @ vectors[row]
        return rows[np.argsort(-similarity, kind="stable")[:k]]

    def partner_ranks(self, rows: np.ndarray, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Rank (from 1) of each row's own partner among the targets in the shared space, and their cosine distance.

        Samples of the row's own caption group are no competitors: they would be right answers too. Only rows that have
        both modalities count. Ties rank the partner last, so a collapsed space earns nothing.
        """
        gallery = self.present(target)
        rows = np.intersect1d(np.intersect1d(rows, self.present(source)), gallery)
        x, y = self.vectors(source, "final")[rows], self.vectors(target, "final")
        own = np.einsum("ij,ij->i", x, y[rows])
        ranks = np.ones(len(rows), dtype=int)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            above = x[part] @ y[gallery].T >= own[part, None] - 1e-6
            rival = self.groups[gallery] != self.groups[rows[part], None]
            ranks[part] += (above & rival).sum(axis=1)
        return ranks, 1 - own

    def rivals(self, rows: np.ndarray, target: str) -> int:
        """Largest possible rank of a partner: itself and the targets of other groups, the median over rows."""
        counts = pd.Series(self.groups[self.present(target)]).value_counts()
        own = counts.reindex(self.groups[rows]).fillna(0).to_numpy()
        return int(np.median(counts.sum() - own + 1)) if len(rows) else 0


def load(store: Store, run_id: str) -> Content:
    """Content of a run, from the cache unless its folder changed.

    Raises:
        StoreError: no such run, or it cannot be read.
    """
    run = store.open(run_id)
    return _content(str(run.folder), stamp(run))


def stamp(run: Run) -> int:
    """When the run's record last changed; everything cached is keyed by it."""
    return (run.folder / "run.json").stat().st_mtime_ns


@lru_cache(maxsize=16)
def _content(folder: str, stamp: int) -> Content:
    return Content(Run(Path(folder)), stamp)


@lru_cache(maxsize=64)
def _unit_vectors(folder: str, stamp: int, modality: str, step: str) -> np.ndarray:
    vectors = np.asarray(Run(Path(folder)).embedding(modality, step), dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
