"""Pages Transport and Neighborhoods in a real browser: what is shown is recomputed from the stored files."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from tests.dashboards.screen import FIGURES, drag, to_pixels

pytestmark = pytest.mark.browser

FLOWS = """() => Array.from(Bokeh.documents[0]._all_models.values())
  .filter(m => m.type === "GlyphRenderer" && m.name === "flows").map(r => r.data_source.data.x0.length)"""


def joint(page) -> dict:
    """The map of all modalities, once it is laid out."""
    wide = f"({FIGURES})().filter(f => f.title.startsWith('all') && f.width > 100)"
    page.wait_for_function(f"{wide}.length === 1")
    return page.evaluate(f"() => {wide}[0]")


def test_a_lasso_is_followed_through_the_plan(visit, diagnosed):
    page = visit(run=diagnosed.id, page="Transport", projection="pca", **{"transport.pair": "text → image"})
    page.get_by_text("Converged").wait_for()
    table, record = diagnosed.coupling("image", "text", "sinkhorn", 0.05)
    assert f"{record['mass_kept']:.1%} of the mass" in page.locator(".lk-notice", has_text="Converged").inner_text()
    figure = joint(page)
    frame = diagnosed.projection("pca")
    places = to_pixels(figure, frame.loc[frame["modality"] == "image", ["x", "y"]].to_numpy())
    turns = np.linspace(0, 2 * np.pi, 25)
    drag(page, np.median(places, axis=0) + 60 * np.column_stack([np.cos(turns), np.sin(turns)]))
    page.wait_for_function(f"Math.max(...({FLOWS})()) > 0")
    told = page.locator(".lk-moved").inner_text()
    n, selected = map(int, re.search(r"(\d+) of (\d+) selected things are in the plan", told.replace(",", "")).groups())
    with page.expect_download() as download:
        page.get_by_text("Manifolds", exact=True).click()
        page.get_by_text("Selected keys (csv)").click()
    keys = pd.read_csv(download.value.path(), dtype=str)["key"].tolist()
    assert len(keys) == selected
    rows = table[table["col_key"].isin(keys)]
    assert n == rows["col_key"].nunique() > 5
    shown = rows.sort_values("mass", ascending=False).groupby("col_key").head(3)["mass"].sum() * record["n"] / n
    page.get_by_text("Transport", exact=True).click()
    assert float(page.locator(".lk-shown").get_attribute("data-share")) == pytest.approx(shown, abs=1e-6)

    page.get_by_label("Epsilon").select_option("0.01")
    page.get_by_text("epsilon 0.01 of the mean cost").wait_for()
    page.wait_for_function("new URLSearchParams(location.search).get('transport.epsilon') === '0.01'")


def test_neighbors_side_by_side_by_click_search_and_arrows(visit, diagnosed):
    page = visit(run=diagnosed.id, page="Neighborhoods", projection="pca", color="hubness")
    figure = joint(page)
    frame = diagnosed.projection("pca")
    part = frame[frame["modality"] == "image"].reset_index(drop=True)
    places = to_pixels(figure, part[["x", "y"]].to_numpy())
    every = to_pixels(figure, frame[["x", "y"]].to_numpy())
    apart = np.sort(np.hypot(*(places[:, None] - every[None]).transpose(2, 0, 1)), axis=1)[:, 1]
    target = int(apart.argmax())
    page.mouse.click(*places[target])
    page.wait_for_selector(".lk-key:visible")
    key = part["key"][target]
    assert page.locator(".lk-key:visible").inner_text() == key
    page.wait_for_selector(".lk-overlap:visible")

    points = diagnosed.points()
    row = int(np.flatnonzero(points["key"] == key)[0])
    near = {}
    for modality in diagnosed.info["modalities"]:
        vectors = np.asarray(diagnosed.embedding(modality, "final"), dtype=float)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        similarity = vectors @ vectors[row]
        similarity[~points[f"present_{modality}"].to_numpy() | (np.arange(len(points)) == row)] = -np.inf
        near[modality] = np.argsort(-similarity)[:8], np.sort(similarity)[::-1][:8]
    shown = re.findall(r"cosine (-?\d\.\d\d)", page.locator(".lk-cols:visible").first.inner_text())
    wanted = np.concatenate([s for m, (_, s) in near.items() if points[f"present_{m}"][row]])
    assert [float(c) for c in shown] == pytest.approx(wanted.tolist(), abs=0.0051)
    shared = len(np.intersect1d(near["image"][0], near["text"][0]))
    assert f"image–text {shared} of 8" in page.locator(".lk-overlap:visible").inner_text()

    def go_to(at: int) -> None:
        name = points["key"].iloc[at % len(points)]
        page.wait_for_function(f"new URLSearchParams(location.search).get('neighborhoods.thing') === {name!r}")

    page.mouse.move(5, 5)
    page.keyboard.press("ArrowRight")
    go_to(row + 1)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft") if row else None
    go_to(row - 1 if row else row)

    page.get_by_label("search captions").locator("visible=true").fill("bird")
    page.keyboard.press("Enter")
    after = np.flatnonzero(points["caption"].str.contains("bird", case=False))
    start = row - 1 if row else row
    go_to(int(next((i for i in after if i > start), after[0])))
    page.keyboard.press("ArrowRight")  # moves the cursor in the text, not the focus
    page.wait_for_timeout(300)
    go_to(int(next((i for i in after if i > start), after[0])))
