"""Page Manifolds: a map per modality and a joint one; select anywhere, it is selected everywhere.

Maps show places, numbers come from the stored vectors: see `NOTE`, which the page says, too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import export, frames, maps
from dashboards.content import SPACES, Ranks
from dashboards.frames import FrameControls
from dashboards.items import card, neighbors, partner_table, partners
from dashboards.map_set import MapSet
from dashboards.page import Page
from dashboards.parts import legend, notice, text
from dashboards.session import Session
from labkit.store import StoreError
from labkit.views import partner_distances

NOTE = (
    "Pictures, not evidence: a length in a map is no distance. Color by *trust* to see where the map lies; all numbers "
    "come from the stored vectors, not from the map. Drag a lasso to select; over a map, Ctrl-Z takes it back and "
    "Escape clears it. Rest on a point to see the thing behind it, click to keep it and see its neighbors."
)
_NOTHING = '<div class="lk-none">Click a point to keep it here, with its nearest neighbors in every modality.</div>'
_NOBODY = '<div class="lk-none">Rest on a point: all its items, whatever the modality, are shown here.</div>'
_OUTLINE = {"button_type": "primary", "button_style": "outline"}
_KEPT = '<div class="lk-none">It is the thing in focus.</div>'
GESTURES = {"replaces the selection": "replace", "adds to it": "add", "takes from it": "remove"}


class ManifoldsPage(Page):
    """The page."""

    title = "Manifolds"
    keep = ("space", "k", "search", "links", "contours")
    parts = ("maps",)

    space = param.Selector(default="shared space", objects=list(SPACES), doc="Where neighbors are looked up.")
    k = param.Integer(default=8, bounds=(1, 30), label="Neighbors", doc="How many.")
    links = param.Boolean(default=True, label="Partner lines", doc="In the joint map, for the selection.")
    contours = param.Boolean(default=False, label="Contours", doc="Curves around 25, 50, 75 and 90 % of the points.")
    search = param.String(default="", label="Search captions", doc="Selects what contains the text.")
    gesture = param.Selector(default="replace", objects=GESTURES, label="A lasso or box", doc="What a gesture does.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.maps: MapSet | None = None
        self._shown: tuple[Any, ...] = ()
        self._controls = FrameControls(session)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._grid = pn.Column(sizing_mode="stretch_width")
        self._legend, self._hover, self._card, self._near, self._numbers, self._count, self._line = (
            pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(7)
        )
        self._distances = pn.pane.HoloViews(None, backend="bokeh", sizing_mode="stretch_width", height=210)
        self.view = self._layout()

    def show(self) -> None:
        """Draw the maps; another step of the same frame only moves their points."""
        shown = frames.chosen(self.session, self.content)
        self._controls.offer(self.content, shown)
        frame = maps.frame(self.content, shown)
        paint = maps.paint(self.content, frame, self.session.painted)
        problem = f"{shown.problem} {paint.problem}".strip()
        self._message.objects = [notice(problem)] if problem else []
        drawn = (self.content, shown.name, self.session.painted)
        if self.maps is not None and drawn == self._shown and _movable(self.maps, frame, paint):
            self.maps.move(frame)
        else:
            self.maps = MapSet(
                self.content, frame, paint,
                on_area=self._area, on_click=self._click, on_hover=self._rest, on_press=self._press,
            )  # fmt: skip
            self._legend.object = legend(paint.coloring, self.session.color, pd.Series(paint.values))
            self._grid.objects = _arranged(self.maps.views)
            self._hover.object = _NOBODY
        self._shown = drawn
        self.maps.contour(self.contours)
        self._tell_distances()

    def mark(self) -> None:
        """Mark the selection in all maps, and say what it is in numbers."""
        selection, n = self.session.selection, len(self.content.points)
        rows = np.flatnonzero(selection.mask)
        self._mark()
        told = f"{len(rows):,} of {n:,} things selected"
        self._count.object = f'<b class="lk-selected" data-n="{len(rows)}">{told}</b>'
        self._line.object = f'<pre class="lk-code">{text(export.python_line(self.session, self.content))}</pre>'
        self._tell_numbers(rows if len(rows) else np.arange(n))
        self._focus()

    @param.depends("links", watch=True)
    def _mark(self) -> None:
        if self.maps is not None and self.session.content is not None:
            selection = self.session.selection
            with pn.io.hold():
                self.maps.mark(selection.mask, selection.focus, links=self.links)

    @param.depends("contours", watch=True)
    def _contour(self) -> None:
        if self.maps is not None:
            with pn.io.hold():
                self.maps.contour(self.contours)

    @param.depends("space", "k", watch=True)
    def _focus(self) -> None:
        row, content = self.session.selection.focus, self.session.content
        if content is None or row is None:
            self._card.object, self._near.object = _NOTHING, ""
            return
        self._card.object = card(content, row)
        step, k = self.session.step, self.k
        space = step if SPACES[self.space] == "final" else "raw"

        def near() -> str:
            found = partners(content, np.array([row]), step=step)
            return partner_table(content, found, step=step) + neighbors(content, row, step=space, k=k)

        self._later("near", self._near, near)

    def _tell_numbers(self, rows: np.ndarray) -> None:
        content, step = self.content, self.session.step
        self._later(
            "numbers", self._numbers, lambda: partner_table(content, partners(content, rows, step=step), step=step)
        )

    def _tell_distances(self) -> None:
        """Distances of all partners at this step; not of each selection, for drawing costs as much as a lasso."""
        content, step = self.content, self.session.step

        def computed() -> Any:
            try:
                return _distances(partners(content, np.arange(len(content.points)), step=step))
            except StoreError:  # the numbers say so
                return None

        def put(drawn: Any) -> None:
            self._distances.param.update(object=drawn, visible=drawn is not None)

        self.session.later("distances", computed, put)

    def _later(self, name: str, pane: pn.pane.HTML, compute: Callable[[], str]) -> None:
        """Put a table on the page once it is computed, or the sentence that says why it cannot be."""

        def told() -> str:
            try:
                return compute()
            except StoreError as error:
                return str(notice(str(error)).object)

        def put(found: str) -> None:
            pane.object = found

        self.session.later(name, told, put)

    @param.depends("search", watch=True)
    def _search(self) -> None:
        content = self.session.content
        if content is None or not self.search.strip():
            return
        found = content.search(self.search)
        with param.parameterized.batch_call_watchers(self.session.selection):
            self.session.selection.select(found)
            if len(found):
                self.session.selection.focus = int(found[0])

    def _area(self, rows: np.ndarray) -> None:
        mask = np.zeros(len(self.content.points), dtype=bool)
        mask[rows] = True
        before = self.session.selection.mask
        combined = {"replace": mask, "add": before | mask, "remove": before & ~mask}[self.gesture]
        self.session.selection.select(np.flatnonzero(combined))

    def _click(self, row: int) -> None:
        self.session.selection.focus = row
        self._rest(row)

    def _rest(self, row: int) -> None:
        kept = row == self.session.selection.focus  # it has a card of its own below
        self._hover.object = _KEPT if kept else card(self.content, row)

    def _press(self, key: str) -> None:
        {"clear": self.session.selection.clear, "undo": self.session.selection.undo}[key]()

    def _csv(self) -> io.StringIO:
        if self.session.content is None:
            return io.StringIO("key\n")
        return io.StringIO(export.as_csv(self.session, self.content))

    def _layout(self) -> pn.FlexBox:
        clear = pn.widgets.Button(label="Clear selection")
        undo = pn.widgets.Button(label="Undo")
        clear.on_click(lambda _: self.session.selection.clear())
        undo.on_click(lambda _: self.session.selection.undo())
        save = pn.widgets.FileDownload(callback=self._csv, filename="selection.csv", label="Selected keys (csv)")
        search = self._own({"search": {"type": pn.widgets.TextInput}})
        ticks = [
            pn.Param(
                self.param[name],
                widgets={name: {"type": pn.widgets.Toggle, "width": 105, **_OUTLINE}},
                margin=(15, 0, 0, 0),
            )
            for name in ("links", "contours")
        ]
        does = pn.Param(self.param.gesture, widgets={"gesture": {"width": 190}}, margin=0)
        tools = pn.FlexBox(
            self._controls.player, does, *ticks, self._count, clear, undo, save, align_items="center", gap="2px 8px"
        )
        self._count.sizing_mode = None
        left = pn.Column(
            pn.Row(self._controls.view, search, sizing_mode="stretch_width"),
            self._message, tools, self._legend, self._grid, pn.pane.Markdown(NOTE), styles=_grow(3, 640),
        )  # fmt: skip
        cards = (
            ("The thing under the pointer", self._hover),
            ("The thing in focus and its neighbors", self._card, self._own({"space": {}, "k": {}}), self._near),
            ("The selection in numbers (all if none)", self._numbers, self._line),
            ("All partners at this step", self._distances),
        )
        right = pn.Column(styles=_grow(2, 420))
        for title, *shown in cards:
            right.append(pn.Card(*shown, title=title, sizing_mode="stretch_width", margin=(0, 0, 10, 0)))
        return pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width")

    def _own(self, widgets: dict[str, dict]) -> pn.Param:
        styled = {name: {"sizing_mode": "stretch_width", "min_width": 110, **own} for name, own in widgets.items()}
        return pn.Param(
            self.param, parameters=list(widgets), widgets=styled, show_name=False, default_layout=pn.Row,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip


def _movable(drawn: MapSet, frame: maps.Frame, paint: maps.Paint) -> bool:
    """Whether a frame has the points that are drawn, in the colors that they have."""
    same = np.array_equal(drawn.frame.row, frame.row) and drawn.frame.starts == frame.starts
    return same and np.array_equal(drawn.paint.values, paint.values, equal_nan=paint.coloring.categories is None)


def _arranged(views: list[pn.viewable.Viewable]) -> list[pn.viewable.Viewable]:
    """Maps in two columns; of an odd number the first has a row of its own."""
    odd = len(views) % 2
    return [*views[:odd], pn.GridBox(*views[odd:], ncols=2, sizing_mode="stretch_width")]


def _distances(found: Mapping[tuple[str, str], Ranks]) -> Any:
    """Distances of partners, a curve for each two modalities; None where there is no pair."""
    ways = {f"{a}–{b}": ranks for (a, b), ranks in found.items() if (b, a) not in found or a < b}
    if not ways:
        return None
    random = np.concatenate([ranks.chance for ranks in ways.values()])
    return partner_distances({name: ranks.distance for name, ranks in ways.items()}, random)


def _grow(share: int, width: int) -> dict[str, str]:
    """A column that takes its share of a row, and a row of its own where the page is narrow."""
    return {"flex": f"{share} 1 {width}px", "min-width": "0", "width": "auto"}
