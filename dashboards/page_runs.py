"""Page Runs: leaderboard with intervals, paired differences to a baseline, trainings, claims, the state of every run.

Only runs on the same data stand in one leaderboard, and only seeds of one configuration are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import panel as pn
import param

from dashboards.boards import board
from dashboards.catalog import Listing
from dashboards.claims_card import WAIT, claims_card
from dashboards.comparison import Comparison, comparable
from dashboards.drawings import drawing
from dashboards.methods import data_of, data_sets
from dashboards.page import Page
from dashboards.parts import notice, offer, text
from dashboards.runs_list import runs_list
from dashboards.session import Session
from dashboards.trainings import TrainingCurves
from labkit import views

ONE, EVERY = "one per method", "all"
SHOWN = "of the shown run"
_BOARD = {
    "rank": ("rank", 60), "variant": ("method", 330), "value": ("mean", 80), "low": ("low", 75), "high": ("high", 75),
    "chance": ("chance", 80), "seeds": ("seeds", 75), "n": ("n", 70), "interval": ("interval", 310),
}  # fmt: skip
_DIFFERENCES = {
    "variant": ("method", 240), "difference": ("difference", 100), "low": ("low", 75), "high": ("high", 75),
    "p": ("p", 65), "p_holm": ("p (Holm)", 90), "effect_size": ("effect", 90), "seeds": ("seeds", 75), "n": ("n", 75),
    "kind": ("interval and test", 290),
}  # fmt: skip
_DOTS = 30  # methods that are drawn; the table has all
_CURVES = 6  # methods whose training is drawn until somebody chooses


class RunsPage(Page):
    """The page."""

    title = "Runs"
    keep = ("data", "metric", "direction", "baseline", "configurations", "measure")
    needs_run = False

    data = param.String(default=SHOWN, doc="What the runs are on; by default what the shown run is on.")
    metric = param.String(default="recall_at_10", doc="Of the leaderboard.")
    direction = param.String(default="", doc="Of the metric.")
    baseline = param.String(default="clip", doc="Method that the others are compared with.")
    configurations = param.Selector(default=ONE, objects=[ONE, EVERY], doc="Which configurations of a method.")
    measure = param.String(default="validation", doc="What the training curves show.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._runs: Comparison | None = None
        self._listing: Listing | None = None
        self._own = False
        self._selects = {
            "data": pn.widgets.Select(label="Data", width=330),
            "metric": pn.widgets.Select(label="Metric", width=180),
            "direction": pn.widgets.Select(label="Direction", width=180),
            "baseline": pn.widgets.Select(label="Baseline", width=220),
        }
        for name, select in self._selects.items():
            select.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        many = pn.widgets.Select.from_param(self.param["configurations"], label="Configurations", width=160)
        self._drawn = pn.widgets.MultiChoice(label="Methods whose training is drawn", sizing_mode="stretch_width")
        self._drawn.param.watch(lambda _: self._curve(), "value")
        self.curves = TrainingCurves()
        self.curves.param.watch(lambda event: self.param.update(measure=event.new), "measure")
        self._about = pn.pane.HTML("", sizing_mode="stretch_width")
        self._board, self._paired, self._all = (pn.Column(sizing_mode="stretch_width") for _ in range(3))
        self._trained = pn.Card(
            self._drawn, self.curves.view, title="Training curves, a line per seed", sizing_mode="stretch_width",
            margin=(8, 5),
        )  # fmt: skip
        self.view = pn.Column(
            pn.FlexBox(*self._selects.values(), many), self._about, self._board, self._paired, self._trained,
            claims_card(session), self._all, sizing_mode="stretch_width",
        )  # fmt: skip

    def show(self) -> None:
        """Offer the clean scores of the runs on the same data; list all runs below."""
        found = self.session.listing
        if found is not self._listing:
            self._listing = found
            self._all.objects = runs_list(found, self._open)
        self._compute()

    @param.depends("measure", watch=True)
    def _measured(self) -> None:
        self.curves.measure = self.measure

    @param.depends("configurations", "data", watch=True)
    def _compute(self) -> None:
        found, run = self.session.listing, self.session.run
        names = data_sets(found)
        if not names:
            self._empty("No complete run yet: `make demo` or `labkit run --variant NAME` makes some.")
            return
        own = names[data_of(found, run)] if run in found.records else next(iter(names.values()))
        self._put("data", list(names.values()), str, wanted=own if self.data == SHOWN else self.data)
        chosen = next(key for key, name in names.items() if name == self._selects["data"].value)
        runs = comparable(found, run, data=chosen, every=self.configurations == EVERY)
        if runs == self._runs:  # other runs have changed
            return
        self._runs = runs
        self._board.objects = [pn.pane.HTML(WAIT)]
        self.session.later("board", lambda: runs.scores, lambda _: self._draw() if runs is self._runs else None)

    def _chosen(self, name: str, value: Any) -> None:
        if not self._own and value is not None:
            self.param.update({name: value})

    @param.depends("metric", "direction", "baseline", watch=True)
    def _draw(self) -> None:
        """Offer what was measured, and compute the table of what is chosen."""
        runs = self._runs
        clean = pd.DataFrame() if runs is None else runs.scores.query("corruption == 'none' and split == 'test'")
        if runs is None or clean.empty:
            self._empty("No scores yet: `labkit run RUN --rerun` computes those of a run.")
            return
        metric, direction, baseline = self._offer(clean)
        source, target = direction.split(" → ")

        def tell(made: pd.DataFrame) -> None:
            with pn.io.hold():
                self._tell(made, metric=metric, direction=_direction(direction))
            self._offer_curves(runs)
            if len(made) > 1:
                self._paired.objects = [pn.pane.HTML(WAIT)]
                differences = partial(runs.differences, metric, source, target, baseline)
                self.session.later("paired", differences, lambda versus: self._tell_paired(versus, baseline))

        self._paired.objects = []
        self.session.later("board", lambda: runs.leaderboard(metric, source, target), tell)

    def _offer(self, clean: pd.DataFrame) -> tuple[str, str, str]:
        """What there is to choose from, each select for those before it, and what is shown of it."""
        self._put("metric", sorted(clean["metric"].unique()), views.words)
        rows = clean[clean["metric"] == self._selects["metric"].value]
        pairs = rows[["source", "target"]].drop_duplicates().itertuples(index=False)
        self._put("direction", [f"{a} → {b}" for a, b in pairs], _direction)
        here = (rows["source"] + " → " + rows["target"]) == self._selects["direction"].value
        self._put("baseline", sorted(rows.loc[here, "cell"].unique()), str)
        metric, direction, baseline = (str(self._selects[n].value) for n in ("metric", "direction", "baseline"))
        return metric, direction, baseline

    def _put(self, name: str, values: list[str], show: Callable[[str], str], *, wanted: str = "") -> None:
        select, wanted = self._selects[name], wanted or getattr(self, name)
        self._own = True
        try:
            offer(select, values, show)
            if wanted in values:
                select.value = wanted
        finally:
            self._own = False

    def _tell(self, made: pd.DataFrame, *, metric: str, direction: str) -> None:
        names = made["variant"].tolist()
        seeds = f"{int(made['seeds'].sum())} runs of {len(names)} methods"
        first = made[:_DOTS].assign(variant=[_short(name) for name in names[:_DOTS]])
        some = f"; the best {_DOTS} of {len(names)} are drawn" if len(names) > _DOTS else ""
        told = f"{seeds} on {self._selects['data'].value}; runs on other data are never averaged with them{some}."
        self._about.object = f'<div class="lk-none lk-runs" data-n="{int(made["seeds"].sum())}">{text(told)}</div>'
        about = "<b>Leaderboard</b>: mean over seeds, n test samples of a seed; a click on a row opens page Compare"
        self._board.objects = [
            drawing(views.leaderboard_plot(first, metric=metric, direction=direction)),
            pn.pane.HTML(about),
            board(made, _BOARD, on_row=lambda row: self._compare(names[row])),
        ]

    def _tell_paired(self, versus: pd.DataFrame, baseline: str) -> None:
        others = versus["variant"].tolist()
        about = (
            f"<b>Paired differences to {text(baseline)}</b> on n samples that both have; effect: Cohen's d; "
            "p (Holm): corrected for the number of methods"
        )
        made = board(versus, _DIFFERENCES, on_row=lambda row: self._compare(others[row]))
        self._paired.objects = [pn.pane.HTML(about), made]

    def _offer_curves(self, runs: Comparison) -> None:
        """The methods that were trained, the shown run's and the baseline first."""
        own = [cell for run_id, cell in zip(runs.ids, runs.cells, strict=True) if run_id == self.session.run]
        cells = list(dict.fromkeys([*own, str(self._selects["baseline"].value), *runs.cells]))
        trained = [cell for cell in cells if cell in runs.trained]
        kept = [cell for cell in self._drawn.value or [] if cell in trained] or trained[:_CURVES]
        self._drawn.param.update(options=trained, value=kept)
        self._trained.visible = bool(trained)
        self._curve()

    def _curve(self) -> None:
        runs, chosen = self._runs, [str(cell) for cell in self._drawn.value or []]
        if runs is not None:
            colors = views.variant_colors(chosen)
            self.session.later("curves", lambda: runs.histories(chosen), lambda logs: self.curves.show(logs, colors))

    def _compare(self, method: str) -> None:
        assert self._runs is not None
        others = [i for i, cell in zip(self._runs.ids, self._runs.cells, strict=True) if cell == method]
        self.session.go("Compare", {"other": others[-1]})

    def _open(self, run: str) -> None:
        self.session.run = run

    def _empty(self, why: str) -> None:
        self._runs = None
        self._about.object = ""
        self._trained.visible = False
        self._board.objects, self._paired.objects = [notice(why)], []


def _direction(pair: str) -> str:
    """A direction as people write it; some metrics have only a source, or no modality at all."""
    source, target = pair.split(" → ")
    return f"{source} → {target}" if target else source or "all modalities"


def _short(name: str) -> str:
    """A method's name beside a drawing."""
    return name if len(name) <= 44 else name[:43] + "…"
