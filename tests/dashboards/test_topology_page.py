"""Page Topology without a browser: bars are the stored ones, and select the samples that show them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bokeh.events import SelectionGeometry, Tap

from dashboards.app import App
from dashboards.session import Session
from labkit.diagnosis.stored import diagnose_run
from labkit.store import Run, Store


@pytest.fixture(scope="module")
def diagnosed(runs_root, tmp_path_factory) -> Run:
    """A diagnosed copy of a training."""
    folder = next(r.folder for r in Store(runs_root).runs() if r.info["variant"] == "clip")
    root = tmp_path_factory.mktemp("topology") / "runs"
    shutil.copytree(folder, root / folder.name)
    run = Store(root).open(folder.name)
    diagnose_run(run, measures=("diagram_distance_h0",))
    return run


def opened(root: Path, **query: str) -> App:
    return App(Session(Store(root)), {"page": "Topology", **query})


@pytest.fixture
def app(diagnosed) -> App:
    return opened(diagnosed.folder.parent)


def figure(pane):
    """The figure that a browser would get."""
    return next(m for m in pane.get_root().references() if type(m).__name__ == "figure")


def selected(app: App) -> set[str]:
    return set(app.pages["Topology"].content.points["key"][app.session.selection.mask])


def test_bars_are_the_stored_ones(app, diagnosed):
    page = app.pages["Topology"]
    assert list(page.panes) == list(diagnosed.info["modalities"])
    for modality, pane in page.panes.items():
        bars, record = diagnosed.topology(modality)
        places = pane.places.set_index("bar").sort_index()
        assert len(places) == len(bars)
        np.testing.assert_array_equal(places["birth"], bars["birth"])
        finite = np.isfinite(bars["death"])
        np.testing.assert_array_equal(places["death"][finite], bars["death"][finite])
        assert (places["death"][~finite] > bars["death"][finite].max()).all()
        told = page._told.object
        assert f"<td>{modality}</td><td>{record['n']:,} test samples</td>" in told
        assert f"<td>{(bars['dimension'] == 1).sum():,}</td>" in told


def test_a_click_on_a_dot_selects_its_samples(app, diagnosed):
    page = app.pages["Topology"]
    bars, _ = diagnosed.topology("text")
    loops = bars[bars["dimension"] == 1]
    bar = (loops["death"] - loops["birth"]).idxmax()
    drawn = figure(page.panes["text"].diagram)
    drawn._trigger_event(Tap(drawn, x=float(bars["birth"][bar]), y=float(bars["death"][bar])))
    assert page.bars == f"text:{bar}"
    assert selected(app) == set(bars["keys"][bar])
    told = page._chosen.object
    assert f"data-n='{len(bars['keys'][bar])}'" in told
    assert f"born at {bars['birth'][bar]:.3f}" in told
    assert "a representative, not the only one" in told
    marks = drawn.select_one({"name": "chosen"}).data_source.data
    assert marks["birth"] == [pytest.approx(bars["birth"][bar])]
    assert page.panes["image"].chosen == []
    drawn._trigger_event(Tap(drawn, x=float(bars["death"].replace(np.inf, 0).max()), y=0.0))  # nothing is there
    assert page.bars == f"text:{bar}"


def test_a_click_on_a_bar_of_the_barcode_finds_it(app, diagnosed):
    page = app.pages["Topology"]
    pane = page.panes["image"]
    bars, _ = diagnosed.topology("image")
    row = pane.places[(pane.places["dimension"] == 1) & pane.places["row"].notna()].iloc[2]
    drawn = figure(pane.barcode)
    drawn._trigger_event(Tap(drawn, x=float((row["birth"] + row["death"]) / 2), y=float(row["row"])))
    assert page.bars == f"image:{row['bar']}"
    assert selected(app) == set(bars["keys"][row["bar"]])


def test_a_box_selects_the_samples_of_all_bars_in_it(app, diagnosed):
    page = app.pages["Topology"]
    bars, _ = diagnosed.topology("image")
    finite = bars[np.isfinite(bars["death"])]
    loops = finite[finite["dimension"] == 1].assign(length=lambda b: b["death"] - b["birth"])
    low, high = loops["length"].nlargest(12).index, loops["birth"].max()
    x0, y0 = loops.loc[low, "birth"].min(), loops.loc[low, "death"].min()
    drawn = figure(page.panes["image"].diagram)
    shape = {"type": "rect", "x0": high, "y0": 9.0, "x1": x0, "y1": y0}
    drawn._trigger_event(SelectionGeometry(drawn, geometry=shape, final=False))
    assert page.bars == ""
    drawn._trigger_event(SelectionGeometry(drawn, geometry=shape, final=True))
    inside = finite[finite["birth"].between(x0, high) & (finite["death"] >= y0)]
    order = (inside["death"] - inside["birth"]).sort_values(ascending=False, kind="stable").index[:30]
    modality, _, numbers = page.bars.partition(":")
    assert modality == "image"
    assert {int(n) for n in numbers.split(".")} == set(order)
    assert selected(app) == {key for bar in order for key in bars["keys"][bar]}
    assert (f"The longest 30 of {len(inside)}" in page._chosen.object) == (len(inside) > 30)
    page._clear()
    assert page.bars == ""
    assert not selected(app)


def test_a_box_of_the_barcode_takes_what_it_touches(app):
    pane = app.pages["Topology"].panes["text"]
    places = pane.places.dropna(subset=["row"])
    rows = places[places["row"].between(places["row"].max() - 3, places["row"].max())]
    middle = float(rows["death"].min()) / 2
    assert set(pane.lines_in((middle, middle), (rows["row"].min(), rows["row"].max()))) == set(rows["bar"])
    assert pane.lines_in((-2.0, -1.0), (rows["row"].min(), rows["row"].max())) == []


def test_the_encoders_own_space_has_its_own_bars(app, diagnosed):
    page = app.pages["Topology"]
    assert set(diagnosed.steps("topology")["image"]) == set(diagnosed.steps("embeddings")["image"])
    page._pick("image", [0])
    page.space = "encoder's own space"
    raw, _ = diagnosed.topology("image", "raw")
    np.testing.assert_array_equal(page.panes["image"].places.sort_values("bar")["birth"], raw["birth"])
    assert page.bars == ""  # a number means another class there


def test_every_step_of_the_training_can_be_shown(app, diagnosed):
    page = app.pages["Topology"]
    steps = [step for step in diagnosed.steps("topology")["image"] if step not in ("raw", "final")]
    assert steps
    page._step.value = steps[0]
    assert app.session.step == steps[0]
    bars, _ = diagnosed.topology("image", steps[0])
    np.testing.assert_array_equal(page.panes["image"].places.sort_values("bar")["birth"], bars["birth"])


def test_the_address_brings_the_bars_and_their_samples_back(diagnosed):
    bars, _ = diagnosed.topology("image")
    app = opened(diagnosed.folder.parent, **{"topology.bars": "image:0.3"})
    assert selected(app) == {*bars["keys"][0], *bars["keys"][3]}
    assert app.state["topology.bars"] == "image:0.3"
    for wrong in ("image:99999", "nothing:1", "image:x", ":", "<b>:1"):
        app = opened(diagnosed.folder.parent, **{"topology.bars": wrong})
        assert not selected(app)
        assert "Click a dot" in app.pages["Topology"]._chosen.object


def test_what_is_not_computed_names_the_command(runs_root, diagnosed, tmp_path):
    plain = opened(runs_root)
    told = plain._places["Topology"].objects[0].object
    assert f"<code>labkit diagnose {plain.session.run}</code>" in told

    root = tmp_path / "runs"
    shutil.copytree(diagnosed.folder, root / diagnosed.id)
    record = root / diagnosed.id / "run.json"
    kept = [f for f in diagnosed.files if not (f.startswith("topology/") and "@final" not in f)]
    lines = pd.read_json(record, typ="series")
    lines["files"] = [entry for entry in lines["files"] if entry["name"] in kept]
    lines.to_json(record)
    page = opened(root).pages["Topology"]
    page.space = "encoder's own space"
    assert "is not computed" in page._message.objects[0].object
    assert "Shown is final" in page._message.objects[0].object
    (root / diagnosed.id / "topology" / "image@final.parquet").write_bytes(b"cut")
    broken = opened(root)
    assert "truncated" in broken._places["Topology"].objects[0].object
