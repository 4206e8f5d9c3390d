"""Named selections and exports: where they are kept, who sees them, what a hostile name does."""

from __future__ import annotations

import html
import io
import json
import shlex
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from dashboards import export
from dashboards.app import App
from dashboards.session import Session
from dashboards.shelf import MOST, Shelf
from labkit.config import RunConfig, parse
from labkit.store import Store, StoreError


@pytest.fixture(autouse=True)
def user_root(tmp_path, monkeypatch):
    """Nobody's home is written by a test."""
    folder = tmp_path / "users-of-labkit"
    monkeypatch.setenv("LABKIT_USER_DIR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path, hostile_run):
    hostile_run(tmp_path / "runs")
    return tmp_path / "runs"


def opened(root, query=None, **who) -> App:
    return App(Session(Store(root), **who), query)


def sentences(app: App) -> str:
    return html.unescape(" ".join(str(pane.object) for pane in [*app._saved.told, *app.message]))


def keep(app: App, name: str, rows: list[int]) -> str:
    app.session.selection.select(np.array(rows, dtype=int))
    app._saved.name.value_input = name
    app._saved.save.clicks += 1
    return sentences(app)


def test_a_selection_is_saved_and_the_address_brings_it_back(root, user_root):
    app = opened(root, user="ada")
    assert "3 samples saved for you" in keep(app, "odd ones", [1, 3, 5])
    assert app.state["selection"] == "odd-ones"
    assert list(root.rglob("selections")) == []  # the run's folder is not touched
    assert [f.name for f in user_root.rglob("*.json")] == ["odd-ones.json"]
    again = opened(root, app.state, user="ada")
    assert np.flatnonzero(again.session.selection.mask).tolist() == [1, 3, 5]
    assert again.state["selection"] == "odd-ones"
    again.session.selection.select(np.array([2]))  # no longer what the name says
    assert "selection" not in again.state
    again._saved.pick.value = "odd-ones"
    assert np.flatnonzero(again.session.selection.mask).tolist() == [1, 3, 5]
    again._saved.delete.clicks += 1
    assert "odd-ones is deleted" in sentences(again)
    assert again._saved.pick.options == ["(none)"]
    assert list(user_root.rglob("*.json")) == []


def test_users_do_not_see_each_other_and_nobody_is_one_user(root):
    keep(opened(root, user="ada"), "mine", [0])
    keep(opened(root), "open", [4])
    assert opened(root, user="ada")._saved.pick.options == ["(none)", "mine"]
    assert opened(root, user="bob")._saved.pick.options == ["(none)"]
    assert opened(root)._saved.pick.options == ["(none)", "open"]
    theirs = opened(root, {"selection": "mine"}, user="bob")
    assert not theirs.session.selection.mask.any()
    assert "no saved selection 'mine' for you" in sentences(theirs)
    assert "selection" not in theirs.state


@pytest.mark.parametrize(("a", "b"), [("a/b", "a-b"), ("../ada", "ada"), ("", "anonymous"), ("x" * 400, "x" * 401)])
def test_no_two_users_share_a_folder_and_none_leaves_the_root(root, user_root, a, b):
    run = Store(root).open("hostile-s0")
    first, second = (Shelf(run, user=user).folder for user in (a, b))
    assert first != second
    for folder in (first, second):
        assert folder.resolve().is_relative_to(user_root.resolve())
        assert len(folder.parents[1].name) < 60


def test_with_write_a_selection_is_kept_with_the_run_for_all(root):
    app = opened(root, user="ada", writable=True)
    assert "saved with the run" in keep(app, "shared", [2, 4])
    run = Store(root).open("hostile-s0")
    keys = run.points()["key"]
    assert run.selection("shared") == keys.iloc[[2, 4]].tolist()
    reader = opened(root, {"selection": "shared"}, user="bob")
    assert np.flatnonzero(reader.session.selection.mask).tolist() == [2, 4]
    reader._saved.delete.clicks += 1
    assert "'shared' is kept with the run" in sentences(reader)
    app.session.load()
    app._saved._offer()
    app._saved.delete.clicks += 1
    assert run.selections() == []
    assert not (run.folder / "selections" / "shared.json").exists()


@pytest.mark.parametrize("name", ["../../run", "/etc/passwd", ".hidden", "a/b", "<script>x</script>", "x" * 61, "ü"])
def test_names_that_could_do_harm_are_refused(root, user_root, name):
    app = opened(root, user="ada")
    keep(app, name, [0])
    assert "selection" in sentences(app)
    assert list(user_root.rglob("*.json")) == []
    asked = opened(root, {"selection": name}, user="ada")
    assert "asks for a selection that is not there" in sentences(asked)
    assert "<script>" not in " ".join(str(pane.object) for pane in asked.message)


def test_what_cannot_be_saved_is_said(root, user_root, monkeypatch):
    app = opened(root)
    assert "nothing is selected" in keep(app, "empty", [])
    assert "needs a name" in keep(app, "  ", [1])
    shelf = Shelf(Store(root).open("hostile-s0"))
    shelf.folder.mkdir(parents=True)
    for i in range(MOST):
        (shelf.folder / f"s{i}.json").write_text("{}")
    assert f"{MOST} selections of this run are saved" in keep(app, "more", [1])
    assert "damaged" in sentences(opened(root, {"selection": "s3"}))
    file = user_root.parent / "file"
    file.write_text("")
    monkeypatch.setenv("LABKIT_USER_DIR", str(file))
    assert "cannot write" in keep(app, "more", [1])


def test_samples_that_are_gone_are_counted(root):
    run = Store(root).open("hostile-s0")
    Shelf(run).save("old", [run.points()["key"].iloc[0], "gone"])
    app = opened(root, {"selection": "old"})
    assert "1 samples selected (1 are not in this run any more)" in sentences(app)


def test_a_link_does_not_lead_out(root, user_root):
    shelf = Shelf(Store(root).open("hostile-s0"))
    shelf.folder.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be a file name"):
        shelf.load("../../../secret")


@pytest.fixture
def app(runs_root):
    app = opened(runs_root, {"run": Store(runs_root).open("cca-s0").id, "color": "label", "projection": "pca"})
    app.session.selection.select(np.arange(0, 950, 90))
    return app


def test_the_map_is_exported_without_outside_addresses(app):
    page = export.as_html(app.session, app.session.content)
    for outside in ("<script src", "<link", "@import"):
        assert outside not in page
    assert "11 of 950 samples selected" in page
    assert "PCA 1 (no unit)" in page
    picture = export.as_picture(app.session, app.session.content, "svg")
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}use"))) > 2000  # a mark per point
    image = matplotlib.image.imread(io.BytesIO(export.as_picture(app.session, app.session.content, "png")))
    assert image.shape[0] > 700
    assert image[..., :3].std() > 0.05


@pytest.mark.parametrize("color", ["modality", "trust", "split", "recall@10", "first failure"])
def test_every_color_can_be_exported(app, color):
    app.session.color = color
    assert color.split("@")[0] in str(export.figure(app.session, app.session.content).opts.get("plot").kwargs["title"])
    assert len(export.as_html(app.session, app.session.content)) > 10_000


def test_hostile_texts_stay_texts_in_exports(root):
    app = opened(root, {"color": "label"})
    page = export.as_html(app.session, app.session.content)
    assert "<script>window.hacked" not in page
    assert "<img src=x" not in page
    assert b"<script>" not in export.as_picture(app.session, app.session.content, "svg")


def test_a_dollar_in_a_label_is_no_mathematics(tmp_path, hostile_run):
    run = hostile_run(tmp_path / "dollar")
    points = run.points().assign(label="costs $5_ and \\frac{$")
    run.write_points(points)
    app = opened(tmp_path / "dollar", {"color": "label"})
    assert export.as_picture(app.session, app.session.content, "svg").startswith(b"<?xml")


def test_the_selection_is_exported_as_keys_and_lines_that_run(app, runs_root, monkeypatch, tmp_path):
    content, rows = app.session.content, np.flatnonzero(app.session.selection.mask)
    keys = content.points["key"].iloc[rows].tolist()
    table = pd.read_csv(io.StringIO(export.as_csv(app.session, content)), dtype=str)
    assert table["key"].tolist() == keys
    assert "caption" in table
    monkeypatch.setenv("LABKIT_RUNS", str(runs_root))
    monkeypatch.chdir(tmp_path)
    import labkit.store  # noqa: F401  the lines name it

    space = {"labkit": labkit, "pandas": pd}
    assert eval(export.python_line(app.session, content), space).index.tolist() == keys
    app.session.selection.select(np.arange(100))
    (tmp_path / export.filename(app.session, "csv")).write_text(export.as_csv(app.session, content))
    found = eval(export.python_line(app.session, content), space)
    assert found["key"].tolist() == content.points["key"].iloc[:100].tolist()


def test_the_papermill_command_makes_the_same_run(app):
    command = shlex.split(export.papermill_line(app.session.content))
    values = json.loads(command[command.index("-y") + 1])
    seeds = values.pop("seeds")
    assert seeds == [0]
    assert parse(RunConfig, {**values, "seed": 0}, what="command").run_id == app.session.run
    assert command[:2] == ["papermill", "notebooks/01_train_evaluate.ipynb"]


def test_downloads_say_why_there_is_nothing(tmp_path, hostile_run):
    hostile_run(tmp_path / "runs", projected=False)
    app = opened(tmp_path / "runs")
    sent = app._saved._file(export.as_html, "html").read().decode()
    assert sent.startswith("not exported: ")
    assert app._saved._downloads[1].filename == "not-exported.txt"
