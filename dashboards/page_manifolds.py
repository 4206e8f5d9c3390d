"""Page Manifolds: a map per modality and a joint one; select anywhere, it is selected everywhere.

The base points of a pane are drawn once; a gesture only redraws the overlay of the selected ones, from the mask of the
session's `Selection`.
"""

from __future__ import annotations

import html
import io
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards.content import SPACES, Content
from dashboards.items import card, neighbors, partner_table
from dashboards.selection import Selection
from labkit import views
from labkit.views import manifolds

COLORS = ("modality", "label", "kind", "split", "trust", "recall@10")
JOINT = "all modalities"
NOTE = (
    "Pictures, not evidence: a length in a map is no distance. Color by *trust* to see where the map lies; the numbers "
    "below come from the shared space itself."
)


class ManifoldsPage(param.Parameterized):
    """The page; `show` puts a run on it."""

    projection = param.Selector(objects=[""], doc="Stored 2-D frame.")
    color = param.Selector(default="modality", objects=list(COLORS), doc="What the color of a point means.")
    space = param.Selector(default="shared space", objects=list(SPACES), doc="Where neighbors are looked up.")
    k = param.Integer(default=8, bounds=(1, 30), label="neighbors", doc="How many.")
    links = param.Boolean(default=True, label="lines between partners", doc="In the joint map, for the selection.")
    search = param.String(default="", label="search captions", doc="Selects what contains the text.")

    def __init__(self) -> None:
        super().__init__()
        self.selection = Selection()
        self.content: Content | None = None
        self._maps = pn.FlexBox(sizing_mode="stretch_width")
        self._card = pn.pane.HTML("", sizing_mode="stretch_width")
        self._near = pn.pane.HTML("", sizing_mode="stretch_width")
        self._numbers = pn.pane.HTML("", sizing_mode="stretch_width")
        self._count = pn.pane.HTML("", css_classes=["lk-count"], sizing_mode="stretch_width")
        self._line = pn.pane.Str("", sizing_mode="stretch_width")
        self._streams: list[Any] = []
        self.selection.param.watch(self._selected, "mask")
        self.selection.param.watch(self._focused, "focus")
        self.view = self._layout()

    def show(self, content: Content) -> None:
        """Put a run on the page; the selection starts anew."""
        self.content = content
        names = content.projections
        self.param["projection"].objects = names or [""]
        self.selection.reset(len(content.points))
        self.projection = self.projection if self.projection in names else (names or [""])[0]
        self._draw()
        self._selected()
        self._focused()

    @param.depends("projection", "color", watch=True)
    def _draw(self) -> None:
        if self.content is None:
            return
        if not self.projection:
            text = f"Projections are not computed: <code>labkit project {html.escape(self.content.run.id)}</code>"
            self._maps.objects = [pn.pane.Alert(text, alert_type="info")]
            return
        frame = self._frame()
        colors = manifolds.coloring(frame, self._column(frame))
        panes = {JOINT: frame} | {m: frame[frame["modality"] == m] for m in self.content.modalities}
        self._streams = []
        self._maps.objects = [self._pane(name, part, colors) for name, part in panes.items()]

    @param.depends("space", "k", watch=True)
    def _focused(self, *_: object) -> None:
        row = self.selection.focus
        if self.content is None or row is None:
            self._card.object = '<div class="lk-none">Click a point to see, hear and compare the thing behind it.</div>'
            self._near.object = ""
            return
        self._card.object = card(self.content, row) + partner_table(self.content, np.array([row]))
        self._near.object = neighbors(self.content, row, step=SPACES[self.space], k=self.k)

    @param.depends("search", watch=True)
    def _search(self) -> None:
        if self.content is None or not self.search.strip():
            return
        points = self.content.points
        text = points["caption"] if "caption" in points else points["key"]
        found = np.flatnonzero(text.fillna("").str.contains(self.search.strip(), case=False, regex=False))
        self.selection.select(found)
        if len(found):
            self.selection.focus = int(found[0])

    def _selected(self, *_: object) -> None:
        if self.content is None:
            return
        rows = np.flatnonzero(self.selection.mask)
        shown = f"{len(rows)} of {len(self.content.points)} things selected"
        self._count.object = f'<b class="lk-selected" data-n="{len(rows)}">{shown}</b>'
        self._numbers.object = partner_table(self.content, rows if len(rows) else np.arange(len(self.content.points)))
        keys = self.content.points["key"].iloc[rows[:20]].tolist()
        more = "" if len(rows) <= 20 else f"  # the first 20 of {len(rows)}; the csv has all"
        run_id = self.content.run.id
        self._line.object = f'labkit.store.Store().open("{run_id}").points().set_index("key").loc[{keys!r}]{more}'

    @param.depends("links", watch=True)
    def _relink(self) -> None:
        self.selection.param.trigger("mask")

    def _frame(self) -> pd.DataFrame:
        assert self.content is not None
        run, field = self.content.run, None
        if self.color == "recall@10" and run.has("fields", "recall_at_10"):
            field = run.field("recall_at_10", where={"corruption": "none"})
        return manifolds.manifold_frame(self.content.points, run.projection(self.projection), field)

    def _column(self, frame: pd.DataFrame) -> str:
        wanted = "value" if self.color == "recall@10" else self.color
        return wanted if wanted in frame else "modality"

    def _pane(self, name: str, frame: pd.DataFrame, colors: manifolds.Coloring) -> pn.pane.HoloViews:
        """One map: base points that feed the selection, and an overlay that follows it."""
        points = manifolds.points_of(frame, colors, size=4.5, alpha=0.75)
        large = len(frame) > manifolds.MAX_POINTS
        base = (
            manifolds.rasterized(points, colors) if large else points.opts(tools=["lasso_select", "box_select", "tap"])
        )
        if large:
            stream = hv.streams.Lasso(source=base)
            stream.add_subscriber(lambda geometry: self._inside(frame, geometry))
        else:
            stream = hv.streams.Selection1D(source=base)
            stream.add_subscriber(lambda index: self._picked(frame, index))
        self._streams.append(stream)
        mask = hv.streams.Params(self.selection, ["mask", "focus"])
        chosen = hv.DynamicMap(lambda mask, focus: self._overlay(name, frame, mask, focus), streams=[mask])
        title = f"{name} · {views.words(self.projection)} · n = {len(frame)}"
        drawn = (base * chosen).opts(
            title=title, width=470, height=400, xaxis=None, yaxis=None, active_tools=["lasso_select", "wheel_zoom"],
            shared_axes=False, toolbar="above", backend="bokeh",
        )  # fmt: skip
        return pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False, margin=6)

    def _overlay(self, name: str, frame: pd.DataFrame, mask: np.ndarray, focus: int | None) -> hv.Overlay:
        rows = frame["row"].to_numpy()
        picked = frame[mask[rows]]
        marks = hv.Points(picked[["x", "y"]]).opts(
            size=7, color=None, line_color="#d1242f", line_width=1.6, fill_alpha=0, backend="bokeh"
        )
        star = hv.Points(frame.loc[rows == focus, ["x", "y"]]).opts(
            size=17, marker="star", color="#ffd33d", line_color="#1b1f24", line_width=1.2, backend="bokeh"
        )
        shown = mask if self.links and name == JOINT else np.zeros_like(mask)
        if focus is not None and name == JOINT and self.links:
            shown = shown.copy()
            shown[focus] = True
        return manifolds.pair_links(frame, shown)[0] * marks * star

    def _picked(self, frame: pd.DataFrame, index: list[int]) -> None:
        """A click picks the thing in focus, a lasso or box selects."""
        rows = frame["row"].to_numpy()[np.asarray(index, dtype=int)]
        if len(rows) == 1:
            self.selection.focus = int(rows[0])
        elif len(rows):
            self.selection.select(np.unique(rows))

    def _inside(self, frame: pd.DataFrame, geometry: np.ndarray | None) -> None:
        import shapely

        if geometry is None or len(geometry) < 3:
            return
        area = shapely.Polygon(geometry)
        shapely.prepare(area)
        inside = shapely.contains_xy(area, frame["x"].to_numpy(), frame["y"].to_numpy())
        self.selection.select(np.unique(frame["row"].to_numpy()[inside]))

    def _csv(self) -> io.StringIO:
        assert self.content is not None
        table = self.content.points.loc[self.selection.mask, ["key"]]
        return io.StringIO(table.to_csv(index=False))

    def _layout(self) -> pn.Column:
        clear = pn.widgets.Button(name="Clear selection", button_type="light")
        undo = pn.widgets.Button(name="Undo", button_type="light")
        clear.on_click(lambda _: self.selection.clear())
        undo.on_click(lambda _: self.selection.undo())
        save = pn.widgets.FileDownload(
            callback=self._csv, filename="selection.csv", label="Selected keys (csv)", button_type="light"
        )
        own = pn.Param(
            self.param,
            parameters=["projection", "color", "search"],
            show_name=False,
            default_layout=pn.Row,
            widgets={"search": pn.widgets.TextInput},
        )
        near = pn.Param(self.param, parameters=["space", "k", "links"], show_name=False, default_layout=pn.Row)
        return pn.Column(
            own,
            pn.Row(self._count, clear, undo, save, sizing_mode="stretch_width"),
            pn.pane.Markdown(NOTE, margin=(0, 8)),
            self._maps,
            pn.Card(self._card, near, self._near, title="The thing in focus and its neighbors", sizing_mode="stretch_width"),
            pn.Card(self._numbers, self._line, title="The selection in numbers (all things when none is selected)",
                    sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )  # fmt: skip
