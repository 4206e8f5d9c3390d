"""Vectors that were expensive to compute, kept on disk row by row: a folder of three files per set of vectors.

    features = Features(folder, about, n=950, dim=1280)
    z, failed = features.rows(index, compute)         # computes only the rows that are not there

`features.npy` [n d] is memory-mapped float32, `rows.npy` [n] holds a CRC-32 of every row that is done and 0 of the
others, `about.json` says what the vectors are. Rows are written before their checksums, in chunks, each under its own
file lock: what a killed process completed stays, and two processes share the work and compute no row twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from labkit.store.errors import explained
from labkit.store.names import runs_root

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    # row numbers -> their vectors, and why some could not be computed
    Compute = Callable[[Int[np.ndarray, " k"]], tuple[Float[np.ndarray, "k d"], dict[int, str]]]

VARIABLE = "LABKIT_CACHE"
CHUNK = 64  # rows of the data set that one process computes at a time


class DamagedCacheWarning(UserWarning):
    """Stored vectors were not what was written; they are computed again."""


def cache_root(runs: Path | str | None = None) -> Path:
    """Folder of the caches: `$LABKIT_CACHE`, else `labkit-cache` beside the folder of the runs.

    Args:
        runs: folder of the runs; `labkit.store.runs_root()` by default.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    return (runs_root() if runs is None else Path(runs)).resolve().parent / "labkit-cache"


class Features:
    """One set of vectors, [n d] float32.

    Args:
        folder: of its files; made when it is not there.
        about: what the vectors are, as JSON can hold it; a folder that says something else is replaced.
        n: rows.
        dim: length of a row.

    Raises:
        StoreError: the folder cannot be read or written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, n: int, dim: int) -> None:
        self.folder = folder
        self._about = json.loads(json.dumps({**about, "n": n, "dim": dim}))
        self._vectors, self._sums = folder / "features.npy", folder / "rows.npy"
        with explained("write", folder, variable=VARIABLE):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / ".lock"):
                if folder.exists() and (problem := self._problem()):
                    _warn(f"{problem}; the vectors of {folder.name} are computed again")
                    shutil.rmtree(folder)
                if not folder.exists():
                    self._make()
                # plain views of the maps: rows of a memmap are slow to take
                self._z = np.asarray(np.load(self._vectors, mmap_mode="r"))
                self._crc = np.asarray(np.load(self._sums, mmap_mode="r"))

    def missing(self, index: Int[np.ndarray, " k"]) -> Int[np.ndarray, " m"]:
        """Those of the rows that are not there or damaged."""
        there = np.array([self._crc[i] == _checksum(self._z[i]) for i in index], dtype=bool)
        return index[~there]

    def rows(
        self, index: Int[np.ndarray, " k"], compute: Compute, advance: Callable[[int], object] = lambda _: None
    ) -> tuple[Float[np.ndarray, "k d"], dict[int, str]]:
        """The vectors of some rows.

        Args:
            index: row numbers.
            compute: called with those that are not there, a chunk at a time.
            advance: called with the number of rows that were looked up or computed, for a progress bar.

        Returns:
            The vectors in the order of `index`, zero where they could not be computed, and why not by row number;
            these are not stored and tried again the next time.

        Raises:
            StoreError: the folder cannot be written.
        """
        lacking = self.missing(np.unique(index))
        chunks = {int(c): lacking[lacking // CHUNK == c] for c in np.unique(lacking // CHUNK)}
        failed: dict[int, str] = {}
        for wait in (False, True):  # first what no other process is at, then what they have left
            busy = {}
            for number, asked in chunks.items():
                with self._claimed(number, wait=wait) as mine:
                    if not mine:
                        busy[number] = asked
                        continue
                    failed |= self._complete(asked, compute)
                    advance(len(asked))
            chunks = busy
        z = np.array(self._z[index])
        z[[i in failed for i in index.tolist()]] = 0.0
        return z, failed

    def _complete(self, asked: np.ndarray, compute: Compute) -> dict[int, str]:
        """Compute and store what is missing now, under the chunk's lock; why some rows could not be computed."""
        left = self.missing(asked)
        if len(left) == 0:
            return {}
        if damaged := int((self._crc[left] != 0).sum()):
            _warn(f"{self._vectors} is damaged in {damaged} row(s); they are computed again")
        z, failed = compute(left)
        z = np.ascontiguousarray(z, dtype=np.float32)
        endless = {
            int(i): "its vector is not finite" for i, row in zip(left, z, strict=True) if not np.isfinite(row).all()
        }
        failed = endless | failed
        good = [(int(i), row.tobytes(), _checksum(row)) for i, row in zip(left, z, strict=True) if int(i) not in failed]
        # written as a file, not through the map: where the disk is full that is an error and not the end of the process
        with explained("write", self.folder, variable=VARIABLE):
            _put(self._vectors, self._z, [(i, text) for i, text, _ in good])
            _put(self._sums, self._crc, [(i, np.uint32(crc).tobytes()) for i, _, crc in good])
        return failed

    @contextlib.contextmanager
    def _claimed(self, chunk: int, *, wait: bool) -> Iterator[bool]:
        """Whether the chunk is this process's while the block lasts."""
        lock = FileLock(self.folder / "locks" / f"{chunk}.lock")
        with explained("write", self.folder, variable=VARIABLE), contextlib.suppress(Timeout):
            lock.acquire(blocking=wait)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _problem(self) -> str:
        """What is wrong with the folder, empty if nothing."""
        n, dim = self._about["n"], self._about["dim"]
        about = self.folder / "about.json"
        try:
            if json.loads(about.read_bytes()) != self._about:
                return f"{about} describes other vectors"
        except (OSError, ValueError) as error:
            return f"{about} is damaged ({error})"
        for path, shape, dtype in ((self._vectors, (n, dim), np.float32), (self._sums, (n,), np.uint32)):
            try:
                found = np.load(path, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:  # a truncated file is a ValueError
                return f"{path} is damaged ({error})"
            if found.shape != shape or found.dtype != dtype:
                return (
                    f"{path} is damaged ({found.dtype} {list(found.shape)} instead of {np.dtype(dtype)} {list(shape)})"
                )
        return ""

    def _make(self) -> None:
        """Write empty files beside the folder, and rename: a folder is complete or not there."""
        n, dim = self._about["n"], self._about["dim"]
        part = self.folder.with_name(f".tmp-{uuid.uuid4().hex}")
        (part / "locks").mkdir(parents=True)
        try:
            np.lib.format.open_memmap(part / self._vectors.name, "w+", np.float32, (n, dim)).flush()
            np.lib.format.open_memmap(part / self._sums.name, "w+", np.uint32, (n,)).flush()
            (part / "about.json").write_text(json.dumps(self._about, indent=1), encoding="utf-8")
            os.replace(part, self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _put(path: Path, mapped: np.ndarray, rows: list[tuple[int, bytes]]) -> None:
    """Overwrite rows of an .npy file."""
    size = mapped.strides[0]
    start = path.stat().st_size - size * len(mapped)
    with path.open("r+b") as file:
        for i, text in rows:
            file.seek(start + size * i)
            file.write(text)


def _checksum(row: np.ndarray) -> int:
    """CRC-32 of a row, never the 0 of a row that is not done."""
    return zlib.crc32(row.tobytes()) or 1


def _warn(message: str) -> None:
    warnings.warn(message, DamagedCacheWarning, stacklevel=4)
