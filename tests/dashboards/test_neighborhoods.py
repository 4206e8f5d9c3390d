"""Page Neighborhoods without a browser: neighbors, overlaps and ranks against scikit-learn and counting."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from dashboards.app import App
from dashboards.map_set import JOINT
from dashboards.neighborhood import around
from dashboards.session import Session
from labkit.store import Run, Store


@pytest.fixture(scope="module")
def run(runs_root) -> Run:
    return Store(runs_root).open("cca-s0")


@pytest.fixture
def app(run) -> App:
    return App(Session(Store(run.folder.parent)), {"page": "Neighborhoods", "run": run.id})


@pytest.mark.parametrize("step", ["final", "raw"])
def test_neighbors_and_ranks(app, run, step):
    content, k, row = app.session.content, 7, 11
    found = around(content, row, step=step, k=k)
    similarity, there = {}, {}
    for modality, near in found.near.items():
        vectors = np.asarray(run.embedding(modality, step), dtype=np.float64)
        there[modality] = np.setdiff1d(content.present(modality), [row])
        index = NearestNeighbors(metric="cosine", n_neighbors=k).fit(vectors[there[modality]])
        assert near.similarity == pytest.approx(1 - index.kneighbors(vectors[[row]])[0][0], abs=1e-5)
        similarity[modality] = 1 - pairwise_distances(vectors, vectors[[row]], metric="cosine")[:, 0]
        assert similarity[modality][near.rows] == pytest.approx(near.similarity, abs=1e-5)
        assert len(set(near.rows.tolist()) & set(there[modality].tolist())) == k
    for modality, near in found.near.items():
        assert set(near.rank) == set(found.near) - {modality}
        for other, ranks in near.rank.items():
            for i, rank in zip(near.rows, ranks, strict=True):
                if i not in there[other]:
                    assert rank == 0
                    continue
                others = similarity[other][there[other]] - similarity[other][i]
                assert 1 + (others > 1e-6).sum() <= rank <= 1 + (others > -1e-6).sum()
    for a, b, shared, of, chance in found.shared():
        assert shared == len(set(found.near[a].rows.tolist()) & set(found.near[b].rows.tolist()))
        assert of == k
        assert chance == pytest.approx(k * k / max(len(there[a]), len(there[b])))
    assert row not in found.rows


def test_a_thing_without_a_modality_has_no_neighbors_there(app):
    content = app.session.content
    missing = [m for m in content.modalities if not content.points[f"present_{m}"].all()][0]
    row = int(np.flatnonzero(~content.points[f"present_{missing}"])[0])
    found = around(content, row, step="final", k=3)
    assert missing not in found.near
    app.session.selection.focus = row
    assert "this sample has no such item" in app.pages["Neighborhoods"]._near.object


def test_the_panel_shows_what_was_found(app):
    app.session.selection.focus = 3
    page = app.pages["Neighborhoods"]
    page.k = 4
    found = around(app.session.content, 3, step="final", k=4)
    shown = page._near.object
    cosines = [float(c) for c in re.findall(r"cosine (-?\d\.\d\d)", shown)]
    wanted = [round(float(c), 2) for near in found.near.values() for c in near.similarity]
    assert cosines == pytest.approx(wanted, abs=0.006)
    assert shown.count("lk-shared") == sum(int(r) in found.marked() for near in found.near.values() for r in near.rows)
    names = "image–text"
    (count,) = re.findall(rf"{names} <b>(\d) of 4</b>", shown)
    assert int(count) == found.shared()[0][2]
    marks = page.map.panes[JOINT]._data["marks"]
    places = sum(int(app.session.content.points[f"present_{m}"].iloc[r]) for r in found.rows for m in found.others)
    assert len(marks["x"]) == places


def test_arrows_step_through_everything_or_the_selection_and_around(app):
    page, n = app.pages["Neighborhoods"], len(app.session.content.points)
    page.step(1)
    assert app.session.selection.focus == 0
    page.step(-1)
    assert app.session.selection.focus == n - 1
    page.step(1)
    assert app.session.selection.focus == 0
    app.session.selection.select(np.array([4, 9, 30]))
    page.step(1)
    assert app.session.selection.focus == 4
    page.step(1)
    assert app.session.selection.focus == 9
    page.step(-1)
    page.step(-1)
    assert app.session.selection.focus == 30
    app.session.selection.focus = 12
    page.step(1)
    assert app.session.selection.focus == 30
    app.session.selection.focus = 12
    page.step(-1)
    assert app.session.selection.focus == 9


def test_keys_count_on_their_own_page_only(app):
    page = app.pages["Neighborhoods"]
    page._press("ArrowRight")
    assert app.session.selection.focus == 0
    app.session.page = "Manifolds"
    page._press("ArrowRight")
    assert app.session.selection.focus == 0


def test_search_goes_from_match_to_match(app):
    page, content = app.pages["Neighborhoods"], app.session.content
    found = content.search("bird")
    assert len(found) > 1
    page.search = "bird"
    assert app.session.selection.focus == found[0]
    page._search()
    assert app.session.selection.focus == found[1]
    page.search = "no such caption"
    assert "no caption contains" in page._at.object


def test_the_address_names_the_thing(run):
    key = run.points()["key"].iloc[17]
    query = {"page": "Neighborhoods", "run": run.id, "neighborhoods.thing": key}
    app = App(Session(Store(run.folder.parent)), query)
    assert app.session.selection.focus == 17
    assert app.state["neighborhoods.thing"] == key
    gone = App(Session(Store(run.folder.parent)), {**query, "neighborhoods.thing": "gone"})
    assert "no thing" in gone.pages["Neighborhoods"]._message.objects[-1].object


def test_a_run_that_was_not_diagnosed_is_told_how(app, run):
    told = app.pages["Neighborhoods"]._measures.objects[0].object
    assert f"labkit diagnose {run.id}" in told
    assert "hubness" in told
    app.session.color = "hubness"
    assert f"labkit diagnose {run.id}" in app.pages["Neighborhoods"]._message.objects[0].object
