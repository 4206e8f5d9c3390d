"""Cached vectors: each row once, across kills and processes; damage is found; what cannot be computed is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labkit.encoders import cache
from labkit.encoders.cache import CHUNK, DamagedCacheWarning, Features, cache_root
from labkit.store import StoreError

SCRIPT = Path(__file__).with_name("filling_cache.py")
N, DIM = 4 * CHUNK, 3
ABOUT = {"what": "slow"}


def expected(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows)[:, None] + np.arange(DIM, dtype=np.float32)


def start(folder: Path, log: Path, seconds: float) -> subprocess.Popen:
    log.touch()
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(N), str(log), str(seconds)])


def logged(log: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for line in log.read_text().splitlines() if line.count(" ") == 1)


class Recorder:
    """Computes `expected` and remembers which rows it was asked for."""

    def __init__(self, failing: dict[int, str] | None = None) -> None:
        self.asked: list[int] = []
        self.failing = failing or {}

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        self.asked += rows.tolist()
        return expected(rows), {int(r): self.failing[int(r)] for r in rows if int(r) in self.failing}


@pytest.fixture
def features(tmp_path: Path) -> Features:
    return Features(tmp_path / "some", ABOUT, n=N, dim=DIM)


def test_only_the_rows_that_are_asked_for_are_computed_and_each_once(features: Features) -> None:
    compute, done = Recorder(), []
    asked = np.array([70, 3, 200, 3])
    z, failed = features.rows(asked, compute, done.append)
    assert np.array_equal(z, expected(asked))
    assert z.dtype == np.float32
    assert failed == {}
    assert sorted(compute.asked) == [3, 70, 200]
    assert sum(done) == 3
    assert features.missing(np.array([3, 4, 70])).tolist() == [4]
    again = Recorder()
    z, _ = Features(features.folder, ABOUT, n=N, dim=DIM).rows(np.array([200, 4]), again)
    assert again.asked == [4]
    assert np.array_equal(z, expected(np.array([200, 4])))


def test_the_files_are_memory_mapped_arrays_and_a_description(features: Features) -> None:
    features.rows(np.array([5]), Recorder())
    stored = np.load(features.folder / "features.npy", mmap_mode="r")
    assert stored.shape == (N, DIM)
    assert np.array_equal(stored[5], expected(np.array([5]))[0])
    assert json.loads((features.folder / "about.json").read_text()) == ABOUT | {"n": N, "dim": DIM}
    assert [p.name for p in features.folder.parent.glob(".tmp-*")] == []


def test_a_killed_process_leaves_what_it_completed(tmp_path: Path) -> None:
    folder, log = tmp_path / "some", tmp_path / "log"
    process = start(folder, log, 0.5)
    deadline = time.monotonic() + 60
    while len(logged(log)) <= CHUNK and time.monotonic() < deadline:  # in the second chunk, the first is written
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begun = logged(log)
    assert CHUNK < len(begun) < N
    compute = Recorder()
    z, _ = Features(folder, ABOUT, n=N, dim=DIM).rows(np.arange(N), compute)
    assert np.array_equal(z, expected(np.arange(N)))
    assert set(compute.asked) == set(range(CHUNK, N)), "the complete chunk stays, the one that was cut off is redone"


def test_two_processes_at_once_share_the_work_and_compute_no_row_twice(tmp_path: Path) -> None:
    folder, log = tmp_path / "some", tmp_path / "log"
    processes = [start(folder, log, 0.4) for _ in range(2)]
    assert [p.wait(timeout=90) for p in processes] == [0, 0]
    assert logged(log) == Counter(range(N))
    z, _ = Features(folder, ABOUT, n=N, dim=DIM).rows(np.arange(N), Recorder())
    assert np.array_equal(z, expected(np.arange(N)))


@pytest.mark.parametrize("name", ["features.npy", "rows.npy", "about.json"])
@pytest.mark.parametrize("how", ["truncated", "emptied", "gone"])
def test_a_damaged_file_is_named_and_its_rows_computed_again(features: Features, name: str, how: str) -> None:
    features.rows(np.arange(10), Recorder())
    path = features.folder / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 7] if how == "truncated" else b"")
    if how == "gone":
        path.unlink()
    compute = Recorder()
    with pytest.warns(DamagedCacheWarning, match=rf"{name} is damaged .*some are computed again"):
        reopened = Features(features.folder, ABOUT, n=N, dim=DIM)
    z, _ = reopened.rows(np.arange(10), compute)
    assert np.array_equal(z, expected(np.arange(10)))
    assert compute.asked == list(range(10))


def test_changed_bytes_of_a_row_are_found_and_only_it_is_computed_again(features: Features) -> None:
    features.rows(np.arange(10), Recorder())
    path = features.folder / "features.npy"
    content = bytearray(path.read_bytes())
    content[len(content) - 4 * DIM * (N - 6)] ^= 0x40  # in row 6
    path.write_bytes(content)
    compute = Recorder()
    with pytest.warns(DamagedCacheWarning, match=r"features\.npy is damaged in 1 row"):
        z, _ = Features(features.folder, ABOUT, n=N, dim=DIM).rows(np.arange(10), compute)
    assert compute.asked == [6]
    assert np.array_equal(z, expected(np.arange(10)))


def test_a_folder_of_other_vectors_is_replaced(features: Features) -> None:
    features.rows(np.arange(4), Recorder())
    with pytest.warns(DamagedCacheWarning, match="describes other vectors"):
        other = Features(features.folder, {"what": "other"}, n=N, dim=DIM)
    assert len(other.missing(np.arange(4))) == 4


def test_what_cannot_be_computed_is_named_zero_and_tried_again(features: Features) -> None:
    z, failed = features.rows(np.arange(5), Recorder(failing={2: "unreadable"}))
    assert failed == {2: "unreadable"}
    assert (z[2] == 0).all()
    assert np.array_equal(z[[0, 1, 3, 4]], expected(np.array([0, 1, 3, 4])))
    compute = Recorder()
    z, failed = features.rows(np.arange(5), compute)
    assert (compute.asked, failed) == ([2], {})
    assert np.array_equal(z, expected(np.arange(5)))


def test_vectors_that_are_not_finite_are_not_kept(features: Features) -> None:
    def broken(rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        return np.where(rows[:, None] == 1, np.nan, expected(rows)), {}

    z, failed = features.rows(np.arange(3), broken)
    assert failed == {1: "its vector is not finite"}
    assert (z[1] == 0).all()
    assert features.missing(np.arange(3)).tolist() == [1]


def test_a_row_of_zeros_counts_as_done(features: Features) -> None:
    features.rows(np.array([0]), lambda rows: (np.zeros((len(rows), DIM), np.float32), {}))
    assert len(features.missing(np.array([0]))) == 0


def test_a_full_disk_is_a_sentence_with_a_remedy(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_put", full)
    with pytest.raises(StoreError, match=r"cannot write .*some: the disk is full: .*LABKIT_CACHE"):
        features.rows(np.array([0]), Recorder())


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_CACHE", raising=False)
    assert cache_root(tmp_path / "runs") == tmp_path / "labkit-cache"
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere" / "runs"))
    assert cache_root() == tmp_path / "elsewhere" / "labkit-cache"
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "mine"))
    assert cache_root(tmp_path / "runs") == tmp_path / "mine"
