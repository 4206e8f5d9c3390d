"""Killed writers, competing writers, full disks, missing permissions, damaged files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.store import Run, Store, StoreError

WRITER = Path(__file__).with_name("killed_writer.py")


def play(mode: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(WRITER), mode, str(root)], capture_output=True, text=True, timeout=120)


def check_readable(run: Run) -> set[float]:
    """Read every listed file; the versions that were found."""
    versions = set()
    for name in run.files:
        run.path(name)
    if run.has("scores"):
        table = run.scores()
        assert len(table) == table["value"].iloc[0] % 7 + 1
        versions |= set(table["value"])
    if run.has("fields"):
        versions |= set(run.field("m")["value"])
    if run.has("embeddings"):
        vectors = run.embedding("image")
        assert vectors.shape[1] == 2 + vectors[0, 0] % 5 or vectors[0, 0] > 2048  # float16 rounds larger versions
        versions |= {float(vectors[0, 0])}
    for record in run.couplings().to_dict("records"):
        table, meta = run.coupling("a", "b", "sinkhorn", 0.1)
        assert set(table["mass"]) == {meta["version"]}, "table and record are of different versions"
        assert len(table) == 3 + record["version"] % 9
    for name in run.selections():
        run.selection(name)
    if (run.folder / "log.jsonl").exists():
        run.history()
    return versions


def test_a_writer_killed_at_any_change_of_the_disk_leaves_a_readable_run(tmp_path: Path) -> None:
    played = play("every_call", tmp_path)
    assert played.returncode == 0, played.stderr
    runs = Store(tmp_path).runs()
    assert len(runs) > 30
    assert Store(tmp_path).problems == []
    seen = []
    for run in runs:
        versions = check_readable(run)
        assert versions <= {1.0, 2.0}
        # what was there before stays, whatever was being replaced; only the two files of a coupling may both go
        assert {"scores.parquet", "fields/m@final.parquet", "embeddings/image@final.npy"} <= set(run.files)
        assert not run.is_alive
        seen.append(versions)
    assert {1.0} in seen
    assert {2.0} in seen
    assert {1.0, 2.0} in seen


def test_writers_killed_at_random_moments(tmp_path: Path) -> None:
    played = play("random_moments", tmp_path)
    assert played.returncode == 0, played.stderr
    run = Store(tmp_path).open("run")
    check_readable(run)
    assert run.info["attempts"] >= 12
    assert max(run.history()["step"]) >= 1000, "no attempt wrote anything"
    assert list(run.folder.rglob(".tmp-*")), "no kill hit a write; the test proves nothing"


def test_an_interrupted_run_is_taken_up_and_its_leftovers_swept(
    start: Callable[..., Run], points: pd.DataFrame
) -> None:
    run = start()
    run.write_points(points)
    left = run.folder / ".tmp-dead-scores.parquet"
    fresh = run.folder / ".tmp-live-scores.parquet"
    for file in (left, fresh):
        file.write_bytes(b"half")
    os.utime(left, (time.time() - 3600,) * 2)
    run.write_selection("s", ["k0"])
    run.write_points(points)
    assert not left.exists()
    assert fresh.exists(), "a writer that is still at work lost its file"


def test_processes_write_into_one_run(tmp_path: Path) -> None:
    played = play("competing", tmp_path)
    assert played.returncode == 0, played.stderr
    run = Store(tmp_path).open("run")
    assert sorted(run.scores()["seed"]) == sorted(100 * w + v for w in range(3) for v in range(10))
    assert run.selections() == ["s0", "s1", "s2"]
    assert len(run.history()) == 30


def test_a_reader_beside_a_writer_sees_only_whole_files(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, str(WRITER), "competing", str(tmp_path)])
    reads = 0
    while writer.poll() is None:
        for run in Store(tmp_path).runs():
            if run.has("scores"):
                assert len(run.scores()) > 0
                reads += 1
    assert writer.returncode == 0
    assert reads > 0


def test_a_write_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    played = play("out_of_space", tmp_path)
    assert played.returncode == 0, played.stderr
    sentences = played.stdout.splitlines()
    assert len(sentences) == 2
    assert all(s.startswith("cannot write ") for s in sentences)
    assert "image@final.npy" in sentences[0]
    assert "scores.parquet" in sentences[1]
    run = Store(tmp_path).open("run")
    assert check_readable(run) == {1.0}
    assert not list(run.folder.rglob(".tmp-*"))


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "permission"), (errno.EROFS, "read-only")]
)
def test_the_operating_systems_refusals_become_one_sentence(
    run: Run, score: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch, call: str, number: int, remedy: str
) -> None:
    run.write_scores(score(value=0.25))
    before = sorted(run.folder.rglob("*"))

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(StoreError, match=remedy) as caught:
            run.write_scores(score(value=0.75))
        with pytest.raises(StoreError, match=remedy):
            run.write_selection("s", ["k0"])
        with pytest.raises(StoreError, match=remedy):
            run.complete()
    assert str(run.folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run.scores()["value"].tolist() == [0.25]
    assert [p for p in sorted(run.folder.rglob("*")) if p.name != "selections"] == before
    assert run.status == "running"


def test_a_folder_that_cannot_be_made(store: Store, start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="cannot make .*clip-s0-aa: permission denied.*LABKIT_RUNS"):
        start()
    assert store.runs() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(run: Run, score: Callable[..., pd.DataFrame]) -> None:
    run.write_scores(score())
    run.folder.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="permission denied"):
            run.write_scores(score(value=1.0))
        assert run.scores()["value"].tolist() == [0.5]
    finally:
        run.folder.chmod(0o700)


def test_the_store_is_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot make"):
        Store(tmp_path / "runs").create("a", name="", variant="", config={}, seed=0, data_root=".")


@pytest.mark.parametrize("name", ["scores.parquet", "embeddings/image@final.npy"])
def test_a_truncated_file_says_how_to_recompute_it(
    run: Run, points: pd.DataFrame, score: Callable[..., pd.DataFrame], name: str
) -> None:
    run.write_points(points)
    run.write_scores(score())
    run.write_embedding("image", "final", np.ones((len(points), 3)))
    file = run.folder / name
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(StoreError, match=f"truncated.*labkit run {run.id} --rerun"):
        run.path(name)
    file.unlink()
    with pytest.raises(StoreError, match="missing: recompute it"):
        run.path(name)


def test_a_damaged_file_of_the_right_size(run: Run, points: pd.DataFrame, score: Callable[..., pd.DataFrame]) -> None:
    run.write_points(points)
    run.write_scores(score())
    run.write_embedding("image", "final", np.ones((len(points), 3)))
    for file in (run.folder / "scores.parquet", run.folder / "embeddings/image@final.npy"):
        file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(StoreError, match="scores.parquet is damaged.*recompute"):
        run.scores()
    with pytest.raises(StoreError, match="npy is damaged.*recompute"):
        run.embedding("image")


def test_a_pickle_is_not_loaded(run: Run, points: pd.DataFrame) -> None:
    run.write_points(points)
    file = run.folder / "embeddings" / "image@final.npy"
    file.parent.mkdir()
    np.save(file, np.array([{"code": "runs"}], dtype=object), allow_pickle=True)
    run.register(file)
    for mode in ("r", None):
        with pytest.raises(StoreError, match="damaged"):
            run.embedding("image", mmap_mode=mode)


def test_a_torn_line_of_the_log_costs_that_line_only(run: Run) -> None:
    run.log({"step": 0, "loss": 1.0})
    with (run.folder / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "lo')
    assert run.history()["step"].tolist() == [0]
    run.log({"step": 2, "loss": 0.5})
    assert run.history()["step"].tolist() == [0, 2]
