"""Runs that were measured under corruptions, and what the pages say of their curves; cached by the runs' state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboards.catalog import Listing
from dashboards.comparison import Comparison, comparable
from dashboards.content import Content, stamp
from dashboards.methods import configuration, data_of
from labkit import stats
from labkit.store import Run, Store, StoreError
from labkit.views import words

FIELD = "recall_at_10"  # per-sample values of it are stored under corruptions, too
ALL = ""  # instead of a direction: the mean over them


@dataclass(frozen=True)
class Curve:
    """A corruption of a modality.

    Attributes:
        corruption: its name.
        corrupted: the modality.
    """

    corruption: str
    corrupted: str

    @classmethod
    def parse(cls, text: str) -> Curve:
        """The inverse of `str`."""
        corruption, _, corrupted = text.partition(" of ")
        return cls(corruption, corrupted)

    def __str__(self) -> str:
        return f"{self.corruption} of {self.corrupted}"

    @property
    def where(self) -> dict[str, str]:
        """Values of the columns of scores and fields."""
        return {"corruption": self.corruption, "corrupted": self.corrupted}


def measured(listing: Listing, run_id: str) -> Comparison:
    """The runs on the data of `run_id` that have curves; each variant in one configuration, its own first."""
    found = _with_curves(listing, run_id)
    return comparable(found, run_id if run_id in found.records else next(iter(found.records), ""))


def example(store: Store, runs: Comparison, run_id: str) -> Run | None:
    """The run whose curves are offered: `run_id` if it has some, else another one on its data."""
    return store.open(run_id if run_id in runs.ids else runs.ids[0]) if runs.ids else None


def metrics(run: Run) -> list[str]:
    """Metrics of a run that have curves and of which more is better, recall first."""
    scores = run.scores()
    rows = scores[(scores["corruption"] != "none") & scores["higher_is_better"]]
    return sorted(rows["metric"].unique(), key=lambda m: (m != FIELD, not m.startswith("recall"), m))


def curves(run: Run, metric: str) -> list[Curve]:
    """What a run was measured under."""
    rows = run.scores().query("corruption != 'none' and metric == @metric")
    pairs = rows[["corruption", "corrupted"]].drop_duplicates().sort_values(["corrupted", "corruption"])
    return [Curve(*pair) for pair in pairs.itertuples(index=False)]


def directions(run: Run, metric: str) -> list[tuple[str, str]]:
    """From which modality to which a metric was measured under corruptions."""
    rows = run.scores().query("corruption != 'none' and metric == @metric")
    return sorted(set(zip(rows["source"], rows["target"], strict=True)))


@lru_cache(maxsize=32)
def seed_curves(runs: Comparison, metric: str, direction: tuple[str, str] | None) -> pd.DataFrame:
    """See `labkit.stats.seed_curves`; all corruptions of the directions.

    Raises:
        StoreError: nothing was measured in this direction.
    """
    scores = _scores(runs, metric)
    try:
        return stats.seed_curves(scores, metric=metric, directions=None if direction is None else [direction])
    except ValueError as error:
        raise StoreError(str(error)) from error


@lru_cache(maxsize=32)
def levels(runs: Comparison, metric: str, direction: tuple[str, str] | None) -> pd.DataFrame:
    """See `labkit.stats.curve_levels`; methods that lack one of the directions are left out."""
    found = stats.curve_levels(seed_curves(runs, metric, direction), test_share=runs.test_share)
    return found.dropna(subset=["value"])


def areas(
    runs: Comparison, metric: str, direction: tuple[str, str] | None, curve: Curve, *, baseline: str
) -> pd.DataFrame:
    """Area under one curve, relative to the clean value, of every method, and its paired difference to `baseline`.

    Returns:
        Texts: method, value when clean, area, seeds, difference, p (Holm) and seeds of both; best area first.
    """
    rows = seed_curves(runs, metric, direction)
    rows = rows[(rows["corruption"] == curve.corruption) & (rows["corrupted"] == curve.corrupted)]
    numbers = stats.curve_numbers(rows)[["corruption", "corrupted", "method", "seed", "area"]]
    found = stats.summarize_numbers(numbers, test_share=runs.test_share).dropna(subset=["value"])
    found = found.sort_values("value", ascending=False).set_index("method")
    clean = rows[rows["severity"] == 0].groupby("method")["value"].mean().reindex(found.index)
    columns = {"method": found.index, "when clean": clean.map("{:.3f}".format), "area": _with_spans(found, "value")}
    columns |= {"seeds": found["seeds"]}
    if baseline in set(numbers["method"]):
        versus = stats.compare_numbers(numbers, number="area", baseline=baseline, test_share=runs.test_share)
        versus = versus.set_index("method").reindex(found.index)
        columns |= {
            f"difference to {baseline}": _with_spans(versus, "difference"),
            "p (Holm)": ["" if pd.isna(p) else f"{p:.3f}" for p in versus["p_holm"]],
            "seeds of both": ["" if pd.isna(n) else f"{n:.0f}" for n in versus["seeds"]],
        }
    return pd.DataFrame(columns).reset_index(drop=True)


@lru_cache(maxsize=64)
def samples(folder: str, stamp: int, curve: Curve) -> pd.DataFrame:
    """Per-sample curves of one run, see `labkit.stats.sample_curves`.

    Raises:
        StoreError: they are not stored.
    """
    run = Run(Path(folder))
    store = Store(run.folder.parent)
    clean = store.fields(FIELD, [run.id], where={"corruption": "none"})
    corrupted = store.fields(FIELD, [run.id], where=curve.where)
    try:
        return stats.sample_curves(pd.concat([clean, corrupted], ignore_index=True))
    except ValueError as error:
        told = f"run {run.id} has no per-sample values under {curve}"
        raise StoreError(f"{told}: `labkit robustness {run.id}` measures them") from error


def failing(run: Run, curve: Curve, severity: float, direction: tuple[str, str] | None) -> list[str]:
    """Keys of the samples of a run that fail at a severity and not when clean; in any direction where none is given.

    Raises:
        StoreError: per-sample values are not stored.
    """
    table = samples(str(run.folder), stamp(run), curve)
    if direction is not None:
        source, target = (table.index.get_level_values(name) for name in ("source", "target"))
        table = table[(source == direction[0]) & (target == direction[1])]
    return stats.newly_failed(table, severity) if severity in table.columns else []


def first_failures(content: Content, modalities: Sequence[str], under: str) -> tuple[dict[str, np.ndarray], str]:
    """The severity at which each sample, as a query of a modality, first fails: the smallest over its directions.

    Args:
        content: the run.
        modalities: of the queries.
        under: a `Curve` as text; the first that was measured where it is empty.

    Returns:
        Modality -> one value per sample, NaN where it was not asked, and a sentence on what they are.

    Raises:
        StoreError: there are no per-sample values.
    """
    there = curves(content.run, FIELD) if content.has_curves else []
    chosen = next((c for c in there if str(c) == under), None) or next(iter(there), None)
    if chosen is None:
        raise StoreError(f"no curves of this run: `labkit robustness {content.run.id}` measures them")
    table = stats.first_failures(samples(str(content.run.folder), content.stamp, chosen))
    first = table.groupby(["source", "key"])["first"].min()
    values = {}
    for modality in modalities:
        own = first[first.index.get_level_values("source") == modality].droplevel("source")
        values[modality] = own.reindex(content.index).to_numpy(dtype=float)
    told = f"Severity of {words(chosen.corruption)} of {words(chosen.corrupted)} at which a test sample"
    return values, f"{told}, asked from the modality of the point, first fails (partner not among the first ten)."


@lru_cache(maxsize=16)
def _with_curves(listing: Listing, run_id: str) -> Listing:
    """The runs on the data of one that have curves; of several of one configuration and seed the one that has most.

    The run itself stands for its configuration and seed if it has any.
    """
    data = data_of(listing, run_id)
    best: dict[tuple[str, int], tuple[tuple[bool, int], str]] = {}
    for i, record in listing.records.items():  # oldest first: of equals the newest stays
        if record["state"] != "complete" or data_of(listing, i) != data or not (n := _measured(listing.root, record)):
            continue
        same, rank = (configuration(record), record["seed"]), (i == run_id, n)
        if same not in best or rank >= best[same][0]:
            best[same] = (rank, i)
    kept = {i for _, i in best.values()}
    return Listing(listing.root, {i: r for i, r in listing.records.items() if i in kept}, ())


def _measured(root: Path, record: Mapping[str, Any]) -> int:
    """How many corruptions a run was measured under: those of its configuration, or what was measured later."""
    asked = record["config"].get("evaluation", {}).get("corruptions")
    run = Run(root / str(record["id"]))
    return len(asked) if asked else _measured_later(str(run.folder), stamp(run))


@lru_cache(maxsize=8192)
def _measured_later(folder: str, stamp: int) -> int:
    try:
        run = Run(Path(folder))
        return len(set(run.scores()["corruption"]) - {"none"}) if run.has("scores") else 0
    except StoreError:
        return 0


@lru_cache(maxsize=4)
def _scores(runs: Comparison, metric: str) -> pd.DataFrame:
    """Scores of one metric; those of all metrics under all corruptions would be some hundred megabytes."""
    parts = []
    for run_id, cell in zip(runs.ids, runs.cells, strict=True):
        scores = Run(Path(runs.root) / run_id).scores()
        parts.append(scores[scores["metric"] == metric].assign(cell=cell))
    return pd.concat(parts, ignore_index=True)


def _with_spans(table: pd.DataFrame, value: str) -> list[str]:
    """Values with their intervals as text."""
    rows = table[[value, "low", "high"]].itertuples(index=False)
    return [
        "" if pd.isna(v) else f"{v:.3f}" if pd.isna(low) else f"{v:.3f} [{low:.3f}, {high:.3f}]"
        for v, low, high in rows
    ]
