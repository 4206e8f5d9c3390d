"""Studies: what they refuse, how a killed one continues, and what a variant that raises leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from labkit import results, stats
from labkit import run as runs
from labkit import study as studies
from labkit.config import ConfigError
from labkit.evaluate import CURVE_METRICS, FIELDS_OF_CURVES
from labkit.registry import UnknownNameError
from labkit.store import Run, Store
from labkit.study import grid, jobs, state

SHIPPED = sorted(p.stem for p in grid.FOLDER.glob("*.yaml") if p.stem != grid.CLAIMS)
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
    assert {"quickstart", "baselines", "few-pairs", "redundancy"} <= set(SHIPPED)
    for name in SHIPPED:
        study = studies.load(name)
        assert study.name == name
        assert 0 < len(study.configs()) <= 320, "a study is finished in an hour or two on two cores"


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
        ({"seeds": [0, 0]}, "has cell 'cca' with seed 0 twice: remove a variant or a seed"),
        ({"seeds": [-1]}, "field 'seeds.0' is -1"),
        ({"variants": [{"variant": "cca"}, {"variant": "cca", "options": {}}]}, "cell 'cca' with seed 0 twice"),
        ({"variants": [{"variant": "cca", "lable": "x"}]}, "unknown field 'variants.0.lable'; did you mean 'label'"),
        ({"grid": {"option.dim": [2]}}, "axis 'option.dim' is unknown; did you mean 'options.dim'"),
        ({"grid": {"dim": [2]}}, "axis 'dim' is unknown; write options.<field> or data.<field>"),
        ({"grid": {"options.dim": []}}, "axis 'options.dim' has no values"),
        ({"grid": {"data.pair": [0.5]}}, "unknown field 'data.pair'; did you mean 'pairs'"),
        ({"grid": {"data.pairs": [-1]}}, r"cell 'cca, pairs=-1' of study 'tiny': field 'data.pairs' is -1"),
        ({"grid": {"options.dmi": [2]}}, "unknown field 'dmi'; did you mean 'dim'"),
        ({"data": {"modalities": ["a"]}}, "needs two or more different modalities"),
        ({"training": {"batch_size": 1}}, "field 'training.batch_size' is 1: .*greater than or equal to 2"),
        ({"variants": [{"variant": "ot", "options": {"w_ot": 0, "w_contrastive": 0}}]}, "all weights .* are 0"),
        (
            {"variants": [{"variant": "cca", "training": {"epoch": 3}}]},
            "unknown field 'training.epoch'; did you mean 'epochs'",
        ),
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
    told = lambda: studies.status(study, root=root)  # noqa: E731
    # the orphaned kernels notice within seconds that their parent is gone
    until(lambda: "running" not in set(told()["status"]), "the death of the orphans")
    table = told().set_index("run")
    assert "interrupted" in set(table["status"])
    assert set(table.loc[list(kept), "status"]) == {"complete"}
    interrupted = [r for r in running()]
    outcomes = studies.run(study, root=root, jobs=2)
    assert [o.status for o in outcomes] == ["complete"] * 3
    assert [o.run_id for o in outcomes] == [c.run_id for c in study.configs()]
    assert set(told()["status"]) == {"complete"}
    for run_id, moment in kept.items():
        assert (root / run_id / "run.json").stat().st_mtime_ns == moment, "a complete run was touched"
    for run in interrupted:
        assert run.info["attempts"] == 2
        assert len(run.history()) == run.history()["step"].nunique()
    for run in Store(root).runs():
        notebook = nbformat.read(run.path("report.ipynb"), as_version=4)
        assert notebook.metadata.papermill["exception"] is None
        assert any(cell.get("outputs") for cell in notebook.cells)
    assert not list((root / jobs.SCRATCH).iterdir())


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
    content = json.loads(jobs.NOTEBOOK.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            cell["source"] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    broken.write_text(json.dumps(content))
    monkeypatch.setattr(jobs, "NOTEBOOK", broken)
    here = Path.cwd()
    (outcome,) = studies.run(studies.load(str(write())), root=tmp_path / "runs", jobs=1)
    assert outcome.status == "failed"
    assert "DeadKernelError" in outcome.error
    assert f"see {tmp_path / 'runs' / jobs.SCRATCH}" in outcome.error
    assert Path.cwd() == here


def test_a_grid_is_multiplied_and_every_cell_has_a_label(write: Callable[..., Path]) -> None:
    cells = [
        {"variant": "clip", "label": "contrast", "grid": {"options.dim": [8, 16], "data.pairs": [0.25]}},
        {"variant": "gcca", "seeds": [5]},
    ]
    study = studies.load(str(write(variants=cells, grid={"data.pairs": [1.0, 0.5]}, seeds=[0, 1])))
    table = studies.cells(study)
    assert study.axes == ("data.pairs", "options.dim")
    clip = table[table["variant"] == "clip"]
    assert clip["cell"].unique().tolist() == ["contrast, pairs=0.25, dim=8", "contrast, pairs=0.25, dim=16"]
    assert sorted(zip(clip["options.dim"], clip["seed"], strict=True)) == [(8, 0), (8, 1), (16, 0), (16, 1)]
    cca = table[table["variant"] == "cca"]
    assert list(zip(cca["cell"], cca["seed"], cca["data.pairs"], strict=True)) == [
        ("cca, pairs=1", 5, 1.0),
        ("cca, pairs=0.5", 5, 0.5),
    ]
    assert cca["options.dim"].tolist() == [64, 64], "an axis is told for cells that do not vary it, too"
    configs = {c.run_id: c for c in study.configs()}
    for row in table.to_dict("records"):
        config = configs[row["run"]]
        assert (config.data.pairs, config.options["dim"]) == (row["data.pairs"], row["options.dim"])


def test_every_part_of_a_configuration_can_differ_from_cell_to_cell(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    cell = {
        "variant": "clip",
        "data": {"dataset": "redundancy", "modalities": ["first", "second"], "options": {"n": 300}},
        "evaluation": {"bootstrap": 200},
        "training": {"epochs": 2},
        "grid": {"data.options.redundancy": [0, 8], "training.batch_size": [32]},
    }
    path.write_text(yaml.safe_dump({"name": "mixed", "seeds": [0], "variants": [{"variant": "cca"}, cell]}))
    plain, *mixed = studies.load(str(path)).configs()
    assert (plain.data.dataset, plain.evaluation.bootstrap, plain.training.batch_size) == ("stamps", 1000, 256)
    assert [(c.data.options["redundancy"], c.data.options["n"], c.data.options["depth"]) for c in mixed] == [
        (0, 300, 0),
        (8, 300, 0),
    ]
    assert {(c.evaluation.bootstrap, c.training.epochs, c.training.batch_size) for c in mixed} == {(200, 2, 32)}


def test_cells_that_ask_for_the_same_run_share_it(write: Callable[..., Path], tmp_path: Path) -> None:
    cells = [{"variant": "cca"}, {"variant": "cca", "grid": {"options.dim": [64, 128]}}]
    study, root = studies.load(str(write(variants=cells))), tmp_path / "runs"
    assert len(studies.cells(study)) == 3
    assert len(study.configs()) == 2
    for config in study.configs():
        runs.execute(config, root=root)
    scores, fields = studies.tables(study, root)
    for table in (scores, fields):
        sizes = table.groupby("cell").size()
        assert set(sizes.index) == {"cca", "cca, dim=64", "cca, dim=128"}
        assert sizes["cca"] == sizes["cca, dim=64"]
        shared = [table[table["cell"] == c].drop(columns="cell").reset_index(drop=True) for c in ("cca", "cca, dim=64")]
        assert shared[0].equals(shared[1])
    stored = Store(root).scores([c.run_id for c in study.configs()])
    columns = [c for c in scores.columns if c not in ("cell", "options.dim")]
    assert columns == list(stored.columns), "columns of the store, and none of them changed"
    first, *_ = studies.leaderboards(scores, fields)
    assert set(first["variant"]) == set(scores["cell"])


def test_cells_start_from_the_best_trial_of_the_record(write: Callable[..., Path], tmp_path: Path) -> None:
    record = tmp_path / "record.csv"
    rows = [
        ("cca", 0, 0.2, {}, {}),
        ("cca", 1, 0.6, {"dim": 32, "ridge": 0.3}, {}),
        ("clip", 0, 0.5, {"dim": 16}, {"learning_rate": 0.002, "weight_decay": 0.01}),
        ("clip", 1, float("nan"), {"dim": 99}, {}),
        ("ot", 0, float("nan"), {"dim": 99}, {}),
    ]
    table = pd.DataFrame(rows, columns=["variant", "trial", "score", "options", "training"])
    table.assign(**{c: table[c].map(json.dumps) for c in ("options", "training")}).to_csv(record, index=False)
    cells = [
        {"variant": "gcca"},
        {"variant": "cca", "label": "small", "options": {"dim": 8}},
        {"variant": "clip", "training": {"learning_rate": 0.01}, "grid": {"options.temperature": [0.1]}},
        {"variant": "ot"},
    ]
    study = studies.load(str(write(variants=cells, tuned=str(record), training={"epochs": 3})))
    cca, small, clip, ot = study.configs()
    assert (cca.options["dim"], cca.options["ridge"]) == (32, 0.3)
    assert (small.options["dim"], small.options["ridge"]) == (8, 0.3), "what the cell says comes before the record"
    assert (clip.options["dim"], clip.options["temperature"]) == (16, 0.1)
    assert (clip.training.learning_rate, clip.training.weight_decay, clip.training.epochs) == (0.01, 0.01, 3)
    assert ot.options["dim"] == 128
    assert study.untuned() == ["ot"]
    missing = studies.load(str(write(variants=cells, tuned=str(tmp_path / "none.csv"))))
    assert missing.untuned() == ["clip", "ot"], "closed forms have defaults that need no search"
    record.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="record.csv is no record of `labkit tune`"):
        study.configs()


def test_jobs_hold_the_seeds_of_one_configuration(write: Callable[..., Path]) -> None:
    cells = [{"variant": "cca", "grid": {"options.dim": [8, 16]}}, {"variant": "clip", "seeds": list(range(7))}]
    planned = studies.load(str(write(variants=cells, seeds=[0, 1, 2]))).planned()
    made = jobs._jobs(planned, set(), workers=2)
    told = [(job.cell, [c.seed for c in job.configs]) for job in made]
    assert told == [
        ("cca, dim=8", [0, 1, 2]),
        ("cca, dim=16", [0, 1, 2]),
        ("clip", [0, 1, 2, 3, 4]),
        ("clip", [5, 6]),
    ]
    for job in made:
        assert len({c.model_copy(update={"seed": 0}).run_id for c in job.configs}) == 1
    assert all(len(job.configs) == 1 for job in jobs._jobs(planned, set(), workers=13)), "no worker stands idle"
    done = {p.config.run_id for p in planned if p.config.seed != 1}
    assert [[c.seed for c in job.configs] for job in jobs._jobs(planned, done, workers=1)] == [[1], [1], [1]]


BAD_DATA = {
    "nan": ({"a": np.full((40, 3), np.nan)}, r"z\['a'\] has NaN or infinite values in 40 row\(s\), first row 0; drop"),
    "one row": ({"a": np.where(np.arange(40)[:, None] == 7, np.inf, 1.0)}, "first row 7; drop those rows or mark"),
    "nothing of it": ({"present_a": np.zeros(40, dtype=bool)}, "no train sample has an item of 'a'; leave it out of"),
    "no modality": ({"a": None}, r"no modality \['a'\] in these embeddings; they have \['b'\]"),
    "too many pairs": ({}, r"data.pairs asks for 39 paired training samples but there are \d+; lower it"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_used_are_refused_before_any_run_starts(
    write: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    changes, sentence = BAD_DATA[case]
    random = np.random.default_rng(0)
    arrays = {"a": random.normal(size=(40, 3)), "b": random.normal(size=(40, 4))} | changes
    np.savez(tmp_path / "bad.npz", **{name: v for name, v in arrays.items() if v is not None})
    sound = {"variant": "cca"}
    bad = {"variant": "clip", "data": {"dataset": str(tmp_path / "bad.npz"), "pairs": 1.0 if changes else 39}}
    study, root = studies.load(str(write(variants=[sound, bad]))), tmp_path / "runs"
    with pytest.raises(ValueError, match=sentence):
        studies.run(study, root=root)
    assert Store(root).runs() == []


def test_a_typo_costs_no_run(write: Callable[..., Path], tmp_path: Path) -> None:
    for variant, error in (("gotmaa", UnknownNameError), ("clip", ConfigError)):
        cells = [{"variant": "cca"}, {"variant": variant, "options": {"dmi": 8} if variant == "clip" else {}}]
        with pytest.raises(error, match="did you mean"):
            studies.run(studies.load(str(write(variants=cells))), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_seeds_of_one_notebook_fail_and_die_alone(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 1 raises; seed 2 takes the kernel with it; the other seeds of the same notebook are completed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('ipykernel' in word for word in sys.orig_argv):\n"
        "    import os\n"
        "    import labkit.variants as variants\n"
        "    cca = variants.get('cca')\n"
        "    fit = cca.fit\n"
        "    def broken(self, train, validation):\n"
        "        if self.seed == 1:\n"
        "            raise ValueError('seed 1 is not liked')\n"
        "        if self.seed == 2:\n"
        "            os._exit(9)\n"
        "        return fit(self, train, validation)\n"
        "    cca.fit = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{jobs.REPOSITORY}")
    study, root = studies.load(str(write(seeds=[0, 1, 2, 3]))), tmp_path / "runs"
    outcomes = studies.run(study, root=root, jobs=1)
    assert [o.status for o in outcomes] == ["complete", "failed", "failed", "complete"]
    assert outcomes[1].error == "ValueError: seed 1 is not liked"
    assert "DeadKernelError" in outcomes[2].error
    found = Store(root)
    for outcome in outcomes:
        notebook = nbformat.read(found.open(outcome.run_id).path("report.ipynb"), as_version=4)
        whole = notebook.cells[-1].execution_count is not None
        assert whole == (outcome is not outcomes[2]), "only the run that killed the kernel has half a notebook"
    printed = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "ValueError: seed 1 is not liked" in printed
    assert studies.counts(studies.status(study, root=root)).startswith("planned 4, complete 2, failed 2; ")
    assert not list((root / jobs.SCRATCH).iterdir())


def test_export_writes_a_leaderboard(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(state, "DOCS", tmp_path / "docs")
    study, root = studies.load(str(write(seeds=[0, 1], description="Which is best?"))), tmp_path / "runs"
    for config in study.configs():
        runs.execute(config, root=root)
    _, page = studies.export(study, root)
    told = page.read_text()
    scores, fields = results.read("tiny")
    board, other = studies.leaderboards(scores, fields)
    row = board.iloc[0]
    assert "# Study `tiny`" in told
    assert "Which is best?" in told
    assert "planned 2, complete 2, failed 0" in told
    line = f"| 1 | cca | {row['value']:.3f} | [{row['low']:.3f}, {row['high']:.3f}] | 2 | {row['n']} |"
    assert line in told
    assert f"Intervals: {row['interval']}." in told
    assert [b["direction"].iloc[0] for b in (board, other)] == ["a -> b", "b -> a"]


def test_export_of_curves_tells_what_is_kept(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has the pictures it shows, and the numbers that the exported scores give."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(state, "DOCS", tmp_path / "docs")
    lost = {"corruptions": ["missing_modality", "missing_modality+mean"], "bootstrap": 100}
    cells = [{"variant": "cca"}, {"variant": "procrustes"}]
    cells.append({"variant": "procrustes", "label": "clip", "evaluation": lost})
    evaluation = {"corruptions": ["feature_noise", "feature_masking", "missing_modality"], "bootstrap": 100}
    study, root = studies.load(str(write(seeds=[0, 1], variants=cells, evaluation=evaluation))), tmp_path / "runs"
    for config in study.configs():
        runs.execute(config, root=root)
    _, page = studies.export(study, root)
    told = page.read_text()
    assert "4 curves (corruption and modality) of 2 methods; 2 to 2 seeds" in told
    pictures = re.findall(r"!\[(\w+)\]\((\S+)\)", told)
    assert [name for name, _ in pictures] == ["overview", "features", "missing", "imputations", "failures"]
    for _, path in pictures:
        assert Image.open(page.parent / path).size[0] > 400
    scores, _ = results.read("tiny")
    assert set(scores.loc[scores["corruption"] != "none", "metric"]) <= {*CURVE_METRICS, *FIELDS_OF_CURVES}
    noisy = scores[scores["corruption"].isin(["none", "feature_noise", "feature_masking"]) & (scores["cell"] == "cca")]
    kept = stats.curve_numbers(stats.seed_curves(noisy, metric="recall_at_10"))["kept"].mean()
    assert f"| cca | {kept:.3f} [" in told
    failures = results.failures("tiny")
    assert failures.groupby(["corruption", "corrupted", "method"])["share"].sum().round(6).eq(1).all()
    with pytest.raises(FileNotFoundError, match="labkit study export large"):
        results.failures("large")


def test_notebooks_that_a_killed_study_left_beside_complete_runs_are_removed(write, tmp_path):
    path, root = write(variants=[{"variant": "cca"}]), tmp_path / "runs"
    study = studies.load(str(path))
    (outcome,) = studies.run(study, root=root, jobs=1)
    left = root / jobs.SCRATCH / f"{outcome.run_id}-1.ipynb"
    other = root / jobs.SCRATCH / "another-s0-0123456789-1.ipynb"
    for notebook in (left, other):
        notebook.write_text("{}")
    assert studies.run(study, root=root, jobs=1) == [outcome]
    assert not left.exists()
    assert other.exists()
