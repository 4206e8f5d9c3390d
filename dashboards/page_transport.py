"""Page Transport: where a stored transport plan moves the selected things, and how label moves to label.

A plan that was not solved well is said to be so. What is drawn are the largest entries; the share of the mass that they
hold stands beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import frames, maps, plans
from dashboards.frames import FrameControls
from dashboards.items import caption, card
from dashboards.map_set import JOINT, MapSet
from dashboards.page import Page
from dashboards.parts import legend, notice, offer, table, text
from dashboards.plans import Moved, Plan
from dashboards.session import Session
from labkit import views
from labkit.stats import Interval
from labkit.views.flows import FLOW, PARTNER

MOST = 200  # samples whose flows are drawn, one by one
_LISTED = 40
_LINKED = 60  # things whose partners are joined by lines; more would hide the flows
_WIDTH = 560  # of the flow between labels, which cannot follow the width of the page
_ARROW = " → "
_HINT = (
    "Drag a lasso or click a point: its mass is followed into the other modality. Each thing carries the same mass; "
    "the plan does not know which things are partners."
)


class TransportPage(Page):
    """The page."""

    title = "Transport"
    keep = ("pair", "epsilon", "flows")
    parts = ("couplings",)

    pair = param.String(default="", doc="From which modality to which.")
    epsilon = param.String(default="", doc="Regularization of the stored plan, relative to the mean cost.")
    flows = param.Integer(default=3, bounds=(1, 10), label="flows of each thing", doc="Its largest ones.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.map: MapSet | None = None
        self.plan: Plan | None = None
        self.moved: Moved | None = None
        self._drawn: tuple[Any, ...] = ()
        self._own = False
        self._controls = FrameControls(session)
        self._pair = pn.widgets.Select(label="Direction", width=190)
        self._epsilon = pn.widgets.Select(
            label="Epsilon", width=110, description="Smaller: each thing goes to fewer others. Stored solves only."
        )
        for name, widget in (("pair", self._pair), ("epsilon", self._epsilon)):
            widget.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        self._message, self._place, self._sankey, self._list = (
            pn.Column(sizing_mode="stretch_width") for _ in range(4)
        )
        self._legend, self._numbers, self._card = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(3))
        self.view = self._layout()

    @property
    def direction(self) -> tuple[str, str]:
        """The chosen modalities."""
        source, _, target = self.pair.partition(_ARROW)
        return source, target

    def show(self) -> None:
        """Offer the stored plans, and draw the map."""
        self._offer()
        shown = frames.chosen(self.session, self.content)
        self._controls.offer(self.content, shown)
        frame = maps.frame(self.content, shown)
        paint = maps.paint(self.content, frame, self.session.painted)
        drawn = (self.content, shown.name, shown.step, self.session.painted)
        if drawn != self._drawn:
            select = self.session.selection.select
            self.map = MapSet(self.content, frame, paint, on_area=select, on_click=self._focus)
            self._place.objects = [self.map.panes[JOINT].view]
            marks = f'<span style="color:{FLOW}">━</span> mass of the plan · '
            marks += f'<span style="color:{PARTNER}">━</span> mass to the own partner · '
            marks += f"gray: partners of up to {_LINKED} things"
            named = legend(paint.coloring, self.session.color, pd.Series(paint.values))
            self._legend.object = f'{named}<div class="lk-legend">{marks}</div>'
        self._drawn = drawn
        self._read()

    def mark(self) -> None:
        """Follow the selection, or the thing in focus where nothing is selected."""
        if self.plan is None or self.map is None:
            return
        selection = self.session.selection
        rows = np.flatnonzero(selection.mask)
        if not len(rows) and selection.focus is not None:
            rows = np.array([selection.focus])
        keys = self.content.points["key"].iloc[rows].tolist()
        self._card.object = "" if selection.focus is None else card(self.content, selection.focus)
        self.moved = plans.moved(self.content, self.plan, keys or self.plan.keys.tolist(), per_sample=self.flows)
        drawn = self.moved.flows if keys else self.moved.flows.iloc[:0]
        some = drawn["from_key"].unique()[:MOST]
        drawn = drawn[drawn["from_key"].isin(some)]
        source, target = self.direction
        lines = views.flow_lines(drawn, self._places(source), self._places(target))
        mask = np.zeros(len(self.content.points), dtype=bool)
        mask[rows] = True
        with pn.io.hold():
            self.map.mark(mask, selection.focus, links=0 < len(rows) <= _LINKED)
            self.map.panes[JOINT].put("flows", lines)
        self._tell(keys, len(some))

    @param.depends("pair", "epsilon", "flows", watch=True)
    def _changed(self) -> None:
        if not self._own and self.session.content is not None and self.map is not None:
            self._offer()
            self._read()
            self.mark()

    def _focus(self, row: int) -> None:
        self.session.selection.focus = row

    def _chosen(self, name: str, value: str | None) -> None:
        if not self._own and value is not None:
            setattr(self, name, value)

    def _offer(self) -> None:
        self._own = True
        try:
            known = [_ARROW.join(pair) for pair in plans.pairs(self.content)]
            self._put("pair", self._pair, known)
            self._put("epsilon", self._epsilon, [f"{e:g}" for e in plans.epsilons(self.content, self.direction)])
        finally:
            self._own = False

    def _put(self, name: str, select: pn.widgets.Select, values: list[str]) -> None:
        wanted = getattr(self, name)
        select.param.update(options=values, value=wanted if wanted in values else None)
        offer(select, values, str)
        setattr(self, name, select.value)

    def _read(self) -> None:
        """Read the plan, and say whether it can be trusted."""
        self.plan = plans.plan(self.content, self.direction, float(self.epsilon))
        record = self.plan.record
        error = f"marginal error {record['marginal_error']:.1e}"
        solved = f"{record['solver']}, epsilon {record['epsilon']:g} of the mean cost, {error}"
        sampled = f" of {record['sampled_from']:,}" if record.get("sampled_from", self.plan.n) > self.plan.n else ""
        what = f"The plan moves {self.plan.n:,}{sampled} {record.get('split', '')} samples ({solved}). "
        kept = f"Stored are its largest entries: {record['mass_kept']:.1%} of the mass."
        if self.plan.trusted:
            self._message.objects = [notice(f"Converged. {what}{kept}")]
        else:
            state = "Not converged" if not record["converged"] else "Marginals missed"
            told = f"{state}: this plan is not the optimum, do not read it as one. {what}{kept}"
            self._message.objects = [notice(told, warning=True)]

    def _places(self, modality: str) -> pd.DataFrame:
        """Places of the points of a modality in the drawn frame, by key."""
        assert self.map is not None
        frame = self.map.frame
        part = frame.part(modality)
        keys = self.content.points["key"].iloc[frame.row[part]].to_numpy()
        return pd.DataFrame({"x": frame.x[part], "y": frame.y[part]}, index=keys)

    def _tell(self, keys: list[str], drawn: int) -> None:
        """The selection in numbers, its flows in a list, and the labels."""
        assert self.moved is not None
        assert self.plan is not None
        moved, (_source, _target) = self.moved, self.direction
        whose = f"{moved.n:,} of {len(keys):,} selected things are in the plan" if keys else f"all {moved.n:,} things"
        lines = [whose]
        if moved.n:
            capped = f" (lines of the first {drawn} of them)" if keys and drawn < moved.n else ""
            share = f"<b class='lk-shown' data-share='{moved.shown:.6f}'>{moved.shown:.1%}</b> of their mass is in the "
            lines.append(share + f"{self.flows} largest flows of each{capped}, {moved.stored:.1%} is stored")
            lines.append(f"mass that reaches the own partner, at least: {_spanned(moved.partner, 'partner')}")
            lines.append(f"largest flow goes to the own partner: {_spanned(moved.first, 'first')}")
        hint = "" if keys else f'<div class="lk-none">{_HINT}</div>'
        self._numbers.object = f"{hint}<ul class='lk-moved'>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"
        self._list.objects = [self._listed()] if keys and moved.n else []
        self._sankey.objects = [self._labels()]

    def _listed(self) -> Any:
        assert self.moved is not None
        rows = self.moved.flows.iloc[:_LISTED]
        points, index = self.content.points, self.content.index
        names = {key: caption(points.iloc[index.get_loc(key)]) for key in {*rows["from_key"], *rows["to_key"]}}
        source, target = self.direction
        shown = pd.DataFrame(
            {
                f"{source} of": rows["from_key"].map(names),
                f"goes to {target} of": rows["to_key"].map(names) + np.where(rows["partner"], " (own partner)", ""),
                "of its mass": [f"{share:.1%}" for share in rows["share"]],
            }
        )
        return table(shown, page_size=12)

    def _labels(self) -> Any:
        assert self.moved is not None
        assert self.plan is not None
        if "label" not in self.content.points:
            return notice("The samples of this run have no labels: there is no flow from label to label to draw.")
        one = "col_key" if self.plan.reverse else "row_key"
        keys = self.moved.flows["from_key"].unique()
        rows = self.plan.table[self.plan.table[one].isin(keys)]
        if rows.empty:
            return notice("None of the selected things is in the plan: it has test samples only.")
        found = views.label_flows(rows, self.content.points, reverse=self.plan.reverse)
        source, target = self.direction
        labels = self.content.points["label"].fillna("(none)").astype(str)
        drawn = views.flow_sankey(found, source=source, target=target, labels=labels.unique())
        drawn = drawn.opts(width=_WIDTH, toolbar=None, backend="bokeh")
        return pn.pane.HoloViews(drawn, backend="bokeh", linked_axes=False)

    def _layout(self) -> pn.FlexBox:
        flows = pn.Param(self.param["flows"], widgets={"flows": {"width": 190}}, margin=(0, 8))
        left = pn.Column(
            self._controls.view, pn.FlexBox(self._pair, self._epsilon, flows), self._message, self._legend, self._place,
            self._numbers, styles={"flex": "3 1 560px", "min-width": "0"},
        )  # fmt: skip
        right = pn.Column(self._card, self._sankey, self._list, styles={"flex": "3 1 480px", "min-width": "0"})
        return pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width")


def _spanned(found: Interval, name: str) -> str:
    span = "no interval" if np.isnan(found.low) else f"[{found.low:.3f}, {found.high:.3f}]"
    value = f"<b data-{name}='{found.value:.6f}'>{found.value:.3f}</b>"
    return f"{value} {span} ({text(found.kind)}, n = {found.n})"
