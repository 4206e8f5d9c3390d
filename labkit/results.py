"""Committed results of the shipped studies: compact tables that notebooks and docs read in a clean checkout.

results/<study>/scores.parquet          every score of every run
results/<study>/<metric>.parquet        per-sample values of the clean test samples
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from labkit.store import Store
from labkit.store.errors import explained

FOLDER = Path(__file__).parents[1] / "results"
CLEAN = {"corruption": "none"}


def write(store: Store, ids: Sequence[str], study: str, *, metrics: Sequence[str] = ("recall_at_10",)) -> Path:
    """Copy the scores of runs into `results/<study>/`.

    Args:
        store: where the runs are.
        ids: complete runs.
        study: name of the folder.
        metrics: whose per-sample values are copied, too.

    Returns:
        The folder.

    Raises:
        ValueError: no runs.
        StoreError: a run cannot be read, or the folder cannot be written; each file is replaced whole or not at all.
    """
    if not ids:
        raise ValueError(f"study {study!r} has no complete runs in {store.root}: `labkit study run {study}` makes them")
    folder = FOLDER / study
    tables = {"scores": store.scores(list(ids))}
    tables |= {metric: store.fields(metric, list(ids), where=CLEAN) for metric in metrics}
    with explained("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            scratch = folder / f".tmp-{name}.parquet"
            try:
                table.to_parquet(scratch, index=False, compression="zstd")
                scratch.replace(folder / f"{name}.parquet")
            finally:
                scratch.unlink(missing_ok=True)
    return folder


def read(
    study: str, *, metric: str = "recall_at_10", runs: Path | str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, and the per-sample values of `metric`.

    Args:
        study: name of a folder of `results/`; ignored where `runs` is given.
        metric: of the per-sample values.
        runs: folder of runs to read instead of the committed results; its complete runs count.

    Raises:
        FileNotFoundError: no such results; the message lists what there is.
        ValueError: no complete run in `runs`.
    """
    if runs is not None:
        store = Store(runs)
        ids = [run.id for run in store.runs() if run.status == "complete"]
        if not ids:
            raise ValueError(f"no complete runs in {store.root}: `labkit run` or `labkit study run` makes some")
        return store.scores(ids), store.fields(metric, ids, where=CLEAN)
    folder = FOLDER / study
    if not (folder / "scores.parquet").is_file():
        known = ", ".join(sorted(p.parent.name for p in FOLDER.glob("*/scores.parquet"))) or "none"
        raise FileNotFoundError(f"no results of study {study!r} in {FOLDER}; there are: {known}")
    if not (folder / f"{metric}.parquet").is_file():
        known = ", ".join(sorted({p.stem for p in folder.glob("*.parquet")} - {"scores"}))
        raise FileNotFoundError(f"{folder} has no per-sample values of {metric!r}; it has those of {known}")
    return pd.read_parquet(folder / "scores.parquet"), pd.read_parquet(folder / f"{metric}.parquet")
