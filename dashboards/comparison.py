"""Runs against runs: everything that several complete runs on the same data are compared by, cached."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from dashboards.catalog import Listing
from dashboards.content import stamp
from labkit import stats
from labkit.store import Run, Store


@dataclass(frozen=True)
class Comparison:
    """The newest complete run of each variant and seed on the same data.

    Attributes:
        root: folder of the runs.
        ids: their names.
        stamps: when their records last changed.
    """

    root: str
    ids: tuple[str, ...]
    stamps: tuple[int, ...]

    @property
    def scores(self) -> pd.DataFrame:
        """Scores of the runs."""
        return _scores(self)

    def leaderboard(self, metric: str, source: str, target: str) -> pd.DataFrame:
        """See `labkit.stats.leaderboard`; from per-sample values where they are stored."""
        return _leaderboard(self, metric, source, target)

    def differences(self, metric: str, source: str, target: str, baseline: str) -> pd.DataFrame:
        """See `labkit.stats.compare`."""
        return _differences(self, metric, source, target, baseline)


def comparable(listing: Listing, run_id: str) -> Comparison:
    """The complete runs on the same data as `run_id`, and none where it is not among them."""
    complete = {i: r for i, r in listing.records.items() if r["state"] == "complete"}
    chosen: dict[tuple[str, int], str] = {}
    if run_id in complete:
        wanted = complete[run_id]["config"].get("data")
        for i, record in complete.items():  # oldest first, so the newest stays
            if record["config"].get("data") == wanted:
                chosen[record["variant"], record["seed"]] = i
    ids = tuple(chosen.values())
    return Comparison(str(listing.root), ids, tuple(stamp(Run(listing.root / i)) for i in ids))


@lru_cache(maxsize=4)
def _scores(runs: Comparison) -> pd.DataFrame:
    return Store(runs.root).scores(runs.ids)


@lru_cache(maxsize=16)
def _fields(runs: Comparison, metric: str) -> pd.DataFrame | None:
    """Per-sample values; None where there are none, or where a mean of them is not the metric."""
    fields = Store(runs.root).fields(metric, runs.ids, where={"corruption": "none"})
    return None if fields.empty or metric == "median_rank" else fields


@lru_cache(maxsize=64)
def _leaderboard(runs: Comparison, metric: str, source: str, target: str) -> pd.DataFrame:
    return stats.leaderboard(_scores(runs), _fields(runs, metric), metric=metric, source=source, target=target)


@lru_cache(maxsize=64)
def _differences(runs: Comparison, metric: str, source: str, target: str, baseline: str) -> pd.DataFrame:
    scores, fields = _scores(runs), _fields(runs, metric)
    return stats.compare(scores, fields, metric=metric, source=source, target=target, baseline=baseline)
