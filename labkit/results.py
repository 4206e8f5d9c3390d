"""Committed results of the shipped studies: compact tables that notebooks and docs read in a clean checkout.

results/<study>/scores.parquet          the scores of every run, with its cell and the study's axes
results/<study>/<metric>.parquet        per-sample values of the clean test samples
results/<study>/failures.parquet        share of the samples that first fail at each severity
results/<study>/budgets.parquet         what every run cost: seconds, steps, memory
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from labkit.stats import budget_scores
from labkit.store import Store
from labkit.store.errors import explained

FOLDER = Path(__file__).parents[1] / "results"
CLEAN = {"corruption": "none"}


def write(
    study: str, scores: pd.DataFrame, fields: Mapping[str, pd.DataFrame], *, budgets: pd.DataFrame | None = None
) -> Path:
    """Put the tables of a study into `results/<study>/`.

    Args:
        study: name of the folder.
        scores: as from `labkit.study.tables`.
        fields: metric -> per-sample values.
        budgets: as from `Store.budgets`, with cells and axes.

    Returns:
        The folder.

    Raises:
        StoreError: the folder cannot be written; each file is replaced whole or not at all.
    """
    folder = FOLDER / study
    tables = {"scores": scores, **fields, **({} if budgets is None else {"budgets": budgets})}
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
        known = ", ".join(sorted({p.stem for p in folder.glob("*.parquet")} - {"scores", "budgets", "failures"}))
        raise FileNotFoundError(f"{folder} has no per-sample values of {metric!r}; it has those of {known}")
    return pd.read_parquet(folder / "scores.parquet"), pd.read_parquet(folder / f"{metric}.parquet")


def read_all(studies: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Scores of every study that has results, with what its runs cost as further rows.

    Args:
        studies: names of folders of `results/`.
    """
    found = {}
    for study in dict.fromkeys(studies):
        path = FOLDER / study / "scores.parquet"
        if path.is_file():
            scores, costs = pd.read_parquet(path), budgets(study)
            found[study] = scores if costs.empty else pd.concat([scores, budget_scores(costs)], ignore_index=True)
    return found


def budgets(study: str, *, runs: Path | str | None = None) -> pd.DataFrame:
    """What the runs cost, for `labkit.stats.budget_table`; no rows where nothing recorded it.

    Args:
        study: name of a folder of `results/`; ignored where `runs` is given.
        runs: folder of runs to read instead of the committed results; its complete runs count.
    """
    if runs is not None:
        store = Store(runs)
        return store.budgets([run.id for run in store.runs() if run.status == "complete"])
    path = FOLDER / study / "budgets.parquet"
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()


def failures(study: str) -> pd.DataFrame:
    """Which share of the samples of each method first fails at which severity, as from `labkit.stats.failure_shares`.

    Args:
        study: name of a folder of `results/`.

    Raises:
        FileNotFoundError: no such results.
    """
    path = FOLDER / study / "failures.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"no first failures of study {study!r}: `labkit study export {study}` writes {path}")
    return pd.read_parquet(path)
