"""Page Neighborhoods: what lies near a thing in each modality, and where the geometry of two modalities differs.

Neighbors, overlaps and ranks are those of the stored vectors; the map only says where to look.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import frames, maps
from dashboards.content import SPACES, Content
from dashboards.frames import FrameControls
from dashboards.items import card, listed, partner_table, partners
from dashboards.keys import Keys
from dashboards.map_set import JOINT, MapSet
from dashboards.neighborhood import Neighborhood, around
from dashboards.page import Page
from dashboards.parts import legend, notice, table, text
from dashboards.session import MEASURES, Session
from labkit import views
from labkit.store import StoreError

_HINT = (
    "Click a point, search, or step with the arrow keys. Marked in the map: its neighbors in any modality. "
    "Shaded in the lists: neighbors in two modalities or more."
)
_SCORES = {
    "neighborhood_preservation": "overlap above chance",
    "curvature_alignment": "curvature difference",
    "gromov_wasserstein": "GW distortion",
    "hubness": "hubness (skew)",
}


class NeighborhoodsPage(Page):
    """The page."""

    title = "Neighborhoods"
    keep = ("thing", "space", "k", "search")
    parts = ("maps",)

    thing = param.String(default="", doc="Key of the thing in focus.")
    space = param.Selector(default="shared space", objects=list(SPACES), doc="Where neighbors are looked up.")
    k = param.Integer(default=8, bounds=(1, 30), label="neighbors", doc="How many in each modality.")
    search = param.String(default="", label="search captions", doc="Goes to the first thing that contains the text.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.map: MapSet | None = None
        self.hood: Neighborhood | None = None
        self._drawn: tuple[Any, ...] = ()
        self._controls = FrameControls(session)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._place = pn.Column(sizing_mode="stretch_width")
        self._measures = pn.Column(sizing_mode="stretch_width")
        self._legend, self._card, self._near = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(3))
        self._at = pn.pane.HTML("", margin=(6, 4))
        self.view = self._layout()

    def show(self) -> None:
        """Draw the map of all modalities and the table of measures."""
        shown = frames.chosen(self.session, self.content)
        self._controls.offer(self.content, shown)
        frame = maps.frame(self.content, shown)
        paint = maps.paint(self.content, frame, self.session.painted)
        problem = f"{shown.problem} {paint.problem}".strip()
        self._message.objects = [notice(problem)] if problem else []
        drawn = (self.content, shown.name, shown.step, self.session.painted)
        if drawn != self._drawn:
            select = self.session.selection.select
            self.map = MapSet(self.content, frame, paint, on_area=select, on_click=self._focus)
            self._place.objects = [self.map.panes[JOINT].view]
            self._legend.object = legend(paint.coloring, self.session.color, pd.Series(paint.values))
            self._measures.objects = _measures(self.content)
        self._drawn = drawn
        if self.thing and self.session.selection.focus is None:
            rows = self.content.rows_of([self.thing])
            if len(rows):
                self.session.selection.focus = int(rows[0])
            else:
                self._message.append(notice(f"This run has no thing {self.thing!r}.", warning=True))

    def mark(self) -> None:
        """Follow the focus."""
        row = self.session.selection.focus
        steps = self._rows()
        if row is None:
            self.hood = None
            self._card.object, self._near.object = f'<div class="lk-none">{_HINT}</div>', ""
            self._at.object = f"{len(steps):,} things to step through"
            self._draw()
            return
        self.thing = str(self.content.points["key"].iloc[row])
        at = int(np.searchsorted(steps, row))
        inside = at < len(steps) and steps[at] == row
        self._at.object = (
            f"<b>{at + 1:,}</b> of {len(steps):,} things" if inside else f"beside the {len(steps):,} selected"
        )
        self._card.object = card(self.content, row)
        self._look()

    @param.depends("space", "k", watch=True)
    def _look(self) -> None:
        content, row = self.session.content, self.session.selection.focus
        if content is None or row is None:
            return
        step = self.session.step if SPACES[self.space] == "final" else "raw"
        shown, k = self.session.step, self.k

        def found() -> tuple[Neighborhood | None, str]:
            try:
                hood = around(content, row, step=step, k=k)
                own = partner_table(content, partners(content, np.array([row]), step=shown), step=shown)
            except StoreError as error:
                return None, str(notice(str(error)).object)
            return hood, own + listing(content, hood)

        self.session.later("neighborhood", found, self._tell)

    def _tell(self, found: tuple[Neighborhood | None, str]) -> None:
        self.hood, self._near.object = found
        self._draw()

    def _draw(self) -> None:
        """Mark the neighbors in the map."""
        if self.map is None or self.session.content is None:
            return
        mask = np.zeros(len(self.content.points), dtype=bool)
        if self.hood is not None:
            mask[self.hood.rows] = True
        with pn.io.hold():
            self.map.mark(mask, self.session.selection.focus, links=False)

    @param.depends("search", watch=True)
    def _search(self) -> None:
        if self.session.content is None or not self.search.strip():
            return
        found = self.content.search(self.search)
        if len(found):
            after = found[found > (-1 if self.session.selection.focus is None else self.session.selection.focus)]
            self._focus(int(after[0] if len(after) else found[0]))
        else:
            self._at.object = f"no caption contains {text(self.search)}"

    def _rows(self) -> np.ndarray:
        """What the arrow keys step through: the selection, or everything."""
        mask = self.session.selection.mask
        return np.flatnonzero(mask) if mask.any() else np.arange(len(mask))

    def step(self, by: int) -> None:
        """Focus the next thing, or the previous one; after the last comes the first."""
        if self.session.content is None:
            return
        rows, row = self._rows(), self.session.selection.focus
        if row is None:
            self._focus(int(rows[0 if by > 0 else -1]))
            return
        at = np.searchsorted(rows, row)
        beside = at >= len(rows) or rows[at] != row
        self._focus(int(rows[(at - (beside and by > 0) + by) % len(rows)]))

    def _press(self, key: str) -> None:
        if self.session.page == self.title:
            self.step(1 if key == "ArrowRight" else -1)

    def _focus(self, row: int) -> None:
        self.session.selection.focus = row

    def _layout(self) -> pn.FlexBox:
        back = pn.widgets.Button(label="← Previous", width=95)
        on = pn.widgets.Button(label="Next →", width=95)
        again = pn.widgets.Button(label="Next match", width=95)
        select = pn.widgets.Button(label="Select the neighbors", width=150)
        back.on_click(lambda _: self.step(-1))
        on.on_click(lambda _: self.step(1))
        again.on_click(lambda _: self._search())
        select.on_click(lambda _: self._select())
        find = pn.Param(
            self.param, parameters=["search", "space", "k"], show_name=False, default_layout=pn.Row,
            widgets={
                "search": {"type": pn.widgets.TextInput, "width": 190}, "space": {"width": 180}, "k": {"width": 190},
            },
        )  # fmt: skip
        left = pn.Column(
            self._controls.view, self._controls.player, self._message, self._legend, self._place, self._measures,
            styles={"flex": "2 1 480px", "min-width": "0"},
        )  # fmt: skip
        tools = pn.FlexBox(back, on, again, select, self._at, align_items="center")
        right = pn.Column(
            find, tools, self._card, self._near, Keys(self._press), styles={"flex": "3 1 560px", "min-width": "0"}
        )
        return pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width")

    def _select(self) -> None:
        if self.hood is not None:
            self.session.selection.select(self.hood.rows)


def listing(content: Content, hood: Neighborhood) -> str:
    """The neighbors in each modality side by side, with similarities, and their ranks in the others."""
    marked, columns = hood.marked(), []
    for modality in content.modalities:
        near = hood.near.get(modality)
        head = f'<div class="lk-mod">nearest in {text(modality)}</div>'
        if near is None:
            columns.append(f'<div class="lk-col">{head}<div class="lk-none">this sample has no such item</div></div>')
            continue
        entries = []
        for i, row in enumerate(near.rows):
            ranks = [f"{m} {ranks[i]}" if ranks[i] else f"not in {m}" for m, ranks in near.rank.items()]
            told = " · ".join([f"{i + 1}. cosine {near.similarity[i]:.2f}", *ranks])
            entries.append(listed(content, int(row), modality, told, marked=int(row) in marked))
        columns.append(f'<div class="lk-col">{head}{"".join(entries)}</div>')
    parts = [f"{text(a)}–{text(b)} <b>{n} of {k}</b> (by chance {chance:.1g})" for a, b, n, k, chance in hood.shared()]
    told = f"shared neighbors: {' · '.join(parts)}" if parts else "no two modalities to compare"
    note = "After each neighbor its rank in the other modalities."
    return f'<div class="lk-none lk-overlap">{told}. {note}</div><div class="lk-cols">{"".join(columns)}</div>'


def _measures(content: Content) -> list[Any]:
    """The measures behind the colors as numbers of the whole run."""
    try:
        scores = content.run.scores()
    except StoreError as error:
        return [notice(str(error))]
    rows = scores[scores["metric"].isin(_SCORES) & (scores["corruption"] == "none") & (scores["step"] == "final")]
    there = set(rows["metric"])
    lacks = ", ".join(name for name, metric in MEASURES.items() if not content.run.has("fields", metric, "final"))
    told = [notice(f"Not computed for this run: {lacks}. `labkit diagnose {content.run.id}` does it.")] if lacks else []
    if not there:
        return told
    values = zip(rows["value"], rows["low"], rows["high"], strict=True)
    shown = pd.DataFrame(
        {
            "measure": rows["metric"].map(_SCORES),
            "between": [f"{a} – {b}" if b else a for a, b in zip(rows["source"], rows["target"], strict=True)],
            "value and interval": [f"{value:.3g} [{low:.3g}, {high:.3g}]" for value, low, high in values],
            "n": rows["n"],
        }
    ).sort_values("measure", kind="stable", ignore_index=True)
    return [
        *told,
        pn.pane.Markdown(f"The same as numbers of the test samples ({views.kinds(rows['interval'])}):"),
        table(shown),
    ]
