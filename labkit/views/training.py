"""Trainings beside each other: one measure of the log against the optimizer step.

A line per run, a color per method, so that the spread over seeds is seen and not summed up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import holoviews as hv
import numpy as np
import pandas as pd

from ._style import both, framed, words


def trainings(
    histories: Mapping[str, Sequence[pd.DataFrame]], *, measure: str = "validation", colors: Mapping[str, str]
) -> hv.Overlay:
    """The same measure of several trainings; whoever did not log it is left out.

    Args:
        histories: method -> logs of its runs, each as from `Run.history`.
        measure: column of the logs, e.g. a loss term.
        colors: method -> color.

    Raises:
        ValueError: nobody logged the measure.
    """
    lines = []
    for method, logs in histories.items():
        known = [log[["step", measure]].dropna() for log in logs if measure in log and log[measure].notna().any()]
        if not known:
            continue
        gap = pd.DataFrame({"step": [np.nan], measure: [np.nan]})  # one element per method is drawn much faster
        rows = pd.concat([part for log in known for part in (log, gap)][:-1], ignore_index=True)
        color, name = colors[method], f"{method} ({len(known)} run{'s' * (len(known) > 1)})"
        line = hv.Curve(rows, "step", measure, label=name)
        bokeh = {"color": color, "line_width": 2, "alpha": 0.8, "tools": ["hover"]}
        lines.append(both(line, bokeh=bokeh, mpl={"color": color, "linewidth": 1.6, "alpha": 0.8}))
    if not lines:
        raise ValueError(f"no log has {measure!r}")
    what = words(measure)
    axes: dict[str, object] = {"xlabel": "optimizer step", "ylabel": what}
    overlay = both(hv.Overlay(lines), bokeh=axes, mpl=axes)
    return framed(overlay, title=f"{what} during the training, a line per seed", size=(620, 320), legend="bottom_right")
