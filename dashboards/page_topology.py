"""Page Topology: diagram, barcode and map of every modality; a click or a box selects the samples of bars.

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
from dashboards.better_map import grow
from dashboards.content import SPACES, Content
from dashboards.items import entries
from dashboards.map_set import MapSet
from dashboards.page import Page
from dashboards.parts import legend, notice, offer, text
from dashboards.session import Session
from labkit.views.manifolds import Coloring
from labkit.views.topology import COLORS, NAMES

_CLASSES = ("component", "loop", "void")
_SHOWN = 24  # samples of a bar with a picture
_LINES = 4  # bars that are told one by one
_UNIT = '<div class="lk-none">Births, deaths and lengths in units of the .9-quantile of all distances.</div>'
_MOST = 30  # bars that a box chooses
_NOTHING = (
    '<div class="lk-none">Click a dot of a diagram or a bar of a barcode, or drag a box around some: the samples that '
    "show them are selected on all pages.</div>"
)


class TopologyPage(Page):
    """The page."""

    title = "Topology"
    keep = ("space", "bars")
    parts = ("topology",)

    space = param.Selector(default="shared space", objects=list(SPACES), doc="Whose shape is shown.")
    bars = param.String(default="", doc="The chosen bars: modality, colon, numbers with dots between them.")

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
        chosen = pn.Card(self._chosen, title="The chosen bars", sizing_mode="stretch_width", margin=(5, 5))
        clear = pn.widgets.Button(label="Clear bars and selection", align="end")
        clear.on_click(lambda _: self._clear())
        controls = pn.FlexBox(self._space, self._step, clear, align_items="end")
        facts = pn.FlexBox(self._told, chosen, gap="14px", align_items="start", sizing_mode="stretch_width")
        self._chosen.styles = {"height": "150px", "overflow-y": "auto"}  # the drawings stay where they are
        self._told.styles, chosen.styles = grow(2, 500), grow(3, 540)
        self.view = pn.Column(controls, self._message, facts, self._rows, sizing_mode="stretch_width")

    def show(self) -> None:
        """Draw the bars at the step, and the maps beside them."""
        content, stored = self.content, self.content.run.steps("topology")
        step, problem = self._offer({step for found in stored.values() for step in found})
        mapped = frames.chosen(self.session, content) if content.run.has("projections") else None
        lacking = f"Maps not computed for this run: `labkit project {content.run.id}` does it."
        self._message.objects = [notice(t) for t in (problem, "" if mapped else lacking) if t]
        drawn = (content, step, mapped, self.session.painted)
        if drawn == self._drawn:
            return
        first, moved = not self._drawn, self._drawn[:2] != drawn[:2]
        self._drawn = drawn
        found = {m: content.run.topology(m, step) for m in content.modalities if step in stored.get(m, ())}
        self._bars = {m: bars for m, (bars, _) in found.items()}
        self.panes = {
            m: BarsPane(bars, title=f"{m} · {_called(step)}", on_bars=lambda chosen, m=m: self._pick(m, chosen))
            for m, bars in self._bars.items()
        }
        self.maps = self._maps(content, mapped)
        self._told.object = _facts({m: (bars, about) for m, (bars, about) in found.items()})
        self._rows.objects = [self._row(m) for m in self.panes]
        if moved and not first:
            self.bars = ""  # a number means another class at another step
        elif first and (known := self._known()) is not None:
            self._pick(*known)
        self._mark_bars()

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
        paint = maps.paint(content, frame, self.session.painted)
        return MapSet(content, frame, paint, on_area=self.session.selection.select, on_click=self._click)

    def _row(self, modality: str) -> pn.FlexBox:
        pane = self.panes[modality]
        views = [pane.diagram, pane.barcode, *([] if self.maps is None else [self.maps.panes[modality].view])]
        columns = [pn.Column(view, styles={"flex": "1 1 330px", "min-width": "0", "width": "auto"}) for view in views]
        return pn.FlexBox(*columns, gap="6px", sizing_mode="stretch_width")

    def _click(self, row: int) -> None:
        self.session.selection.focus = row

    def _pick(self, modality: str, found: list[int]) -> None:
        """A click or a box: the samples of the bars are selected everywhere."""
        chosen = found[:_MOST]
        self.bars = f"{modality}:{'.'.join(map(str, chosen))}"
        self.session.select_keys(key for bar in chosen for key in self._bars[modality]["keys"].iloc[bar])
        if len(found) > _MOST:
            self._chosen.object += f'<div class="lk-none">The longest {_MOST} of {len(found)} bars in the box.</div>'

    def _clear(self) -> None:
        self.bars = ""
        self.session.selection.clear()

    @param.depends("bars", watch=True)
    def _mark_bars(self) -> None:
        known = self._known()
        for name, pane in self.panes.items():
            pane.mark(known[1] if known is not None and name == known[0] else [])
        self._chosen.object = _NOTHING if known is None else _story(self.content, *known, self._bars[known[0]])

    def _known(self) -> tuple[str, list[int]] | None:
        """Modality and numbers of the chosen bars, None where there are no such bars."""
        modality, _, written = self.bars.rpartition(":")
        numbers = [int(n) for n in written.split(".") if n.isdecimal()]
        there = [n for n in numbers if modality in self._bars and n < len(self._bars[modality])]
        return (modality, there) if there else None


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
    names = ("bars of", "computed on", "H0", "H1", "longest loop", "unit")
    head = "".join(f"<th>{name}</th>" for name in names)
    colors = {NAMES[d]: COLORS[d] for d in (0, 1)}
    swatches = legend(Coloring("dimension", colors), "dimension", pd.Series(dtype=float))
    return f'<table class="lk-num lk-bars"><tr>{head}</tr>{"".join(lines)}</table>{swatches}{_UNIT}'


def _story(content: Content, modality: str, numbers: list[int], bars: pd.DataFrame) -> str:
    """Some bars in words, and the samples that show them."""
    keys = dict.fromkeys(key for number in numbers for key in bars["keys"].iloc[number])
    rows = content.index.get_indexer(list(keys))
    rows = rows[rows >= 0]
    told = [_life(bars, number) for number in numbers[:_LINES]]
    told += [f"and {len(numbers) - _LINES} more bars"] if len(numbers) > _LINES else []
    one = len(numbers) == 1
    more = f" The first {_SHOWN} are shown." if len(rows) > _SHOWN else ""
    head = (
        f"<b>{text(modality)}</b>: {'; '.join(told)}. <b class='lk-members' data-n='{len(rows)}'>{len(rows):,} samples"
        f"</b> show {'it: a representative, not the only one' if one else 'them: representatives, not the only ones'}."
        f"{more}"
    )
    return f'<div class="lk-bar">{head}</div>{entries(content, rows[:_SHOWN])}'


def _life(bars: pd.DataFrame, number: int) -> str:
    """One bar in words."""
    bar = bars.iloc[number]
    dimension = int(bar["dimension"])
    rank = int((bars["dimension"].iloc[:number] == dimension).sum()) + 1
    total = int((bars["dimension"] == dimension).sum())
    forever = np.isinf(bar["death"])
    life = "never dies" if forever else f"dies at {bar['death']:.3f}, length {bar['death'] - bar['birth']:.3f}"
    return f"<b>H{dimension} {_CLASSES[dimension]} {rank} of {total}</b>, born at {bar['birth']:.3f}, {life}"
