"""The maps of one frame: a joint one and one per modality, with the same ranges and the same marks."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
from bokeh.models import Range1d

from dashboards.content import Content
from dashboards.maps import SIZE, Frame, Paint, counted
from dashboards.pane import Listeners, MapPane, no_picture, picture, points
from labkit.views import density, manifolds
from labkit.views.density import Counts, Extent

JOINT = "all modalities"
MAX_LINES = 200_000  # between partners; more make a blot, and the page says so
_TOLD = ("caption", "label", "split", "kind", "key")
_LINE = "#888888"


class MapSet:
    """Draws a frame, and marks on it.

    Args:
        content: the run.
        frame: the places.
        paint: the colors.
        on_area: called with the samples that a lasso or box caught.
        on_click: called with the sample that a click hit.
        on_hover, on_press: called with the sample that the pointer rests on, and with a key pressed over a map.

    Attributes:
        panes: `JOINT` and one per modality.
        large: whether pictures are drawn instead of points.
        lines: drawn between partners, and how many there are.
    """

    def __init__(
        self,
        content: Content,
        frame: Frame,
        paint: Paint,
        *,
        on_area: Callable[[np.ndarray], None],
        on_click: Callable[[int], None],
        on_hover: Callable[[int], None] | None = None,
        on_press: Callable[[str], None] | None = None,
    ) -> None:
        self.frame, self.paint, self.large = frame, paint, len(frame) > manifolds.MAX_POINTS
        self.lines = (0, 0)
        self._mask, self._ends, self._seen = np.zeros(frame.n, dtype=bool), frame.ends(np.zeros(0, int)), frame.extent
        told = None if self.large else _table(content, frame, paint)
        x, y = (Range1d(start=low, end=high) for low, high in frame.extent)
        listen = Listeners(on_area, on_click, self._ranged, on_hover, on_press)
        whose = {JOINT: None, **{m: m for m in frame.modalities}}
        self.panes = {
            name: MapPane(frame, paint, modality, told=told, ranges=(x, y), listen=listen)
            for name, modality in whose.items()
        }

    @property
    def views(self) -> list[pn.viewable.Viewable]:
        """The drawings, the joint one first."""
        return [pane.view for pane in self.panes.values()]

    def mark(self, mask: np.ndarray, focus: int | None, *, links: bool) -> None:
        """Show a selection, the sample in focus, and in the joint map the lines between the partners of both."""
        self._mask = mask
        rows = np.flatnonzero(mask) if focus is None else np.union1d(np.flatnonzero(mask), [focus])
        ends = self.frame.ends(rows if links else np.zeros(0, dtype=int))
        total = len(ends["x0"])
        self._ends = {name: values[:MAX_LINES] for name, values in ends.items()}
        self.lines = (len(self._ends["x0"]), total)
        for pane in self.panes.values():
            pane.fade(len(rows) > (focus is not None and not mask[focus]))
            pane.put("star", points(self.frame, pane.modality, focus))
        self._mark_points()
        self._mark_lines()

    def move(self, frame: Frame) -> None:
        """Put the same points to the places of another step; marks follow by `mark`."""
        self.frame = frame
        for pane in self.panes.values():
            pane.move(frame)
        if self.large:
            self._repaint()

    def contour(self, shown: bool) -> None:
        """Show or hide the curves that enclose shares of the points of each modality."""
        for pane in self.panes.values():
            at = self.frame.part(pane.modality)
            found = density.contours(self.frame.x[at], self.frame.y[at], self.frame.extent) if shown else []
            curves = [curve for _, drawn in found for curve in drawn]
            pane.put("contours", {"xs": [c[:, 0] for c in curves], "ys": [c[:, 1] for c in curves]})

    def _ranged(self, extent: Extent) -> None:
        """What is in view has changed in all maps; each of them says so."""
        if extent == self._seen:
            return
        self._seen = extent
        with pn.io.hold():
            if self.large:
                self._repaint()
                self._mark_points()
            self._mark_lines()

    def _repaint(self) -> None:
        counts = {m: counted(self.frame, self.paint, m, self._seen) for m in self.frame.modalities}
        self._each(counts, lambda pane, found: pane.repaint(found, self._seen))

    def _mark_points(self) -> None:
        if not self.large:
            for pane in self.panes.values():
                at = self.frame.points(pane.modality, self._mask)
                pane.put("marks", {"x": self.frame.x[at], "y": self.frame.y[at], "color": self._color(at)})
            return
        if not self._mask.any():
            for pane in self.panes.values():
                pane.put("chosen", no_picture())
            return
        chosen = {m: self.frame.points(m, self._mask) for m in self.frame.modalities}
        counts = {m: density.count(self.paint.table(self.frame, at), self._seen, SIZE) for m, at in chosen.items()}
        shade = (self.paint.colors, self.paint.coloring.limits)
        self._each(counts, lambda pane, c: pane.put("chosen", picture(density.shade(c, *shade), self._seen)))

    def _mark_lines(self) -> None:
        pane, few = self.panes[JOINT], self.lines[0] <= manifolds.MAX_LINKS
        pane.put("links", self._ends if few else {name: [] for name in self._ends})
        if few:
            pane.put("lines", no_picture())
        else:
            counts = density.count_lines(self._ends, self._seen, SIZE)
            pane.put("lines", picture(density.shade_lines(counts, _LINE), self._seen))

    def _each(self, counts: dict[str, Counts], do: Callable[[MapPane, Counts], object]) -> None:
        """Each map its counts; those of the joint one are the sum."""
        for name, pane in self.panes.items():
            do(pane, reduce(add, counts.values()) if name == JOINT else counts[name])

    def _color(self, at: np.ndarray) -> Any:
        values = self.paint.values[at]
        names = self.paint.coloring.categories
        return values if names is None else np.array(list(names), dtype=object)[values]


def _table(content: Content, frame: Frame, paint: Paint) -> pd.DataFrame:
    """The points with what the hover says of them."""
    known = content.points[[c for c in _TOLD if c in content.points]].iloc[frame.row].reset_index(drop=True)
    names = np.repeat(np.array(frame.modalities, dtype=object), np.diff(frame.starts))
    table = known.assign(
        x=frame.x, y=frame.y, trust=frame.trust, modality=names, row=frame.row, point=np.arange(len(frame))
    )
    column, categories = paint.coloring.column, paint.coloring.categories
    colored = paint.values if categories is None else np.array(list(categories), dtype=object)[paint.values]
    return table.assign(**{column: colored})
