"""Page Compare: the shown run's method A against another method B, on the same samples under the same seeds.

Settings that differ, paired differences of every metric, both trainings, and a map of the samples for which one of
them is better. The map is that of the shown run; what is selected in it is selected on all pages.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import panel as pn
import param

from dashboards.better_map import BetterMap, grow
from dashboards.boards import board
from dashboards.claims_card import WAIT
from dashboards.drawings import drawing
from dashboards.methods import Method, data_of, data_sets, methods
from dashboards.page import Page
from dashboards.parts import marked, notice, offer, text
from dashboards.session import Session
from dashboards.trainings import TrainingCurves
from dashboards.versus import COLORS, Versus, listed, obstacle, settings, versus
from labkit import views
from labkit.views import words

ALL, OWN = "all in common", "the shown run's"
_BASELINE = "clip"  # B until somebody chooses
_OFFERED = 100  # methods in the select at a time; the filter finds the others
_NUMBERS = {
    "metric": ("metric", 160), "direction": ("direction", 145), "A": ("A", 70), "B": ("B", 70),
    "difference": ("A less B", 85), "low": ("low", 70), "high": ("high", 75), "p_holm": ("p (Holm)", 90),
    "effect_size": ("effect", 90), "seeds": ("seeds", 70), "n": ("n", 65), "kind": ("interval and test", 175),
}  # fmt: skip
_SETTINGS = {"setting": ("setting", 190), "A": ("A", 190), "B": ("B", 190)}


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
        self._own = False
        self._usual = ""  # the B that the page itself has chosen
        self._methods: dict[str, Method] = {}
        self._data = pn.widgets.Select(label="Data of B", width=300)
        self._pick = pn.widgets.Select(label="B", width=330)
        self._find = pn.widgets.TextInput(label="Find B", placeholder="method, setting ...", width=140)
        self._metric = pn.widgets.Select(label="Metric", width=180)
        self._seeds = pn.widgets.Select(label="Seeds", options=[ALL, OWN], width=150)
        self._head = pn.pane.HTML("", sizing_mode="stretch_width")
        self._effects, self._settings, self._numbers = (pn.Column(sizing_mode="stretch_width") for _ in range(3))
        self.better, self.curves = BetterMap(session), TrainingCurves()
        self._trained = pn.Card(self.curves.view, title="Training curves, a line per seed", styles=grow(1, 420))
        self._listen()
        self.view = self._layout()

    def show(self) -> None:
        """Offer what the shown run can be compared with, and compare."""
        found = self.session.listing
        names = data_sets(found)
        asked = "" if self.other == self._usual else self.other  # what nobody chose follows the shown run
        known = asked in found.records and found.records[asked]["state"] == "complete"
        self._quietly(self._data, options={name: data for data, name in names.items()})
        self._quietly(self._data, value=data_of(found, asked if known else self.session.run))
        self._compare()
        if asked and not known:
            told = f"Run {asked} cannot be compared with, for it is not a complete run of this folder; B is another."
            self._head.object = f'<div class="lk-notice lk-warning" role="alert">{text(told)}</div>{self._head.object}'

    def mark(self) -> None:
        """Mark the selection in the maps; the card says how A and B do on the sample in focus."""
        if self.versus is not None:
            self.better.mark()

    @property
    def a(self) -> Method:
        """The method of the shown run."""
        run = self.session.run
        own = methods(self.session.listing, data_of(self.session.listing, run), run)
        return next(m for m in own if run in m.ids)

    def _offer(self) -> Method | None:
        """Methods that the filter finds; the chosen one."""
        own = self.a
        others = [m for m in methods(self.session.listing, str(self._data.value)) if m.ids != own.ids]
        self._methods = {m.label: m for m in others}
        usual = [m for m in others if m.variant == _BASELINE][:1] or others[:1]
        wanted = next((m for m in others if self.other in m.ids), next(iter(usual), None))
        asked = str(self._find.value_input or "").lower().split()
        found = [m.label for m in others if all(word in m.label.lower() for word in asked)]
        labels = [m.label for m in others if m is wanted or m.label in found[:_OFFERED]]
        capped = f", the first {_OFFERED} offered" if len(found) > _OFFERED else ""
        self._quietly(self._pick, options=labels, value=None if wanted is None else wanted.label)
        self._find.description = f"{len(found)} of {len(others)} methods on these data{capped}"
        return wanted

    def _compare(self) -> None:
        """A and B are chosen: everything else is of them."""
        b, listing = self._offer(), self.session.listing
        if b is None:
            self._empty("There is no other method on these data: `labkit run --variant NAME` makes a run.")
            return
        if self.other not in b.ids:  # an address says it in full
            self._usual = b.ids[-1]
            self._quietly(self, other=self._usual)
        self._quietly(self._seeds, value=self.seeds)
        seed = int(listing.records[self.session.run]["seed"]) if self.seeds == OWN else None
        found = versus(listing, self.a, b, seed)
        differ = settings(listing, found)
        same = notice("A and B have the same settings.")
        shown = board(differ, _SETTINGS, page_size=9) if len(differ) else same
        self._settings.objects = [_about("Settings that differ"), shown]
        if why := obstacle(listing, self.a, b, seed):
            self._empty(why)
            return
        self.versus = found
        self._head.object = _header(found, data_of(listing, self.a.ids[0]) != data_of(listing, b.ids[0]))
        self.curves.measure = self.measure
        self.curves.show(found.histories(), dict(zip((found.a.label, found.b.label), COLORS, strict=True)))
        self._trained.visible = True
        self._numbers.objects = [pn.pane.HTML(WAIT)]
        self.session.later("versus", lambda: self._measured_of(found), lambda metrics: self._tell(found, metrics))

    def _measured_of(self, found: Versus) -> list[str]:
        """What was measured of both; what is shown first is in the caches then."""
        if self.metric in found.metrics:
            found.differences(self.metric)
            found.points(self.metric)
        return found.metrics

    def _tell(self, found: Versus, metrics: list[str]) -> None:
        """The numbers of the metric are there; those of all metrics take longer."""
        if found is not self.versus:
            return
        if not metrics:
            self._empty("A and B are not comparable, for no metric was measured of both.")
            return
        with pn.io.hold():
            self._own = True
            self._metric.value = None
            offer(self._metric, metrics, first=self.metric)
            self._own = False
            self._show_metric()
        self.session.later("numbers", found.table, lambda rows: self._tell_all(found, rows))

    def _tell_all(self, found: Versus, rows: pd.DataFrame) -> None:
        if found is self.versus:
            self._numbers.objects = [
                _about("All metrics, A less B on the same samples and seeds (p corrected by Holm over all rows)"),
                board(rows, _NUMBERS, page_size=12),
            ]

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
        known = rows.dropna(subset=["low", "high"])
        known = known.assign(direction=[f"{d} (n = {n})" for d, n in zip(known["direction"], known["n"], strict=True)])
        told = pn.pane.HTML(f'<div class="lk-none">{text("; ".join(dict.fromkeys(rows["kind"])))}</div>')
        if len(known):
            title = f"{words(metric)}: A less B; {better}"
            drawn = views.effect_plot(known.drop(columns="kind"), title=title, xlabel="difference", name="direction")
            self._effects.objects = [drawing(drawn), told]
        else:
            self._effects.objects = [notice(f"{words(metric)}: no interval of the difference."), told]
        self.better.show(found, metric)
        self.mark()

    @param.depends("other", watch=True)
    def _another(self) -> None:
        if self.session.content is not None and not self._own:
            self.show()

    @param.depends("seeds", watch=True)
    def _reseeded(self) -> None:
        if self.session.content is not None:
            self._compare()

    @param.depends("measure", watch=True)
    def _measured(self) -> None:
        self.curves.measure = self.measure

    def _empty(self, why: str) -> None:
        self.versus = None
        self._head.object = f'<div class="lk-notice lk-warning" role="alert">{marked(why)}</div>'
        self._effects.objects = self._numbers.objects = []
        self._trained.visible = False
        self.better.clear()

    def _quietly(self, widget: param.Parameterized, **values: Any) -> None:
        self._own = True
        try:
            widget.param.update(**values)
        finally:
            self._own = False

    def _listen(self) -> None:
        def sync(widget: Any, set_value: Any) -> None:
            widget.param.watch(lambda event: None if self._own or event.new is None else set_value(event.new), "value")

        sync(self._data, lambda _: self._compare())
        sync(self._pick, lambda label: self.param.update(other=self._methods[label].ids[-1]))
        sync(self._metric, lambda name: self.param.update(metric=name))
        sync(self._seeds, lambda which: self.param.update(seeds=which))
        self.curves.param.watch(lambda event: self.param.update(measure=event.new), "measure")
        self._find.param.watch(lambda _: self._offer(), "value_input")

    def _layout(self) -> pn.Column:
        controls = pn.FlexBox(self._data, self._pick, self._find, self._metric, self._seeds)
        numbers = pn.FlexBox(
            pn.Column(self._effects, styles=grow(3, 460)), pn.Column(self._settings, styles=grow(2, 420)),
            align_items="start", gap="14px", sizing_mode="stretch_width",
        )  # fmt: skip
        trained = pn.FlexBox(self._trained, sizing_mode="stretch_width")
        return pn.Column(
            controls, self._head, numbers, self.better.view, self._numbers, trained, sizing_mode="stretch_width"
        )


def _about(sentence: str) -> pn.pane.HTML:
    return pn.pane.HTML(f"<b>{text(sentence)}</b>", sizing_mode="stretch_width")


def _header(of: Versus, other_data: bool) -> str:
    named = [
        f'<b style="color:{color}">{letter}</b>: {text(m.label)} <span class="lk-mod">({listed(m.seeds)})</span>'
        for letter, m, color in zip("AB", (of.a, of.b), COLORS, strict=True)
    ]
    more = " Trained on other data, tested on the same samples." if other_data else ""
    return f'<div class="lk-ab">{" &nbsp; ".join(named)}. Compared: {listed(of.seeds)}.{more}</div>'
