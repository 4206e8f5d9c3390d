"""Page What-if: one sample under a corruption, encoded and aligned live, on its way through the map.

The item is corrupted by the same bits that the stored curves are made of, so severity 3 here is severity 3 there. The
star stands at the mean place of its nearest stored points, as `labkit.project` places earlier steps of a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param
from bokeh.models import Span

from dashboards import frames, maps, moments
from dashboards.content import Content
from dashboards.items import caption, card, entries
from dashboards.live import Model, opened
from dashboards.map_set import JOINT, MapSet
from dashboards.moments import Found, Moment
from dashboards.page import Page
from dashboards.parts import legend, notice, text
from dashboards.previews import preview
from dashboards.robust import FIELD, Curve
from dashboards.session import Session
from labkit import views
from labkit.store import StoreError
from labkit.views import words

FIRST_TEN = 10
_WAIT = '<div class="lk-none lk-wait">loading the encoder ...</div>'
_PICK = "Click a point of the map, or find a thing by its caption: it is corrupted and encoded anew while you drag."


class WhatIfPage(Page):
    """The page."""

    title = "What-if"
    keep = ("modality", "corruption", "severity")
    parts = ("weights",)

    modality = param.String(default="", doc="Whose item is corrupted.")
    corruption = param.String(default="", doc="Name of the corruption.")
    severity = param.Integer(default=0, bounds=(0, 5), doc="How strong.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.model: Model | None = None
        self.maps: MapSet | None = None
        self.found: Found | None = None
        self._trail: dict[Moment, tuple[float, float]] = {}
        self._spans: list[Span] = []
        self._curve: tuple[object, ...] = ()
        self._find = pn.widgets.TextInput(label="Find a thing", placeholder="part of a caption", width=180)
        self._modality = pn.widgets.Select(label="Corrupted modality", width=150)
        self._corruption = pn.widgets.Select(label="Corruption", width=190)
        self._severity = pn.widgets.IntSlider(label="Severity", start=0, end=5, value=0, width=240)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._map, self._drawn = pn.Column(sizing_mode="stretch_width"), pn.Column(sizing_mode="stretch_width")
        self._legend, self._card, self._items, self._numbers, self._near = (
            pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(5)
        )
        self._listen()
        self.view = self._layout()

    def show(self) -> None:
        """Draw the map, and load the model of the run."""
        self.model, self.found, self._curve = None, None, ()
        self._draw_map()
        self._enable("")
        self._numbers.object = _WAIT
        content = self.content
        self.session.later("what-if model", lambda: opened(content), self._loaded)

    def mark(self) -> None:
        """Follow the focus and the selection."""
        row = self.session.selection.focus
        self._card.object = f'<div class="lk-none">{_PICK}</div>' if row is None else card(self.content, row)
        self._trail.clear()
        if self.maps is not None:
            self.maps.mark(self.session.selection.mask, row, links=False)
        self._ask()

    def _loaded(self, model: Model | str) -> None:
        if isinstance(model, str):
            self._enable(model)
            return
        self.model = model
        _offer(self._modality, model.modalities, self.modality)
        self._modality_changed()

    @param.depends("modality", watch=True)
    def _modality_changed(self) -> None:
        """Offer what fits the modality, once its encoder is loaded."""
        model = self.model
        if model is None:
            return
        _follow(self._modality, self.modality)
        self.modality = modality = str(self._modality.value)
        self._enable("")
        self._numbers.object = _WAIT
        self.session.later("what-if encoder", lambda: model.refusal(modality), self._ready)

    def _ready(self, refusal: str) -> None:
        if self.model is None:
            return
        _offer(self._corruption, self.model.corruptions(self.modality), self.corruption)
        self._enable(refusal)
        if not refusal:
            self.corruption = str(self._corruption.value)
            self._ask()

    def _enable(self, refusal: str) -> None:
        """Offer the controls, or say why there is nothing to control."""
        self._message.objects = [notice(f"Nothing can be encoded: {refusal}", warning=True)] if refusal else []
        off = bool(refusal) or self.model is None
        for control in (self._corruption, self._severity):
            control.disabled = off
        self._modality.disabled = self.model is None
        if refusal:
            self._items.object = self._numbers.object = self._near.object = ""

    @param.depends("corruption", "severity", watch=True)
    def _ask(self) -> None:
        """Encode the sample in focus, unless there is nothing to encode with."""
        model, row, content = self.model, self.session.selection.focus, self.session.content
        if model is None or content is None or self._severity.disabled or not self.corruption:
            return
        _follow(self._corruption, self.corruption)
        self._severity.value = self.severity
        self._draw_curve()
        if row is None or row not in content.present(self.modality):
            told = "" if row is None else f"This thing has no {words(self.modality)}."
            self._items.object, self._numbers.object, self._near.object = text(told), "", ""
            self._star(None)
            return
        moment = Moment(row, self.modality, self.corruption, self.severity)
        frame = None if self.maps is None else self.maps.frame
        self.session.later(
            "what-if", lambda: moments.look(content, model, frame, moment), lambda found: self._tell(moment, found)
        )

    def _tell(self, moment: Moment, found: Found | str) -> None:
        content = self.session.content
        if content is None:
            return
        if isinstance(found, str):
            self._items.object, self._numbers.object, self._near.object = str(notice(found).object), "", ""
            return
        self.found = found
        self._items.object = self._preview(moment, found)
        self._numbers.object = _ranks(content, moment, found)
        columns = [
            f'<div class="lk-col"><div class="lk-mod">now nearest in {text(words(m))} · most similar '
            f"{similarity.max(initial=-1):.2f}</div>{entries(content, rows)}</div>"
            for m, (rows, similarity) in found.near.items()
        ]
        self._near.object = f'<div class="lk-cols">{"".join(columns)}</div>'
        self._star((moment, found.place) if found.place else None)

    def _preview(self, moment: Moment, found: Found) -> str:
        assert self.model is not None
        name = caption(self.content.points.iloc[moment.row])
        what = f"{words(moment.corruption)}, severity {moment.severity}"
        level = self.model.level(moment.corruption, moment.severity) if moment.severity else "as it is"
        shown = preview(found.shown, f"{name}, {what}")
        return f'<div class="lk-card"><div>{shown}</div><div><b>{text(what)}</b><br>{text(level)}</div></div>'

    def _star(self, at: tuple[Moment, tuple[float, float]] | None) -> None:
        """Put the star to a place, with a line through the severities of this sample that were seen."""
        if self.maps is None:
            return
        pane = self.maps.panes[JOINT]
        if at is None:
            pane.put("links", {"x0": [], "y0": [], "x1": [], "y1": []})
            return
        moment, place = at
        self._trail = {m: p for m, p in self._trail.items() if replace(m, severity=moment.severity) == moment}
        self._trail[moment] = place
        path = np.array([self._trail[m] for m in sorted(self._trail, key=lambda m: m.severity)])
        ends = {"x0": path[:-1, 0], "y0": path[:-1, 1], "x1": path[1:, 0], "y1": path[1:, 1]}
        with pn.io.hold():
            pane.put("links", ends)
            pane.put("star", {"x": [place[0]], "y": [place[1]]})

    def _draw_map(self) -> None:
        content, session = self.content, self.session
        if not content.run.has("projections"):
            self.maps, self._legend.object = None, ""
            self._map.objects = [notice(f"No map of this run: `labkit project {content.run.id}` makes one.")]
            return
        shown = replace(frames.chosen(session, content), step="final")
        frame = maps.frame(content, shown)
        paint = maps.paint(content, frame, session.painted)
        self.maps = MapSet(content, frame, paint, on_area=session.selection.select, on_click=self._click)
        self._legend.object = legend(paint.coloring, session.color, pd.Series(paint.values))
        self._map.objects = [self.maps.panes[JOINT].view]

    def _draw_curve(self) -> None:
        """The curves of the run from the corrupted modality, with the severity marked."""
        curve, content = Curve(self.corruption, self.modality), self.content
        if (content, curve) != self._curve:
            self._curve = (content, curve)
            self._spans = []
            try:
                levels = moments.levels(content, curve)
                drawn = views.severity_curves(levels, metric=FIELD).opts(
                    hooks=[self._mark_severity], height=300, backend="bokeh"
                )
                wide = {"linked_axes": False, "sizing_mode": "stretch_width"}
                self._drawn.objects = [pn.pane.HoloViews(drawn, backend="bokeh", **wide)]
            except StoreError as error:
                self._drawn.objects = [notice(str(error))]
        for span in self._spans:
            span.location = self.severity

    def _mark_severity(self, plot: Any, _: object) -> None:
        span = Span(location=self.severity, dimension="height", line_color="#d29922", line_width=3, line_alpha=0.8)
        plot.state.add_layout(span)
        self._spans.append(span)

    def _click(self, row: int) -> None:
        self.session.selection.focus = row

    def _search(self, event: param.parameterized.Event) -> None:
        content = self.session.content
        rows = content.search(str(event.new)) if content is not None and str(event.new).strip() else []
        if len(rows):
            self.session.selection.focus = int(rows[0])
        self._find.description = f"{len(rows)} found" if str(event.new).strip() else ""

    def _listen(self) -> None:
        def follow(widget: pn.widgets.Widget, name: str) -> None:
            widget.param.watch(lambda event: event.new is not None and setattr(self, name, event.new), "value")

        for widget, name in (
            (self._modality, "modality"), (self._corruption, "corruption"), (self._severity, "severity"),
        ):  # fmt: skip
            follow(widget, name)
        self._find.param.watch(self._search, "value")

    def _layout(self) -> pn.Column:
        left = pn.Column(self._legend, self._map, self._drawn, styles={"flex": "3 1 560px", "min-width": "0"})
        right = pn.Column(
            self._card, self._items, self._numbers, self._near, styles={"flex": "2 1 400px", "min-width": "0"}
        )
        return pn.Column(
            pn.FlexBox(self._find, self._modality, self._corruption, self._severity),
            self._message,
            pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )


def _offer(select: pn.widgets.Select, values: Sequence[str], wanted: str) -> None:
    """Put values into a select; the wanted one is chosen if it is among them."""
    chosen = wanted if wanted in values else next(iter(values), None)
    select.param.update(options={words(v): v for v in values}, value=chosen)


def _follow(select: pn.widgets.Select, value: str) -> None:
    """Let a select show a value, if it offers it."""
    if value in select.options.values():
        select.value = value


def _ranks(content: Content, moment: Moment, found: Found) -> str:
    """Where the partners of the item are now."""
    head = ["rank of partner", "among the first ten"]
    rows = [
        (f"{words(moment.modality)} → {words(m)}", f"{rank} of {n}", "yes" if rank <= FIRST_TEN else "no")
        for m, (rank, n) in found.ranks.items()
    ]
    split = str(content.points["split"].iloc[moment.row])
    first = "".join(f"<th>{name}</th>" for name in (f"among the {text(split)} things", *head))
    cells = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="lk-num lk-ranks"><tr>{first}</tr>{cells}</table>'
