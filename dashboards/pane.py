"""One map: points that are drawn once, and marks on them that follow the selection.

A gesture comes to the server as a shape in data coordinates, and only the marks go back: three small tables per map.
Redrawing through HoloViews would cost ten times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import shapely
from bokeh.models import ColumnDataSource

from labkit.views import manifolds

_NEAR = 0.03  # share of the axes within which a click finds a point
_FADED, _FULL = 0.16, 0.75


class MapPane:
    """A map of some points of a frame.

    Args:
        frame: as from `manifolds.manifold_frame`, the rows that this map shows.
        colors: what their color means.
        name: what the map shows, for the title.
        limits: (x, y) ranges that all maps of a page share.
        on_area: called with the samples that a lasso or box caught.
        on_click: called with the sample that a click hit.

    Attributes:
        view: the drawing.
        lasso: stream of lassos, in data coordinates; likewise `box`, `tap` and `range`, the part that is in view.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        colors: manifolds.Coloring,
        *,
        name: str,
        limits: tuple[tuple[float, float], tuple[float, float]],
        on_area: Callable[[np.ndarray], None],
        on_click: Callable[[int], None],
    ) -> None:
        self._frame, self._colors, self._limits = frame, colors, limits
        self._on_area, self._on_click = on_area, on_click
        self._shown: tuple[np.ndarray, int | None, bool] = (np.zeros(0, dtype=int), None, False)
        self._figure: Any = None
        self._base: Any = None
        self._sources: dict[str, ColumnDataSource] = {}
        points = manifolds.points_of(frame, colors, size=4.5, alpha=_FULL)
        base = manifolds.rasterized(points, colors) if len(frame) > manifolds.MAX_POINTS else points
        base = base.opts(
            title=f"{name} · n = {len(frame)}", responsive=True, height=330, min_width=240, xlim=limits[0],
            ylim=limits[1], xaxis=None, yaxis=None, default_tools=["pan", "wheel_zoom", "reset"],
            tools=["lasso_select", "box_select", "hover"], active_tools=["lasso_select", "wheel_zoom"], toolbar="above",
            shared_axes=False, backend_opts={"plot.toolbar.logo": None}, hooks=[self._attach], backend="bokeh",
        )  # fmt: skip
        self.lasso = hv.streams.Lasso(source=base)
        self.box = hv.streams.BoundsXY(source=base)
        self.tap = hv.streams.Tap(source=base)
        self.range = hv.streams.RangeXY(source=base)
        self.lasso.add_subscriber(lambda geometry: self._area(geometry))
        self.box.add_subscriber(lambda bounds: self._area(None if bounds is None else _corners(bounds)))
        self.tap.add_subscriber(lambda x, y: self._click(x, y))
        self.view = pn.pane.HoloViews(base, backend="bokeh", linked_axes=False, sizing_mode="stretch_width", margin=4)

    def mark(self, mask: np.ndarray, focus: int | None, *, links: bool) -> None:
        """Show a selection, the sample in focus, and the lines between the partners of both."""
        rows = self._frame["row"].to_numpy()
        self._shown = (np.flatnonzero(mask[rows]), focus, links)
        if self._sources:
            self._update()

    def _update(self) -> None:
        at, focus, links = self._shown
        picked = self._frame.iloc[at]
        star = self._frame[self._frame["row"] == focus]
        ends = manifolds.pair_ends(pd.concat([picked, star])) if links else None
        color = picked[self._colors.column]
        self._sources["marks"].data = {
            "x": picked["x"].to_numpy(), "y": picked["y"].to_numpy(),
            "color": (color if self._colors.categories is None else color.astype(str)).to_numpy(),
        }  # fmt: skip
        self._sources["star"].data = {c: star[c].to_numpy() for c in ("x", "y")}
        if ends is not None:
            ends = ends.iloc[: manifolds.MAX_LINKS]
        self._sources["links"].data = {c: [] if ends is None else ends[c].to_numpy() for c in ("x0", "y0", "x1", "y1")}
        for glyph in self._glyphs():
            glyph.update(fill_alpha=_FADED if len(at) else _FULL)

    def _attach(self, plot: Any, _: object) -> None:
        """Add the marks to a figure that HoloViews has just made."""
        if plot.state is self._figure:
            return
        self._figure, self._base = plot.state, plot.handles["glyph_renderer"]
        fill = getattr(self._base.glyph, "fill_color", None)  # as the points, from column "color"; a raster has none
        self._sources = {
            "links": ColumnDataSource({c: [] for c in ("x0", "y0", "x1", "y1")}),
            "marks": ColumnDataSource({"x": [], "y": [], "color": []}),
            "star": ColumnDataSource({"x": [], "y": []}),
        }
        figure, sources = self._figure, self._sources
        line = {"color": "#888888", "alpha": 0.5}
        dot = {"fill_color": fill, "line_color": "#6e7781"}
        gold = {"fill_color": "#ffd33d", "line_color": "#1b1f24"}
        figure.segment("x0", "y0", "x1", "y1", source=sources["links"], name="links", **line)
        figure.scatter("x", "y", source=sources["marks"], name="marks", size=7.5, line_width=0.8, **dot)
        figure.scatter("x", "y", source=sources["star"], name="star", size=18, marker="star", **gold)
        self._update()

    def _glyphs(self) -> list[Any]:
        """What the client may draw a point with; a lasso of its own must not change how a point looks."""
        known = (self._base.glyph, self._base.nonselection_glyph, self._base.selection_glyph)
        return [glyph for glyph in known if hasattr(glyph, "fill_alpha")]

    def _area(self, geometry: np.ndarray | None) -> None:
        if geometry is None or len(geometry) < 3:
            return
        area = shapely.Polygon(geometry)
        shapely.prepare(area)
        inside = shapely.contains_xy(area, self._frame["x"].to_numpy(), self._frame["y"].to_numpy())
        self._on_area(np.unique(self._frame["row"].to_numpy()[inside]))

    def _click(self, x: float | None, y: float | None) -> None:
        if x is None or y is None or self._frame.empty:
            return
        places = self._frame[["x", "y"]].to_numpy()
        spans = [
            r[1] - r[0] if r else limits[1] - limits[0]
            for r, limits in zip((self.range.x_range, self.range.y_range), self._limits, strict=True)
        ]
        away = np.abs((places - (x, y)) / np.array(spans))
        distance = np.hypot(*away.T)
        if distance.min() <= _NEAR:
            self._on_click(int(self._frame["row"].iloc[int(distance.argmin())]))


def _corners(bounds: tuple[float, float, float, float]) -> np.ndarray:
    left, bottom, right, top = bounds
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
