"""Committed results of the shipped studies: compact tables that notebooks and docs read in a clean checkout.

    results/<study>/scores.parquet          every score of every run
    results/<study>/<metric>.parquet        per-sample values of the clean test samples
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from labkit.store import Store

FOLDER = Path(__file__).parents[1] / "results"
CLEAN = {"corruption": "none"}


def write(store: Store, ids: Sequence[str], study: str, *, metrics: Sequence[str] = ("recall_at_10",)) -> Path:
    """Copy the scores of runs into `results/<study>/`.

    Raises:
        ValueError: no runs.
    """
    if not ids:
        raise ValueError(f"study {study!r} has no complete runs in {store.root}: `labkit study run {study}` makes them")
    folder = FOLDER / study
    folder.mkdir(parents=True, exist_ok=True)
    store.scores(list(ids)).to_parquet(folder / "scores.parquet", index=False, compression="zstd")
    for metric in metrics:
        fields = store.fields(metric, list(ids), where=CLEAN)
        fields.to_parquet(folder / f"{metric}.parquet", index=False, compression="zstd")
    return folder


def read(
    study: str, *, metric: str = "recall_at_10", runs: Path | str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, and the per-sample values of `metric`.

    Args:
        study: name of a folder of `results/`; ignored where `runs` is given.
        metric: of the per-sample values.
        runs: folder of runs to read instead of the committed results.

    Raises:
        FileNotFoundError: no such results; the message lists what there is.
    """
    if runs is not None:
        store = Store(runs)
        return store.scores(), store.fields(metric, where=CLEAN)
    folder = FOLDER / study
    if not (folder / "scores.parquet").is_file():
        known = ", ".join(sorted(p.parent.name for p in FOLDER.glob("*/scores.parquet"))) or "none"
        raise FileNotFoundError(f"no results of study {study!r} in {FOLDER}; there are: {known}")
    return pd.read_parquet(folder / "scores.parquet"), pd.read_parquet(folder / f"{metric}.parquet")
