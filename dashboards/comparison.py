"""Runs against runs: methods, each a configuration under several seeds, and everything they are compared by, cached.

Seeds are averaged only over runs of one configuration. A method is called by its variant, and by what differs from the
usual configuration of that variant, as the cells of a study are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.catalog import Listing
from dashboards.content import stamp
from labkit import stats
from labkit.store import Run, Store

_LONGEST = 90  # letters of a method's name
_EXACT = 1e-3  # how near the mean of per-sample values has to be to the score that is their mean


@dataclass(frozen=True)
class Method:
    """Complete runs of one configuration, one per seed.

    Attributes:
        label: what it is called, unique in a listing.
        variant: its variant.
        ids: the newest run of each seed, oldest first.
        seeds: of the runs.
    """

    label: str
    variant: str
    ids: tuple[str, ...]
    seeds: tuple[int, ...]


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


def comparable(listing: Listing, run_id: str, *, every: bool = False) -> Comparison:
    """The complete runs on the same data as `run_id`, and none where it is not among them.

    Args:
        listing: all runs.
        run_id: the shown one.
        every: all configurations; by default each variant in one of them, the shown run's own or else its usual one.
    """
    same = [m for m in methods(listing, run_id) if _data(listing, m) == _data_of(listing, run_id)]
    if not every:
        first: dict[str, Method] = {}
        for method in same:
            if method.variant not in first or run_id in method.ids:
                first[method.variant] = method
        same = list(first.values())
    return of_methods(listing, same)


def of_methods(listing: Listing, chosen: Iterable[Method]) -> Comparison:
    """The runs of some methods."""
    pairs = [(run_id, method.label) for method in chosen for run_id in method.ids]
    ids, cells = tuple(i for i, _ in pairs), tuple(label for _, label in pairs)
    return Comparison(str(listing.root), ids, cells, tuple(stamp(Run(listing.root / i)) for i in ids))


def methods(listing: Listing, run_id: str) -> list[Method]:
    """All methods with a complete run; those on the same data as `run_id` first, the usual one of each variant first.

    Nothing where `run_id` is not complete. The usual configuration of a variant is that with most seeds on this data.
    """
    complete = {i: r for i, r in listing.records.items() if r["state"] == "complete"}
    if run_id not in complete:
        return []
    data = _flat({"data": complete[run_id]["config"].get("data")})
    found: dict[str, dict[int, str]] = {}
    for i, record in complete.items():  # oldest first, so the newest of a seed stays
        found.setdefault(_configuration(record), {})[record["seed"]] = i

    def first(runs: dict[int, str]) -> Mapping[str, Any]:
        return complete[next(iter(runs.values()))]

    def order(runs: dict[int, str]) -> tuple[bool, str, int, str]:
        record = first(runs)
        own = _flat({"data": record["config"].get("data")}) == data
        return (not own, record["variant"], -len(runs), min(complete[i]["created"] for i in runs.values()))

    usual: dict[str, dict[str, Any]] = {}
    made: list[Method] = []
    names: set[str] = set()
    for runs in sorted(found.values(), key=order):
        record = first(runs)
        config = _settings(record)
        reference = {**usual.setdefault(record["variant"], config), **data}
        label = _label(record["variant"], config, reference)
        label = label if label not in names else f"{label} ({record['id'][-10:]})"
        names.add(label)
        made.append(Method(label, record["variant"], tuple(runs.values()), tuple(runs)))
    return made


def config_diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    """What differs between the records of two runs: setting, A, B; the seed only where it does, too."""
    first, second = (
        {**_flat(r["config"]), "code": str((r.get("git") or {}).get("commit") or "")[:10], "labkit": r.get("labkit")}
        for r in (a, b)
    )
    names = [n for n in dict.fromkeys([*first, *second]) if first.get(n, "") != second.get(n, "")]
    rows = [(n, _shown(first.get(n, "")), _shown(second.get(n, ""))) for n in names]
    return pd.DataFrame(rows, columns=["setting", "A", "B"])


def _data(listing: Listing, method: Method) -> object:
    return _data_of(listing, method.ids[0])


def _data_of(listing: Listing, run_id: str) -> object:
    return listing.records[run_id]["config"].get("data")


def _configuration(record: Mapping[str, Any]) -> str:
    """All that decides a result but the seed, and not what was measured of it, as text."""
    kept = {k: v for k, v in record["config"].items() if k not in ("seed", "evaluation")}
    return json.dumps([record["variant"], kept], sort_keys=True)


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flat(record["config"])
    return {k: v for k, v in flat.items() if k not in ("seed", "variant") and not k.startswith("evaluation.")}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their path, as "options.epsilon"; lists are one setting."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def _label(variant: str, config: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    names = [n for n in dict.fromkeys([*config, *reference]) if config.get(n) != reference.get(n)]
    parts = [f"{n.rpartition('.')[2]}={_shown(config.get(n, 'default'))}" for n in names]
    label = ", ".join([variant, *parts])
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _shown(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


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
