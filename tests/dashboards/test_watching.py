"""The app while runs are made, and what its pages say of a step and of what the pointer rests on."""

from __future__ import annotations

import numpy as np
import pytest

from dashboards import frames, readiness
from dashboards.app import App
from dashboards.catalog import Catalog
from dashboards.session import Session
from labkit import frames as stored_frames
from labkit.config import EvaluationConfig, RunConfig, TrainingConfig
from labkit.run import execute
from labkit.snapshots import EPOCHS
from labkit.store import Run, Store

PLAIN = EvaluationConfig(corruptions=(), bootstrap=100)


def tiny(seed: int) -> RunConfig:
    return RunConfig(variant="clip", seed=seed, training=TrainingConfig(epochs=4, batch_size=256), evaluation=PLAIN)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    execute(tiny(0), root=folder, device="cpu")
    return folder


def test_a_run_that_is_executed_while_the_app_is_open_appears(root):
    app = App(Session(Store(root)))
    shown = app.session.run
    assert len(app._bar.pick.options) == 1
    started = Store(root).create("later", name="later", variant="clip", config={}, seed=1, data_root=".")
    app.refresh(fresh=True)
    assert "1 running" in app._bar.states.object
    assert len(app._bar.pick.options) == 1
    assert started.id not in app.session.listing.labels.values()
    made = execute(tiny(1), root=root, device="cpu")
    app.refresh(fresh=True)
    assert made.id in app._bar.pick.options.values()
    assert app.session.run == shown, "the shown run stays"
    assert "2 complete" in app._bar.states.object


def test_files_that_a_command_adds_to_the_shown_run_are_read(root):
    app = App(Session(Store(root)), {"run": Store(root).open("clip-s0").id, "gap": "centered"})
    page = app.pages["Manifolds"]
    before = app.session.content
    app.session.selection.select(np.arange(5))
    assert "labkit project" in page._message.objects[0].object
    stored_frames.add_frames([Store(root).open(app.session.run)], ("pca",), ("centered",))
    app.refresh(fresh=True)
    assert app.session.content is not before
    assert page._message.objects == []
    assert page.maps.frame.key[2] == "pca-centered"
    assert len(app.session.selection) == 5, "the samples are the same, so the selection stays"


def test_the_steps_are_those_that_were_kept_and_the_player_ends(root):
    app = App(Session(Store(root)), {"run": Store(root).open("clip-s0").id})
    page = app.pages["Manifolds"]
    run = app.session.content.run
    history = run.history()
    kept = [e for e in EPOCHS if e < 4]
    assert len(app.session.content.steps) >= len(kept) + 1
    assert app.session.content.steps[0] == "0"
    assert max(int(s) for s in app.session.content.steps[:-1]) <= history["step"].max()
    places = [page.maps.frame.x.copy()]
    page._controls._steps.value = "0"
    assert page.maps.frame.key[3] == "0"
    while app.session.step != "final":
        page._controls.advance()
        places.append(page.maps.frame.x.copy())
    page._controls.advance()
    assert app.session.step == "final"
    assert np.array_equal(places[-1], places[0])
    assert not np.allclose(places[0], places[1])


def test_numbers_follow_the_step(root):
    app = App(Session(Store(root)), {"run": Store(root).open("clip-s0").id})
    page, content = app.pages["Manifolds"], app.session.content
    app.session.step = "0"
    x, y = (np.asarray(content.run.embedding(m, "0"), dtype=np.float32) for m in ("image", "text"))
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    distance, gap = np.median(1 - (x * y).sum(axis=1)), np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))
    assert f"<td>{distance:.2f}</td>" in page._numbers.object
    assert f"<td>{gap:.2f}</td></tr>" in page._numbers.object
    assert "step 0" in page._numbers.object
    assert page._distances.object is not None


def test_the_thing_under_the_pointer_and_keys(root):
    app = App(Session(Store(root)))
    page = app.pages["Manifolds"]
    page._rest(3)
    assert f'alt="{app.session.content.points["caption"].iloc[3]}"' in page._hover.object
    page._click(3)
    assert "in focus" in page._hover.object
    for gesture, rows, expected in (
        ("replace", [1, 2], [1, 2]), ("add", [2, 5], [1, 2, 5]), ("remove", [1, 9], [2, 5]), ("replace", [], []),
    ):  # fmt: skip
        page.gesture = gesture
        page._area(np.array(rows, dtype=int))
        assert np.flatnonzero(app.session.selection.mask).tolist() == expected
    page._press("undo")
    assert np.flatnonzero(app.session.selection.mask).tolist() == [2, 5]
    page._press("clear")
    assert not app.session.selection.mask.any()


def test_what_a_run_lacks_is_named_with_its_command(root):
    content = App(Session(Store(root))).session.content
    lacking = {part.what: part.told(content) for part in readiness.lacking(content, tuple(readiness.PARTS))}
    assert f"labkit diagnose {content.run.id}" in lacking["Transport plans"]
    assert "Maps" not in lacking
    assert "Steps of the training" not in lacking
    assert f"labkit diagnose {content.run.id}" in readiness.summary(content)


def test_the_nearest_stored_frame_replaces_the_one_asked_for(root):
    session = Session(Store(root))
    session.run, session.projection, session.step = Store(root).open("clip-s1").id, "umap", "0"
    session.load()
    shown = frames.chosen(session, session.content)
    assert (shown.method, shown.gap, shown.step) == ("pca", "raw", "0")
    assert f"labkit project {session.run}" in shown.problem
    session.projection = "pca"
    assert frames.chosen(session, session.content).problem == ""


def test_a_catalog_reads_a_folder_once_and_sees_what_changes(root, monkeypatch):
    reads: list[str] = []
    info = Run.info.fget

    def counted(run: Run):
        reads.append(run.id)
        return info(run)

    monkeypatch.setattr(Run, "info", property(counted))
    catalog = Catalog(root)
    first = catalog.listing(fresh=True)
    once = len(reads)
    assert once >= len(first.records)
    assert catalog.listing(fresh=True) is first
    Store(root).open("clip-s0").write_selection("some", [])
    reads.clear()
    second = catalog.listing(fresh=True)
    assert second is not first
    assert sum(i.startswith("clip-s0") for i in reads) >= 1
    assert not any(i.startswith("clip-s1") for i in reads)
