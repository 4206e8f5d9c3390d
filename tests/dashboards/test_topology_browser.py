"""Page Topology in a real browser: the drawn bars are the stored ones, a click and a box select their samples."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from tests.dashboards.screen import drag, to_pixels

pytestmark = pytest.mark.browser

BARS = """() => Array.from(Bokeh.documents[0]._all_models.values())
  .filter(m => m.type === "Figure" && m.renderers.some(r => r.name === "chosen" && r.data_source.data.birth))
  .map(m => {
    const view = Bokeh.index.find_one(m), box = view.el.getBoundingClientRect(), inner = view.frame.bbox
    const data = r => Object.fromEntries(Object.entries(r.data_source.data).map(([k, v]) => [k, Array.from(v)]))
    return {title: m.title.text, left: box.left + inner.left, top: box.top + inner.top, width: inner.width,
      height: inner.height, x: [m.x_range.start, m.x_range.end], y: [m.y_range.start, m.y_range.end],
      drawn: m.renderers.filter(r => r.name !== "chosen").map(data),
      chosen: data(m.renderers.find(r => r.name === "chosen"))}
  })"""


def drawings(page) -> dict[str, dict]:
    """Diagrams and barcodes by their titles, once all are laid out."""
    page.wait_for_function(f"({BARS})().length === 6 && ({BARS})().every(f => f.width > 100)")
    return {f["title"].split("\n")[0]: f for f in page.evaluate(BARS)}


def test_bars_are_drawn_and_select_their_samples(visit, diagnosed):
    page = visit(run=diagnosed.id, page="Topology", projection="pca")
    shown = drawings(page)
    for modality in diagnosed.info["modalities"]:
        bars, _ = diagnosed.topology(modality)
        finite = bars[np.isfinite(bars["death"])]
        dots = [d for d in shown[f"{modality} · final: diagram"]["drawn"] if "samples" in d and len(d["bar"])]
        drawn = {int(b): (x, y) for d in dots for b, x, y in zip(d["bar"], d["birth"], d["death"], strict=True)}
        assert set(drawn) == set(range(len(bars)))
        for bar, row in finite.iterrows():
            assert drawn[bar] == pytest.approx((row["birth"], row["death"]))

    bars, _ = diagnosed.topology("image")
    loops = bars[bars["dimension"] == 1]
    bar = int((loops["death"] - loops["birth"]).idxmax())
    (place,) = to_pixels(shown["image · final: diagram"], bars.loc[[bar], ["birth", "death"]].to_numpy())
    page.mouse.click(*place)
    keys = set(bars["keys"][bar])
    page.wait_for_selector(f".lk-members[data-n='{len(keys)}']")
    marked = drawings(page)["image · final: diagram"]["chosen"]
    assert (marked["birth"], marked["death"]) == ([bars["birth"][bar]], [bars["death"][bar]])
    page.wait_for_function(f"new URLSearchParams(location.search).get('topology.bars') === 'image:{bar}'")
    assert parse_qs(urlparse(page.url).query)["run"] == [diagnosed.id]

    figure = drawings(page)["text · final: barcode"]
    bars, _ = diagnosed.topology("text")
    code = next(d for d in figure["drawn"] if 1 in np.asarray(bars["dimension"])[np.asarray(d["bar"], dtype=int)])
    rows = sorted(zip(code["row"], code["bar"], code["death"], strict=True))[-3:]
    low, high = rows[0][0] - 0.4, rows[-1][0] + 0.4
    corners = np.array([(figure["x"][1] * 0.95, high), (figure["x"][0] * 0.5, low)])
    drag(page, to_pixels(figure, corners))
    wanted = {key for _, number, _ in rows for key in bars["keys"][int(number)]}
    page.wait_for_selector(f".lk-members[data-n='{len(wanted)}']")
    assert "representatives, not the only ones" in page.locator(".lk-bar").inner_text()
    page.get_by_text("Manifolds", exact=True).click()
    page.wait_for_selector(f".lk-selected[data-n='{len(wanted)}']")
