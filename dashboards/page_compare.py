"""Page Compare: the shown run's method A against another method B, on the same samples under the same seeds.

Settings that differ, paired differences of every metric, both trainings, and a map of the samples for which one of
them is better. The map is that of the shown run; what is selected in it is selected on all pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import frames, maps
from dashboards.comparison import Method, methods
from dashboards.items import card
from dashboards.map_set import JOINT, MapSet
from dashboards.page import Page
from dashboards.parts import legend, marked, notice, offer, table, text
from dashboards.session import Session
from dashboards.versus import COLORS, Versus, painted, settings, versus
from labkit import views
from labkit.views import words

ALL, OWN = "all in common", "the shown run's"
_BASELINE = "clip"  # B until somebody chooses
_OFFERED = 100  # methods in the select at a time; the filter finds the others
_ROWS = [
    "metric",
    "direction",
    "A",
    "B",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "effect_size",
    "seeds",
    "n",
    "kind",
]
_WAIT = '<div class="lk-none lk-wait">computing ...</div>'


class ComparePage(Page):
    """The page."""

    title = "Compare"
    keep = ("other", "metric", "seeds", "measure")

    other = param.String(default="", doc="Id of a run of B.")
    metric = param.String(default="recall_at_10", doc="What the map and the differences show.")
    seeds = param.Selector(default=ALL, objects=[ALL, OWN], doc="Seeds that are compared.")
    measure = param.String(default="validation", doc="What the training curves show.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.versus: Versus | None = None
        self.maps: MapSet | None = None
        self._methods: dict[str, Method] = {}
        self._own = False
        self._pick = pn.widgets.Select(label="B", width=430)
        self._find = pn.widgets.TextInput(label="Find B", placeholder="method, setting ...", width=150)
        self._metric = pn.widgets.Select(label="Metric", width=200)
        self._seeds = pn.widgets.RadioButtonGroup(options=[ALL, OWN], value=ALL, align="end", margin=(5, 10))
        self._measure = pn.widgets.Select(label="Measure of the training", width=220)
        self._head, self._legend, self._card = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(3))
        self._effects, self._settings, self._curves, self._numbers = (
            pn.Column(sizing_mode="stretch_width") for _ in range(4)
        )
        self._grid = pn.FlexBox(sizing_mode="stretch_width", gap="4px")
        self._better = {letter: pn.widgets.Button(label=f"Select where {letter} is better") for letter in "AB"}
        self._listen()
        self.view = self._layout()

    def show(self) -> None:
        """Offer what the shown run can be compared with, and compare."""
        found = methods(self.session.listing, self.session.run)
        self._methods = {m.label: m for m in found}
        self._compare()

    def mark(self) -> None:
        """Mark the selection in the maps; the card says how A and B do on the sample in focus."""
        selection = self.session.selection
        if self.maps is not None:
            self.maps.mark(selection.mask, selection.focus, links=False)
        self._card.object = self._told(selection.focus)

    @property
    def a(self) -> Method:
        """The method of the shown run."""
        return next(m for m in self._methods.values() if self.session.run in m.ids)

    def _offer(self) -> None:
        """Methods that the filter finds, and the chosen one."""
        others = [m for m in self._methods.values() if self.session.run not in m.ids]
        usual = [m for m in others if m.variant == _BASELINE][:1] or others[:1]
        wanted = next((m for m in others if self.other in m.ids), next(iter(usual), None))
        asked = str(self._find.value_input or "").lower().split()
        found = [m.label for m in others if all(word in m.label.lower() for word in asked)]
        labels = [m.label for m in others if m is wanted or m.label in found[:_OFFERED]]
        capped = f", the first {_OFFERED} offered" if len(found) > _OFFERED else ""
        self._quietly(self._pick, options=labels, value=None if wanted is None else wanted.label)
        if wanted is not None and not self.other:  # an address says it in full
            with param.parameterized.discard_events(self):
                self.other = wanted.ids[-1]
        self._find.description = f"{len(found)} of {len(others)} methods{capped}; those on the same data first"

    @param.depends("other", "seeds", watch=True)
    def _compare(self) -> None:
        """A and B are chosen: everything else is of them."""
        self._offer()
        b = self._methods.get(str(self._pick.value))
        if b is None:
            self._empty("There is no other complete run to compare with: `labkit run --variant NAME` makes one.")
            return
        self._quietly(self._seeds, value=self.seeds)
        seed = int(self.session.listing.records[self.session.run]["seed"])
        found = versus(self.session.listing, self.a, b, seed if self.seeds == OWN else None)
        self.versus = found if found.seeds else None
        if self.versus is None:
            seeds = f"A has {_listed(self.a.seeds)}, B has {_listed(b.seeds)}"
            self._empty(f"A and B have no {'such seed' if self.seeds == OWN else 'seed'} in common: {seeds}.")
            return
        self._head.object = _header(found)
        self._settings.objects = [_about("Settings that differ"), _differing(settings(self.session.listing, found))]
        self._show_curves()
        self._numbers.objects = [pn.pane.HTML(_WAIT)]
        self.session.later("versus", lambda: (found.metrics, found.table()), lambda made: self._tell(found, *made))

    def _tell(self, found: Versus, metrics: list[str], rows: pd.DataFrame) -> None:
        """The numbers are there."""
        if found is not self.versus:
            return
        with pn.io.hold():
            self._numbers.objects = [
                _about("All metrics, A less B on the same samples and seeds (p corrected by Holm over all rows)"),
                table(rows[_ROWS], page_size=12),
            ]
            self._offer_metrics(metrics)
            self._show_metric()

    def _offer_metrics(self, metrics: list[str]) -> None:
        self._own = True
        try:
            self._metric.value = None
            offer(self._metric, metrics, first=self.metric)
        finally:
            self._own = False

    @param.depends("metric", watch=True)
    def _show_metric(self) -> None:
        """Differences by direction, and the map."""
        if self.metric in list(self._metric.options.values()):
            self._quietly(self._metric, value=self.metric)
        found, metric = self.versus, str(self._metric.value)
        if found is None or self._metric.value is None:
            return
        rows = found.differences(metric)
        better = "above zero A is better" if rows["higher_is_better"].all() else "below zero A is better"
        title = f"{words(metric)}: A less B; {better}"
        known = rows.dropna(subset=["low", "high"])
        told = pn.pane.HTML(f'<div class="lk-none">{text("; ".join(dict.fromkeys(rows["kind"])))}</div>')
        if len(known):
            drawn = views.effect_plot(known.drop(columns="kind"), title=title, xlabel="difference", name="direction")
            self._effects.objects = [_drawing(drawn), told]
        else:
            self._effects.objects = [notice(f"{words(metric)}: no interval of the difference."), told]
        self._show_maps(found, metric)
        self.mark()

    def _show_maps(self, found: Versus, metric: str) -> None:
        content, points = self.content, found.points(metric)
        self.maps = None
        for letter, rows in self._rows(points).items():
            self._better[letter].param.update(
                label=f"Select the {len(rows)} where {letter} is better", disabled=not len(rows)
            )
        if points.empty:
            self._grid.objects, self._legend.object = [notice(f"{words(metric)} has no value per sample.")], ""
            return
        if not content.run.has("projections"):
            told = f"Maps not computed for this run: `labkit project {content.run.id}` does it."
            self._grid.objects, self._legend.object = [notice(told)], ""
            return
        frame = maps.frame(content, frames.chosen(self.session, content))
        paint = painted(frame, content.index, points, (found.a.label, found.b.label))
        self.maps = MapSet(content, frame, paint, on_area=self.session.selection.select, on_click=self._click)
        sources = [m for m in frame.modalities if (points["source"] == m).any()]
        self._grid.objects = [pn.Column(self.maps.panes[m].view, styles=_grow(1, 230)) for m in sources or [JOINT]]
        self._legend.object = legend(paint.coloring, "", pd.Series(paint.values))

    @param.depends("measure", watch=True)
    def _show_curves(self) -> None:
        found = self.versus
        if found is None:
            return
        logs = found.histories()
        measures = list(dict.fromkeys(c for log in sum(logs.values(), []) for c in log.select_dtypes("number")))
        measures = [m for m in measures if m not in ("step", "epoch")]
        silent = [notice(f"{label} is not trained step by step: it has no curve.") for label in logs if not logs[label]]
        if not measures:
            self._curves.objects = list(silent)
            return
        self._own = True
        try:
            offer(self._measure, measures, first="validation")
            if self.measure in measures:
                self._measure.value = self.measure
        finally:
            self._own = False
        colors = dict(zip((found.a.label, found.b.label), COLORS, strict=True))
        drawn = views.trainings(logs, measure=str(self._measure.value), colors=colors)
        self._curves.objects = [self._measure, _drawing(drawn), *silent]

    def _rows(self, points: pd.DataFrame) -> dict[str, np.ndarray]:
        """Samples for which A is better, and B, on the mean over their queries."""
        mean = points.groupby("key")["value"].mean()
        return {"A": self.content.rows_of(mean.index[mean > 0]), "B": self.content.rows_of(mean.index[mean < 0])}

    def _select(self, letter: str) -> None:
        if self.versus is not None:
            self.session.selection.select(self._rows(self.versus.points(str(self._metric.value)))[letter])

    def _click(self, row: int) -> None:
        self.session.selection.focus = row

    def _told(self, row: int | None) -> str:
        """Card of a sample, with the numbers of both methods on it."""
        if row is None or self.versus is None or self._metric.value is None:
            return '<div class="lk-none">Click a point to see the thing behind it, and how A and B do on it.</div>'
        points = self.versus.points(str(self._metric.value))
        rows = points[(points["key"] == self.content.points["key"].iloc[row]).to_numpy()]
        head = f"<tr><th>{text(words(str(self._metric.value)))}, query</th><th>A</th><th>B</th><th>seeds</th></tr>"
        lines = [
            f"<tr><td>{text(r.source)}</td><td>{r.A:.3f}</td><td>{r.B:.3f}</td><td>{r.seeds}</td></tr>"
            for r in rows.itertuples()
        ]
        told = f'<table class="lk-num lk-versus">{head}{"".join(lines)}</table>' if lines else (
            '<div class="lk-none">not a test sample of both under any of these seeds</div>'
        )  # fmt: skip
        return card(self.content, row) + told

    def _empty(self, why: str) -> None:
        self.versus = self.maps = None
        self._head.object = f'<div class="lk-notice" role="alert">{marked(why)}</div>'
        for place in (self._effects, self._settings, self._curves, self._numbers, self._grid):
            place.objects = []
        self._legend.object = ""

    def _quietly(self, widget: Any, **values: Any) -> None:
        self._own = True
        try:
            widget.param.update(**values)
        finally:
            self._own = False

    def _listen(self) -> None:
        def sync(widget: Any, set_value: Any) -> None:
            widget.param.watch(lambda event: None if self._own or event.new is None else set_value(event.new), "value")

        sync(self._pick, lambda label: self.param.update(other=self._methods[label].ids[-1]))
        sync(self._metric, lambda name: self.param.update(metric=name))
        sync(self._seeds, lambda which: self.param.update(seeds=which))
        sync(self._measure, lambda name: self.param.update(measure=name))
        self._find.param.watch(lambda _: self._offer(), "value_input")
        for letter, button in self._better.items():
            button.on_click(lambda _, letter=letter: self._select(letter))

    def _layout(self) -> pn.Column:
        controls = pn.FlexBox(self._pick, self._find, self._metric, pn.Column(pn.pane.HTML("Seeds"), self._seeds))
        buttons = pn.FlexBox(*self._better.values(), gap="4px")
        pictures = pn.Column(
            _about("Where A is better, and where B: by query, the mean over targets and seeds"),
            self._legend, buttons, self._grid, styles=_grow(4, 640),
        )  # fmt: skip
        focus = pn.Card(self._card, title="The thing in focus", styles=_grow(1, 280), margin=(5, 5))
        rows = (
            (pn.Column(self._effects, styles=_grow(1, 420)), pn.Column(self._curves, styles=_grow(1, 420))),
            (pictures, focus),
            (pn.Column(self._settings, styles=_grow(1, 340)), pn.Column(self._numbers, styles=_grow(3, 640))),
        )
        boxes = [pn.FlexBox(*row, align_items="start", gap="14px", sizing_mode="stretch_width") for row in rows]
        return pn.Column(controls, self._head, *boxes, sizing_mode="stretch_width")


def _grow(share: int, width: int) -> dict[str, str]:
    return {"flex": f"{share} 1 {width}px", "min-width": "0", "width": "auto"}


def _drawing(drawn: Any) -> pn.pane.HoloViews:
    """A drawing as wide as there is room."""
    wide = drawn.opts(width=None, responsive=True, min_width=300, backend="bokeh")
    return pn.pane.HoloViews(wide, backend="bokeh", linked_axes=False, sizing_mode="stretch_width")


def _about(sentence: str) -> pn.pane.HTML:
    return pn.pane.HTML(f"<b>{text(sentence)}</b>", sizing_mode="stretch_width")


def _differing(rows: pd.DataFrame) -> pn.viewable.Viewable:
    return table(rows, page_size=12) if len(rows) else notice("A and B have the same settings.")


def _header(of: Versus) -> str:
    named = [
        f'<b style="color:{color}">{letter}</b>: {text(m.label)} <span class="lk-mod">({_listed(m.seeds)})</span>'
        for letter, m, color in zip("AB", (of.a, of.b), COLORS, strict=True)
    ]
    return f'<div class="lk-ab">{" &nbsp; ".join(named)}. Compared: {_listed(of.seeds)}.</div>'


def _listed(seeds: Any) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, sorted(seeds)))}"
