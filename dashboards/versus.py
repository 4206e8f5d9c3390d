"""Two methods against each other: paired differences of every metric, of every sample, and both trainings, cached."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboards.catalog import Listing
from dashboards.comparison import Comparison, of_methods
from dashboards.content import stamp
from dashboards.maps import Frame, Paint
from dashboards.methods import Method, config_diff, data_of, data_sets
from labkit import stats
from labkit.store import Run
from labkit.views import words
from labkit.views.manifolds import Coloring

COLORS = ("#0a84d0", "#d55e00")  # of A and of B
_WEAK = ("#86c5ee", "#f0b088")  # better, but by less than half of what is possible
_SAME, _UNKNOWN = "#8b949e80", "#9a9a9a2a"  # weak: the differences are what is looked for
_MUCH = 0.5


@dataclass(frozen=True)
class Versus:
    """A against B.

    Attributes:
        a, b: the methods, in the seeds that are compared.
        runs: of both, so that everything is cached by their state.
    """

    a: Method
    b: Method
    runs: Comparison

    @property
    def seeds(self) -> list[int]:
        """Seeds that both have."""
        return sorted({*self.a.seeds} & {*self.b.seeds})

    @property
    def metrics(self) -> list[str]:
        """What was measured of clean test samples of both."""
        clean = self.runs.scores[self.runs.scores["corruption"] == "none"]
        names = [set(clean.loc[clean["cell"] == m.label, "metric"]) for m in (self.a, self.b)]
        return sorted(names[0] & names[1])

    def differences(self, metric: str) -> pd.DataFrame:
        """A less B in every direction: direction, A, B, difference with interval, p, effect size, seeds, n, kind."""
        return _differences(self, metric)

    def table(self) -> pd.DataFrame:
        """The differences of all metrics, p corrected by Holm over all of them."""
        rows = pd.concat([self.differences(m).assign(metric=words(m)) for m in self.metrics], ignore_index=True)
        rows["p_holm"] = stats.holm(rows["p"].to_numpy(dtype=float))
        return rows[["metric", *(c for c in rows if c != "metric")]]

    def points(self, metric: str) -> pd.DataFrame:
        """Clean test samples of both by query: key, source, A, B, value (how much better A is), seeds.

        Numbers are means over targets, and over the seeds in which the sample is a test sample of both.
        """
        return _points(self, metric)

    def histories(self) -> dict[str, list[pd.DataFrame]]:
        """Logs of the trainings by method; a closed form has none."""
        return self.runs.histories([self.a.label, self.b.label])


def versus(listing: Listing, a: Method, b: Method, seed: int | None = None) -> Versus:
    """Two methods under all their seeds, or under one; B says on which data where a method of A's name is on other."""
    if a.label == b.label:
        b = replace(b, label=f"{b.label} on {data_sets(listing)[data_of(listing, b.ids[0])]}")
    chosen = [m if seed is None else _only(m, seed) for m in (a, b)]
    return Versus(chosen[0], chosen[1], of_methods(listing, chosen))


def obstacle(listing: Listing, a: Method, b: Method, seed: int | None = None) -> str:
    """Why two methods cannot be compared, as a sentence; empty where they can.

    They can where both were tested on the same samples under a common seed; how they were trained may differ.
    """
    common = sorted({*a.seeds} & {*b.seeds} & ({*a.seeds} if seed is None else {seed}))
    if not common:
        told = f"A has {listed(a.seeds)}, B has {listed(b.seeds)}"
        return f"A and B have no seed in common, so no test samples: {told}."
    first, second = (m.ids[m.seeds.index(common[0])] for m in (a, b))
    datas = [data_of(listing, run_id) for run_id in (first, second)]
    if datas[0] == datas[1]:
        return ""
    names = data_sets(listing)
    told = f"A is on {names[datas[0]]}, B is on {names[datas[1]]}"
    if _source(datas[0]) != _source(datas[1]):
        return f"A and B are not comparable, for their data are not the same: {told}."
    paths = [str(listing.root / run_id) for run_id in (first, second)]
    same = _tested_alike(*paths, stamp(Run(Path(paths[0]))), stamp(Run(Path(paths[1]))))
    return "" if same else f"A and B are not comparable, for they are not tested on the same samples: {told}."


def listed(seeds: Iterable[int]) -> str:
    """Seeds in words."""
    found = sorted(seeds)
    return f"seed{'s' * (len(found) != 1)} {', '.join(map(str, found))}"


def settings(listing: Listing, of: Versus) -> pd.DataFrame:
    """What differs between the configurations: setting, A, B; the seeds do not count."""
    first, second = (listing.records[m.ids[0]] for m in (of.a, of.b))
    found = config_diff(first, second)
    return found[found["setting"] != "seed"]


def painted(of: Frame, index: pd.Index, points: pd.DataFrame, names: tuple[str, str]) -> Paint:
    """Colors of a map by who is better, in five steps.

    Args:
        of: the places.
        index: keys of the run's samples.
        points: as from `Versus.points`.
        names: of A and B.
    """
    steps = _steps(names)
    codes = np.full(len(of), len(steps) - 1, dtype=np.int8)  # the last: not measured
    for modality in of.modalities:
        rows = points[(points["source"] == modality).to_numpy()]
        at = index.get_indexer(rows["key"])
        found = np.full(of.n, len(steps) - 1, dtype=np.int8)
        found[at[at >= 0]] = _step(rows["value"].to_numpy())[at >= 0]
        part = of.part(modality)
        codes[part] = found[of.row[part]]
    return Paint(Coloring("comparison", steps), codes)


def _steps(names: tuple[str, str]) -> dict[str, str]:
    a, b = (f"{letter}: {name}" for letter, name in zip("AB", names, strict=True))
    return {
        f"{a} better by more than {_MUCH:g}": COLORS[0],
        f"{a} better": _WEAK[0],
        "the same": _SAME,
        f"{b} better": _WEAK[1],
        f"{b} better by more than {_MUCH:g}": COLORS[1],
        "not measured": _UNKNOWN,
    }


def _step(values: np.ndarray) -> np.ndarray:
    """Code of each difference in the order of `_steps`."""
    codes = np.select(
        [values > _MUCH, values > 0, values == 0, values >= -_MUCH, values < -_MUCH], [0, 1, 2, 3, 4], default=5
    )
    return codes.astype(np.int8)


def _source(data: str) -> object:
    """What decides the samples, and what they are encoded with, of data as from `data_of`."""
    found = json.loads(data)
    return [found.get(n) for n in ("dataset", "options", "encoders")] if isinstance(found, dict) else found


@lru_cache(maxsize=64)
def _tested_alike(a: str, b: str, _stamp_a: int, _stamp_b: int) -> bool:
    """Whether the test samples of two runs are the same, with the same items of the modalities that both have."""
    points = [Run(Path(folder)).points() for folder in (a, b)]
    tested = [p[p["split"] == "test"].sort_values("key", ignore_index=True) for p in points]
    items = [c for c in tested[0] if f"present_{c}" in tested[0] or str(c).startswith("present_")]
    columns = ["key", "group", *(c for c in items if c in tested[1])]
    return tested[0][columns].equals(tested[1][columns])


def _only(method: Method, seed: int) -> Method:
    kept = [(i, s) for i, s in zip(method.ids, method.seeds, strict=True) if s == seed]
    return Method(method.label, method.variant, tuple(i for i, _ in kept), tuple(s for _, s in kept))


@lru_cache(maxsize=256)
def _differences(of: Versus, metric: str) -> pd.DataFrame:
    scores = of.runs.scores
    where = (scores["corruption"] == "none") & (scores["metric"] == metric) & (scores["split"] == "test")
    rows = scores[where & (scores["step"] == "final")]
    means = rows.pivot_table(index=["source", "target"], columns="cell", values="value", sort=False)
    if of.b.label not in means or of.a.label not in means:
        return pd.DataFrame()
    made: list[dict[str, Any]] = []
    for (source, target), both in means.dropna().iterrows():  # type: ignore[misc]
        found = of.runs.differences(metric, source, target, of.b.label).iloc[0]
        direction = f"{source} → {target}" if target else source or "all modalities"
        names = ("difference", "low", "high", "p", "effect_size", "seeds", "n", "kind", "higher_is_better")
        made.append({"direction": direction, "A": both[of.a.label], "B": both[of.b.label], **found[list(names)]})
    return pd.DataFrame(made)


@lru_cache(maxsize=16)
def _points(of: Versus, metric: str) -> pd.DataFrame:
    fields, scores = of.runs.fields(metric), of.runs.scores
    if fields is None:
        return pd.DataFrame(columns=["key", "source", "A", "B", "value", "seeds"])
    pair = ["key", "seed", "source", "target"]
    a, b = (fields.loc[fields["cell"] == m.label, [*pair, "value"]] for m in (of.a, of.b))
    both = a.merge(b, on=pair, suffixes=("_a", "_b")).dropna(subset=["value_a", "value_b"])
    directed = set(zip(both["source"], both["target"], strict=True))
    if all(t and (t, s) not in directed for s, t in directed):  # of a pair of modalities: it counts for both
        both = pd.concat([both, both.rename(columns={"source": "target", "target": "source"})])
    made = both.groupby(["key", "source"], as_index=False).agg(
        A=("value_a", "mean"), B=("value_b", "mean"), seeds=("seed", "nunique")
    )
    higher = bool(scores.loc[scores["metric"] == metric, "higher_is_better"].iloc[0])
    return made.assign(value=(made["A"] - made["B"]) * (1 if higher else -1))
