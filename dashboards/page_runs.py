"""Page Runs: leaderboard with intervals, paired differences to a baseline, and the state of every run."""

from __future__ import annotations

import panel as pn

from dashboards.comparison import Comparison, comparable
from dashboards.page import Page
from dashboards.parts import notice, offer, table
from dashboards.session import Session
from labkit import views

_DIFFERENCES = ["variant", "difference", "low", "high", "p", "p_holm", "effect_size", "seeds", "n", "kind"]
_LISTED = ["id", "variant", "seed", "state", "n", "modalities", "created (UTC)", "error"]


class RunsPage(Page):
    """The page."""

    title = "Runs"
    needs_run = False

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._runs: Comparison | None = None
        self._metric = pn.widgets.Select(label="metric")
        self._direction = pn.widgets.Select(label="direction")
        self._baseline = pn.widgets.Select(label="baseline", description="Variant that the others are compared with.")
        self._updating = False
        self._board = pn.Column(sizing_mode="stretch_width")
        self._all = pn.Column(sizing_mode="stretch_width")
        controls = [self._metric, self._direction, self._baseline]
        for control in controls:
            control.param.watch(self._changed, "value")
        self.view = pn.Column(pn.FlexBox(*controls), self._board, self._all, sizing_mode="stretch_width")

    def show(self) -> None:
        """Offer the clean scores of the runs on the same data; list all runs below."""
        found = self.session.listing
        self._runs = comparable(found, self.session.run) if self.session.run else None
        listed = found.table
        created = listed["created"].str.slice(0, 16).str.replace("T", " ")
        listed = listed.assign(**{"created (UTC)": created}).sort_values("created", ascending=False)
        self._all.objects = [
            pn.pane.Markdown(f"**All runs in this folder** ({len(listed)})"),
            table(listed[_LISTED], page_size=15),
            *[notice(problem, warning=True) for problem in found.problems],
        ]
        self._changed()

    def _changed(self, *_: object) -> None:
        if self._updating:
            return
        if self._runs is None or self._runs.scores.empty:
            self._board.objects = [notice("No scores yet: `make demo` or `labkit run VARIANT` computes some.")]
            return
        clean = self._runs.scores[self._runs.scores["corruption"] == "none"]
        self._updating = True
        try:
            offer(self._metric, sorted(clean["metric"].unique()), first="recall_at_10")
            rows = clean[clean["metric"] == self._metric.value]
            pairs = rows[["source", "target"]].drop_duplicates().itertuples(index=False)
            offer(self._direction, [f"{a} → {b}" for a, b in pairs], _direction)
            offer(self._baseline, sorted(rows["variant"].unique()), str, first="clip")
        finally:
            self._updating = False
        self._draw(self._runs)

    def _draw(self, runs: Comparison) -> None:
        metric, direction, baseline = self._metric.value, self._direction.value, self._baseline.value
        source, target = direction.split(" → ")
        board = runs.leaderboard(metric, source, target)
        drawn = views.leaderboard_plot(board, metric=metric, direction=_direction(direction))
        parts = [
            pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False),
            table(board.drop(columns="higher_is_better")),
        ]
        if len(board) > 1:
            versus = runs.differences(metric, source, target, baseline)[_DIFFERENCES]
            parts += [pn.pane.Markdown("**Paired difference to the baseline** (p corrected by Holm)"), table(versus)]
        self._board.objects = parts


def _direction(pair: str) -> str:
    """A direction as people write it; some metrics have only a source, or no modality at all."""
    source, target = pair.split(" → ")
    return f"{source} → {target}" if target else source or "all modalities"
