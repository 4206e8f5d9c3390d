"""Page Runs without a browser: its numbers are those of the stored files, and unlike runs are never averaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dashboards import methods as grouped
from dashboards.app import App
from dashboards.catalog import catalog
from dashboards.claims_card import judged
from dashboards.session import Session
from labkit import claims, stats
from labkit.config import DataConfig, EvaluationConfig, RunConfig
from labkit.run import execute
from labkit.store import Run, Store


def opened(root: Path, **query: str) -> App:
    return App(Session(Store(root)), {"page": "Runs", **query})


def boards(app: App) -> list:
    page = app.pages["Runs"]
    return [part for part in [*page._board.objects, *page._paired.objects] if hasattr(part, "titles")]


@pytest.fixture(scope="module")
def mixed(runs_root, tmp_path_factory) -> Path:
    """The runs of the other tests, one of the same method on half of the modalities, and one of another width."""
    root = tmp_path_factory.mktemp("mixed") / "runs"
    shutil.copytree(runs_root, root)
    plain = EvaluationConfig(corruptions=(), bootstrap=100)
    two = RunConfig(variant="cca", data=DataConfig(modalities=("image", "text")), evaluation=plain)
    narrow = RunConfig(variant="cca", options={"dim": 8}, evaluation=plain)
    for config in (two, narrow):
        execute(config, root=root, device="cpu")
    return root


def test_the_leaderboard_is_that_of_the_stored_values(runs_root):
    app = opened(runs_root)
    board = boards(app)[0].value.set_index("variant")
    store = Store(runs_root)
    assert set(board.index) == {"cca", "clip", "procrustes"}
    assert board["rank"].tolist() == [1, 2, 3]
    assert board["value"].is_monotonic_decreasing
    for variant, row in board.iterrows():
        runs = [run for run in store.runs() if run.info["variant"] == variant]
        where = {"corruption": "none", "split": "test", "source": "image", "target": "text"}
        fields = [run.field("recall_at_10", where=where) for run in runs]
        assert row["value"] == pytest.approx(np.mean([field["value"].mean() for field in fields]), abs=1e-4)
        assert row["n"] == min(map(len, fields))
        assert row["seeds"] == len(runs)
        assert f"{len(runs)} seed" in row["interval"]
        assert row["low"] < row["value"] < row["high"]


def test_differences_are_paired(runs_root):
    app = opened(runs_root, **{"runs.baseline": "cca"})
    table = boards(app)[1].value.set_index("variant")
    store = Store(runs_root)
    fields = store.fields("recall_at_10", where={"corruption": "none", "split": "test", "source": "image"})
    fields = fields[fields["target"] == "text"]
    a, b = (fields[fields["variant"] == v] for v in ("procrustes", "cca"))
    both = a.merge(b, on=["key", "seed"])
    wanted = (both["value_x"] - both["value_y"]).groupby(both["seed"]).mean().mean()
    assert table.loc["procrustes", "difference"] == pytest.approx(wanted)
    assert table.loc["procrustes", "n"] == len(both)
    recomputed = stats.paired_difference(a, b)
    assert table.loc["procrustes", ["low", "high", "p"]].tolist() == pytest.approx(
        [recomputed.low, recomputed.high, recomputed.p]
    )
    assert table["p_holm"].tolist() == pytest.approx(stats.holm(table["p"].to_numpy()).tolist())


def test_every_metric_and_direction_has_a_leaderboard(runs_root):
    page = opened(runs_root).pages["Runs"]
    seen = 0
    for metric in page._selects["metric"].options.values():
        page.metric = metric
        for direction in page._selects["direction"].options.values():
            page.direction = direction
            assert len(page._board.objects[2].value) >= 2, (metric, direction)
            seen += 1
    assert seen > 20


def test_unlike_runs_are_never_averaged(mixed):
    app = opened(mixed, run=Store(mixed).open("procrustes-s0").id)
    page = app.pages["Runs"]
    offered = list(page._selects["data"].options.values())
    assert offered == ["stamps · image, text, speech_fr", "stamps · image, text"]
    assert page._selects["data"].value == offered[0]
    assert set(boards(app)[0].value["variant"]) == {"cca", "clip", "procrustes"}
    page.configurations = "all"
    table = boards(app)[0].value.set_index("variant")
    assert set(table.index) == {"cca", "cca, dim=8", "clip", "procrustes"}
    assert (table.loc["cca", "seeds"], table.loc["cca, dim=8", "seeds"]) == (2, 1)
    page.data = offered[1]
    assert boards(app)[0].value["variant"].tolist() == ["cca"]
    run = next(r for r in Store(mixed).runs() if r.info["config"]["data"]["modalities"] == ["image", "text"])
    where = {"corruption": "none", "split": "test", "source": "image", "target": "text"}
    assert boards(app)[0].value["value"][0] == pytest.approx(run.field("recall_at_10", where=where)["value"].mean())
    assert "runs on other data are never averaged" in page._about.object


def test_the_shown_run_brings_its_data_and_its_own_configuration(mixed):
    narrow = next(r.id for r in Store(mixed).runs() if r.info["config"]["options"].get("dim") == 8)
    app = opened(mixed, run=narrow)
    assert "cca, dim=8" in set(boards(app)[0].value["variant"])
    two = next(r.id for r in Store(mixed).runs() if r.info["config"]["data"]["modalities"] == ["image", "text"])
    app.session.run = two
    assert app.pages["Runs"]._selects["data"].value == "stamps · image, text"


def test_trainings_are_drawn_a_line_per_seed(runs_root):
    page = opened(runs_root).pages["Runs"]
    assert page._drawn.options == ["clip"]  # the closed forms have no training
    history = next(r for r in Store(runs_root).runs() if r.info["variant"] == "clip").history()
    curve = page.curves._drawing.objects[0].object.values()[0]
    np.testing.assert_allclose(curve["validation"], history["validation"])
    page.measure = "learning_rate"
    curve = page.curves._drawing.objects[0].object.values()[0]
    np.testing.assert_allclose(curve["learning_rate"], history["learning_rate"])
    page.curves._select.value = "validation"
    assert page.measure == "validation"
    page._drawn.value = []
    assert not page.curves._drawing.objects


def test_a_click_opens_a_run_or_compares_with_a_method(runs_root):
    app = opened(runs_root)
    page = app.pages["Runs"]
    other = "procrustes"
    page._compare(other)
    assert app.session.page == "Compare"
    assert app.pages["Compare"].other.startswith("procrustes-s1")
    app.session.page = "Runs"
    table = page._all.objects[-1]
    table._on_click_callbacks[None][0](type("Event", (), {"row": 4}))
    assert app.session.run == table.value["id"][4]


def test_what_is_not_complete_comes_first_with_the_reason(runs_root, tmp_path, failed_run, markup):
    root = tmp_path / "runs"
    shutil.copytree(runs_root, root)
    failed_run(root)
    dead = Store(root).create("dead-s0", name="d", variant="d", config={}, seed=0, data_root=".")
    dead._claim.release(force=True)
    alive = Store(root).create("alive-s0", name="a", variant="a", config={}, seed=0, data_root=".")
    listed = opened(root).pages["Runs"]._all.objects[-1]
    table = listed.value
    assert table["id"].tolist()[:3] == ["alive-s0", "dead-s0", "broken-s0"]
    assert table["state"].tolist()[:3] == ["running", "interrupted", "failed"]
    assert (table["state"][3:] == "complete").all()
    reasons = table["reason"].tolist()
    assert reasons[0] == "still being written"
    assert "continue with: labkit run dead-s0" in reasons[1]
    assert markup in reasons[2]
    assert {listed.formatters[c]["type"] for c in ("id", "variant", "reason")} == {"textarea"}  # which escapes
    opened_before = listed._on_click_callbacks[None][0]
    app = opened(root)
    before = app.session.run
    opened_before(type("Event", (), {"row": 2}))
    assert app.session.run == before
    alive._claim.release(force=True)


def test_claims_are_those_of_the_studies(runs_root):
    app = opened(runs_root)
    card = app.pages["Runs"].view.objects[5]
    assert not card.objects[0].objects  # nothing is judged before somebody asks
    card.collapsed = False
    told, table = card.objects[0].objects
    stated = claims.load()
    assert f"data-n='{len(stated.claims)}'" in told.object
    assert table.value["id"].tolist() == [claim.id for claim in stated.claims]
    made = judged()
    assert isinstance(made, pd.DataFrame)
    for verdict, n in made["verdict"].value_counts().items():
        assert f"{n} {verdict}" in told.object


def test_names_of_data_tell_what_differs(tmp_path):
    def made(i: int, **data: object) -> None:
        run = Store(tmp_path).create(f"a-s{i}", name="a", variant="a", config={"data": data}, seed=i, data_root=".")
        run.complete()

    usual = {"dataset": "d", "modalities": ["x", "y"], "options": {"n": 10}}
    for i in range(4):
        made(i, **usual)
    made(4, **{**usual, "options": {"n": 20}})
    made(5, **usual, missing=0.5)
    made(6, dataset="e", modalities=["x"])
    listing = catalog(tmp_path).listing(fresh=True)
    names = list(grouped.data_sets(listing).values())
    assert names == ["d · x, y", "d · x, y · n=20", "d · x, y · missing=0.5", "e · x"]
    assert [m.seeds for m in grouped.methods(listing, next(iter(grouped.data_sets(listing))))] == [(0, 1, 2, 3)]


def test_a_run_without_scores_or_data_is_told(tmp_path, hostile_run):
    run = hostile_run(tmp_path)
    assert isinstance(run, Run)
    app = opened(tmp_path)
    assert "No scores yet" in app.pages["Runs"]._board.objects[0].object
    assert "make demo" in opened(tmp_path / "none").pages["Runs"]._board.objects[0].object
