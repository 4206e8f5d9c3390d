"""Creating, finding, taking up and listing runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.store import SCHEMA, Run, RunExistsError, RunNotFoundError, SchemaError, Store, StoreError, runs_root


def edit(run: Run, **changes: object) -> None:
    file = run.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "elsewhere"))
    assert Store().root == tmp_path / "elsewhere"
    assert Store().runs() == []
    assert Store().table().empty
    assert Store().scores().empty


def test_the_root_is_the_runs_folder_of_the_nearest_enclosing_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LABKIT_RUNS", raising=False)
    inner = tmp_path / "project" / "notebooks"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert runs_root() == Path("runs")
    (tmp_path / "runs").mkdir()
    assert runs_root() == tmp_path / "runs"
    (tmp_path / "project" / "runs").mkdir()
    assert runs_root() == tmp_path / "project" / "runs"
    (inner / "runs").write_text("a file is no folder of runs")
    assert runs_root() == tmp_path / "project" / "runs"
    monkeypatch.setenv("LABKIT_RUNS", "elsewhere")
    assert runs_root() == Path("elsewhere")


def test_a_new_run(run: Run) -> None:
    assert run.status == "running"
    assert run.is_alive
    assert run.config == {"variant": "clip", "data": {"modalities": ["image", "text"]}}
    assert run.info["schema"] == SCHEMA
    assert run.files == ()


def test_a_run_ends_complete_or_failed(run: Run, start: Callable[..., Run]) -> None:
    run.fail("ValueError: the variant raised")
    assert run.status == "failed"
    assert run.info["error"] == "ValueError: the variant raised"
    assert not run.is_alive
    again = start()
    assert again.info["error"] is None
    assert again.info["attempts"] == 2
    again.complete()
    assert again.status == "complete"
    assert again.info["finished"] > again.info["created"]


def test_an_interrupted_run_keeps_what_it_completed(
    start: Callable[..., Run], points: pd.DataFrame, score: Callable[..., pd.DataFrame]
) -> None:
    first = start()
    first.write_points(points)
    first.write_scores(score())
    created = first.info["created"]
    first.fail("killed")
    again = start()
    assert again.info["created"] == created
    assert again.scores()["value"].tolist() == [0.5]
    again.write_embedding("image", "final", np.ones((len(points), 2)))


def test_another_configuration_under_the_same_id_is_refused(store: Store, run: Run) -> None:
    run.fail("killed")
    with pytest.raises(RunExistsError, match=r"another configuration \(differs in variant\)"):
        store.create(run.id, name="", variant="ot", config=run.config | {"variant": "ot"}, seed=0, data_root=".")
    assert run.status == "failed"


def test_a_complete_run_is_made_anew_only_on_request(
    run: Run, start: Callable[..., Run], points: pd.DataFrame, score: Callable[..., pd.DataFrame]
) -> None:
    run.write_points(points)
    run.write_scores(score())
    run.write_selection("mine", ["k1"])
    run.log({"step": 0})
    own = run.folder / "notes.txt"
    own.write_text("by hand")
    run.complete()
    with pytest.raises(RunExistsError, match="is complete: open it, or make it anew"):
        start()
    assert run.status == "complete"
    assert run.has("scores")
    anew = start(rerun=True)
    assert anew.files == ("selections/mine.json",)
    assert anew.selection("mine") == ["k1"]
    assert not (anew.folder / "scores.parquet").exists()
    assert not (anew.folder / "log.jsonl").exists()
    assert own.read_text() == "by hand"
    assert anew.status == "running"


def test_clearing_deletes_nothing_outside_the_run(run: Run, start: Callable[..., Run], tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_text("x")
    run.complete()
    edit(run, files=[{"name": "../../precious", "size": 1}])
    with pytest.raises(ValueError, match="leads out of"):
        start(rerun=True)
    assert outside.exists()


def test_a_run_has_one_maker_at_a_time(run: Run) -> None:
    code = (
        "import sys; from labkit.store import Store, RunExistsError\n"
        "store = Store(sys.argv[1]); run = store.open('clip-s0-aa'); assert run.is_alive\n"
        "try: store.create('clip-s0-aa', name='', variant='clip', config=run.config, seed=0, data_root='.')\n"
        "except RunExistsError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(run.folder.parent)]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is being written by another process" in second.stdout
    run.complete()
    assert not Store(run.folder.parent).open(run.id).is_alive


def test_open_finds_unique_beginnings(store: Store, start: Callable[..., Run]) -> None:
    for run_id in ("clip-s0-aa", "clip-s1-bb", "gotma-s0-cc", "clip"):
        start(run_id).complete()
    assert store.open("gotma").id == "gotma-s0-cc"
    assert store.open("clip-s1").id == "clip-s1-bb"
    assert store.open("clip").id == "clip"
    with pytest.raises(RunNotFoundError, match="beginning of 2 runs: clip-s0-aa, clip-s1-bb"):
        store.open("clip-")
    with pytest.raises(RunNotFoundError, match="did you mean gotma-s0-cc"):
        store.open("gotna-s0-cc")
    for name in ("", "../clip", "zzz"):
        with pytest.raises(RunNotFoundError, match="no run"):
            store.open(name)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b"])
def test_hostile_run_ids_are_refused(start: Callable[..., Run], name: str) -> None:
    with pytest.raises(ValueError, match="run id .* cannot be a file name"):
        start(name)


def test_an_unknown_schema_is_refused_with_the_version_that_reads_it(store: Store, run: Run) -> None:
    run.complete()
    edit(run, schema=99, labkit="7.3")
    for use in (lambda: store.open(run.id), lambda: run.info, lambda: run.scores()):
        with pytest.raises(SchemaError, match="schema 99, this labkit reads schema 1: open it with labkit 7.3"):
            use()


def test_unreadable_folders_are_reported_and_the_others_listed(store: Store, start: Callable[..., Run]) -> None:
    for i, run_id in enumerate(("c", "a", "b", "torn", "newer")):
        start(run_id, seed=i).complete()
    (store.root / "torn" / "run.json").write_text('{"schema": 1, "id"')
    edit(Run(store.root / "newer"), schema=2)
    (store.root / ".ipynb_checkpoints").mkdir()
    (store.root / "report.html").write_text("")
    assert [r.id for r in store.runs()] == ["c", "a", "b"]
    assert [p.split(":")[0] for p in store.problems] == [
        f"{store.root / 'newer'} has schema 2, this labkit reads schema 1",
        f"{store.root / 'torn' / 'run.json'} is damaged (no JSON object with a 'schema')",
    ]
    assert store.table()["id"].tolist() == ["c", "a", "b"]
    with pytest.raises(StoreError, match="damaged.*delete"):
        store.open("torn")


def test_the_table_of_runs(store: Store, start: Callable[..., Run], points: pd.DataFrame) -> None:
    first = start("a", variant="clip", seed=3)
    first.write_points(points)
    first.complete()
    start("b", variant="ot").fail("ValueError: x")
    alive = start("c")
    edit(start("d"), status="running")
    Run(store.root / "d")._claim.release(force=True)
    table = store.table().set_index("id")
    assert table["variant"].tolist() == ["clip", "ot", "clip", "clip"]
    assert table["status"].tolist() == ["complete", "failed", "running", "running"]
    assert table["alive"].tolist() == [False, False, True, False]
    assert table.loc["a", ["seed", "n", "modalities"]].tolist() == [3, 6, "image,text"]
    assert pd.isna(table.loc["b", "n"])
    assert table.loc["b", "error"] == "ValueError: x"
    assert alive.is_alive


def test_scores_and_fields_of_many_runs(
    store: Store,
    start: Callable[..., Run],
    points: pd.DataFrame,
    score: Callable[..., pd.DataFrame],
    field: Callable[..., pd.DataFrame],
) -> None:
    for seed, run_id in enumerate(("a", "b", "empty")):
        run = start(run_id, variant=f"v{seed}", seed=seed)
        run.write_points(points)
        if run_id != "empty":
            run.write_scores(score(seed=seed, value=seed))
            run.write_field("mrr", "final", pd.concat([field(seed), field(1, "noise", 2)]))
        run.complete()
    scores = store.scores()
    assert scores[["run", "variant", "seed", "value"]].values.tolist() == [["a", "v0", 0, 0.0], ["b", "v1", 1, 1.0]]
    assert store.scores(["b"])["run"].tolist() == ["b"]
    fields = store.fields("mrr", where={"corruption": "none"})
    assert fields.columns[:4].tolist() == ["run", "variant", "seed", "group"]
    assert len(fields) == 2 * len(points)
    assert fields["group"].tolist() == [*points["group"], *points["group"]]
    assert fields.groupby("run")["value"].mean().tolist() == [0.0, 1.0]
    assert store.fields("nothing").empty


def test_what_runs_cost_is_listed(store: Store, start: Callable[..., Run]) -> None:
    assert store.budgets().columns.tolist() == ["run", "variant", "seed"]
    cheap, silent, dear = (start(name, seed=i) for i, name in enumerate(("cheap", "silent", "dear")))
    cheap.write_budget({"train_seconds": 1.5, "train_steps": 10})
    dear.write_budget({"train_seconds": 2.0})
    dear.write_budget({"train_seconds": 99.0, "train_steps": 70})
    dear.complete()
    found = store.budgets()
    assert found["run"].tolist() == ["cheap", "dear"]
    assert found["seed"].tolist() == [0, 2]
    assert found["train_seconds"].tolist() == [1.5, 99.0]
    assert found["train_steps"].tolist() == [10, 70]
    assert store.budgets([silent.id]).empty


def test_a_configuration_that_json_cannot_hold(store: Store) -> None:
    with pytest.raises(TypeError, match="cannot store set"):
        store.create("a", name="", variant="", config={"x": {1}}, seed=0, data_root=".")


def test_neither_store_nor_stats_load_torch() -> None:
    code = (
        "import sys, labkit.store, labkit.stats; from labkit.store import Store; from labkit.stats import leaderboard\n"
        "print([m for m in ('torch', 'sklearn', 'transformers', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
