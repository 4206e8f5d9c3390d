"""Persistence diagram and barcode of one modality; a click or a box finds bars, which are then marked in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
from bokeh.events import SelectionGeometry, Tap
from bokeh.models import BoxSelectTool, ColumnDataSource

from dashboards.drawings import stretched
from labkit import views

NEAR = 0.03  # share of the axes within which a click finds a bar
_MARK = "#ffd33d"
_FIELDS = ("birth", "death", "row")


class BarsPane:
    """Draws the bars of a modality at one step.

    Args:
        bars: as from `Run.topology`.
        title: of both drawings.
        on_bars: called with the numbers of the bars that a click or a box hit, the longest first.

    Attributes:
        places: where the bars are, see `labkit.views.bar_places`.
        diagram, barcode: the drawings.
        chosen: numbers of the marked bars.
    """

    def __init__(self, bars: pd.DataFrame, *, title: str, on_bars: Callable[[list[int]], None]) -> None:
        self.places = views.bar_places(bars)
        self.chosen: list[int] = []
        self._on_bars = on_bars
        self._marks: list[ColumnDataSource] = []
        dots = views.persistence_diagram(bars, title=f"{title}: diagram")
        lines = views.barcode(bars, title=f"{title}: barcode")
        self.diagram = self._drawn(dots, self._ring, (self.dot_at, self.dots_in))
        self.barcode = self._drawn(lines, self._stroke, (self.line_at, self.lines_in))

    def mark(self, bars: Sequence[int]) -> None:
        """Mark some bars in both drawings."""
        self.chosen = list(bars)
        for source in self._marks:
            source.data = self._data()

    def dot_at(self, birth: float, death: float) -> list[int]:
        """The bar whose dot is nearest to a place of the diagram; the longest, where several are."""
        edge = float(self.places["death"].max()) or 1.0
        return self._nearest(np.hypot(self.places["birth"] - birth, self.places["death"] - death) / edge)

    def line_at(self, scale: float, row: float) -> list[int]:
        """The bar that a place of the barcode lies on, or is nearly at the end of."""
        edge = float(self.places["death"].max()) or 1.0
        rows = self.places["row"]
        beside = np.maximum(np.maximum(self.places["birth"] - scale, scale - self.places["death"]), 0) / edge
        above = (rows - row).abs() / max(float(rows.max() - rows.min()), 1.0)
        return self._nearest(np.hypot(beside, above).fillna(np.inf))

    def dots_in(self, births: tuple[float, float], deaths: tuple[float, float]) -> list[int]:
        """Bars whose dots are in a box of the diagram."""
        return self._longest(self.places["birth"].between(*births) & self.places["death"].between(*deaths))

    def lines_in(self, scales: tuple[float, float], rows: tuple[float, float]) -> list[int]:
        """Bars that a box of the barcode touches."""
        touched = (self.places["birth"] <= scales[1]) & (self.places["death"] >= scales[0])
        return self._longest(touched & self.places["row"].between(*rows))

    def _longest(self, found: pd.Series) -> list[int]:
        return self.places[found].sort_values("length", ascending=False, kind="stable")["bar"].tolist()

    def _nearest(self, away: pd.Series) -> list[int]:
        order = pd.DataFrame({"away": away.round(9), "length": -self.places["length"]}).sort_values(["away", "length"])
        best = order.index[0]
        return [int(self.places.loc[best, "bar"])] if float(order.loc[best, "away"]) <= NEAR else []

    def _drawn(
        self,
        overlay: Any,
        layer: Callable[[Any, ColumnDataSource], None],
        find: tuple[Callable[..., list[int]], Callable[..., list[int]]],
    ) -> pn.pane.HoloViews:
        """A drawing as wide as there is room, with a layer for the marks, that tells of clicks and boxes."""
        at, within = find

        def tapped(event: Tap) -> None:
            if event.x is not None and event.y is not None:
                self._tell(at(event.x, event.y))

        def boxed(event: SelectionGeometry) -> None:
            shape: Any = event.geometry
            if event.final and shape is not None and shape["type"] == "rect":
                x, y = ((min(ends), max(ends)) for ends in ((shape[f"{a}0"], shape[f"{a}1"]) for a in "xy"))
                self._tell(within(x, y))

        def attach(plot: Any, _: object) -> None:
            figure = plot.state
            if figure.select({"name": "chosen"}):
                return
            for drawn in figure.renderers:  # what is chosen is told by the marks
                drawn.update(selection_glyph=None, nonselection_glyph=None)
            box = BoxSelectTool()
            figure.add_tools(box)
            figure.toolbar.active_drag = box
            source = ColumnDataSource(self._data())
            self._marks.append(source)
            layer(figure, source)
            figure.on_event(Tap, tapped)
            figure.on_event(SelectionGeometry, boxed)

        made = stretched(overlay, min_width=240).opts(
            height=270, hooks=[attach], toolbar="above", show_legend=False,
            default_tools=["pan", "wheel_zoom", "reset", "save"],
            backend_opts={"plot.toolbar.logo": None}, backend="bokeh",
        )  # fmt: skip
        return pn.pane.HoloViews(made, backend="bokeh", linked_axes=False, sizing_mode="stretch_width", margin=4)

    def _tell(self, bars: list[int]) -> None:
        if bars:
            self._on_bars(bars)

    def _data(self) -> dict[str, list[float]]:
        rows = self.places[self.places["bar"].isin(self.chosen)]
        return {name: rows[name].tolist() for name in _FIELDS}

    @staticmethod
    def _ring(figure: Any, source: ColumnDataSource) -> None:
        figure.scatter(
            "birth", "death", source=source, name="chosen", size=15, fill_alpha=0.35, fill_color=_MARK,
            line_color="#1b1f24", line_width=2,
        )  # fmt: skip

    @staticmethod
    def _stroke(figure: Any, source: ColumnDataSource) -> None:
        figure.segment("birth", "row", "death", "row", source=source, name="chosen", line_color=_MARK, line_width=7,
                       line_alpha=0.8)  # fmt: skip
