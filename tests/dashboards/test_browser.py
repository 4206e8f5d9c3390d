"""Page Manifolds in a real browser: gestures, pictures, sounds, URL, theme; no error and no outside request."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pandas as pd
import pytest
import shapely

from labkit.store import Store
from tests.dashboards.screen import FIGURES, drag, maps, to_data, to_pixels

pytestmark = pytest.mark.browser


def stored(root: Path, run: str, modality: str) -> pd.DataFrame:
    frame = Store(root).open(run).projection("pca")
    return frame[frame["modality"] == modality].reset_index(drop=True)


def test_a_real_lasso_selects_the_same_everywhere(visit, served_root, tmp_path):
    run = Store(served_root).open("cca-s0").id
    page = visit(run=run, color="label", projection="pca")
    figure = maps(page)["image"]
    frame = stored(served_root, run, "image")
    places = to_pixels(figure, frame[["x", "y"]].to_numpy())
    turns = np.linspace(0, 2 * np.pi, 25)
    corners = np.median(places, axis=0) + 55 * np.column_stack([np.cos(turns), np.sin(turns)])
    drag(page, corners)
    page.wait_for_function(f"({FIGURES})().every(f => f.marks.x.length > 0)")

    with page.expect_download() as download:
        page.get_by_text("Selected keys (csv)").click()
    download.value.save_as(tmp_path / "keys.csv")
    keys = set(pd.read_csv(tmp_path / "keys.csv")["key"])
    # through the ranges of the figure; the ring allows for the pixels that the browser takes to notice a drag
    area = shapely.Polygon(to_data(figure, corners))
    pixel = (
        abs(figure["x"][1] - figure["x"][0]) / figure["width"],
        abs(figure["y"][1] - figure["y"][0]) / figure["height"],
    )
    at = frame[["x", "y"]].to_numpy() / pixel
    scaled = shapely.Polygon(np.array(area.exterior.coords) / pixel)
    surely = set(frame["key"][shapely.contains_xy(scaled.buffer(-4), *at.T)])
    perhaps = set(frame["key"][shapely.contains_xy(scaled.buffer(4), *at.T)])
    assert len(surely) > 30
    assert surely <= keys <= perhaps
    assert len(perhaps) < 1.5 * len(surely)
    assert page.locator(".lk-selected").inner_text() == f"{len(keys)} of 950 things selected"

    shown = maps(page)
    for modality in ("image", "text", "speech_fr"):
        other = stored(served_root, run, modality)
        wanted = other[other["key"].isin(keys)]
        assert sorted(shown[modality]["marks"]["x"]) == pytest.approx(sorted(wanted["x"]))
        assert sorted(shown[modality]["marks"]["y"]) == pytest.approx(sorted(wanted["y"]))
    assert len(shown["all modalities"]["links"]["x0"]) >= len(keys)

    page.get_by_role("button", name="Clear selection").click()
    page.wait_for_function(f"({FIGURES})().every(f => f.marks.x.length === 0)")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function(f"({FIGURES})().every(f => f.marks.x.length > 0)")


def test_a_click_shows_the_picture_and_plays_the_sound(visit, served_root):
    run = Store(served_root).open("procrustes-s1").id
    page = visit(run=run, projection="pca")
    figure = maps(page)["image"]
    frame = stored(served_root, run, "image")
    places = to_pixels(figure, frame[["x", "y"]].to_numpy())
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    spoken = frame["key"].isin(stored(served_root, run, "speech_fr")["key"]).to_numpy()
    target = int(np.where(spoken, apart.min(axis=1), 0).argmax())
    click = places[target] + 2
    page.mouse.click(*click)
    page.wait_for_selector(".lk-key")
    nearest = np.hypot(*(places - click).T).argmin()
    assert page.locator(".lk-key").inner_text() == frame["key"][nearest] == frame["key"][target]
    assert maps(page)["image"]["star"]["x"] == pytest.approx([frame["x"][target]])

    picture = page.locator(".lk-card img").first
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
    neighbors = page.locator(".lk-row img")
    assert neighbors.count() == 24
    assert all(neighbors.evaluate_all("all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth > 0)))"))
    sound = page.locator(".lk-card audio[data-modality=speech_fr]")
    sound.evaluate("audio => audio.play()")
    page.wait_for_timeout(400)
    played = sound.evaluate("a => ({at: a.currentTime, length: a.duration, error: a.error && a.error.message})")
    assert played["error"] is None
    assert played["length"] > 0.1
    assert played["at"] > 0


def test_the_address_restores_the_page_and_the_theme_keeps_it(visit, served_root):
    run = Store(served_root).open("procrustes-s0").id
    page = visit(run=run, page="Manifolds", color="split", projection="pca", theme="default")
    light = maps(page)["image"]["background"]
    assert run[-10:] in page.get_by_label("Run", exact=True).locator("option:checked").inner_text()
    assert page.get_by_label("Color").input_value() == "split"
    assert page.get_by_label("Projection").input_value() == "PCA"
    page.get_by_text("Robustness", exact=True).click()
    page.get_by_text("Area under the curve").wait_for()
    page.get_by_text("Runs", exact=True).click()
    page.get_by_text("All runs in this folder").wait_for()
    assert page.locator(".lk-states").inner_text() == "6 complete · 1 failed"

    page.get_by_role("button", name="Dark theme").click()
    page.get_by_role("button", name="Light theme").wait_for()
    asked = {k: v[0] for k, v in parse_qs(urlparse(page.url).query).items()}
    shared = {"run": run, "page": "Runs", "color": "split", "projection": "pca", "theme": "dark"}
    assert asked.items() >= shared.items()
    page.get_by_text("All runs in this folder").wait_for()
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in color[4:-1].split(",")) < 3 * 80
    page.get_by_text("Manifolds", exact=True).click()
    assert maps(page)["image"]["background"] != light
    assert page.get_by_label("Color").input_value() == "split"


def test_hostile_texts_stay_texts(visit, served_root, markup):
    page = visit(run="hostile-s0", color="label", projection="pca")
    page.wait_for_selector(".lk-selected")
    page.wait_for_function(f"({FIGURES})().length === 3 && ({FIGURES})().every(f => f.width > 100)")
    figure = next(f for f in page.evaluate(FIGURES) if f["title"].startswith("image"))
    place = to_pixels(figure, stored(served_root, "hostile-s0", "image")[["x", "y"]].to_numpy())[3]
    page.mouse.move(*place)
    page.wait_for_selector(".lk-key")
    assert page.locator(".lk-key").inner_text() == f"{markup}3"
    page.mouse.click(*place)
    page.get_by_text("It is the thing in focus.").wait_for()
    assert page.locator(".lk-key").inner_text() == f"{markup}3"
    page.get_by_text("Runs", exact=True).click()
    page.get_by_text("All runs in this folder").wait_for()
    page.get_by_text("ValueError").first.wait_for()
    assert markup in page.get_by_text("ValueError").first.inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


def test_hostile_texts_stay_texts_in_a_tooltip(visit, served_root, markup):
    page = visit(run="hostile-s0", page="Neighborhoods", projection="pca")
    wide = f"({FIGURES})().filter(f => f.title.startsWith('all') && f.width > 100)"
    page.wait_for_function(f"{wide}.length === 1")
    figure = page.evaluate(f"() => {wide}[0]")
    page.mouse.move(*to_pixels(figure, stored(served_root, "hostile-s0", "image")[["x", "y"]].to_numpy())[3])
    told = page.locator(".bk-Tooltip", has_text="caption")
    told.wait_for()
    shown = told.evaluate("tooltip => tooltip.shadowRoot.textContent")
    assert shown.count(markup) == 2, shown  # caption and key, the label is plain
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
