"""Page Robustness: a metric against the severity of a corruption, for every method on the data of the shown run.

Curves are means over runs (seeds) with intervals. A click on a point of a curve selects the samples that fail there and
not when clean, everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param
from bokeh.events import Tap

from dashboards import readiness, robust
from dashboards.comparison import Comparison
from dashboards.items import entries
from dashboards.page import Page
from dashboards.parts import marked, notice, offer, table
from dashboards.robust import Curve
from dashboards.session import Session
from labkit import views
from labkit.views import words
from labkit.views.robustness_plots import FAMILIES, family_of

MEAN = "mean over directions"
ONE = "one corruption"
_NEAR = 0.06  # share of the axes within which a click finds a point
_SAME = 0.01  # points that are nearer than this to each other look like one
_SHOWN = 12  # failing samples that are shown
_HINT = (
    "Click a point of a curve: the samples that fail there and not when clean are selected on every page. A sample "
    "fails where its partner is not among the first ten (recall@10)."
)
_AREA = (
    "Area under the curve as a share of the clean value (1: nothing is lost), and its difference to the method of the "
    "shown run, paired by seed."
)


class RobustnessPage(Page):
    """The page."""

    title = "Robustness"
    keep = ("metric", "curve", "direction", "family")

    metric = param.String(default="", doc="Name of the metric.")
    curve = param.String(default="", doc="Corruption and modality, see `robust.Curve`.")
    direction = param.String(default="", doc="From where to where; the mean over all directions where empty.")
    family = param.String(default="", doc="Family of corruptions that are drawn small beside each other; none: one.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.runs: Comparison | None = None
        self.levels = pd.DataFrame()
        self._updating = False
        self._selects = {
            "metric": pn.widgets.Select(label="Metric", width=170),
            "direction": pn.widgets.Select(label="Direction", width=210),
            "family": pn.widgets.Select(label="Drawn", width=190),
            "curve": pn.widgets.Select(label="Corruption", width=260),
        }
        for name, select in self._selects.items():
            select.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        self._drawing = pn.Column(sizing_mode="stretch_width")
        self._told = pn.pane.HTML(_hint(), sizing_mode="stretch_width")
        self._failing = pn.pane.HTML("", sizing_mode="stretch_width")
        self._try = pn.widgets.Button(label="Try the first in What-if", width=180, disabled=True)
        self._at: Curve | None = None  # where was clicked
        self._message, self._body, self._areas = (pn.Column(sizing_mode="stretch_width") for _ in range(3))
        self.view = self._layout()

    @property
    def chosen(self) -> Curve:
        """The chosen corruption of a modality."""
        return Curve.parse(self.curve)

    @property
    def pair(self) -> tuple[str, str] | None:
        """The chosen direction, None for the mean over all."""
        source, arrow, target = self.direction.partition(" → ")
        return (source, target) if arrow else None

    def show(self) -> None:
        """Offer what was measured of the shown run, and draw it with the other methods."""
        self._offer()
        self._draw()

    @param.depends("metric", "curve", "direction", "family", watch=True)
    def _changed(self) -> None:
        if not self._updating and self.session.content is not None and self.runs is not None:
            self._offer()
            self._draw()

    def click(self, curve: Curve, x: float | None, y: float | None) -> None:
        """Select the samples that fail at the point of a curve that is nearest to a place."""
        found = None if x is None or y is None else _nearest(self.levels, curve, (x, y), self._method())
        if found is None or self.runs is None:
            return
        method, severity = str(found["method"]), float(found["severity"])
        run_id = self._run_of(method)
        keys = robust.failing(self.session.store.open(run_id), curve, severity, self.pair)
        known = self.session.select_keys(keys)
        rows = self.content.rows_of(keys)
        self._at, self._try.disabled = curve, not len(rows)
        whose = "this run" if run_id == self.session.run else f"run {run_id} ({method})"
        missing = f" {len(keys) - known} of them are not in this run." if known < len(keys) else ""
        where = self.direction or "any direction"
        self._told.object = str(notice(
            f"{len(keys)} test samples of {whose} fail at severity {severity:g} of {words(curve.corruption)} of "
            f"{words(curve.corrupted)} and not when clean ({where}); they are selected.{missing}"
        ).object)  # fmt: skip
        more = f'<div class="lk-none">the first {_SHOWN} of {len(rows)}</div>' if len(rows) > _SHOWN else ""
        self._failing.object = entries(self.content, rows[:_SHOWN]) + more

    def _run_of(self, method: str) -> str:
        """The run of a method: the shown one, else that of the same seed, else the first."""
        assert self.runs is not None
        own = [i for i, cell in zip(self.runs.ids, self.runs.cells, strict=True) if cell == method]
        seeds = {self.session.listing.records[i]["seed"]: i for i in own}
        seed = self.content.run.info["seed"]
        return self.session.run if self.session.run in own else seeds.get(seed, own[0])

    def _chosen(self, name: str, value: str | None) -> None:
        if not self._updating and value is not None:
            setattr(self, name, value)

    def _offer(self) -> None:
        """Offer what was measured of the shown run; what was asked for stays where there is it."""
        self._updating = True
        try:
            self.runs = robust.measured(self.session.listing, self.session.run)
            run = robust.example(self.session.store, self.runs, self.session.run)
            if run is None:
                return
            self._put("metric", {words(m): m for m in robust.metrics(run)})
            pairs = [f"{a} → {b}" for a, b in robust.directions(run, self.metric)]
            self._put("direction", {MEAN: "", **{p: p for p in pairs}})
            curves = robust.curves(run, self.metric)
            families = [f for f in (*FAMILIES, "other") if f in {family_of(c.corruption) for c in curves}]
            self._put("family", {ONE: "", **{f"all of family {f}": f for f in families}})
            self._put("curve", {f"{words(c.corruption)} of {words(c.corrupted)}": str(c) for c in curves})
            self._selects["curve"].disabled = bool(self.family)
        finally:
            self._updating = False

    def _put(self, name: str, options: dict[str, str]) -> None:
        names = {value: shown for shown, value in options.items()}
        select = self._selects[name]
        select.param.update(options=options, value=getattr(self, name) if getattr(self, name) in names else None)
        offer(select, options.values(), lambda value: names[value])
        setattr(self, name, select.value)

    def _draw(self) -> None:
        assert self.runs is not None
        told = readiness.lacking(self.content, ("curves",))
        self._message.objects = [notice(part.told(self.content)) for part in told]
        self._told.object, self._failing.object, self._try.disabled = _hint(), "", True
        self._body.visible = bool(self.runs.ids)
        if not self.runs.ids:
            return
        self.levels = robust.levels(self.runs, self.metric, self.pair)
        if self.family:
            rows = self.levels[[family_of(c) == self.family for c in self.levels["corruption"]]]
            drawn: Any = views.robustness_panels(rows, metric=self.metric).opts(toolbar="left", backend="bokeh")
            for panel, cell in zip(drawn, views.panel_order(rows), strict=True):
                self._clickable(panel, Curve(*cell))
            self._areas.objects = [notice("Choose one corruption for the area under its curves.")]
        else:
            rows = self.levels.query("corruption == @self.chosen.corruption and corrupted == @self.chosen.corrupted")
            drawn = self._clickable(views.severity_curves(rows, metric=self.metric), self.chosen)
            drawn = drawn.opts(height=440, backend="bokeh")
            found = robust.areas(self.runs, self.metric, self.pair, self.chosen, baseline=self._method())
            kinds = views.kinds(rows["interval"])
            self._areas.objects = [pn.pane.Markdown(f"{_AREA} Intervals: {kinds}."), table(found)]
        # panels take the width of the page, what fails stands below
        self._drawing.styles = {"flex": "1 1 100%" if self.family else "3 1 640px", "min-width": "0"}
        self._drawing.objects = [
            pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False, sizing_mode="stretch_width")
        ]

    def _method(self) -> str:
        """The method of the shown run, empty where it has no curves."""
        assert self.runs is not None
        return dict(zip(self.runs.ids, self.runs.cells, strict=True)).get(self.session.run, "")

    def _clickable(self, drawn: Any, curve: Curve) -> Any:
        """A drawing whose clicks select what fails there."""

        def attach(plot: Any, _: object) -> None:
            plot.state.on_event(Tap, lambda event: self.click(curve, event.x, event.y))

        return drawn.opts(hooks=[attach], backend="bokeh")

    def _layout(self) -> pn.Column:
        maps = pn.widgets.Button(label="See them on the maps", width=180)
        color = pn.widgets.Button(label="Color the maps by first failure", width=220)
        self._try.on_click(lambda _: self._what_if())
        maps.on_click(lambda _: self.session.go("Manifolds"))
        color.on_click(lambda _: self._color())
        side = pn.Column(
            self._told,
            pn.FlexBox(maps, color, self._try),
            self._failing,
            styles={"flex": "2 1 360px", "min-width": "0"},
        )
        self._body.objects = [
            pn.FlexBox(*self._selects.values()),
            pn.FlexBox(self._drawing, side, align_items="start", gap="14px", sizing_mode="stretch_width"),
            self._areas,
        ]
        return pn.Column(self._message, self._body, sizing_mode="stretch_width")

    def _what_if(self) -> None:
        """Put the first of the selected samples into focus, and open the page that encodes it anew."""
        rows = np.flatnonzero(self.session.selection.mask)
        if self._at is not None and len(rows):
            self.session.selection.focus = int(rows[0])
            self.session.go("What-if", {"modality": self._at.corrupted, "corruption": self._at.corruption})

    def _color(self) -> None:
        """Open the maps, colored by the severity at which each sample first fails."""
        if self.curve:
            self.session.param.update(under=self.curve, color="first failure")
            self.session.go("Manifolds")


def _hint() -> str:
    return f'<div class="lk-none">{marked(_HINT)}</div>'


def _nearest(levels: pd.DataFrame, curve: Curve, place: tuple[float, float], own: str) -> pd.Series | None:
    """The point of a drawing that a click hit; of several in one place that of the method `own`."""
    rows = levels[(levels["corruption"] == curve.corruption) & (levels["corrupted"] == curve.corrupted)]
    if rows.empty:
        return None
    wide = max(float(np.ptp(rows["severity"])), 1e-9)
    high = max(float(rows[["high", "value"]].max().max() - rows[["low", "value"]].min().min()), 1e-9)
    away = np.hypot((rows["severity"] - place[0]) / wide, (rows["value"] - place[1]) / high)
    if away.min() > _NEAR:
        return None
    return rows.loc[(away - _SAME * (rows["method"] == own)).idxmin()]
