"""Persistence diagram and barcode of one modality; a click finds the bar, which is then marked in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import ColumnDataSource

from dashboards.drawings import stretched
from labkit import views

NEAR = 0.03  # share of the axes within which a click finds a bar
_MARK = "#ffd33d"
_NONE: dict[str, list[float]] = {name: [] for name in ("birth", "death", "row")}


class BarsPane:
    """Draws the bars of a modality at one step.

    Args:
        bars: as from `Run.topology`.
        title: of both drawings.
        on_bar: called with the number of the bar that a click hit.

    Attributes:
        places: where the bars are, see `labkit.views.bar_places`.
        diagram, barcode: the drawings.
        dot, line: streams of clicks in the two, in data coordinates.
        chosen: number of the marked bar.
    """

    def __init__(self, bars: pd.DataFrame, *, title: str, on_bar: Callable[[int], None]) -> None:
        self.places = views.bar_places(bars)
        self.chosen: int | None = None
        self._on_bar = on_bar
        self._marks: list[ColumnDataSource] = []
        dots = self._drawn(views.persistence_diagram(bars, title=f"{title}: diagram"), self._ring, "bottom_right")
        lines = self._drawn(views.barcode(bars, title=f"{title}: barcode"), self._stroke, "bottom_left")
        self.dot, self.line = hv.streams.Tap(source=dots), hv.streams.Tap(source=lines)
        self.dot.add_subscriber(lambda x, y: self._click(x, y, self.dot_at))
        self.line.add_subscriber(lambda x, y: self._click(x, y, self.line_at))
        self.diagram, self.barcode = (
            pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False, sizing_mode="stretch_width", margin=4)
            for drawn in (dots, lines)
        )

    def mark(self, bar: int | None) -> None:
        """Mark one bar in both drawings, or none."""
        self.chosen = bar
        for source in self._marks:
            source.data = self._data()

    def dot_at(self, birth: float, death: float) -> int | None:
        """The bar whose dot is nearest to a place of the diagram; the longest, where several are."""
        edge = float(self.places["death"].max()) or 1.0
        away = np.hypot(self.places["birth"] - birth, self.places["death"] - death) / edge
        return self._nearest(away)

    def line_at(self, scale: float, row: float) -> int | None:
        """The bar that a place of the barcode lies on, or is nearly at the end of."""
        edge = float(self.places["death"].max()) or 1.0
        rows = self.places["row"]
        beside = np.maximum(np.maximum(self.places["birth"] - scale, scale - self.places["death"]), 0) / edge
        above = (rows - row).abs() / max(float(rows.max() - rows.min()), 1.0)
        return self._nearest(np.hypot(beside, above).fillna(np.inf))

    def _nearest(self, away: pd.Series) -> int | None:
        order = pd.DataFrame({"away": away.round(9), "length": -self.places["length"]}).sort_values(["away", "length"])
        best = order.index[0]
        return int(self.places.loc[best, "bar"]) if float(order.loc[best, "away"]) <= NEAR else None

    def _click(self, x: float | None, y: float | None, find: Callable[[float, float], int | None]) -> None:
        if x is not None and y is not None and (bar := find(x, y)) is not None:
            self._on_bar(bar)

    def _drawn(self, overlay: Any, layer: Callable[[Any, ColumnDataSource], None], legend: str) -> Any:
        """A drawing as wide as there is room, with a layer for the mark."""

        def attach(plot: Any, _: object) -> None:
            source = ColumnDataSource(self._data())
            self._marks.append(source)
            layer(plot.state, source)

        return stretched(overlay, min_width=240).opts(
            height=300, hooks=[attach], toolbar="above", legend_position=legend, backend="bokeh"
        )

    def _data(self) -> dict[str, list[float]]:
        rows = self.places[self.places["bar"] == self.chosen]
        return _NONE if rows.empty else {name: rows[name].tolist() for name in _NONE}

    @staticmethod
    def _ring(figure: Any, source: ColumnDataSource) -> None:
        figure.scatter(
            "birth", "death", source=source, name="chosen", size=16, fill_alpha=0.35, fill_color=_MARK,
            line_color="#1b1f24", line_width=2,
        )  # fmt: skip

    @staticmethod
    def _stroke(figure: Any, source: ColumnDataSource) -> None:
        figure.segment("birth", "row", "death", "row", source=source, name="chosen", line_color=_MARK, line_width=7,
                       line_alpha=0.8)  # fmt: skip
