"""Page Robustness: a metric against the severity of a corruption, one curve per variant, with intervals."""

from __future__ import annotations

import pandas as pd
import panel as pn

from dashboards.comparison import comparable
from dashboards.page import Page
from dashboards.parts import notice, offer, table
from dashboards.session import Session
from labkit import views


class RobustnessPage(Page):
    """The page."""

    title = "Robustness"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._curves = self._scores = pd.DataFrame()
        self._metric = pn.widgets.Select(label="metric")
        self._corruption = pn.widgets.Select(label="corruption")
        self._corrupted = pn.widgets.Select(label="corrupted modality")
        self._direction = pn.widgets.Select(label="direction")
        self._updating = False
        self._body = pn.Column(sizing_mode="stretch_width")
        controls = [self._metric, self._corruption, self._corrupted, self._direction]
        for control in controls:
            control.param.watch(self._changed, "value")
        self.view = pn.Column(pn.FlexBox(*controls), self._body, sizing_mode="stretch_width")

    def show(self) -> None:
        """Offer what was measured of the runs on the same data."""
        self._scores = comparable(self.session.listing, self.session.run).scores
        self._curves = self._scores[self._scores["corruption"] != "none"]
        self._changed()

    def _changed(self, *_: object) -> None:
        """Choices narrow from left to right: each select offers what exists for those before it."""
        if self._updating:
            return
        self._updating = True
        try:
            rows = self._curves
            offer(self._metric, sorted(rows["metric"].unique(), reverse=True))
            rows = rows[rows["metric"] == self._metric.value]
            offer(self._corruption, sorted(rows["corruption"].unique()))
            rows = rows[rows["corruption"] == self._corruption.value]
            offer(self._corrupted, rows["corrupted"].unique(), str)
            rows = rows[rows["corrupted"] == self._corrupted.value]
            pairs = rows[["source", "target"]].drop_duplicates().itertuples(index=False)
            offer(self._direction, [f"{a} → {b}" for a, b in pairs], str)
        finally:
            self._updating = False
        self._draw()

    def _draw(self) -> None:
        if self._direction.value is None:
            text = "Robustness is not computed for these runs: `labkit robustness RUN` measures it."
            self._body.objects = [notice(text)]
            return
        source, target = self._direction.value.split(" → ")
        chosen = {"metric": self._metric.value, "corruption": self._corruption.value}
        where = {"corrupted": self._corrupted.value, "source": source, "target": target}
        curves = views.curve_table(self._scores, **chosen, **where)
        drawn = views.robustness_curves(self._scores, **chosen, **where)
        self._body.objects = [
            pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False),
            pn.pane.Markdown(
                "The same in numbers: mean [interval]. Severity 0 is the clean input of the same samples."
            ),
            table(wide(curves)),
        ]


def wide(curves: pd.DataFrame) -> pd.DataFrame:
    """A curve table with one row per variant and one column per severity, best clean value first.

    Args:
        curves: as from `views.curve_table`.
    """
    cells = curves.assign(
        cell=[_cell(*row) for row in curves[["value", "low", "high"]].itertuples(index=False)],
        column=[f"severity {severity:g}" for severity in curves["severity"]],
    )
    columns = cells.sort_values("severity")["column"].unique()
    board = cells.pivot(index="variant", columns="column", values="cell")[list(columns)]
    first = curves.sort_values("severity", kind="stable").groupby("variant", sort=False).first()
    board = board.join(first[["interval", "seeds", "n"]])
    return board.loc[first["value"].sort_values(ascending=False).index].reset_index()


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
