"""The store: all runs under one root.

store = Store()                       # $LABKIT_RUNS or ./runs
store.table()                         # one row per run, from run.json alone
store.scores()                        # every score of every run
run = store.open("clip-s0-3f")        # an id, or the beginning of one
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from .. import __version__
from . import log
from .errors import NotComputedError, RunExistsError, RunNotFoundError, StoreError, explained
from .folder import writer_claim
from .manifest import SCHEMA, Manifest, now, plain
from .names import Step, check_name, resolve_inside, runs_root
from .run import Run
from .tables import FIELD_COLUMNS, SCORE_COLUMNS

_TABLE = ("id", "name", "variant", "seed", "status", "alive", "created", "finished", "modalities", "n", "error")


class Store:
    """All runs under `root`.

    Args:
        root: folder of the runs; `runs_root()` by default. It is made when the first run is.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = runs_root() if root is None else Path(root)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r}, {len(self.runs())} runs)"

    def create(
        self,
        run_id: str,
        *,
        name: str,
        variant: str,
        config: Mapping[str, Any],
        seed: int,
        data_root: str,
        git: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        rerun: bool = False,
    ) -> Run:
        """Start a run, or take up an interrupted or failed one of the same id where it was.

        Args:
            run_id: name of the folder; a hash of the configuration, so that the same run is found again.
            name: what people call it.
            variant: name of the method.
            config: the whole configuration, as JSON can hold it.
            seed: the run's seed.
            data_root: what item paths are relative to: a path, relative to the run's folder or absolute, or
                `bundle:<name>` for a data set that ships with labkit.
            git: state of the code.
            environment: versions and machine.
            rerun: make a finished run anew; its computed files are removed, saved selections stay.

        Raises:
            RunExistsError: the run is complete, or being written, or has another configuration.
            StoreError: the folder cannot be made.
        """
        folder = self.root / check_name(run_id, "run id")
        fresh = {
            "schema": SCHEMA, "labkit": __version__, "id": run_id, "name": name, "variant": variant, "seed": seed,
            "created": now(), "status": "running", "error": None, "attempts": 1, "git": dict(git or {}),
            "environment": dict(environment or {}), "config": plain(config), "data_root": str(data_root), "files": [],
        }  # fmt: skip
        with explained("make", folder):
            folder.mkdir(parents=True, exist_ok=True)
        claim = _claim(folder)
        try:
            manifest = Manifest(folder)
            with manifest.locked():
                if not manifest.path.exists():
                    manifest.write(fresh)
                elif rerun:
                    _clear(manifest, fresh)
                else:
                    _take_up(manifest, fresh)
        except BaseException:
            claim.release()
            raise
        return Run(folder)

    def open(self, run_id: str) -> Run:
        """The run with this id, or the only one whose id begins with it.

        Raises:
            RunNotFoundError: none or several; the message lists the nearest.
            SchemaError: the folder's layout is of another version.
        """
        ids = [folder.name for folder in self._folders()]
        matches = [run_id] if run_id in ids else [known for known in ids if run_id and known.startswith(run_id)]
        if len(matches) > 1:
            raise RunNotFoundError(f"{run_id!r} is the beginning of {len(matches)} runs: {', '.join(matches[:8])}")
        if not matches:
            near = difflib.get_close_matches(run_id, ids, n=3, cutoff=0.3)
            hint = f"did you mean {' or '.join(near)}?" if near else "it has no such run; `labkit runs list` shows all"
            raise RunNotFoundError(f"no run {run_id!r} in {self.root}: {hint}")
        run = Run(self.root / matches[0])
        run.info  # noqa: B018  reading it checks that it is readable and of a known schema
        return run

    def runs(self) -> list[Run]:
        """All readable runs, oldest first; what cannot be read is in `problems`."""
        return [Run(self.root / info["id"]) for info in self._scan()[0]]

    @property
    def problems(self) -> list[str]:
        """One sentence per run folder that cannot be read."""
        return self._scan()[1]

    def table(self) -> pd.DataFrame:
        """One row per run, oldest first, from the `run.json` files alone.

        `alive` says whether a run with status "running" really is; `n` and `modalities` are missing until its points
        are written.
        """
        rows = []
        for info in self._scan()[0]:
            row = {column: info.get(column) for column in _TABLE}
            row["alive"] = info["status"] == "running" and Run(self.root / info["id"]).is_alive
            row["modalities"] = ",".join(info.get("modalities", ()))
            rows.append(row)
        return pd.DataFrame(rows, columns=list(_TABLE)).astype({"n": "Int64", "seed": "Int64"})

    def budgets(self, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """What the runs `ids` (all by default) cost, one row per run, from the `run.json` files alone.

        Columns run, variant, seed, train_seconds (of all attempts), earlier_seconds (the part of interrupted attempts),
        total_seconds (with the evaluation), train_steps, epochs, best_epoch, parameters and peak_memory (bytes; see
        `labkit.train.monitor`). Runs that did not record it are left out.
        """
        found = [run.info for run in self._some(ids)]
        rows = [
            {"run": info["id"], "variant": info["variant"], "seed": info["seed"], **info["budget"]}
            for info in found
            if "budget" in info
        ]
        return pd.DataFrame(rows) if rows else _empty("run", "variant", "seed")

    def scores(self, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Scores of the runs `ids` (all by default) below each other, with columns run and variant in front.

        Runs without scores are left out.
        """
        tables = []
        for run in self._some(ids):
            if run.has("scores"):
                tables.append(_labelled(run, run.scores()))
        return pd.concat(tables, ignore_index=True) if tables else _empty("run", "variant", *SCORE_COLUMNS)

    def fields(
        self,
        metric: str,
        ids: Sequence[str] | None = None,
        *,
        step: Step | None = None,
        where: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """Per-point values of `metric` in the runs `ids` (all by default), with run, variant, seed and group in front.

        Runs without the field are left out; `step` and `where` are those of `Run.field`.
        """
        tables = []
        for run in self._some(ids):
            try:
                field = run.field(metric, step, where=where)
            except NotComputedError:
                continue
            groups = run.points().set_index("key")["group"]
            field.insert(0, "group", groups.reindex(field["key"]).to_numpy())
            field.insert(0, "seed", run.info["seed"])
            tables.append(_labelled(run, field))
        empty = _empty("run", "variant", "seed", "group", *FIELD_COLUMNS)
        return pd.concat(tables, ignore_index=True) if tables else empty

    def _some(self, ids: Sequence[str] | None) -> list[Run]:
        if ids is None:
            return self.runs()
        known = {folder.name for folder in self._folders()}  # once, for a folder may hold thousands
        return [Run(self.root / run_id) if run_id in known else self.open(run_id) for run_id in ids]

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        with explained("read", self.root):
            return sorted(f for f in self.root.iterdir() if not f.name.startswith(".") and (f / "run.json").exists())

    def _scan(self) -> tuple[list[dict[str, Any]], list[str]]:
        records, problems = [], []
        for folder in self._folders():
            try:
                records.append({**Manifest(folder).read(), "id": folder.name})
            except StoreError as error:
                problems.append(str(error))
        records.sort(key=lambda info: (info["created"], info["id"]))
        return records, problems


def _claim(folder: Path) -> FileLock:
    """Become the writer of a run."""
    claim = writer_claim(folder)
    with explained("write", folder):
        try:
            claim.acquire(timeout=1.0)  # a reader that asks whether the run is alive holds it for an instant
        except Timeout:
            raise RunExistsError(f"run {folder.name} is being written by another process: wait for it to end") from None
    return claim


def _take_up(manifest: Manifest, fresh: Mapping[str, Any]) -> None:
    """Continue an interrupted or failed run: the files that it completed stay."""
    old = manifest.read()
    if old["status"] == "complete":
        raise RunExistsError(f"run {fresh['id']} is complete: open it, or make it anew with `{manifest.command()}`")
    if old["config"] != fresh["config"]:
        changed = sorted(
            k for k in {*old["config"], *fresh["config"]} if old["config"].get(k) != fresh["config"].get(k)
        )
        raise RunExistsError(
            f"run {fresh['id']} was started with another configuration (differs in {', '.join(changed)}): choose "
            "another id, or rerun it"
        )
    kept = {key: old[key] for key in ("created", "files", "n", "modalities") if key in old}
    log.mark_resumed(manifest.folder / "log.jsonl")
    manifest.write({**fresh, **kept, "attempts": old.get("attempts", 1) + 1})


def _clear(manifest: Manifest, fresh: Mapping[str, Any]) -> None:
    """Empty a run of all it computed; first the list, so that no reader trusts a file that is about to go."""
    old = manifest.read()
    selections = [entry for entry in old["files"] if entry["name"].startswith("selections/")]
    manifest.write({**fresh, "files": selections})
    kept = {entry["name"] for entry in selections}
    with explained("clear", manifest.folder):
        for entry in old["files"]:
            if entry["name"] not in kept:
                resolve_inside(manifest.folder, entry["name"]).unlink(missing_ok=True)
        (manifest.folder / "log.jsonl").unlink(missing_ok=True)


def _labelled(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "variant", run.info["variant"])
    table.insert(0, "run", run.id)
    return table


def _empty(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))
