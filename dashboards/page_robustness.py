"""Page Robustness: a metric against the severity of a corruption, one curve per variant, with intervals."""

from __future__ import annotations

import pandas as pd
import panel as pn
import param

from labkit import views


class RobustnessPage(param.Parameterized):
    """The page; `show` puts the scores of comparable runs on it."""

    metric = param.Selector(objects=[""])
    corruption = param.Selector(objects=[""])
    corrupted = param.Selector(objects=[""], label="corrupted modality")
    direction = param.Selector(objects=[""])

    def __init__(self) -> None:
        super().__init__()
        self._scores = pd.DataFrame()
        self._body = pn.Column(sizing_mode="stretch_width")
        controls = pn.Param(self.param, show_name=False, default_layout=pn.Row)
        self.view = pn.Column(controls, self._body, sizing_mode="stretch_width")

    def show(self, scores: pd.DataFrame) -> None:
        """Offer what was measured."""
        self._scores = scores
        curves = scores[scores["corruption"] != "none"] if len(scores) else scores
        with param.parameterized.batch_call_watchers(self):
            self._offer("metric", sorted(curves["metric"].unique(), reverse=True) if len(curves) else [])
            self._offer("corruption", sorted(curves["corruption"].unique()) if len(curves) else [])
            self._offer("corrupted", list(dict.fromkeys(curves["corrupted"])) if len(curves) else [])
        self._directions()
        self._draw()

    @param.depends("corrupted", watch=True)
    def _directions(self) -> None:
        if not self._scores.empty:
            rows = self._scores[self._scores["corrupted"] == self.corrupted]
            pairs = rows[["source", "target"]].drop_duplicates()
            self._offer("direction", [f"{a} → {b}" for a, b in pairs.itertuples(index=False)])

    @param.depends("metric", "corruption", "direction", watch=True)
    def _draw(self) -> None:
        if not self.corruption or " → " not in self.direction:
            text = "Robustness is not computed for these runs: <code>labkit run ... --rerun</code> measures it."
            self._body.objects = [pn.pane.Alert(text, alert_type="info")]
            return
        source, target = self.direction.split(" → ")
        where = {"corrupted": self.corrupted, "source": source, "target": target}
        chosen = {"metric": self.metric, "corruption": self.corruption}
        table = views.curve_table(self._scores, **chosen, **where)
        drawn = views.robustness_curves(self._scores, **chosen, **where)
        self._body.objects = [
            pn.pane.HoloViews(drawn, backend="bokeh"),
            pn.pane.Markdown("The same in numbers. Severity 0 is the clean input; every curve uses the same samples."),
            pn.widgets.Tabulator(table.round(3), show_index=False, disabled=True, pagination="local", page_size=18),
        ]

    def _offer(self, name: str, values: list[str]) -> None:
        self.param[name].objects = values or [""]
        if getattr(self, name) not in values:
            setattr(self, name, (values or [""])[0])
