"""Pages Robustness, What-if and Ask in a real browser: clicks, drags, uploads; shown numbers are those of the store."""

from __future__ import annotations

import re

import numpy as np
import pytest

from labkit.store import Store
from tests.dashboards.screen import FIGURES

pytestmark = pytest.mark.browser

# where the point of a curve is on the screen
POINT = """([method, severity]) => {
  const figures = Array.from(Bokeh.documents[0]._all_models.values()).filter(m => m.type === "Figure")
  const m = figures.find(f => f.title?.text?.includes("feature noise")), view = m && Bokeh.index.find_one(m)
  if (!view) return null
  const box = view.el.getBoundingClientRect(), inner = view.frame.bbox
  for (const r of m.renderers.filter(r => r.glyph?.type === "Scatter")) {
    const d = r.data_source.data, at = Array.from(d.severity).indexOf(severity)
    if (Array.from(d.variant)[0] !== method) continue
    const share = (v, range) => (v - range.start) / (range.end - range.start)
    return {x: box.left + inner.left + share(severity, m.x_range) * inner.width,
      y: box.top + inner.top + (1 - share(Array.from(d.value)[at], m.y_range)) * inner.height}
  }
  return null
}"""
STAR = f"() => ({FIGURES})().find(f => f.title.startsWith('all modalities'))?.star"


def test_a_click_on_a_curve_selects_what_fails_there(visit, served_root):
    run = Store(served_root).open("cca-s0")
    page = visit(run=run.id, page="Robustness", **{"robustness.curve": "feature_noise of image"})
    page.get_by_text("Area under the curve").wait_for()
    point = page.wait_for_function(POINT, arg=["cca", 5]).json_value()
    page.mouse.click(point["x"], point["y"])
    told = page.get_by_text(re.compile(r"\d+ test samples of this run fail at severity 5")).inner_text()

    field = run.field("recall_at_10").query("split == 'test'")
    place = ["key", "source", "target"]
    noisy = field.query("corruption == 'feature_noise' and corrupted == 'image' and severity == 5")
    clean = field.query("corruption == 'none'").set_index(place)["value"]
    noisy = noisy.set_index(place)["value"]
    lost = noisy[(noisy < 0.5) & (clean.reindex(noisy.index) >= 0.5)]
    n = lost.index.get_level_values("key").nunique()
    assert told.startswith(f"{n} test samples")

    page.get_by_role("button", name="Color the maps by first failure").click()
    page.wait_for_selector(".lk-selected")
    assert page.locator(".lk-selected").inner_text() == f"{n} of 950 things selected"
    assert page.get_by_label("Color").input_value() == "first failure"
    page.wait_for_function("() => location.search.includes('under=feature_noise')")


def test_dragging_the_severity_moves_the_star_of_the_thing_in_focus(visit, served_root):
    run = Store(served_root).open("cca-s0")
    page = visit(run=run.id, page="What-if", projection="pca", theme="dark", **{"what-if.modality": "text"})
    points = run.points().query("split == 'test'")
    caption, key = points.loc[points["caption"].str.len().idxmax(), ["caption", "key"]]
    slider = page.locator(".noUi-handle:not([disabled])").first
    page.wait_for_function("() => !document.querySelector('.lk-wait')")
    page.get_by_label("Find a thing").fill(caption)
    page.get_by_label("Find a thing").press("Enter")
    page.locator(".lk-ranks").wait_for()
    frame = run.projection("pca").set_index(["modality", "key"]).loc[("text", key)]
    page.wait_for_function(f"() => ({STAR})()?.x.length === 1")
    star = page.evaluate(STAR)
    assert (star["x"][0], star["y"][0]) == pytest.approx((frame["x"], frame["y"]), abs=2e-3)

    for severity in (1, 2, 3):
        slider.press("ArrowRight")
        page.get_by_text(f"severity {severity}", exact=False).first.wait_for()
    page.wait_for_function("() => location.search.includes('what-if.severity=3')")
    moved = page.evaluate(STAR)
    assert np.hypot(moved["x"][0] - star["x"][0], moved["y"][0] - star["y"][0]) > 1e-3
    assert page.get_by_text(f"labkit robustness {run.id}").first.is_visible()  # its curve is not measured here

    page.get_by_label("Corrupted modality").select_option("image")
    page.locator("img[alt*='severity 3']").wait_for()


def test_a_text_a_picture_and_a_bad_file_are_asked_with(visit, served_root, tmp_path):
    run = Store(served_root).open("cca-s0")
    points = run.points()
    page = visit(run=run.id, page="Ask", projection="pca", **{"ask.query": "a sports car"})
    page.locator(".lk-similarity").nth(23).wait_for()
    page.get_by_role("button", name="Select these").click()
    page.wait_for_function("() => location.search.includes('ask.query=a')")

    page.get_by_label("Ask with").select_option("a picture")
    row = int(np.flatnonzero(points["caption"] == "A sports car.")[0])
    file = run.item_path(points["key"].iloc[row], "image")
    page.locator("input[type=file]").set_input_files(str(file))
    page.locator(".filepond--file-status-main", has_text="Upload complete").wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("img[alt='the query']").wait_for()
    first = page.locator(".lk-col").first
    assert "A sports car." in first.inner_text()
    assert float(first.locator(".lk-similarity").first.inner_text()) > 0.99

    large = tmp_path / "large.png"
    large.write_bytes(bytes(30_000_000))
    page.locator("input[type=file]").set_input_files(str(large))
    page.get_by_text("File is too large", exact=True).wait_for()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.locator("input[type=file]").set_input_files(str(broken))
    page.get_by_text("broken.png").first.wait_for()
    page.locator(".filepond--file-status-main", has_text="Upload complete").wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("no picture that can be read").wait_for()
