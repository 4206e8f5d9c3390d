"""Maps of the dashboard as a browser shows them, and gestures on them."""

from __future__ import annotations

import numpy as np

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
