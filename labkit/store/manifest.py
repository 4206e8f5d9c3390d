"""`run.json` and the rule that makes a run folder safe: a file counts once `run.json` lists it.

Files are written under a temporary name in the same folder, flushed to the disk and renamed; then `run.json` lists
name and size, under a file lock. A writer killed at any moment leaves at worst a temporary file and a file that is
not listed. Replacing a listed file announces the new size first, so a kill between the rename and the update leaves
one of two known sizes. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import SchemaError, StoreError, explained

SCHEMA = 1
_LOCK_SECONDS = 60.0
_STALE_SECONDS = 600.0  # no writer leaves its temporary file untouched that long


def now() -> str:
    """The current time in UTC, as text that sorts by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def plain(value: Any) -> Any:
    """`value` with numpy and torch numbers made Python's, and NaN and infinity made null, as JSON wants.

    Raises:
        TypeError: something that JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"cannot store {type(value).__name__} {value!r} as JSON; use numbers, text, lists and dicts")


class Manifest:
    """The `run.json` of one folder.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "run.json"
        self._lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS)

    def read(self) -> dict[str, Any]:
        """The whole record.

        Raises:
            StoreError: it cannot be read or is no JSON object.
            SchemaError: its layout is of another version.
        """
        with explained("read", self.path):
            text = self.path.read_bytes()
        try:
            info = json.loads(text)
            schema = info["schema"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{self.path} is damaged (no JSON object with a 'schema'): restore it, or delete {self.folder} and "
                "run again"
            ) from None
        if schema != SCHEMA:
            raise SchemaError(
                f"{self.folder} has schema {schema!r}, this labkit reads schema {SCHEMA}: open it with labkit "
                f"{info.get('labkit', 'of a newer version')}, which wrote it"
            )
        return info

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; nested use is fine.

        Raises:
            StoreError: another writer holds it for more than a minute, or it cannot be made.
        """
        with explained("write", self.folder):
            try:
                self._lock.acquire()
            except Timeout:
                raise StoreError(
                    f"{self.folder} has been locked by another writer for {_LOCK_SECONDS:.0f} s: wait for it to end"
                ) from None
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """The record, to be changed in place; written when the block ends without an error."""
        with self.locked():
            info = self.read()
            yield info
            self.write(info)

    def write(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json` by `info`, atomically; call it under the lock."""
        text = json.dumps(plain(info), indent=1, allow_nan=False)
        with explained("write", self.path):
            temporary = self._stage(self.path, lambda path: path.write_text(text, encoding="utf-8"))
            try:
                os.replace(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)

    def publish(self, writers: Mapping[str, Callable[[Path], object]], facts: Mapping[str, Any] | None = None) -> None:
        """Write files together and list them.

        Args:
            writers: file name relative to the folder -> function that writes that file to the path it is given.
            facts: entries of the record that become true with the files.

        Raises:
            StoreError: no space, no permission, ...; the files and the list are then as before.
        """
        staged: dict[Path, Path] = {}
        with explained("write", self.folder / next(iter(writers))):
            try:
                for name, write in writers.items():
                    staged[self.folder / name] = self._stage(self.folder / name, write)
                sizes = {name: staged[self.folder / name].stat().st_size for name in writers}
                with self.locked():
                    self._announce(sizes)
                    for target, temporary in staged.items():
                        os.replace(temporary, target)
                    self.enlist(sizes, facts)
            finally:
                for temporary in staged.values():
                    temporary.unlink(missing_ok=True)

    def enlist(self, sizes: Mapping[str, int], facts: Mapping[str, Any] | None = None) -> None:
        """List complete files with their sizes, and record `facts`."""
        with self.change() as info:
            info.update(facts or {})
            entries = {entry["name"]: entry for entry in info["files"]}
            entries |= {name: {"name": name, "size": size} for name, size in sizes.items()}
            info["files"] = [entries[name] for name in sorted(entries)]

    def withdraw(self, name: str) -> None:
        """Take a file off the list, then remove it."""
        with self.change() as info:
            info["files"] = [entry for entry in info["files"] if entry["name"] != name]
        with explained("remove", self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def locate(self, name: str) -> Path | None:
        """Path of a listed file, None when it is not listed.

        Raises:
            StoreError: the file has not the size it is listed with.
        """
        path = self.folder / name
        size = wanted = None
        for _ in range(5):  # a writer may replace the file between our two looks
            entry = next((e for e in self.read()["files"] if e["name"] == name), None)
            if entry is None:
                return None
            size = path.stat().st_size if path.is_file() else None
            wanted = entry["size"]
            if size is not None and size in (wanted, entry.get("next")):
                return path
        found = "missing" if size is None else f"truncated or changed ({size} bytes, {wanted} expected)"
        raise StoreError(f"{path} is {found}: recompute it with `{self.command(name)}`")

    def command(self, name: str = "") -> str:
        """The command that computes the file `name` of this run, or the whole run anew."""
        if name.startswith("projections/") and not name.startswith("projections/pca@"):
            return f"labkit project {self.folder.name}"
        if name.startswith(("topology/", "couplings/")):
            return f"labkit diagnose {self.folder.name}"
        info = self.read()
        if made := info["config"].get("imported"):
            files = [f"{modality}={file}" for modality, file in made["files"].items()]
            options = ["--points", made["points"], "--root", made["items"], "--name", info["name"]]
            return shlex.join(["labkit", "import", *files, *options])
        return f"labkit run {self.folder.name} --rerun"

    def _announce(self, sizes: Mapping[str, int]) -> None:
        """Prepare the list for files that are about to be replaced."""
        info = self.read()
        listed = [entry for entry in info["files"] if entry["name"] in sizes]
        if not listed:
            return
        if len(sizes) == 1:
            listed[0]["next"] = sizes[listed[0]["name"]]
        else:  # files that belong together: better none than one of the old and one of the new
            info["files"] = [entry for entry in info["files"] if entry["name"] not in sizes]
        self.write(info)

    def _stage(self, target: Path, write: Callable[[Path], object]) -> Path:
        """Write beside `target` under a temporary name and force it to the disk."""
        target.parent.mkdir(exist_ok=True)
        self._sweep(target.parent)
        # The suffix stays at the end: some writers choose the format by it.
        temporary = target.with_name(f".tmp-{uuid.uuid4().hex}-{target.name}")
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _sweep(self, folder: Path) -> None:
        """Remove what killed writers left."""
        for path in folder.glob(".tmp-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
