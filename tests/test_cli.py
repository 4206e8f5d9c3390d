"""The command line: what it prints, its exit codes, its one sentence where something is wrong, what it imports."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from labkit import results, variants
from labkit import run as runs
from labkit import study as studies
from labkit.cli import app
from labkit.data.stamps import Stamps
from labkit.encoders import frozen
from labkit.store import Store
from labkit.study import state

LIGHT = """
import sys
from labkit.cli import app
code = 0
try:
    app(sys.argv[1:], prog_name="labkit")
except SystemExit as end:
    code = end.code
heavy = [m for m in ("torch", "panel", "holoviews", "sklearn", "transformers", "matplotlib") if m in sys.modules]
print("heavy:", heavy, "code:", code)
"""


@pytest.fixture
def labkit() -> Callable[..., Result]:
    """Call the command line in this process: `labkit("runs", "list")`. Bugs raise instead of becoming exit code 1."""

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def sentence(result: Result, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["study", "status", "--help"], 0),
        (["runs", "list"], 0),
        (["runs", "show", "nothing"], 2),
        (["runs", "compare", "a", "b"], 2),
        (["runs", "list", "--no-such-option"], 2),
        (["no-such-command"], 2),
    ],
)
def test_light_commands_stay_light(arguments: list[str], code: int, tmp_path: Path) -> None:
    environment = os.environ | {"LABKIT_RUNS": str(tmp_path)}
    command = [sys.executable, "-c", LIGHT, *arguments]
    played = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert played.stdout.splitlines()[-1] == f"heavy: [] code: {code}"
    assert "Traceback" not in played.stderr


def commands(group: object, head: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands with their words."""
    from typer.main import get_command

    found = []
    tree = get_command(app) if not head else group
    for name, command in getattr(tree, "commands", {}).items():
        words = (*head, name)
        found += commands(command, words) if hasattr(command, "commands") else [words]
    return found


@pytest.mark.parametrize("words", commands(app), ids=" ".join)
def test_help_has_a_description_and_an_example_that_parses(
    words: tuple[str, ...], labkit: Callable[..., Result]
) -> None:
    help_text = labkit(*words, "--help").output
    assert f"Example: labkit {' '.join(words)}" in " ".join(help_text.split())
    assert len(help_text.split("Example")[0].split()) > 10


def test_runs_list(small_runs: Store, labkit: Callable[..., Result], tmp_path: Path) -> None:
    result = labkit("runs", "list", "--runs", small_runs.root)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["cca", "clip", "cca", "clip"]
    assert all("complete" in line and "image,text" in line for line in lines[1:])
    empty = labkit("runs", "list", "--runs", tmp_path / "none")
    assert empty.exit_code == 0
    assert "no runs in" in empty.stdout
    assert "labkit demo" in empty.stdout


def test_an_interrupted_run_is_listed_as_such(labkit: Callable[..., Result], tmp_path: Path) -> None:
    run = Store(tmp_path).create("clip-s0-aa", name="clip", variant="clip", config={}, seed=0, data_root=".")
    assert "running" in labkit("runs", "list", "--runs", tmp_path).stdout
    run._claim.release(force=True)  # what the system does when the process dies
    assert "interrupted" in labkit("runs", "list", "--runs", tmp_path).stdout


def test_runs_show(small_runs: Store, labkit: Callable[..., Result]) -> None:
    result = labkit("runs", "show", "clip-s0", "--runs", small_runs.root)
    assert result.exit_code == 0
    assert '"epochs": 2' in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.split()[:3] == ["recall_at_10", "image", "text"])
    scores = small_runs.open("clip-s0").scores()
    clean = scores[(scores["metric"] == "recall_at_10") & (scores["corruption"] == "none")]
    expected = clean.loc[clean["source"] == "image", "value"].iloc[0]
    assert float(row.split()[3]) == pytest.approx(expected, abs=5e-4)
    assert "nothing" in sentence(labkit("runs", "show", "nothing", "--runs", small_runs.root), 2)
    told = sentence(labkit("runs", "show", "clipp-s0", "--runs", small_runs.root), 2)
    assert small_runs.open("clip-s0").id in told.partition("did you mean ")[2]
    assert "beginning of 2 runs" in sentence(labkit("runs", "show", "clip", "--runs", small_runs.root), 2)


def test_runs_compare_is_the_paired_difference(small_runs: Store, labkit: Callable[..., Result]) -> None:
    result = labkit("runs", "compare", "cca-s0", "clip-s0", "--metric", "mrr", "--runs", small_runs.root)
    assert result.exit_code == 0, result.output
    header, *rows = (line.split() for line in result.stdout.splitlines())
    assert [row[:2] for row in rows] == [["image", "text"], ["text", "image"]]
    for row in rows:
        told = dict(zip(header, row, strict=True))
        a, b = (
            small_runs.open(name).field("mrr", where={"corruption": "none", "source": row[0]}).set_index("key")["value"]
            for name in ("cca-s0", "clip-s0")
        )
        assert float(told["difference"]) == pytest.approx((a - b).mean(), abs=5e-4)
        assert float(told["low"]) <= float(told["difference"]) <= float(told["high"])
        assert int(told["n"]) == len(a)
        assert told["unpaired"] == "0"
    same = labkit("runs", "compare", "cca-s0", "cca-s0", "--runs", small_runs.root)
    assert {line.split()[2] for line in same.stdout.splitlines()[1:]} == {"0.0"}
    wrong = labkit("runs", "compare", "cca-s0", "clip-s0", "--metric", "mmr", "--runs", small_runs.root)
    assert "has no fields/mmr" in sentence(wrong, 1)


def test_data_info(labkit: Callable[..., Result], own_file: Path) -> None:
    text = labkit("data", "info").stdout
    assert "stamps: 950 samples" in text
    assert "image" in text
    assert "1280 features" in text
    assert "150 samples, 150 caption groups" in labkit("data", "info", own_file).stdout
    assert "did you mean 'stamps'" in sentence(labkit("data", "info", "stmps"), 2)
    assert "does not exist" in sentence(labkit("data", "info", "nowhere.npz"), 1)


def test_a_run_from_the_command_line_and_again_by_its_id(
    labkit: Callable[..., Result], own_file: Path, tmp_path: Path
) -> None:
    where = ("--runs", tmp_path)
    asked = ("run", "--dataset", own_file, "--modalities", "a, b", "--variant", "cca", "--option", "ridge=0.2", *where)
    first = labkit(*asked)
    assert first.exit_code == 0, first.output
    (run,) = Store(tmp_path).runs()
    assert f"{run.id}: stored in {run.folder}" in first.stdout
    assert run.config["options"]["ridge"] == 0.2
    moment = (run.folder / "run.json").stat().st_mtime_ns
    assert labkit("run", run.id[:8], *where).exit_code == 0
    assert (run.folder / "run.json").stat().st_mtime_ns == moment
    created = run.info["created"]
    assert labkit("run", run.id, "--rerun", *where).exit_code == 0
    assert run.info["created"] > created
    told = sentence(labkit("run", run.id, "--seed", "0", *where), 2)
    assert "leave out --seed, or the run's id" in told


def test_the_command_that_a_damaged_run_names_repairs_it(
    labkit: Callable[..., Result], own_file: Path, tmp_path: Path
) -> None:
    where = ("--runs", tmp_path)
    labkit("run", "--dataset", own_file, "--modalities", "a,b", "--variant", "procrustes", *where)
    (run,) = Store(tmp_path).runs()
    scores = run.folder / "scores.parquet"
    scores.write_bytes(scores.read_bytes()[:-9])
    told = sentence(labkit("runs", "show", run.id, *where), 1)
    assert "truncated" in told
    command = told[told.index("`") + 1 : told.rindex("`")].split()
    assert command[0] == "labkit"
    assert labkit(*command[1:], *where).exit_code == 0
    assert labkit("runs", "show", run.id, *where).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variant", "gotna"], "unknown variant 'gotna'; did you mean 'gotma'"),
        (["--dataset", "stmaps"], "unknown dataset 'stmaps'; did you mean 'stamps'"),
        (["--modalities", "image,smell"], "no modality 'smell'; it has image, text, speech_fr, speech_es"),
        (["--modalities", "image"], "two or more different modalities"),
        (["--missing", "1.5"], "data.missing"),
        (["--missing", "0.7"], "that 1124 can be; give a share up to 0.663, or more modalities"),
        (["--data", "shufled=0.2"], "unknown field 'data.shufled'; did you mean 'shuffled'?"),
        (
            ["--data", "domain.test=phot"],
            "data.domain.test names 'phot', which is not a kind of stamps; did you mean 'ph",
        ),
        (
            ["--data", "domain=photo", "--data", "domain.test=photo"],
            "'domain.test=photo' is an entry of 'domain', which",
        ),
        (["--option", "w_ot"], "'w_ot' must be name=value"),
        (["--option", "w_otter=3"], "unknown field 'w_otter'"),
        (["--training", "epoch=3"], "unknown field 'training.epoch'"),
        (["--training", "epochs=-3"], "training.epochs"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--seed", "-1"], "'seed'"),
    ],
)
def test_wrong_arguments(labkit: Callable[..., Result], tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert expected in sentence(labkit("run", *arguments, "--runs", tmp_path / "runs"), 2)
    assert not (tmp_path / "runs").exists()


def test_unknown_studies(labkit: Callable[..., Result], tmp_path: Path) -> None:
    for command in ("run", "status", "report", "export"):
        told = sentence(labkit("study", command, "quikstart", "--runs", tmp_path), 2)
        assert "unknown study 'quikstart'; did you mean quickstart?" in told
    assert "no study file none.yaml" in sentence(labkit("study", "status", "none.yaml", "--runs", tmp_path), 1)
    assert "no complete runs" in sentence(labkit("study", "report", "quickstart", "--runs", tmp_path), 2)
    status = labkit("study", "status", "quickstart", "--runs", tmp_path)
    assert status.exit_code == 0
    assert status.stdout.count(" not started ") == 24 + 1
    assert status.stdout.splitlines()[-1].startswith("planned 24, complete 0, failed 0, not started 24;")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"a": np.full((9, 2), np.nan), "b": np.ones((9, 2))}, "'a'"),
        ({"a": np.ones((9, 2)), "b": np.ones((8, 2))}, "'b' has 8 rows but 'a' has 9"),
        ({"a": np.ones((9, 2)), "b": np.ones((9, 2)), "key": np.array(["k"] * 9)}, "'k'"),
        ({"a": np.array([["x", "y"]] * 9), "b": np.ones((9, 2))}, "must hold real numbers"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, "at least 3 groups"),
    ],
    ids=["nan", "rows", "keys", "text", "few"],
)
def test_unusable_arrays(
    labkit: Callable[..., Result], tmp_path: Path, arrays: dict[str, np.ndarray], expected: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    asked = ("run", "--dataset", tmp_path / "bad.npz", "--modalities", "a,b", "--runs", tmp_path / "runs")
    assert expected in sentence(labkit(*asked), 2)
    assert not (tmp_path / "runs").exists()


def test_a_truncated_bundle(labkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stamps"
    folder.mkdir()
    for name in ("manifest.json", "points.parquet", "features.safetensors"):
        shutil.copy(Stamps().folder / name, folder / name)
    features = folder / "features.safetensors"
    features.write_bytes(features.read_bytes()[:-100])
    monkeypatch.setattr(Stamps.__init__, "__defaults__", (folder,))
    told = sentence(labkit("run", "--runs", tmp_path / "runs"), 1)
    assert "features.safetensors is damaged" in told
    assert "restore it with" in told
    assert not (tmp_path / "runs").exists()


def test_runs_that_cannot_be_written(
    labkit: Callable[..., Result], own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", "--dataset", own_file, "--modalities", "a,b", "--variant", "cca", "--runs")
    (tmp_path / "file").write_text("no folder")
    assert "cannot make" in sentence(labkit(*asked, tmp_path / "file"), 1)
    make = Path.mkdir

    def refuse(path: Path, *rest: object, **named: object) -> None:
        if tmp_path in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        make(path, *rest, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        told = sentence(labkit(*asked, tmp_path / "runs"), 1)
        assert "permission denied: change the permissions, or set LABKIT_RUNS" in told
        told = sentence(labkit("study", "run", "quickstart", "--runs", tmp_path / "runs"), 1)
        assert "permission denied" in told
    assert labkit(*asked, tmp_path / "runs").exit_code == 0


def test_a_full_disk(
    labkit: Callable[..., Result], own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", "--dataset", own_file, "--modalities", "a,b", "--variant", "cca", "--runs", tmp_path)
    written, fsync = [], os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "the disk is full: free some space" in sentence(labkit(*asked), 1)
    assert "interrupted" in labkit("runs", "list", "--runs", tmp_path).stdout
    assert labkit(*asked).exit_code == 0
    assert [r.status for r in Store(tmp_path).runs()] == ["complete"]


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_file: Path) -> None:
    def bug(*_: object) -> None:
        raise AttributeError("a bug in a new variant")

    monkeypatch.setattr(variants.get("cca"), "solve", bug)
    asked = ["run", "--dataset", own_file, "--modalities", "a,b", "--variant", "cca", "--runs", tmp_path]
    result = CliRunner().invoke(app, [str(a) for a in asked])
    assert result.exit_code == 1
    assert isinstance(result.exception, AttributeError)
    assert Store(tmp_path).open("cca").info["error"] == "AttributeError: a bug in a new variant"


def test_encode_compares_with_the_bundle(
    labkit: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.safetensors"
    result = labkit("encode", "--modalities", "text", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()[-2:]
    assert first.startswith("text: 950 x 384, largest difference to the bundled features ")
    assert 0 < float(first.split()[-1]) < 2e-4
    assert second == f"written: {out}"
    assert out.stat().st_size > 950 * 384 * 4
    assert "nowhere does not exist" in sentence(labkit("encode", "--out", tmp_path / "nowhere" / "x.safetensors"), 1)
    monkeypatch.setattr(frozen, "find_spec", lambda name: None)
    assert "encoders-whisper.txt" in sentence(labkit("encode", "--modalities", "speech_fr"), 1)
    assert "'stamps'" in sentence(labkit("encode", "--dataset", "stmps"), 2)


def test_export_and_read_again(
    labkit: Callable[..., Result], own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(state, "DOCS", tmp_path / "docs")
    study = tmp_path / "given_as_a_path.yaml"
    study.write_text(
        f"name: mine\ndata: {{dataset: {own_file}, modalities: [a, b]}}\n"
        "evaluation: {corruptions: [], bootstrap: 100}\n"
        "seeds: [0, 1]\nvariants: [{variant: cca}, {variant: procrustes}]\n"
    )
    where = ("--runs", tmp_path / "runs")
    labkit("run", "--dataset", own_file, "--modalities", "a,b", "--variant", "clip", "--training", "epochs=1", *where)
    assert "no complete runs" in sentence(labkit("study", "export", study, *where), 2)
    made = [runs.execute(config, root=tmp_path / "runs") for config in studies.load(str(study)).configs()[:3]]
    result = labkit("study", "export", study, *where)
    told = f"written: {tmp_path / 'results' / 'mine'} and {tmp_path / 'docs' / 'mine.md'}"
    assert result.stdout.splitlines()[0] == told
    assert result.stdout.splitlines()[1].startswith("planned 4, complete 3, failed 0, not started 1;")
    scores, fields = results.read("mine")
    assert list(dict.fromkeys(scores["run"])) == [r.id for r in made], "runs of other studies stay out"
    for run in made:
        stored = run.scores()
        read = scores[scores["run"] == run.id].drop(columns=["run", "variant", "cell"]).reset_index(drop=True)
        assert read.equals(stored)
        mean = fields[(fields["run"] == run.id) & (fields["source"] == "a")]["value"].mean()
        clean = stored[(stored["metric"] == "recall_at_10") & (stored["source"] == "a")]
        assert mean == pytest.approx(clean["value"].iloc[0], abs=1e-5)
    costs = results.budgets("mine")
    assert set(costs["run"]) == {r.id for r in made}
    assert (costs["train_seconds"] > 0).all()
    with_costs = results.read_all(["mine", "other"])
    assert list(with_costs) == ["mine"]
    assert set(with_costs["mine"]["cell"]) == set(scores["cell"])
    assert set(with_costs["mine"]["metric"]) > set(scores["metric"]) | {"train_seconds"}
    assert len(results.budgets("ignored", runs=tmp_path / "runs")) == 4
    assert results.budgets("other").empty
    everything, _ = results.read("ignored", runs=tmp_path / "runs")
    assert set(everything["variant"]) == {"cca", "procrustes", "clip"}
    with pytest.raises(FileNotFoundError, match="no results of study 'other'.*there are: mine"):
        results.read("other")
    with pytest.raises(FileNotFoundError, match="no per-sample values of 'mrr'; it has those of recall_at_10"):
        results.read("mine", metric="mrr")
    with pytest.raises(ValueError, match="no complete runs in"):
        results.read("mine", runs=tmp_path / "empty")


def test_a_report_is_written_again_only_when_it_is_old(small_runs, tmp_path):
    from labkit import report
    from labkit.cli import _is_current
    from labkit.study import Study

    complete = [run for run in small_runs.runs() if run.status == "complete"]
    study, other = (Study(name=name, variants=({"variant": "cca"},), seeds=(0,)) for name in ("mine", "yours"))
    path = tmp_path / "report.html"
    assert not _is_current(path, study, complete)
    report.write(small_runs, [run.id for run in complete], title="mine", path=path)
    assert _is_current(path, study, complete)
    assert not _is_current(path, other, complete)
    os.utime(path, (0, 0))
    assert not _is_current(path, study, complete)
