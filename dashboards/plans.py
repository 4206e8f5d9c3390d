"""Stored transport plans of a run, and what they say of some samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from dashboards import content as contents
from dashboards.content import Content
from labkit import views
from labkit.stats import Interval, bootstrap_interval

TOLERANCE = 1e-2  # marginal error beyond which a plan is not to be trusted


@dataclass(frozen=True, eq=False)
class Plan:
    """The largest entries of one coupling.

    Attributes:
        table: row_key, col_key, mass.
        record: of the solve: converged, marginal_error, mass_kept, n, ...
        reverse: read from the columns to the rows.
    """

    table: pd.DataFrame
    record: dict[str, Any]
    reverse: bool

    @property
    def keys(self) -> np.ndarray:
        """Samples that the plan moves."""
        return self.table["col_key" if self.reverse else "row_key"].unique()

    @property
    def n(self) -> int:
        """How many samples each side has; each carries the same mass."""
        return int(self.record["n"])

    @property
    def trusted(self) -> bool:
        """Whether the solver converged and met the marginals."""
        return bool(self.record["converged"]) and float(self.record["marginal_error"]) <= TOLERANCE


@dataclass(frozen=True, eq=False)
class Moved:
    """What a plan does with some samples.

    Attributes:
        flows: the drawn entries, see `labkit.views.flows_from`; `share` is of the sample's own mass.
        n: samples that the plan moves.
        shown: share of their mass that is drawn.
        stored: share of their mass that is stored.
        partner: share of a sample's mass that goes to its own partner, at least: the mean and its interval.
        first: share of the samples whose largest entry is their own partner, with its interval.
    """

    flows: pd.DataFrame
    n: int
    shown: float
    stored: float
    partner: Interval
    first: Interval


def pairs(content: Content) -> list[tuple[str, str]]:
    """Directions that have a stored plan."""
    found = _records(content)
    there = dict.fromkeys(zip(found["source"], found["target"], strict=True))
    return [*there, *((b, a) for a, b in there)]


def epsilons(content: Content, pair: tuple[str, str]) -> list[float]:
    """Stored values of epsilon of a direction, largest first."""
    found = _records(content)
    rows = found[[set(p) == set(pair) for p in zip(found["source"], found["target"], strict=True)]]
    return sorted(set(rows["epsilon"]), reverse=True)


def plan(content: Content, pair: tuple[str, str], epsilon: float) -> Plan:
    """A stored plan, read in a direction.

    Raises:
        StoreError: it cannot be read.
    """
    return _plan(str(content.run.folder), content.stamp, pair, epsilon)


def moved(content: Content, of: Plan, keys: Sequence[str], *, per_sample: int) -> Moved:
    """Where the mass of some samples goes, or of all that the plan has."""
    flows = views.flows_from(of.table, keys, per_sample=per_sample, reverse=of.reverse)
    every = views.flows_from(of.table, keys, per_sample=len(of.table), reverse=of.reverse)
    each = 1 / of.n
    names = every["from_key"].unique()
    partner = every[every["partner"]].set_index("from_key")["mass"].reindex(names).fillna(0).to_numpy() / each
    first = every.drop_duplicates("from_key")["partner"].to_numpy(dtype=float)
    groups = content.groups[content.index.get_indexer(names)]
    total = max(len(names), 1) * each
    return Moved(
        flows.assign(share=flows["mass"] / each),
        len(names),
        float(flows["mass"].sum()) / total,
        float(every["mass"].sum()) / total,
        bootstrap_interval(partner, groups),
        bootstrap_interval(first, groups),
    )


def _records(content: Content) -> pd.DataFrame:
    found = content.run.couplings()
    return found[found["step"] == "final"]


@lru_cache(maxsize=16)
def _plan(folder: str, stamp: int, pair: tuple[str, str], epsilon: float) -> Plan:
    content = contents.at(folder, stamp)
    found = _records(content)
    reverse = pair not in set(zip(found["source"], found["target"], strict=True))
    a, b = pair[::-1] if reverse else pair
    rows = found[(found["source"] == a) & (found["target"] == b) & (found["epsilon"] == epsilon)]
    solver = str(rows["solver"].iloc[0])
    table, record = content.run.coupling(a, b, solver, epsilon, "final")
    return Plan(table, record, reverse)
