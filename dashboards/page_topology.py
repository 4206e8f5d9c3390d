"""Page Topology: persistence diagram, barcode and map of every modality; a click on a bar selects its samples.

The samples are a representative of the class, one of many: other cycles go round the same hole. The bars are of the
test samples, or of landmarks among them; what is computed on what is said beside the pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import frames, maps
from dashboards.bars_pane import BarsPane
from dashboards.content import SPACES, Content
from dashboards.items import entries
from dashboards.map_set import MapSet
from dashboards.page import Page
from dashboards.parts import notice, offer, text
from dashboards.session import Session

_CLASSES = ("component", "loop", "void")
_SHOWN = 24  # samples of a bar with a picture
_NOTHING = (
    '<div class="lk-none">Click a dot of a diagram or a bar of a barcode: its samples are selected on all pages.</div>'
)


class TopologyPage(Page):
    """The page."""

    title = "Topology"
    keep = ("space", "bar")
    parts = ("topology",)

    space = param.Selector(default="shared space", objects=list(SPACES), doc="Whose shape is shown.")
    bar = param.String(default="", doc="The chosen bar: modality, colon, number.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.panes: dict[str, BarsPane] = {}
        self.maps: MapSet | None = None
        self._drawn: tuple[Any, ...] = ()
        self._bars: dict[str, pd.DataFrame] = {}
        self._own = False
        self._space = pn.widgets.Select.from_param(self.param["space"], label="Space", width=210)
        self._step = pn.widgets.Select(label="Step of the training", width=150)
        self._step.param.watch(self._stepped, "value")
        self._message, self._rows = (pn.Column(sizing_mode="stretch_width") for _ in range(2))
        self._told, self._chosen = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(2))
        chosen = pn.Card(self._chosen, title="The chosen bar", sizing_mode="stretch_width", margin=(5, 5))
        controls = pn.FlexBox(self._space, self._step, self._told, align_items="center")
        self.view = pn.Column(controls, self._message, chosen, self._rows, sizing_mode="stretch_width")

    def show(self) -> None:
        """Draw the bars at the step, and the maps beside them."""
        content, stored = self.content, self.content.run.steps("topology")
        step, problem = self._offer({step for found in stored.values() for step in found})
        mapped = frames.chosen(self.session, content) if content.run.has("projections") else None
        drawn = (content, step, mapped, self.session.color)
        if drawn == self._drawn:
            return
        first, moved = not self._drawn, self._drawn[:2] != drawn[:2]
        self._drawn = drawn
        found = {m: content.run.topology(m, step) for m in content.modalities if step in stored.get(m, ())}
        self._bars = {m: bars for m, (bars, _) in found.items()}
        self.panes = {
            m: BarsPane(bars, title=f"{m}, {_called(step)}", on_bar=lambda bar, m=m: self._pick(m, bar))
            for m, bars in self._bars.items()
        }
        self.maps = self._maps(content, mapped)
        self._told.object = _facts({m: (bars, about) for m, (bars, about) in found.items()})
        lacking = f"Maps not computed for this run: `labkit project {content.run.id}` does it."
        self._message.objects = [notice(t) for t in (problem, "" if mapped else lacking) if t]
        self._rows.objects = [self._row(m) for m in self.panes]
        if moved and not first:
            self.bar = ""  # a number means another class at another step
        elif first and (known := self._known()) is not None:
            self._pick(*known)
        self._mark_bar()

    def mark(self) -> None:
        """Mark the selection in the maps."""
        if self.maps is not None:
            self.maps.mark(self.session.selection.mask, self.session.selection.focus, links=False)

    def _offer(self, stored: set[str]) -> tuple[str, str]:
        """Offer the steps; which one is shown, and why it is another than asked for."""
        steps = [step for step in self.content.steps if step in stored]
        wanted = "raw" if SPACES[self.space] == "raw" else self.session.step
        step = wanted if wanted in stored else (steps or ["raw"])[-1]
        self._own = True
        try:
            offer(self._step, steps, _called, first="final")
            if step in steps:
                self._step.value = step
        finally:
            self._own = False
        self._step.disabled = step == "raw"
        told = f"Topology of {_called(wanted)} is not computed: `labkit diagnose {self.content.run.id}` does it."
        return step, "" if step == wanted else f"{told} Shown is {_called(step)}."

    def _stepped(self, event: Any) -> None:
        if not self._own and event.new:
            self.session.step = event.new

    @param.depends("space", watch=True)
    def _another(self) -> None:
        if self.session.content is not None:
            self.show()
            self.mark()

    def _maps(self, content: Content, mapped: frames.Shown | None) -> MapSet | None:
        if mapped is None:
            return None
        frame = maps.frame(content, mapped)
        paint = maps.paint(content, frame, self.session.color)
        return MapSet(content, frame, paint, on_area=self.session.selection.select, on_click=self._click)

    def _row(self, modality: str) -> pn.FlexBox:
        pane = self.panes[modality]
        views = [pane.diagram, pane.barcode, *([] if self.maps is None else [self.maps.panes[modality].view])]
        columns = [pn.Column(view, styles={"flex": "1 1 330px", "min-width": "0", "width": "auto"}) for view in views]
        return pn.FlexBox(*columns, gap="6px", sizing_mode="stretch_width")

    def _click(self, row: int) -> None:
        self.session.selection.focus = row

    def _pick(self, modality: str, bar: int) -> None:
        """A click: the samples of the bar are selected everywhere."""
        self.bar = f"{modality}:{bar}"
        self.session.select_keys(self._bars[modality]["keys"].iloc[bar])

    @param.depends("bar", watch=True)
    def _mark_bar(self) -> None:
        known = self._known()
        for name, pane in self.panes.items():
            pane.mark(known[1] if known is not None and name == known[0] else None)
        self._chosen.object = _NOTHING if known is None else _story(self.content, *known, self._bars[known[0]])

    def _known(self) -> tuple[str, int] | None:
        """Modality and number of the chosen bar, None where there is no such bar."""
        modality, _, number = self.bar.rpartition(":")
        there = modality in self._bars and number.isdecimal() and int(number) < len(self._bars[modality])
        return (modality, int(number)) if there else None


def _called(step: str) -> str:
    """A step as people call it."""
    return {"raw": "the encoder's own space", "final": "final"}.get(step, f"step {step}")


def _facts(found: dict[str, tuple[pd.DataFrame, dict[str, Any]]]) -> str:
    """What the bars were computed on, one line per modality."""
    lines = []
    for modality, (bars, about) in found.items():
        loops = bars[bars["dimension"] == 1]
        longest = (loops["death"] - loops["birth"]).max() if len(loops) else 0.0
        on = f"{about['n']:,} test samples"
        if about["sampled"]:
            on = f"{len(about['landmarks']):,} landmarks of {on}, covering radius {about['covering_radius']:.2f}"
        cells = (
            on,
            f"{(bars['dimension'] == 0).sum():,}",
            f"{len(loops):,}",
            f"{longest:.3f}",
            f"{about['scale']:.3g}",
        )
        lines.append(f"<tr><td>{text(modality)}</td>{''.join(f'<td>{text(c)}</td>' for c in cells)}</tr>")
    names = ("bars of", "computed on", "H0", "H1", "longest loop", "unit: .9-quantile of distances")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<table class="lk-num lk-bars"><tr>{head}</tr>{"".join(lines)}</table>'


def _story(content: Content, modality: str, number: int, bars: pd.DataFrame) -> str:
    """One bar in words, and the samples that show it."""
    bar = bars.iloc[number]
    dimension, keys = int(bar["dimension"]), list(bar["keys"])
    rank = int((bars["dimension"].iloc[:number] == dimension).sum()) + 1
    total = int((bars["dimension"] == dimension).sum())
    forever = np.isinf(bar["death"])
    life = "never dies" if forever else f"dies at {bar['death']:.3f}, length {bar['death'] - bar['birth']:.3f}"
    rows = content.index.get_indexer(keys)
    rows = rows[rows >= 0]
    more = f" The first {_SHOWN} are shown." if len(rows) > _SHOWN else ""
    head = (
        f"<b>{text(modality)}, H{dimension} {_CLASSES[dimension]} {rank} of {total}</b>: born at {bar['birth']:.3f}, "
        f"{life}. <b class='lk-members' data-n='{len(rows)}'>{len(rows):,} samples</b> show it: a representative, not "
        f"the only one.{more}"
    )
    return f'<div class="lk-bar">{head}</div>{entries(content, rows[:_SHOWN])}'
