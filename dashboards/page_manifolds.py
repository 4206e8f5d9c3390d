"""Page Manifolds: a map per modality and a joint one; select anywhere, it is selected everywhere."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards.content import SPACES, Content
from dashboards.frames import FrameControls, Shown, chosen
from dashboards.items import card, neighbors, partner_table
from dashboards.page import Page
from dashboards.pane import MapPane
from dashboards.parts import legend, notice, text
from dashboards.selection import Selection
from dashboards.session import FIELDS, Session
from labkit.store import StoreError
from labkit.views import manifolds

JOINT = "all modalities"
MAX_COMPARED = 5_000  # samples whose partners are ranked at once: 5,000 x 5,000 similarities take about a second
NOTE = (
    "Pictures, not evidence: a length in a map is no distance. Color by *trust* to see where the map lies; all numbers "
    "come from the stored vectors, not from the map. Drag a lasso to select, click a point to see the thing behind it."
)


class ManifoldsPage(Page):
    """The page."""

    title = "Manifolds"
    keep = ("space", "k", "search")
    parts = ("maps",)

    space = param.Selector(default="shared space", objects=list(SPACES), doc="Where neighbors are looked up.")
    k = param.Integer(default=8, bounds=(1, 30), label="neighbors", doc="How many.")
    links = param.Boolean(default=True, label="lines between partners", doc="In the joint map, for the selection.")
    search = param.String(default="", label="search captions", doc="Selects what contains the text.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._panes: dict[str, MapPane] = {}
        self._controls = FrameControls(session)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._maps = pn.GridBox(ncols=2, sizing_mode="stretch_width")
        self._legend, self._card, self._near, self._numbers, self._count, self._line = (
            pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(6)
        )
        self.view = self._layout()

    @property
    def selection(self) -> Selection:
        """The session's."""
        return self.session.selection

    def show(self) -> None:
        """Draw the maps of the shown run."""
        self._draw()

    def mark(self) -> None:
        """Mark the selection in all maps, and say what it is in numbers."""
        self._selected()
        self._focused()

    def _draw(self) -> None:
        self._panes = {}
        shown = chosen(self.session, self.content)
        self._controls.offer(self.content, shown)
        frame, column = self._frame(shown)
        colors = manifolds.coloring(frame, column)
        limits = _limits(frame["x"]), _limits(frame["y"])
        parts = {JOINT: frame} | {m: frame[frame["modality"] == m] for m in self.content.modalities}
        for name, part in parts.items():
            self._panes[name] = MapPane(
                part, colors, name=name, limits=limits, on_area=self.selection.select, on_click=self._click
            )
        self._legend.object = legend(colors, self.session.color, frame[column])
        self._mark()
        self._maps.objects = [pane.view for pane in self._panes.values()]

    def _frame(self, shown: Shown) -> tuple[pd.DataFrame, str]:
        """Points with their positions, and the column that colors them; a notice where that is not stored."""
        field, problem, column = None, shown.problem, self.session.color
        try:
            if column in FIELDS:
                field, column = self.content.field(FIELDS[column]), "value"
        except StoreError as error:
            problem, column = f"{problem} {error}", "modality"
        projection = self.content.run.projection(shown.name, shown.step)
        frame = manifolds.manifold_frame(self.content.points, projection, field)
        if column not in frame:
            problem += f" The samples of this run have no {column}; the maps are colored by modality."
            column = "modality"
        self._message.objects = [notice(problem.strip())] if problem else []
        return frame, column

    @param.depends("space", "k", watch=True)
    def _focused(self, *_: object) -> None:
        row = self.selection.focus
        if self.session.content is None or row is None:
            self._card.object = '<div class="lk-none">Click a point to see, hear and compare the thing behind it.</div>'
            self._near.object = ""
            return
        self._mark()
        self._card.object = card(self.content, row)
        try:
            self._near.object = partner_table(self.content, np.array([row])) + neighbors(
                self.content, row, step=SPACES[self.space], k=self.k
            )
        except StoreError as error:
            self._near.object = notice(str(error)).object

    @param.depends("search", watch=True)
    def _search(self) -> None:
        if self.session.content is None or not self.search.strip():
            return
        points = self.content.points
        texts = points["caption"] if "caption" in points else points["key"]
        found = np.flatnonzero(texts.fillna("").str.contains(self.search.strip(), case=False, regex=False))
        self.selection.select(found)
        if len(found):
            self.selection.focus = int(found[0])

    def _click(self, row: int) -> None:
        self.selection.focus = row

    def _selected(self, *_: object) -> None:
        n, rows = len(self.content.points), np.flatnonzero(self.selection.mask)
        self._count.object = f'<b class="lk-selected" data-n="{len(rows)}">{len(rows)} of {n} things selected</b>'
        self._mark()
        compared = rows if len(rows) else np.arange(n)
        try:
            if len(compared) > MAX_COMPARED:
                self._numbers.object = notice(f"Select at most {MAX_COMPARED} things to rank their partners.").object
            else:
                self._numbers.object = partner_table(self.content, compared)
        except StoreError as error:
            self._numbers.object = notice(str(error)).object
        self._line.object = f'<pre class="lk-code">{text(_python(self.content, rows))}</pre>'

    @param.depends("links", watch=True)
    def _mark(self) -> None:
        with pn.io.hold():
            for name, pane in self._panes.items():
                pane.mark(self.selection.mask, self.selection.focus, links=self.links and name == JOINT)

    def _csv(self) -> io.StringIO:
        if self.session.content is None:
            return io.StringIO("key\n")
        return io.StringIO(self.content.points.loc[self.selection.mask, ["key"]].to_csv(index=False))

    def _layout(self) -> pn.FlexBox:
        clear = pn.widgets.Button(label="Clear selection")
        undo = pn.widgets.Button(label="Undo")
        clear.on_click(lambda _: self.selection.clear())
        undo.on_click(lambda _: self.selection.undo())
        save = pn.widgets.FileDownload(callback=self._csv, filename="selection.csv", label="Selected keys (csv)")
        own = pn.Row(
            self._controls.view, self._own({"search": {"type": pn.widgets.TextInput}}), sizing_mode="stretch_width"
        )
        near = self._own({"space": {}, "k": {}})
        links = pn.Param(self.param["links"], margin=(8, 0))
        tools = pn.FlexBox(self._count, clear, undo, save, links, align_items="center", gap="4px")
        self._count.sizing_mode = None
        left = pn.Column(
            own, self._message, tools, self._legend, self._maps, pn.pane.Markdown(NOTE), styles=_grow(3, 640)
        )
        focus = pn.Card(self._card, near, self._near, title="The thing in focus and its neighbors")
        numbers = pn.Card(
            self._numbers, self._line, title="The selection in numbers (all things when none is selected)"
        )
        for part in (focus, numbers):
            part.param.update(sizing_mode="stretch_width", margin=(0, 0, 12, 0))
        right = pn.Column(focus, numbers, styles=_grow(2, 420))
        return pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width")

    def _own(self, widgets: dict[str, dict]) -> pn.Param:
        styled = {name: {"sizing_mode": "stretch_width", "min_width": 110, **own} for name, own in widgets.items()}
        return pn.Param(
            self.param, parameters=list(widgets), widgets=styled, show_name=False, default_layout=pn.Row,
            sizing_mode="stretch_width",
        )  # fmt: skip


def _grow(share: int, width: int) -> dict[str, str]:
    """A column that takes its share of a row, and a row of its own where the page is narrow."""
    return {"flex": f"{share} 1 {width}px", "min-width": "0", "width": "auto"}


def _limits(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.05 * (high - low) or 1.0
    return low - pad, high + pad


def _python(content: Content, rows: np.ndarray) -> str:
    """A line of Python that gives the selected samples."""
    points = f'labkit.store.Store().open("{content.run.id}").points()'
    if not len(rows):
        return points
    keys = content.points["key"].iloc[rows[:20]].tolist()
    more = "" if len(rows) <= 20 else f"  # the first 20 of {len(rows)}; the csv has all"
    return f'{points}.set_index("key").loc[{keys!r}]{more}'
