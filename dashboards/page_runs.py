"""Page Runs: leaderboard with intervals, paired differences to a baseline, and the state of every run."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import panel as pn
import param

from labkit import stats, views

Fields = Callable[[str], pd.DataFrame]


class RunsPage(param.Parameterized):
    """The page; `show` puts comparable runs on it."""

    metric = param.Selector(default="recall_at_10", objects=["recall_at_10"])
    direction = param.Selector(objects=[""])
    baseline = param.Selector(default="clip", objects=["clip"], doc="Variant that the others are compared with.")

    def __init__(self) -> None:
        super().__init__()
        self._scores = pd.DataFrame()
        self._fields: Fields = lambda _: pd.DataFrame()
        self._board = pn.Column(sizing_mode="stretch_width")
        self._all = pn.Column(sizing_mode="stretch_width")
        controls = pn.Param(self.param, show_name=False, default_layout=pn.Row)
        self.view = pn.Column(controls, self._board, self._all, sizing_mode="stretch_width")

    def show(self, scores: pd.DataFrame, fields: Fields, table: pd.DataFrame, problems: list[str]) -> None:
        """Offer the clean scores of comparable runs; list all runs below.

        Args:
            scores: of the comparable runs.
            fields: per-sample values of a metric in the same runs.
            table: one row per run of the store.
            problems: run folders that cannot be read, one sentence each.
        """
        self._scores, self._fields = scores, fields
        clean = scores[scores["corruption"] == "none"] if len(scores) else scores
        if len(clean):
            with param.parameterized.batch_call_watchers(self):
                self._offer("metric", sorted(clean["metric"].unique()))
                self._offer("baseline", sorted(clean["variant"].unique()))
        listed = table[["id", "variant", "seed", "status", "n", "modalities", "created", "error"]]
        self._all.objects = [
            pn.pane.Markdown(f"### All runs in this folder ({len(table)})"),
            pn.widgets.Tabulator(listed, show_index=False, disabled=True, pagination="local", page_size=15),
            *[pn.pane.Alert(text=pn.pane.Str(p).object, alert_type="warning") for p in problems],
        ]
        self._directions()
        self._draw()

    @param.depends("metric", watch=True)
    def _directions(self) -> None:
        if not self._scores.empty:
            rows = self._scores[(self._scores["metric"] == self.metric) & (self._scores["corruption"] == "none")]
            pairs = rows[["source", "target"]].drop_duplicates()
            self._offer("direction", [f"{a} → {b}" for a, b in pairs.itertuples(index=False)])

    @param.depends("direction", "baseline", watch=True)
    def _draw(self) -> None:
        if " → " not in self.direction:
            self._board.objects = [pn.pane.Alert("No complete run yet: <code>make demo</code>", alert_type="info")]
            return
        source, target = self.direction.split(" → ")
        chosen = {"metric": self.metric, "source": source, "target": target}
        fields = self._fields(self.metric)
        per_sample = None if fields.empty or self.metric == "median_rank" else fields
        board = stats.leaderboard(self._scores, per_sample, **chosen)
        parts = [
            pn.pane.HoloViews(
                views.leaderboard_plot(board, metric=self.metric, direction=self.direction), backend="bokeh"
            ),
            _table(board.drop(columns="higher_is_better")),
        ]
        if board["variant"].nunique() > 1 and self.baseline in set(board["variant"]):
            versus = stats.compare(self._scores, per_sample, **chosen, baseline=self.baseline)
            columns = ["variant", "difference", "low", "high", "p", "p_holm", "effect_size", "seeds", "n", "kind"]
            parts += [
                pn.pane.Markdown(f"#### Paired difference to {self.baseline} (p corrected by Holm)"),
                _table(versus[columns]),
            ]
        self._board.objects = parts

    def _offer(self, name: str, values: list[str]) -> None:
        self.param[name].objects = values or [""]
        if getattr(self, name) not in values:
            setattr(self, name, (values or [""])[0])


def _table(table: pd.DataFrame) -> pn.widgets.Tabulator:
    return pn.widgets.Tabulator(table.round(3), show_index=False, disabled=True, sizing_mode="stretch_width")
