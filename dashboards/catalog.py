"""The list of runs, read once per change on disk and shared by all sessions.

A folder of a thousand runs takes a second to read and ten milliseconds to look through for changes, so each `run.json`
is kept by (path, time of change, size). Nobody may modify what `listing` returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.store import Run, StoreError

STATES = ("complete", "running", "interrupted", "failed")
_PAUSE = 1.0  # seconds for which a look at the folder is believed


@dataclass(frozen=True, eq=False)
class Listing:
    """All runs of a folder at one moment.

    Attributes:
        root: the folder.
        records: `run.json` by id, oldest first, with "state": one of `STATES`.
        problems: one sentence per folder that cannot be read.
    """

    root: Path
    records: Mapping[str, Mapping[str, Any]]
    problems: tuple[str, ...]

    @cached_property
    def labels(self) -> dict[str, str]:
        """What the picker calls each complete run -> its id; by method, seed and age."""
        ready = [r for r in self.records.values() if r["state"] == "complete"]
        ready.sort(key=lambda r: (r["variant"], r["seed"], r["created"]))
        return {_label(r): r["id"] for r in ready}

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run, oldest first: id, name, variant, seed, state, n, modalities, created, error."""
        columns = ("id", "name", "variant", "seed", "state", "n", "created", "error")
        rows = [
            {**{c: r.get(c) for c in columns}, "modalities": ", ".join(r.get("modalities", ()))}
            for r in self.records.values()
        ]
        table = pd.DataFrame(rows, columns=[*columns, "modalities"])
        return table.astype({"n": "Int64", "seed": "Int64", "created": str})

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in which state; states without runs are left out."""
        states = [r["state"] for r in self.records.values()]
        return {state: states.count(state) for state in STATES if state in states}

    @property
    def newest(self) -> str:
        """The newest complete run of a trained method; of a closed form, which has no log, only if there is none."""
        ready = sorted((r for r in self.records.values() if r["state"] == "complete"), key=lambda r: r["created"])
        ids = [r["id"] for r in reversed(ready)]
        logs = ((i, self.root / i / "log.jsonl") for i in ids)
        return next((i for i, log in logs if log.exists() and log.stat().st_size), next(iter(ids), ""))


class Catalog:
    """Looks at one folder for changes, at most once a second.

    Args:
        root: folder of the runs; it may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._read: dict[str, tuple[tuple[int, int], dict[str, Any] | str]] = {}
        self._listing = Listing(root, {}, ())
        self._until = 0.0

    def listing(self, *, fresh: bool = False) -> Listing:
        """All runs as they are now; the same object as long as nothing has changed.

        Args:
            fresh: look even if somebody has just looked.
        """
        with self._lock:
            if fresh or time.monotonic() >= self._until:
                self._look()
                self._until = time.monotonic() + _PAUSE
            return self._listing

    def _look(self) -> None:
        seen: dict[str, tuple[tuple[int, int], dict[str, Any] | str]] = {}
        folders = [f for f in self._root.iterdir() if not f.name.startswith(".")] if self._root.is_dir() else []
        for folder in sorted(folders):
            try:
                status = (folder / "run.json").stat()
            except OSError:
                continue
            mark = (status.st_mtime_ns, status.st_size)
            known = self._read.get(folder.name)
            seen[folder.name] = known if known is not None and known[0] == mark else (mark, _record(folder))
        self._read = seen
        records = [r for _, r in seen.values() if isinstance(r, dict)]
        records = [{**r, "state": _state(self._root, r)} for r in records]
        records.sort(key=lambda r: (str(r.get("created")), r["id"]))
        problems = tuple(r for _, r in seen.values() if isinstance(r, str))
        listing = Listing(self._root, {r["id"]: r for r in records}, problems)
        same = listing.records == self._listing.records and listing.problems == self._listing.problems
        self._listing = self._listing if same else listing


@lru_cache(maxsize=8)
def catalog(root: Path) -> Catalog:
    """The one catalog of a folder."""
    return Catalog(root)


def _record(folder: Path) -> dict[str, Any] | str:
    """A run's record, or the sentence that says why there is none."""
    try:
        record = {**Run(folder).info, "id": folder.name}
    except StoreError as error:
        return str(error)
    lacking = [name for name in ("variant", "seed", "created", "status", "config", "files") if name not in record]
    return f"{folder / 'run.json'} lacks {', '.join(lacking)}: restore it, or run again" if lacking else record


def _state(root: Path, record: Mapping[str, Any]) -> str:
    status = str(record["status"])
    return "interrupted" if status == "running" and not Run(root / record["id"]).is_alive else status


def _label(record: Mapping[str, Any]) -> str:
    modalities = ", ".join(record.get("modalities", ()))
    name = str(record.get("name") or record["variant"])
    seed = f"seed {record['seed']}"
    called = name if name.endswith(seed) else f"{name} {seed}"
    called = called if str(record["variant"]) in called else f"{record['variant']}: {called}"
    return f"{called} · {modalities} · {str(record['id'])[-10:]}"
