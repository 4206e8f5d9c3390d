"""Studies: what they refuse, how a killed one continues, and what a variant that raises leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml

from labkit import study as studies
from labkit.config import ConfigError
from labkit.registry import UnknownNameError
from labkit.store import Run, Store

CONSOLE = [sys.executable, "-c", "from labkit.cli import app; app(prog_name='labkit')"]


@pytest.fixture
def write(tmp_path: Path, own_file: Path) -> Callable[..., Path]:
    """A study of the own arrays in a file; `write(variants=[...], seeds=[0])`."""

    def to_file(**fields: object) -> Path:
        study = {
            "name": "tiny",
            "data": {"dataset": str(own_file), "modalities": ["a", "b"]},
            "evaluation": {"corruptions": [], "bootstrap": 100},
            "seeds": [0],
            "variants": [{"variant": "cca"}],
        }
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(study | fields))
        return path

    return to_file


def until(condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.05)


def done(root: Path) -> list[Run]:
    return [r for r in Store(root).runs() if r.status == "complete" and r.has("report")]


def test_shipped_studies_resolve() -> None:
    names = sorted(p.stem for p in (studies.REPOSITORY / "studies").glob("*.yaml"))
    assert "quickstart" in names
    for name in names:
        study = studies.load(name)
        assert study.name == name
        assert len({c.run_id for c in study.configs()}) == len(study.seeds) * len(study.variants)


def test_the_grid_has_seeds_outermost(write: Callable[..., Path]) -> None:
    cells = [{"variant": "cca"}, {"variant": "none"}, {"variant": "clip", "training": {"epochs": 3}}]
    configs = studies.load(str(write(variants=cells, seeds=[4, 7], training={"batch_size": 32}))).configs()
    assert [(c.seed, c.variant) for c in configs] == [(s, v) for s in (4, 7) for v in ("cca", "identity", "clip")]
    assert [c.training.epochs for c in configs[:3]] == [60, 60, 3]
    assert {c.training.batch_size for c in configs} == {32}


def test_a_name_that_no_study_has() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown study 'quikstart'; did you mean quickstart\?"):
        studies.load("quikstart")
    with pytest.raises(FileNotFoundError, match="no study file nowhere.yaml"):
        studies.load("nowhere.yaml")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"seeds": []}, "field 'seeds'"),
        ({"seeds": [0, 0]}, r"has the same run twice \(cca-s0-.*\): remove a variant or a seed"),
        ({"variants": [{"variant": "cca"}, {"variant": "cca", "options": {}}]}, "the same run twice"),
        ({"variants": [{"variant": "cca", "training": {"epoch": 3}}]}, "unknown field 'epoch'.*epochs"),
        ({"variants": [{"variant": "cca", "options": {"rigde": 3}}]}, "unknown field 'rigde'"),
        ({"name": "../elsewhere"}, "field 'name'"),
        ({"sedes": [0]}, "unknown field 'sedes'.*seeds"),
    ],
)
def test_wrong_fields_are_named(write: Callable[..., Path], fields: dict[str, object], sentence: str) -> None:
    path = write(**fields)
    with pytest.raises(ConfigError, match=sentence):
        studies.load(str(path)).configs()


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: [\n", "a: b: c"])
def test_a_file_that_is_no_study(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken.yaml (is no valid YAML|must hold a mapping)") as caught:
        studies.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_killed_study_continues_where_it_was(write: Callable[..., Path], tmp_path: Path) -> None:
    long = {"epochs": 300, "patience": 300, "batch_size": 16}
    cells = [{"variant": "cca"}, {"variant": "clip", "training": long}, {"variant": "procrustes"}]
    path, root = write(variants=cells), tmp_path / "runs"
    command = [*CONSOLE, "study", "run", str(path), "--jobs", "2", "--runs", str(root)]
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    running = lambda: [r for r in Store(root).runs() if r.status == "running" and r.has("points")]  # noqa: E731
    try:
        until(lambda: bool(done(root)) and bool(running()), "one run complete and one in the middle")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = {r.id: (r.folder / "run.json").stat().st_mtime_ns for r in done(root)}
    assert kept
    study = studies.load(str(path))
    state = lambda: studies.status(study, root=root)  # noqa: E731
    # the orphaned kernels notice within seconds that their parent is gone
    until(lambda: "running" not in set(state()["status"]), "the death of the orphans")
    table = state().set_index("run")
    assert "interrupted" in set(table["status"])
    assert set(table.loc[list(kept), "status"]) == {"complete"}
    interrupted = [r for r in running()]
    outcomes = studies.run(study, root=root, jobs=2)
    assert [o.status for o in outcomes] == ["complete"] * 3
    assert [o.run_id for o in outcomes] == [c.run_id for c in study.configs()]
    assert set(state()["status"]) == {"complete"}
    for run_id, moment in kept.items():
        assert (root / run_id / "run.json").stat().st_mtime_ns == moment, "a complete run was touched"
    for run in interrupted:
        assert run.info["attempts"] == 2
        assert len(run.history()) == run.history()["step"].nunique()
    for run in Store(root).runs():
        notebook = nbformat.read(run.path("report.ipynb"), as_version=4)
        assert notebook.metadata.papermill["exception"] is None
        assert any(cell.get("outputs") for cell in notebook.cells)
    assert not list((root / studies.SCRATCH).iterdir())


def test_a_variant_that_raises_fails_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    cells = [{"variant": "gotma", "options": {"w_task": 1}, "training": {"epochs": 1}}, {"variant": "cca"}]
    path, root = write(variants=cells), tmp_path / "runs"
    # the folder is given relative to the folder that the command is called from, as people do
    command = [*CONSOLE, "study", "run", str(path), "--jobs", "2", "--runs", root.name]
    played = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    reason = "ValueError: w_task is positive but the training samples have no labels; set w_task to 0"
    assert played.returncode == 1, played.stderr
    assert "1 of 2 runs failed; the same command tries them again:" in played.stderr
    assert reason in played.stderr.splitlines()[-1]
    assert "recall@10, a -> b" in played.stdout
    assert "Kernel is running over TCP without encryption" not in played.stderr
    assert (root / "report.html").is_file()
    failed, complete = Store(root).open("gotma"), Store(root).open("cca")
    assert complete.status == "complete"
    assert complete.has("projections", "umap")
    assert failed.status == "failed"
    assert failed.info["error"] == reason
    half = nbformat.read(failed.path("report.ipynb"), as_version=4)
    ran = [c for c in half.cells if c.cell_type == "code" and c.outputs]
    assert ran[-1].outputs[-1].ename == "ValueError"
    assert half.metadata.papermill["exception"] is True
    assert half.cells[-1].get("execution_count") is None, "cells after the failed one were not run"
    table = studies.status(studies.load(str(path)), root=root).set_index("variant")
    assert table["status"].to_dict() == {"gotma": "failed", "cca": "complete"}
    assert table.loc["gotma", "error"] == reason
    assert Path.cwd() != tmp_path


def test_what_cannot_start_is_said_for_each_run(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.ipynb"
    content = json.loads(studies.NOTEBOOK.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            cell["source"] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    broken.write_text(json.dumps(content))
    monkeypatch.setattr(studies, "NOTEBOOK", broken)
    here = Path.cwd()
    (outcome,) = studies.run(studies.load(str(write())), root=tmp_path / "runs", jobs=1)
    assert outcome.status == "failed"
    assert "DeadKernelError" in outcome.error
    assert f"see {tmp_path / 'runs' / studies.SCRATCH}" in outcome.error
    assert Path.cwd() == here
