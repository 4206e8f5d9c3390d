"""One map: points that are drawn once, and marks on them that follow the selection.

A gesture comes to the server as a shape in data coordinates, and only the marks go back. Up to 50,000 points are drawn
one by one by WebGL; of more a picture is made for what is in view, of the base and of the selection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import shapely
from bokeh.events import RangesUpdate, SelectionGeometry, Tap
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from dashboards import pointer
from dashboards.maps import Frame, Paint, counted
from labkit.views import density, manifolds
from labkit.views.density import Counts, Extent

MAX_CORNERS = 10_000  # of a lasso; a hand draws some hundred
NEAR = 0.03  # share of the axes within which a click finds a point
_FADED, _FULL = 0.16, 0.75
_LINK, _CONTOUR = "#888888", "#6e7781"
_ENDS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Listeners:
    """Who is told of gestures.

    Attributes:
        area: called with the samples that a lasso or box caught.
        click: called with the sample that a click hit.
        view: called with what is in view after it was panned or zoomed.
        hover, press: called with the sample that the pointer rests on, and with a key, see `dashboards.pointer`.
    """

    area: Callable[[np.ndarray], None]
    click: Callable[[int], None]
    view: Callable[[Extent], None]
    hover: Callable[[int], None] | None = None
    press: Callable[[str], None] | None = None


class MapPane:
    """A map of all points of a frame, or of those of one modality.

    Args:
        frame: the places.
        paint: their colors.
        modality: whose points; None for all.
        told: the samples' columns, for the hover; None for a picture.
        ranges: what all maps of a page show, shared by them.
        listen: who is told of gestures.

    Attributes:
        view: the drawing.
    """

    def __init__(
        self,
        frame: Frame,
        paint: Paint,
        modality: str | None,
        *,
        told: pd.DataFrame | None,
        ranges: tuple[Range1d, Range1d],
        listen: Listeners,
    ) -> None:
        self.frame, self.paint, self.modality, self.large = frame, paint, modality, told is None
        self._ranges, self._listen = ranges, listen
        self._figure: Any = None
        self._base: Any = None
        self._sources: dict[str, ColumnDataSource] = {}
        self._data: dict[str, dict[str, Any]] = {
            "links": {c: [] for c in _ENDS}, "marks": {"x": [], "y": [], "color": []}, "star": {"x": [], "y": []},
            "contours": {"xs": [], "ys": []}, "chosen": no_picture(), "lines": no_picture(),
            "flows": {c: [] for c in (*_ENDS, "color", "alpha")},
        }  # fmt: skip
        self._faded = False
        base = self._drawn(told).opts(
            title=f"{modality or 'all modalities'} · n = {self._n}", responsive=True, height=300, min_width=240,
            xlim=frame.extent[0], ylim=frame.extent[1], xaxis=None, yaxis=None,
            active_tools=["lasso_select", "wheel_zoom"],
            default_tools=["pan", "wheel_zoom", "reset", "save"], toolbar="above", shared_axes=False,
            tools=["lasso_select", "box_select", *(["hover"] if told is not None else [])],
            backend_opts={"plot.toolbar.logo": None}, hooks=[self._attach], backend="bokeh",
        )  # fmt: skip
        self.view = pn.pane.HoloViews(base, backend="bokeh", linked_axes=False, sizing_mode="stretch_width", margin=4)

    @property
    def extent(self) -> Extent:
        """What is in view."""
        x, y = self._ranges
        return (float(x.start), float(x.end)), (float(y.start), float(y.end))  # type: ignore[arg-type]

    def put(self, name: str, data: dict[str, Any]) -> None:
        """Replace one layer: links, flows, marks, star, contours, or the pictures chosen and lines."""
        self._data[name] = data
        if name in self._sources:
            self._sources[name].data = data

    def fade(self, faded: bool) -> None:
        """Draw the points weaker, so that marks stand out."""
        if faded == self._faded:
            return
        self._faded = faded
        for glyph in self._glyphs():
            if self.large:
                glyph.update(global_alpha=_FADED if faded else 1.0)
            else:
                glyph.update(fill_alpha=_FADED if faded else _FULL)

    def repaint(self, counts: Counts, extent: Extent) -> None:
        """Put another picture of the points under the marks."""
        if self._base is not None:
            image = density.shade(counts, self.paint.colors, self.paint.coloring.limits)
            self._base.data_source.data = picture(image, extent)

    def move(self, frame: Frame) -> None:
        """Put the same points, drawn one by one, to other places."""
        self.frame = frame
        if self._base is None:
            return
        source = self._base.data_source
        at = np.asarray(source.data["point"], dtype=int)
        source.data = {**source.data, "x": frame.x[at], "y": frame.y[at]}

    @property
    def _n(self) -> int:
        part = self.frame.part(self.modality)
        return part.stop - part.start

    def _drawn(self, told: pd.DataFrame | None) -> Any:
        part = self.frame.part(self.modality)
        if told is None:
            counts = counted(self.frame, self.paint, self.modality, self.extent)
            image = density.shade(counts, self.paint.colors, self.paint.coloring.limits)
            return density.as_element(image, self.extent)
        return manifolds.points_of(told.iloc[part], self.paint.coloring, size=4.5, alpha=_FULL)

    def _attach(self, plot: Any, _: object) -> None:
        """Add the layers to a figure that HoloViews has just made."""
        if plot.state is self._figure:
            return
        figure = self._figure = plot.state
        self._base = plot.handles["glyph_renderer"]
        figure.x_range, figure.y_range = self._ranges
        # events of the figure itself: streams of HoloViews would wait 50 ms for more of them
        figure.on_event(RangesUpdate, lambda event: self._listen.view(((event.x0, event.x1), (event.y0, event.y1))))
        figure.on_event(SelectionGeometry, self._gesture)
        figure.on_event(Tap, lambda event: self.click(event.x, event.y))
        hover, press = self._listen.hover, self._listen.press
        for tool in figure.select({"type": HoverTool}):
            tool.update(visible=hover is None, limit=1)  # one thing; a list of all that are near hides the map
            if hover is not None:  # the page shows more of it than a text
                tool.tooltips = None
        if hover is not None and press is not None:
            pointer.listen(figure, lambda x, y: self._near(x, y, hover), press)
        fill = getattr(self._base.glyph, "fill_color", None)  # as the points, from column "color"; a picture has none
        sources = self._sources = {name: ColumnDataSource(data) for name, data in self._data.items()}
        gold = {"fill_color": "#ffd33d", "line_color": "#1b1f24"}
        figure.multi_line("xs", "ys", source=sources["contours"], name="contours", color=_CONTOUR, line_width=1.2)
        for name in ("lines", "chosen"):
            figure.image_rgba("image", "x", "y", "dw", "dh", source=sources[name], name=name)
        figure.segment(*_ENDS, source=sources["links"], name="links", color=_LINK, alpha=0.5)
        drawn: dict[str, Any] = {"color": "color", "alpha": "alpha", "line_width": 1.8}
        figure.segment(*_ENDS, source=sources["flows"], name="flows", **drawn)
        dot: dict[str, Any] = {"fill_color": fill or "#ffd33d", "line_color": "#6e7781", "size": 7.5, "line_width": 0.8}
        figure.scatter("x", "y", source=sources["marks"], name="marks", **dot)
        figure.scatter("x", "y", source=sources["star"], name="star", size=18, marker="star", **gold)
        self._faded, faded = False, self._faded
        self.fade(faded)

    def _glyphs(self) -> list[Any]:
        """What the client may draw a point with; a lasso of its own must not change how a point looks."""
        if self._base is None:
            return []
        known = (self._base.glyph, self._base.nonselection_glyph, self._base.selection_glyph)
        return [glyph for glyph in known if hasattr(glyph, "global_alpha" if self.large else "fill_alpha")]

    def area(self, corners: np.ndarray) -> None:
        """Tell which samples have a point within a polygon, `[n, 2]`."""
        if len(corners) > 2 and np.isfinite(corners).all():
            self._listen.area(self.frame.within(shapely.Polygon(corners), self.modality))

    def click(self, x: float | None, y: float | None) -> None:
        """Tell which sample is at a place, if there is one near enough."""
        self._near(x, y, self._listen.click)

    def _near(self, x: float | None, y: float | None, tell: Callable[[int], None]) -> None:
        if x is None or y is None:
            return
        (left, right), (low, high) = self.extent
        row, away = self.frame.nearest(x, y, self.modality, (right - left, high - low))
        if away <= NEAR:
            tell(row)

    def _gesture(self, event: SelectionGeometry) -> None:
        """A lasso or a box has ended."""
        shape: Any = event.geometry
        if not event.final or shape is None:
            return
        if shape["type"] == "rect":
            (left, right), (low, high) = sorted((shape["x0"], shape["x1"])), sorted((shape["y0"], shape["y1"]))
            self.area(np.array([(left, low), (right, low), (right, high), (left, high)]))
        elif shape["type"] == "poly":
            self.area(np.column_stack([_listed(shape["x"]), _listed(shape["y"])]))


def _listed(values: Any) -> np.ndarray:
    """Coordinates as the browser sends them: a list, an array, or a mapping from position to value."""
    found = [values[i] for i in sorted(values, key=int)] if isinstance(values, dict) else values
    return np.asarray(found, dtype=float)[:MAX_CORNERS]


def points(frame: Frame, modality: str | None, row: int | None) -> dict[str, Any]:
    """Where a sample is in a map, for the layer "star"."""
    whose = frame.modalities if modality is None else (modality,)
    at = [] if row is None else [place for m in whose if (place := frame.place(row, m)) is not None]
    return {"x": [x for x, _ in at], "y": [y for _, y in at]}


def picture(image: np.ndarray, extent: Extent) -> dict[str, Any]:
    """A picture as a layer."""
    (left, right), (low, high) = extent
    return {"image": [image], "x": [left], "y": [low], "dw": [right - left], "dh": [high - low]}


def no_picture() -> dict[str, Any]:
    """An empty layer of a picture."""
    return {name: [] for name in ("image", "x", "y", "dw", "dh")}
