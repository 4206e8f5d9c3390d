"""Runs of several methods on the same data, and everything they are compared by: read once, cached by their state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from dashboards.catalog import Listing
from dashboards.content import stamp
from dashboards.methods import Method, data_of, methods
from labkit import stats
from labkit.store import Run, Store

_EXACT = 1e-3  # how near the mean of per-sample values has to be to the score that is their mean


@dataclass(frozen=True)
class Comparison:
    """Runs of several methods on the same data.

    Attributes:
        root: folder of the runs.
        ids: their names.
        cells: the method of each.
        stamps: when their records last changed.
    """

    root: str
    ids: tuple[str, ...]
    cells: tuple[str, ...]
    stamps: tuple[int, ...]

    @property
    def scores(self) -> pd.DataFrame:
        """Scores of the runs, the method in column "cell"."""
        return _scores(self)

    def fields(self, metric: str) -> pd.DataFrame | None:
        """Per-sample values of clean test samples; None where there are none."""
        return _fields(self, metric)

    def leaderboard(self, metric: str, source: str, target: str) -> pd.DataFrame:
        """See `labkit.stats.leaderboard`; from per-sample values where they are stored."""
        return _leaderboard(self, metric, source, target)

    def differences(self, metric: str, source: str, target: str, baseline: str) -> pd.DataFrame:
        """See `labkit.stats.compare`; tests over seeds are corrected for the overlap of their splits."""
        return _differences(self, metric, source, target, baseline)

    @property
    def test_share(self) -> float:
        """Test samples among those of test and training, for tests over splits that overlap."""
        return _test_share(self)

    @property
    def trained(self) -> frozenset[str]:
        """Methods that were trained step by step, and wrote a log of it."""
        return _trained(self)

    def histories(self, cells: Iterable[str]) -> dict[str, list[pd.DataFrame]]:
        """Logs of the trainings of some methods; a closed form has none."""
        return {cell: _logs(self, cell) for cell in cells}


def comparable(listing: Listing, run_id: str, *, data: str | None = None, every: bool = False) -> Comparison:
    """The complete runs on the same data as `run_id`, and none where it is not among them.

    Args:
        listing: all runs.
        run_id: the shown one.
        data: of the runs; by default that of the shown one.
        every: all configurations; by default each variant in one of them, the shown run's own or else its usual one.
    """
    if run_id not in listing.records:
        return of_methods(listing, [])
    same = methods(listing, data or data_of(listing, run_id), run_id)
    if not every:
        same = list({method.variant: method for method in reversed(same)}.values())[::-1]
    return of_methods(listing, same)


def of_methods(listing: Listing, chosen: Iterable[Method]) -> Comparison:
    """The runs of some methods."""
    pairs = [(run_id, method.label) for method in chosen for run_id in method.ids]
    ids, cells = tuple(i for i, _ in pairs), tuple(label for _, label in pairs)
    return Comparison(str(listing.root), ids, cells, tuple(stamp(Run(listing.root / i)) for i in ids))


@lru_cache(maxsize=4)
def _scores(runs: Comparison) -> pd.DataFrame:
    return _with_cells(Store(runs.root).scores(runs.ids), runs)


@lru_cache(maxsize=32)
def _fields(runs: Comparison, metric: str) -> pd.DataFrame | None:
    fields = Store(runs.root).fields(metric, runs.ids, where={"corruption": "none", "split": "test"})
    return None if fields.empty else _with_cells(fields, runs)


@lru_cache(maxsize=32)
def _summands(runs: Comparison, metric: str) -> pd.DataFrame | None:
    """Per-sample values whose mean is the metric, for intervals over samples; a median has none, for instance."""
    fields = _fields(runs, metric)
    if fields is None:
        return None
    case = ["run", "source", "target"]
    scores = _scores(runs)
    clean = (scores["corruption"] == "none") & (scores["split"] == "test") & (scores["step"] == "final")
    value = scores[clean & (scores["metric"] == metric)].set_index(case)["value"]
    mean = fields.groupby(case)["value"].mean().reindex(value.index)
    return fields if bool(((mean - value).abs() <= _EXACT * (1 + value.abs())).all()) else None


def _with_cells(table: pd.DataFrame, runs: Comparison) -> pd.DataFrame:
    cells = table["run"].map(dict(zip(runs.ids, runs.cells, strict=True)))
    return table.assign(cell=cells.astype(object))


@lru_cache(maxsize=64)
def _leaderboard(runs: Comparison, metric: str, source: str, target: str) -> pd.DataFrame:
    return stats.leaderboard(_scores(runs), _summands(runs, metric), metric=metric, source=source, target=target)


@lru_cache(maxsize=64)
def _differences(runs: Comparison, metric: str, source: str, target: str, baseline: str) -> pd.DataFrame:
    chosen = {"metric": metric, "source": source, "target": target, "baseline": baseline}
    return stats.compare(_scores(runs), _summands(runs, metric), **chosen, test_share=_test_share(runs))


@lru_cache(maxsize=16)
def _test_share(runs: Comparison) -> float:
    """Test samples among those of test and training."""
    counts = Run(Path(runs.root) / runs.ids[0]).points()["split"].value_counts()
    test, train = int(counts.get("test", 0)), int(counts.get("train", 0))
    return test / (test + train) if train else 0.0


@lru_cache(maxsize=16)
def _trained(runs: Comparison) -> frozenset[str]:
    return frozenset(cell for run_id, cell in zip(runs.ids, runs.cells, strict=True) if _logged(runs, run_id))


@lru_cache(maxsize=256)
def _logs(runs: Comparison, cell: str) -> list[pd.DataFrame]:
    own = [run_id for run_id, named in zip(runs.ids, runs.cells, strict=True) if named == cell]
    logs = [Run(Path(runs.root) / run_id).history() for run_id in own if _logged(runs, run_id)]
    return [log for log in logs if "step" in log]


def _logged(runs: Comparison, run_id: str) -> bool:
    log = Path(runs.root) / run_id / "log.jsonl"
    return log.is_file() and log.stat().st_size > 0
