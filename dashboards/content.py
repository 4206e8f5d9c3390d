"""What the pages show of a run, read once per change on disk and shared by all sessions (never modified)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import panel as pn

from labkit.store import NotComputedError, Run, Store

SPACES = {"shared space": "final", "encoder's own space": "raw"}


@dataclass(frozen=True)
class Content:
    """Tables and arrays of one run."""

    run: Run

    @cached_property
    def points(self) -> pd.DataFrame:
        """Samples of the run."""
        return self.run.points()

    @cached_property
    def modalities(self) -> list[str]:
        """Modalities of the run."""
        return list(self.run.info["modalities"])

    @cached_property
    def projections(self) -> list[str]:
        """Stored 2-D frames, UMAP first."""
        return sorted(self.run.steps("projections"), reverse=True)

    def present(self, modality: str) -> np.ndarray:
        """Rows that have the modality."""
        return np.flatnonzero(self.points[f"present_{modality}"].to_numpy(dtype=bool))

    def vectors(self, modality: str, step: str) -> np.ndarray:
        """Unit vectors of all samples, zero where absent."""
        return _unit_vectors(str(self.run.folder), _stamp(self.run), modality, step)

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
        """Rank (from 1) of each row's own partner among all targets of the shared space, and their cosine distance.

        Only rows that have both modalities count. Ties rank the partner last, so a collapsed space earns nothing.
        """
        gallery = self.present(target)
        rows = np.intersect1d(np.intersect1d(rows, self.present(source)), gallery)
        x, y = self.vectors(source, "final"), self.vectors(target, "final")
        own = np.einsum("ij,ij->i", x[rows], y[rows])
        ranks = [int((y[gallery] @ x[row] >= s - 1e-6).sum()) for row, s in zip(rows, own, strict=True)]
        return np.array(ranks, dtype=int), 1 - own


def load(store: Store, run_id: str) -> Content:
    """Content of a run, from the cache unless its folder changed."""
    run = store.open(run_id)
    return _content(str(run.folder), _stamp(run))


def comparable(store: Store, run_id: str) -> list[str]:
    """Complete runs on the same data as `run_id`, one per variant and seed (the newest)."""
    wanted = store.open(run_id).config["data"]
    table = store.table()
    chosen: dict[tuple[str, int], str] = {}
    for row in table[table["status"] == "complete"].itertuples():
        if store.open(str(row.id)).config["data"] == wanted:
            chosen[(str(row.variant), int(row.seed))] = str(row.id)  # type: ignore[arg-type]
    return list(chosen.values())


def scores(store: Store, ids: list[str]) -> pd.DataFrame:
    """Scores of runs, cached."""
    return _scores(str(store.root), tuple(ids), _stamps(store, ids))


def fields(store: Store, ids: list[str], metric: str) -> pd.DataFrame:
    """Clean per-sample values of runs, cached."""
    return _fields(str(store.root), tuple(ids), metric, _stamps(store, ids))


def _stamp(run: Run) -> int:
    return (run.folder / "run.json").stat().st_mtime_ns


def _stamps(store: Store, ids: list[str]) -> tuple[int, ...]:
    return tuple((store.root / run_id / "run.json").stat().st_mtime_ns for run_id in ids)


@pn.cache(max_items=16, policy="LRU")
def _content(folder: str, stamp: int) -> Content:
    return Content(Run(Path(folder)))


@pn.cache(max_items=64, policy="LRU")
def _unit_vectors(folder: str, stamp: int, modality: str, step: str) -> np.ndarray:
    vectors = np.asarray(Run(Path(folder)).embedding(modality, step), dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


@pn.cache(max_items=4, policy="LRU")
def _scores(root: str, ids: tuple[str, ...], stamps: tuple[int, ...]) -> pd.DataFrame:
    return Store(root).scores(list(ids))


@pn.cache(max_items=16, policy="LRU")
def _fields(root: str, ids: tuple[str, ...], metric: str, stamps: tuple[int, ...]) -> pd.DataFrame:
    try:
        return Store(root).fields(metric, list(ids), where={"corruption": "none"})
    except NotComputedError:
        return pd.DataFrame()
