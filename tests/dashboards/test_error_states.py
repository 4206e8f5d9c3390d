"""What cannot be shown is told in a sentence, and the rest of the app works."""

from __future__ import annotations

import html
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from dashboards.app import App
from dashboards.content import LONGEST
from dashboards.items import card
from dashboards.session import Session
from dashboards.shelf import Shelf
from labkit.store import Store


@pytest.fixture(autouse=True)
def _no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_USER_DIR", str(tmp_path / "users"))


@pytest.fixture
def root(runs_root, tmp_path):
    """Two good runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in ("cca-s0", "procrustes-s0"):
        found = Store(runs_root).open(name)
        shutil.copytree(found.folder, folder / found.id)
    return folder


def opened(root, query=None) -> App:
    return App(Session(Store(root)), query)


def told(app: App) -> str:
    """The sentences of the visible page and of the app."""
    place = app._places[app.session.page]
    panes = [*app.message, *(p for p in place.select() if isinstance(getattr(p, "object", None), str))]
    return html.unescape(" ".join(str(p.object) for p in panes)).replace("<code>", "`").replace("</code>", "`")


def works(app: App, run: str) -> None:
    """Another run can be looked at, on more than one page."""
    app.session.run = Store(app.session.store.root).open(run).id
    app.session.page = "Manifolds"
    assert app.pages["Manifolds"].maps is not None
    app.session.selection.select(np.array([0, 1]))
    assert "2 of 950 things selected" in told(app)
    app.session.page = "Runs"
    assert "failed; the server's log" not in told(app)


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_root_says_what_to_run_and_finds_the_first_run(tmp_path, runs_root, there):
    folder = tmp_path / "none"
    if there:
        folder.mkdir()
    app = opened(folder)
    for page in app.pages:
        app.session.page = page
        assert "failed; the server's log" not in told(app)
    app.session.page = "Manifolds"
    assert "`make demo` or `labkit demo` makes some" in told(app)
    found = Store(runs_root).open("cca-s0")
    shutil.copytree(found.folder, folder / found.id)
    app.refresh(fresh=True)
    assert app.session.run == found.id
    works(app, "cca-s0")


def test_a_run_that_is_being_written_is_listed_and_not_shown(root):
    run = Store(root).create("clip-s9-x", name="clip", variant="clip", config={}, seed=9, data_root=".")
    app = opened(root, {"run": run.id})
    assert "2 complete · 1 running" in app._bar.states.object
    assert f"run {run.id} is running" in told(app)
    works(app, "cca")
    run._claim.release(force=True)
    app.refresh(fresh=True)
    assert "1 interrupted" in app._bar.states.object


def test_a_failed_run_says_why(root):
    run = Store(root).create("clip-s9-x", name="clip", variant="clip", config={}, seed=9, data_root=".")
    run.fail("ValueError: no such <b>thing</b>")
    app = opened(root, {"run": run.id})
    assert f"run {run.id} is failed: ValueError: no such <b>thing</b>" in told(app)
    assert "<b>thing" not in "".join(str(pane.object) for pane in app.message)
    works(app, "procrustes")


@pytest.mark.parametrize("record", ['{"schema": 99, "labkit": "9.9"}', '{"schema": 1}', "[]", "{", ""])
def test_a_record_that_cannot_be_read_is_a_sentence(root, record):
    (root / "odd").mkdir()
    (root / "odd" / "run.json").write_text(record)
    app = opened(root, {"run": "odd"})
    assert "schema 99, this labkit reads schema 1: open it with labkit 9.9" in told(app) or "odd" in told(app)
    assert "The address asks for another run" in told(app)
    works(app, "cca")


@pytest.mark.parametrize(
    ("file", "page", "sentence"),
    [
        ("points.parquet", "Manifolds", "points.parquet is truncated or changed .* recompute it with `labkit run"),
        ("projections/pca@final.parquet", "Manifolds", "pca@final.parquet is truncated or changed"),
        ("embeddings/text@final.npy", "Manifolds", "text@final.npy is truncated or changed"),
        ("scores.parquet", "Robustness", "scores.parquet is truncated or changed"),
    ],
)
def test_a_truncated_file_is_a_sentence(root, file, page, sentence):
    run = Store(root).open("cca")
    content = (run.folder / file).read_bytes()
    (run.folder / file).write_bytes(content[: len(content) // 2])
    app = opened(root, {"run": run.id, "page": page})
    assert pd.Series([told(app)]).str.contains(sentence, regex=True).all(), told(app)
    works(app, "procrustes")


def test_a_damaged_file_of_the_right_size_is_a_sentence(root):
    run = Store(root).open("cca")
    path = run.folder / "points.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    app = opened(root, {"run": run.id})
    assert "points.parquet is damaged" in told(app)
    works(app, "procrustes")


def test_a_run_that_goes_away_while_it_is_shown(root):
    app = opened(root, {"run": Store(root).open("cca").id})
    shutil.rmtree(app.session.content.run.folder)
    app.refresh(fresh=True)
    assert app.session.run == Store(root).open("procrustes").id
    works(app, "procrustes")


def test_items_that_cannot_be_shown_say_why(tmp_path, hostile_run):
    run = hostile_run(tmp_path)
    (tmp_path / "data" / "large.png").write_bytes(b"x" * 5_000_000)
    (tmp_path / "data" / "link.png").symlink_to("/etc/hostname")
    (tmp_path / "data" / "inside.png").symlink_to(tmp_path / "data" / "notes.txt")
    (tmp_path / "data" / "notes.txt").write_text("private")
    names = ["../secret.png", "gone.png", "large.png", "link.png", "/etc/hostname.png", "inside.png"]
    points = run.points()
    points["image"] = names * (len(points) // len(names))
    run.write_points(points)
    app = opened(tmp_path)
    cards = [html.unescape(card(app.session.content, row)) for row in range(len(names))]
    outside = "outside the data folder, not shown"
    reasons = (outside, "the file is missing", "larger than 4 MB", outside, outside, "no picture or sound")
    for shown, reason, name in zip(cards, reasons, names, strict=True):
        assert f"{name}: {reason}" in shown
        assert "data:image" not in shown


def test_what_an_address_asks_for_is_bounded(root):
    app = opened(root, {
        "run": "x" * 5000, "page": "x" * 5000, "manifolds.k": "1000000", "manifolds.search": "a" * 100_000,
        "step": "../../etc", "color": "<script>", "projection": "../points", "gap": "none",
    })  # fmt: skip
    page = app.pages["Manifolds"]
    assert page.k == 8
    assert len(page.search) <= LONGEST
    assert "manifolds.k 1000000" in told(app)
    assert "<script>" not in "".join(str(pane.object) for pane in app.message)
    works(app, "cca")


def test_a_search_is_cut_and_literal(root):
    app = opened(root)
    content = app.session.content
    assert len(content.search("(" * 1_000_000)) == 0
    first = str(content.points["caption"].iloc[0])
    assert 0 in content.search(first)
    assert 0 not in content.search(first + "?" * 300)


def test_a_saved_selection_of_someone_else_breaks_nothing(root):
    shelf = Shelf(Store(root).open("cca"))
    shelf.folder.mkdir(parents=True)
    (shelf.folder / "odd.json").write_text(json.dumps({"keys": {"a": 1}}))
    (shelf.folder / "text.json").write_text('{"keys": 3}')
    for name in ("odd", "text"):
        app = opened(root, {"run": Store(root).open("cca").id, "selection": name})
        assert not app.session.selection.mask.any()
    works(app, "cca")
