"""Where one of two methods is better: maps of the shown run's samples, and both methods' numbers on one of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import panel as pn

from dashboards import frames, maps
from dashboards.items import card
from dashboards.map_set import JOINT, MapSet
from dashboards.parts import legend, notice, text
from dashboards.session import Session
from dashboards.versus import Versus, painted
from labkit.views import words

_NOTHING = '<div class="lk-none">Click a point to see the thing behind it, and how A and B do on it.</div>'


class BetterMap:
    """Maps, buttons that select one side, and a card of the sample in focus.

    Args:
        session: whose selection is drawn and changed.

    Attributes:
        maps: what is drawn, None where nothing is.
        view: all of it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._points = pd.DataFrame(columns=["key", "source", "A", "B", "value", "seeds"])
        self._metric = ""
        self.maps: MapSet | None = None
        self._legend, self._card = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(2))
        self._count = pn.pane.HTML("", align="center")
        self._grid = pn.FlexBox(sizing_mode="stretch_width", gap="4px")
        self._buttons = {letter: pn.widgets.Button(label=f"Select where {letter} is better") for letter in "AB"}
        for letter, button in self._buttons.items():
            button.on_click(lambda _, letter=letter: session.selection.select(self.rows[letter]))
        clear = pn.widgets.Button(label="Clear selection")
        clear.on_click(lambda _: session.selection.clear())
        title = (
            "<b>Where A is better, and where B</b>: by query, the mean over targets and seeds; drag a lasso to select"
        )
        left = pn.Column(
            pn.pane.HTML(title), self._legend, pn.FlexBox(*self._buttons.values(), clear, self._count, gap="4px"),
            self._grid, styles=grow(4, 640),
        )  # fmt: skip
        focus = pn.Card(self._card, title="The thing in focus", styles=grow(1, 260), margin=(5, 5))
        self.view = pn.FlexBox(left, focus, align_items="start", gap="14px", sizing_mode="stretch_width")

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """Samples for which A is better, and B, on the mean over their queries."""
        assert self._session.content is not None
        mean = self._points.groupby("key")["value"].mean()
        return {
            letter: self._session.content.rows_of(mean.index[side])
            for letter, side in (("A", mean > 0), ("B", mean < 0))
        }

    def show(self, found: Versus, metric: str) -> None:
        """Draw who is better in a metric."""
        content = self._session.content
        assert content is not None
        self._points, self._metric, self.maps = found.points(metric), metric, None
        self._legend.object = ""
        for letter, rows in self.rows.items():
            told = f"Select the {len(rows):,} where {letter} is better"
            self._buttons[letter].param.update(label=told, disabled=not len(rows))
        if self._points.empty:
            self._grid.objects = [notice(f"{words(metric)} has no value per sample, so there is no map of it.")]
            return
        if not content.run.has("projections"):
            told = f"Maps not computed for this run: `labkit project {content.run.id}` does it."
            self._grid.objects = [notice(told)]
            return
        frame = maps.frame(content, frames.chosen(self._session, content))
        paint = painted(frame, content.index, self._points, (found.a.label, found.b.label))
        self.maps = MapSet(content, frame, paint, on_area=self._session.selection.select, on_click=self._click)
        sources = [m for m in frame.modalities if (self._points["source"] == m).any()]
        self._grid.objects = [pn.Column(self.maps.panes[m].view, styles=grow(1, 230)) for m in sources or [JOINT]]
        self._legend.object = legend(paint.coloring, "", pd.Series(paint.values))

    def clear(self) -> None:
        """Draw nothing."""
        self._points, self.maps = self._points.iloc[:0], None
        self._grid.objects, self._legend.object, self._card.object = [], "", ""
        self.view.visible = False

    def mark(self) -> None:
        """Mark the selection, and say how A and B do on the sample in focus."""
        selection = self._session.selection
        self.view.visible = True
        if self.maps is not None:
            self.maps.mark(selection.mask, selection.focus, links=False)
        n, of = len(selection), len(selection.mask)
        self._count.object = f'<b class="lk-selected" data-n="{n}">{n:,} of {of:,} things selected</b>'
        self._card.object = _NOTHING if selection.focus is None else self._told(selection.focus)

    def _click(self, row: int) -> None:
        self._session.selection.focus = row

    def _told(self, row: int) -> str:
        content = self._session.content
        assert content is not None
        rows = self._points[(self._points["key"] == content.points["key"].iloc[row]).to_numpy()]
        head = f"<tr><th>{text(words(self._metric))}, query</th><th>A</th><th>B</th><th>seeds</th></tr>"
        lines = [
            f"<tr><td>{text(r.source)}</td><td>{r.A:.3f}</td><td>{r.B:.3f}</td><td>{r.seeds}</td></tr>"
            for r in rows.itertuples()
        ]
        none = '<div class="lk-none">not a test sample of both under any of these seeds</div>'
        told = f'<table class="lk-num lk-versus">{head}{"".join(lines)}</table>' if lines else none
        return card(content, row) + told


def grow(share: int, width: int) -> dict[str, str]:
    """A column that takes its share of a row, and a row of its own where the page is narrow."""
    return {"flex": f"{share} 1 {width}px", "min-width": "0", "width": "auto"}
