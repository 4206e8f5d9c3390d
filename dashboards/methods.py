"""Methods of a folder of runs: configurations under several seeds, grouped by the data that they are on.

Seeds are averaged only over runs of one configuration on the same data. A method is called by its variant, and by what
differs from the usual configuration of that variant on this data; data by what differs from most runs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from dashboards.catalog import Listing

_LONGEST = 90  # letters of a name
_NEVER = object()


@dataclass(frozen=True)
class Method:
    """Complete runs of one configuration, one per seed.

    Attributes:
        label: what it is called, unique among the methods on its data.
        variant: its variant.
        ids: the newest run of each seed, oldest first.
        seeds: of the runs.
    """

    label: str
    variant: str
    ids: tuple[str, ...]
    seeds: tuple[int, ...]


def data_of(listing: Listing, run_id: str) -> str:
    """What a run was trained and tested on, as text that is the same for runs on the same data."""
    return json.dumps(listing.records[run_id]["config"].get("data"), sort_keys=True)


@lru_cache(maxsize=4)
def data_sets(listing: Listing) -> dict[str, str]:
    """What complete runs are on -> what it is called; most runs first."""
    counts = Counter(data_of(listing, i) for i, r in listing.records.items() if r["state"] == "complete")
    settings = {data: _flat({"data": json.loads(data)}) for data in counts}
    usual = _usual(settings, counts)
    named: dict[str, str] = {}
    for data, _ in counts.most_common():
        own = settings[data]
        name, common = str(own.get("data.dataset", own.get("data", ""))), usual.get(str(own.get("data.dataset")), {})
        modalities = ", ".join(map(str, own.get("data.modalities", ())))
        told = ("data", "data.dataset", "data.modalities")
        rest = [
            f"{n.removeprefix('data.').removeprefix('options.').replace('.', ' ')}={_shown(v)}"
            for n, v in own.items() if n not in told and v not in ({}, "") and common.get(n, _NEVER) != v
        ]  # fmt: skip
        label = " · ".join(part for part in (name, modalities, ", ".join(rest)) if part) or "unknown data"
        named[data] = _unique(label, named.values())
    return named


def methods(listing: Listing, data: str, own: str = "") -> list[Method]:
    """All methods with a complete run on the same data, by variant, the usual one of each variant first.

    Args:
        listing: all runs.
        data: see `data_of`.
        own: a run whose method comes first of its variant, and which stands for its seed there.
    """
    return list(_methods(listing, data, own))


def config_diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    """What differs between the records of two runs: setting, A, B; the seed only where it does, too."""
    first, second = (
        {**_flat(r["config"]), "code": str((r.get("git") or {}).get("commit") or "")[:10], "labkit": r.get("labkit")}
        for r in (a, b)
    )
    names = [n for n in dict.fromkeys([*first, *second]) if first.get(n, "") != second.get(n, "")]
    rows = [(n, _shown(first.get(n, "")), _shown(second.get(n, ""))) for n in names]
    return pd.DataFrame(rows, columns=["setting", "A", "B"])


def _usual(settings: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """For each data set the value that a setting has in more than half of its runs, where there is one."""
    total: Counter[str] = Counter()
    values: dict[str, dict[str, Counter[str]]] = {}
    for data, own in settings.items():
        name = str(own.get("data.dataset"))
        total[name] += counts[data]
        for setting, value in own.items():
            values.setdefault(name, {}).setdefault(setting, Counter())[json.dumps(value)] += counts[data]
    found: dict[str, dict[str, Any]] = {}
    for name, by_setting in values.items():
        often = {s: c.most_common(1)[0] for s, c in by_setting.items()}
        found[name] = {s: json.loads(value) for s, (value, n) in often.items() if 2 * n > total[name]}
    return found


@lru_cache(maxsize=16)
def _methods(listing: Listing, data: str, own: str) -> tuple[Method, ...]:
    complete = {i: r for i, r in listing.records.items() if r["state"] == "complete" and data_of(listing, i) == data}
    found: dict[str, dict[int, str]] = {}
    for i, record in complete.items():  # oldest first, so the newest of a seed stays
        found.setdefault(configuration(record), {})[record["seed"]] = i
    if own in complete:  # stands for its seed, even if the same was measured again
        found[configuration(complete[own])][complete[own]["seed"]] = own

    def first(runs: dict[int, str]) -> Mapping[str, Any]:
        return complete[next(iter(runs.values()))]

    def order(runs: dict[int, str]) -> tuple[str, int, str]:
        return (first(runs)["variant"], -len(runs), min(complete[i]["created"] for i in runs.values()))

    usual: dict[str, dict[str, Any]] = {}
    made: list[Method] = []
    for runs in sorted(found.values(), key=order):
        record = first(runs)
        config = _settings(record)
        label = _label(record["variant"], config, usual.setdefault(record["variant"], config))
        label = _unique(label, [m.label for m in made])
        made.append(Method(label, record["variant"], tuple(runs.values()), tuple(runs)))
    return tuple(sorted(made, key=lambda m: (m.variant, own not in m.ids)))


def configuration(record: Mapping[str, Any]) -> str:
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
    label = ", ".join([variant, *(f"{n.rpartition('.')[2]}={_shown(config.get(n, 'default'))}" for n in names)])
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _unique(label: str, known: Iterable[str]) -> str:
    """A name that nothing else has."""
    same = sum(k == label or k.startswith(f"{label} (") for k in known)
    return f"{label} ({same + 1})" if same else label


def _shown(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
