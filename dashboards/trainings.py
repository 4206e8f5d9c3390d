"""Training curves of some methods, a line per seed, and the choice of what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import panel as pn
import param

from dashboards.drawings import drawing
from dashboards.parts import notice, offer
from labkit import views

_NO_MEASURES = ("step", "epoch")


class TrainingCurves(param.Parameterized):
    """A select of what was logged, and the drawing.

    Attributes:
        view: select and drawing.
    """

    measure = param.String(default="validation", doc="Column of the logs that is drawn.")

    def __init__(self) -> None:
        super().__init__()
        self._logs: dict[str, list[pd.DataFrame]] = {}
        self._colors: dict[str, str] = {}
        self._own = False
        self._select = pn.widgets.Select(label="Measure of the training", width=220)
        self._select.param.watch(lambda event: self._chosen(event.new), "value")
        self._drawing = pn.Column(sizing_mode="stretch_width")
        self.view = pn.Column(self._select, self._drawing, sizing_mode="stretch_width")

    def show(self, logs: Mapping[str, Sequence[pd.DataFrame]], colors: Mapping[str, str]) -> None:
        """Draw the trainings of some methods.

        Args:
            logs: method -> logs of its runs, see `Comparison.histories`.
            colors: method -> color.
        """
        self._logs, self._colors = {name: list(found) for name, found in logs.items()}, dict(colors)
        measures = dict.fromkeys(c for found in self._logs.values() for log in found for c in _measures(log))
        self._own = True
        try:
            offer(self._select, measures, first="validation")
            if self.measure in measures:
                self._select.value = self.measure
        finally:
            self._own = False
        self._select.visible = bool(measures)
        self._draw()

    def clear(self) -> None:
        """Draw nothing."""
        self.show({}, {})

    def _chosen(self, measure: str | None) -> None:
        if not self._own and measure is not None:
            self.measure = measure

    @param.depends("measure", watch=True)
    def _draw(self) -> None:
        if self.measure in self._select.options.values():
            self._select.value = self.measure
        silent = [name for name, found in self._logs.items() if not found]
        told = [notice(f"Not trained step by step, so without a curve: {', '.join(silent)}.")] if silent else []
        drawn: list[Any] = []
        if self._select.value is not None:
            curves = views.trainings(self._logs, measure=str(self._select.value), colors=self._colors)
            drawn = [drawing(curves)]
        self._drawing.objects = [*drawn, *told]


def _measures(log: pd.DataFrame) -> Iterable[str]:
    return (str(c) for c in log.select_dtypes("number") if c not in _NO_MEASURES)
