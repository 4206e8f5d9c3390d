"""What every run folder can do, whatever it holds: its record, its life, its log and its list of files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout

from . import log
from .errors import NotComputedError, StoreError, explained
from .manifest import Manifest, now
from .names import Step, check_name, check_step, resolve_data_root, resolve_inside, step_order


def writer_claim(folder: Path) -> FileLock:
    """The lock that the process making a run holds until it ends; the system drops it when the process dies."""
    return FileLock(folder.resolve() / ".writer", is_singleton=True, thread_local=False)


class RunFolder:
    """Record, life, log and files of one run.

    Args:
        folder: the run's folder; its `run.json` must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest = Manifest(folder)
        self._claim = writer_claim(folder)

    def __repr__(self) -> str:
        return f"Run({self.id}, {self.status}, {len(self.files)} files)"

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def info(self) -> dict[str, Any]:
        """`run.json` as it is now."""
        return self._manifest.read()

    @property
    def status(self) -> str:
        """`running`, `complete` or `failed`."""
        return self.info["status"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was made with."""
        return self.info["config"]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the complete files, relative to the folder."""
        return tuple(entry["name"] for entry in self.info["files"])

    @property
    def data_root(self) -> Path:
        """Folder that the item paths of `points` are relative to."""
        return resolve_data_root(self.info["data_root"], self.folder)

    @property
    def is_alive(self) -> bool:
        """Whether a process is writing this run now; False for a run whose writer was killed."""
        if self.status != "running" or not (self.folder / ".writer").exists():
            return False
        if self._claim.is_locked:
            return True
        try:
            with self._claim.acquire(blocking=False):
                return False
        except (Timeout, OSError):  # held by another process, or in a folder that this user may not write
            return True

    def complete(self) -> None:
        """Mark the run complete; its writer is done."""
        self._finish("complete", None)

    def fail(self, error: str) -> None:
        """Mark the run failed and keep the reason; what it wrote stays."""
        self._finish("failed", error)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to `log.jsonl`.

        Raises:
            StoreError: no space or no permission.
        """
        log.append(self.folder / "log.jsonl", record)

    def write_budget(self, budget: Mapping[str, float]) -> None:
        """Record in `run.json` what the run cost: seconds, steps, bytes; `Store.budgets` lists it for all runs.

        Raises:
            StoreError: no space or no permission.
        """
        self._manifest.enlist({}, {"budget": dict(budget)})

    def write_skipped(self, skipped: Sequence[Mapping[str, Any]]) -> None:
        """Record in `run.json` what could not be measured: corruption, modality, items left out, reason; or nothing.

        Raises:
            StoreError: no space or no permission.
        """
        self._manifest.enlist({}, {"skipped": [dict(one) for one in skipped]})

    def history(self) -> pd.DataFrame:
        """The log, one row per line.

        Raises:
            NotComputedError: nothing was logged.
        """
        path = self.folder / "log.jsonl"
        if not path.exists():
            raise self._not_computed("log.jsonl")
        return log.read(path)

    def checkpoint_path(self, name: str) -> Path:
        """Where to write the checkpoint `name`; call `register` when it is complete."""
        folder = self.folder / "checkpoints"
        with explained("write", folder):
            folder.mkdir(exist_ok=True)
        return folder / check_name(name, "checkpoint")

    def register(self, file: Path | str) -> None:
        """List a file that something else wrote, now that it is complete.

        Args:
            file: path of a file in the run's folder, absolute or relative to the folder.

        Raises:
            ValueError: it lies outside the folder.
            FileNotFoundError: it does not exist.
        """
        path = resolve_inside(self.folder, file)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: write it before it is registered")
        with explained("write", path), path.open("rb+") as handle:
            os.fsync(handle.fileno())
        self._manifest.enlist({path.relative_to(self.folder.resolve()).as_posix(): path.stat().st_size})

    def path(self, name: str) -> Path:
        """Path of a complete file, e.g. `checkpoints/final.safetensors`.

        Raises:
            NotComputedError: it is not listed.
            StoreError: it is listed but missing or truncated.
        """
        path = self._manifest.locate(name)
        if path is None:
            raise self._not_computed(name)
        return path

    def has(self, kind: str, name: str | None = None, step: Step | None = None) -> bool:
        """Whether a part is stored: `has("scores")`, `has("fields", "mrr")`, `has("embeddings", "text", "raw")`."""
        if name is None:
            return any(file == kind or file.startswith((f"{kind}.", f"{kind}/")) for file in self.files)
        steps = self.steps(kind).get(name, [])
        return bool(steps) if step is None else check_step(step) in steps

    def steps(self, kind: str) -> dict[str, list[str]]:
        """Names stored under `kind` ("fields", "embeddings", "projections", ...) with their steps, raw first."""
        found: dict[str, list[str]] = {}
        for file in self.files:
            parent, _, rest = file.partition("/")
            name, at, step = rest.rpartition("@")
            if parent == kind and at and not rest.endswith(".json"):
                found.setdefault(name, []).append(step.partition(".")[0])
        return {name: sorted(steps, key=step_order) for name, steps in found.items()}

    # --- for Run ------------------------------------------------------------------------------------------------

    def _finish(self, status: str, error: str | None) -> None:
        try:
            with self._manifest.change() as info:
                info.update(status=status, error=error, finished=now())
        finally:
            self._claim.release(force=True)

    def _not_computed(self, name: str, stored: str = "") -> NotComputedError:
        if self.is_alive:
            return NotComputedError(f"run {self.id} has no {name} yet: it is still running")
        if "imported" in self.config and not name.startswith(("projections/", "topology/", "couplings/")):
            return NotComputedError(f"run {self.id} has no {name}{stored}: it was imported, and this takes a model")
        command = self._manifest.command(name)
        return NotComputedError(f"run {self.id} has no {name}{stored}; not computed: `{command}` does it")

    def _find(self, kind: str, name: str, step: Step | None, suffix: str) -> str:
        """File of `name` at `step`, or at the last stored step."""
        if step is None:
            stored = self.steps(kind).get(name, [])
            if not stored:
                near = ", ".join(sorted(self.steps(kind))) or "none"
                raise self._not_computed(f"{kind}/{name}", f" (its {kind}: {near})")
            step = stored[-1]
        return file_name(kind, name, step, suffix)

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        self._manifest.publish({name: lambda path: table.to_parquet(path, index=False)})

    def _read_table(self, name: str, where: Mapping[str, object] | None = None) -> pd.DataFrame:
        filters = [(column, "==", value) for column, value in (where or {}).items()] or None
        path = self.path(name)
        with self._readable(path) as file:
            return pd.read_parquet(file, filters=filters)

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        with self._readable(path) as file:
            return json.load(file)

    @contextlib.contextmanager
    def _readable(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file once: readers that open a path twice meet two versions when a writer replaces it meanwhile.

        Raises:
            StoreError: it cannot be opened, or its content is damaged.
        """
        with explained("read", path), path.open("rb") as file:
            try:
                yield file
            except (pa.ArrowException, OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise
                command = self._manifest.command(path.relative_to(self.folder).as_posix())
                raise StoreError(f"{path} is damaged ({error}): recompute it with `{command}`") from error


def file_name(kind: str, name: str, step: Step, suffix: str) -> str:
    """`<kind>/<name>@<step><suffix>`, checked."""
    return f"{kind}/{check_name(name, f'name of {kind}')}@{check_step(step)}{suffix}"
