"""The served dashboard in a real browser: gestures, pictures, sounds, URL, theme; no error and no outside request."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlparse

import numpy as np
import pandas as pd
import pytest
import shapely

from labkit.store import Store

pytestmark = pytest.mark.browser

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
# the place of a map on the screen, what its axes show, and the marks on it
FIGURES = """() => Bokeh.documents[0].roots().concat(Array.from(Bokeh.documents[0]._all_models.values()))
  .filter(m => m.type === "Figure" && m.renderers.some(r => r.name === "marks"))
  .filter((m, i, all) => all.indexOf(m) === i)
  .map(m => {
    const view = Bokeh.index.find_one(m), box = view.el.getBoundingClientRect(), inner = view.frame.bbox
    const data = name => {
      const found = m.renderers.find(r => r.name === name).data_source.data
      const numbers = Object.entries(found).filter(([k]) => k !== "color")
      return Object.fromEntries(numbers.map(([k, v]) => [k, Array.from(v)]))
    }
    return {title: m.title.text, left: box.left + inner.left, top: box.top + inner.top,
      width: inner.width, height: inner.height, x: [m.x_range.start, m.x_range.end],
      y: [m.y_range.start, m.y_range.end], background: m.background_fill_color, marks: data("marks"),
      star: data("star"), links: data("links")}
  })"""


@pytest.fixture(scope="module")
def root(runs_root, hostile_run, failed_run, tmp_path_factory) -> Path:
    """The real runs, a hostile one and a failed one."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    shutil.copytree(runs_root, folder)
    hostile_run(folder)
    failed_run(folder)
    return folder


@pytest.fixture(scope="module")
def address(root):
    """`panel serve dashboards` on a free port, in its own process group."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    log = root.parent / "serve.log"
    command = [sys.executable, "-m", "panel", "serve", "dashboards", "--port", str(port)]
    environment = {**os.environ, "LABKIT_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        _wait_for(port, server, log)
        yield f"http://localhost:{port}/dashboards"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
    told = log.read_text()
    # a page that closes while a message is on its way leaves a traceback of tornado's alone
    assert not re.search(r'File ".*/(dashboards|labkit|panel|holoviews|param)/', told), told
    assert "WARNING" not in told, told


@pytest.fixture(scope="module")
def browser():
    """Chromium, which continuous integration must have."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: continuous integration has to install it")
        pytest.skip("no chromium: install it to test the dashboard in a browser")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Opens the dashboard with a query; afterwards there must have been no console error and no outside request."""
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1500, "height": 1150}, accept_downloads=True)

    def watch_request(request) -> None:
        place = urlparse(request.url)
        if place.scheme not in ("data", "blob") and place.hostname != "localhost":
            troubles.append(f"outside request: {request.url}")

    def watch_console(message) -> None:
        if message.type == "error":
            troubles.append(f"console: {message.text}")

    def open_page(**query: str):
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", watch_request)
        page.on("console", watch_console)
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.goto(f"{address}?{urlencode(query)}")
        page.wait_for_selector(".lk-states")
        return page

    yield open_page
    context.close()
    assert not troubles


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()}")
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text()}")


def maps(page) -> dict[str, dict]:
    """Every map by what it shows, once all are laid out."""
    page.wait_for_selector(".lk-selected")
    page.wait_for_function(f"({FIGURES})().length === 4 && ({FIGURES})().every(f => f.width > 100)")
    return {f["title"].split(" · ")[0]: f for f in page.evaluate(FIGURES)}


def to_data(figure: dict, pixels: np.ndarray) -> np.ndarray:
    """Pixels of the page in the coordinates of a map, through its ranges."""
    share = (pixels - (figure["left"], figure["top"])) / (figure["width"], figure["height"])
    (x0, x1), (y0, y1) = figure["x"], figure["y"]
    return np.column_stack([x0 + share[:, 0] * (x1 - x0), y1 - share[:, 1] * (y1 - y0)])


def to_pixels(figure: dict, places: np.ndarray) -> np.ndarray:
    """The inverse of `to_data`."""
    (x0, x1), (y0, y1) = figure["x"], figure["y"]
    share = np.column_stack([(places[:, 0] - x0) / (x1 - x0), (y1 - places[:, 1]) / (y1 - y0)])
    return share * (figure["width"], figure["height"]) + (figure["left"], figure["top"])


def drag(page, corners: np.ndarray) -> None:
    """Draw a closed line with the mouse button down."""
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()


def stored(root: Path, run: str, modality: str) -> pd.DataFrame:
    frame = Store(root).open(run).projection("pca")
    return frame[frame["modality"] == modality].reset_index(drop=True)


def test_a_real_lasso_selects_the_same_everywhere(visit, root, tmp_path):
    run = Store(root).open("cca-s0").id
    page = visit(run=run, color="label", projection="pca")
    figure = maps(page)["image"]
    frame = stored(root, run, "image")
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
        other = stored(root, run, modality)
        wanted = other[other["key"].isin(keys)]
        assert sorted(shown[modality]["marks"]["x"]) == pytest.approx(sorted(wanted["x"]))
        assert sorted(shown[modality]["marks"]["y"]) == pytest.approx(sorted(wanted["y"]))
    assert len(shown["all modalities"]["links"]["x0"]) >= len(keys)

    page.get_by_role("button", name="Clear selection").click()
    page.wait_for_function(f"({FIGURES})().every(f => f.marks.x.length === 0)")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function(f"({FIGURES})().every(f => f.marks.x.length > 0)")


def test_a_click_shows_the_picture_and_plays_the_sound(visit, root):
    run = Store(root).open("procrustes-s1").id
    page = visit(run=run, projection="pca")
    figure = maps(page)["image"]
    frame = stored(root, run, "image")
    places = to_pixels(figure, frame[["x", "y"]].to_numpy())
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    spoken = frame["key"].isin(stored(root, run, "speech_fr")["key"]).to_numpy()
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


def test_the_address_restores_the_page_and_the_theme_keeps_it(visit, root):
    run = Store(root).open("procrustes-s0").id
    page = visit(run=run, page="Manifolds", color="split", projection="pca", theme="default")
    light = maps(page)["image"]["background"]
    assert run[-10:] in page.get_by_label("Run", exact=True).locator("option:checked").inner_text()
    assert page.get_by_label("Color").input_value() == "split"
    assert page.get_by_label("Projection").input_value() == "pca"
    page.get_by_text("Robustness", exact=True).click()
    page.get_by_text("The same in numbers").wait_for()
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


def test_hostile_texts_stay_texts(visit, root, markup):
    page = visit(run="hostile-s0", color="label", projection="pca")
    page.wait_for_selector(".lk-selected")
    page.wait_for_function(f"({FIGURES})().length === 3 && ({FIGURES})().every(f => f.width > 100)")
    figure = next(f for f in page.evaluate(FIGURES) if f["title"].startswith("image"))
    place = to_pixels(figure, stored(root, "hostile-s0", "image")[["x", "y"]].to_numpy())[3]
    page.mouse.move(*place)
    told = page.locator(".bk-Tooltip", has_text="caption")
    told.wait_for()
    shown = told.evaluate("tooltip => tooltip.shadowRoot.textContent")
    assert shown.count(markup) == 2, shown  # caption and key, the label is plain
    page.mouse.click(*place)
    page.wait_for_selector(".lk-key")
    assert page.locator(".lk-key").inner_text() == f"{markup}3"
    page.get_by_text("Runs", exact=True).click()
    page.get_by_text("All runs in this folder").wait_for()
    page.get_by_text("ValueError").first.wait_for()
    assert markup in page.get_by_text("ValueError").first.inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [1200, 1920])
def test_nothing_overflows(visit, root, width):
    page = visit(run=Store(root).open("cca-s1").id, color="label")
    page.set_viewport_size({"width": width, "height": 1000})
    maps(page)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    right = max(f["left"] + f["width"] for f in maps(page).values())
    cards = page.locator(".card").all()
    assert len(cards) == 2
    for card in cards:
        box = card.bounding_box()
        assert right <= box["x"]
        assert box["x"] + box["width"] <= width
    slider = page.locator(".noUi-target").bounding_box()
    assert slider["x"] + slider["width"] <= width
