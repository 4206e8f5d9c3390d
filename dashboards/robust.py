"""Runs that were measured under corruptions, and what the pages say of their curves; cached by the runs' state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from dashboards.catalog import Listing
from dashboards.comparison import Comparison, comparable
from dashboards.content import Content, stamp
from dashboards.methods import data_of
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
    """The runs that are comparable to `run_id`, of those that have curves; a method's older runs stand in."""
    return comparable(_with_curves(listing, run_id), run_id)


def metrics(content: Content) -> list[str]:
    """Metrics of a run that have curves and of which more is better, recall first."""
    scores = content.run.scores()
    rows = scores[(scores["corruption"] != "none") & scores["higher_is_better"]]
    return sorted(rows["metric"].unique(), key=lambda m: (m != FIELD, not m.startswith("recall"), m))


def curves(content: Content, metric: str) -> list[Curve]:
    """What a run was measured under."""
    rows = content.run.scores().query("corruption != 'none' and metric == @metric")
    pairs = rows[["corruption", "corrupted"]].drop_duplicates().sort_values(["corrupted", "corruption"])
    return [Curve(*pair) for pair in pairs.itertuples(index=False)]


def directions(content: Content, metric: str) -> list[tuple[str, str]]:
    """From which modality to which a metric was measured under corruptions."""
    rows = content.run.scores().query("corruption != 'none' and metric == @metric")
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
    """Area under one curve, relative to the clean value, of every method, and its paired difference to one of them.

    Returns:
        method, clean, area, interval, seeds, difference, p (Holm), paired over: texts but for seeds; best area first.
    """
    rows = seed_curves(runs, metric, direction)
    rows = rows[(rows["corruption"] == curve.corruption) & (rows["corrupted"] == curve.corrupted)]
    numbers = stats.curve_numbers(rows)
    found = stats.summarize_numbers(numbers[["corruption", "corrupted", "method", "seed", "area"]],
                                    test_share=runs.test_share).set_index("method")  # fmt: skip
    clean = rows[rows["severity"] == 0].groupby("method")["value"].mean()
    versus = stats.compare_numbers(numbers, number="area", baseline=baseline, test_share=runs.test_share)
    versus = versus.set_index("method").reindex(found.index)
    table = pd.DataFrame(
        {
            "method": found.index,
            "clean": clean.reindex(found.index),
            "area": found["value"],
            "interval": _spans(found),
            "over": found["interval"],
            "difference": versus["difference"],
            "its interval": _spans(versus),
            "p (Holm)": versus["p_holm"],
            "paired over": versus["kind"].fillna("the baseline"),
        }
    )
    return table.dropna(subset=["area"]).sort_values("area", ascending=False, ignore_index=True)


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
    there = curves(content, FIELD) if content.has_curves else []
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
    """The runs on the data of one that have curves; no other run of its variant and seed, so that it counts itself."""
    own, data = listing.records[run_id], data_of(listing, run_id)
    twin = (own["variant"], own["seed"])
    kept = {
        i: r
        for i, r in listing.records.items()
        if i == run_id
        or (
            r["state"] == "complete"
            and (r["variant"], r["seed"]) != twin
            and data_of(listing, i) == data
            and _curved(listing.root, r)
        )
    }
    return Listing(listing.root, kept, ())


def _curved(root: Path, record: Mapping[str, object]) -> bool:
    """Whether a run has curves: its configuration asks for them, or they were measured later."""
    config = record["config"]
    asked = config.get("evaluation", {}).get("corruptions") if isinstance(config, Mapping) else None
    if asked:
        return True
    run = Run(root / str(record["id"]))
    return _has_curves(str(run.folder), stamp(run))


@lru_cache(maxsize=8192)
def _has_curves(folder: str, stamp: int) -> bool:
    try:
        run = Run(Path(folder))
        return run.has("scores") and bool((run.scores()["corruption"] != "none").any())
    except StoreError:
        return False


@lru_cache(maxsize=4)
def _scores(runs: Comparison, metric: str) -> pd.DataFrame:
    """Scores of one metric; those of all metrics under all corruptions would be some hundred megabytes."""
    parts = []
    for run_id, cell in zip(runs.ids, runs.cells, strict=True):
        scores = Run(Path(runs.root) / run_id).scores()
        parts.append(scores[scores["metric"] == metric].assign(cell=cell))
    return pd.concat(parts, ignore_index=True)


def _spans(table: pd.DataFrame) -> list[str]:
    return [
        "" if pd.isna(low) else f"[{low:.3f}, {high:.3f}]"
        for low, high in table[["low", "high"]].itertuples(index=False)
    ]
