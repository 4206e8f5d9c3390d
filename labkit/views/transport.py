"""Drawings of transport: a plan as lines between two clouds, clouds over each other, a figure against the size.

Arrays may be whatever numpy understands, tensors on the CPU too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd

from ._style import both, framed
from .colors import category_colors

SOURCE, TARGET, LINE = "#0a84d0", "#e69f00", "#777777"
# of each point; more make a blot
DRAWS = 2


def plan_lines(x: np.ndarray, y: np.ndarray, plan: np.ndarray, *, title: str, seed: int = 0) -> hv.Overlay:
    """Two clouds in the plane, and for each source point DRAWS targets drawn with the probabilities of its plan row.

    Draws show a spread plan as spread; the heaviest entries alone would look like a matching.

    Args:
        x: `[n, 2]`, source points.
        y: `[m, 2]`, target points.
        plan: `[n, m]`, non-negative.
        title: What this is.
        seed: Of the draws.
    """
    x, y, plan = np.asarray(x), np.asarray(y), np.asarray(plan)
    random = np.random.default_rng(seed)
    share = plan / plan.sum(axis=1, keepdims=True)
    target = (share.cumsum(axis=1)[:, None] < random.random((len(x), DRAWS))[..., None]).sum(axis=2)
    start, end = np.repeat(x, DRAWS, axis=0), y[np.minimum(target, len(y) - 1).ravel()]
    lines = hv.Segments((start[:, 0], start[:, 1], end[:, 0], end[:, 1]))
    lines = both(
        lines,
        bokeh={"color": LINE, "alpha": 0.5, "line_width": 0.7},
        mpl={"color": LINE, "alpha": 0.5, "linewidth": 0.7},
    )
    return _plane(hv.Overlay([lines, _dots(x, "source", SOURCE), _dots(y, "target", TARGET)]), title, legend=None)


def clouds(named: Mapping[str, np.ndarray], *, title: str) -> hv.Overlay:
    """Clouds in the plane, one color each, the first ones below.

    Args:
        named: `[n, 2]` for each name.
        title: What this is.
    """
    colors = {"source": SOURCE, "target": TARGET, **category_colors(set(named) - {"source", "target"})}
    return _plane(hv.Overlay([_dots(z, name, colors[name]) for name, z in named.items()]), title, legend="bottom")


def against_size(
    rows: Sequence[Mapping[str, float]], columns: Mapping[str, str], *, title: str, ylabel: str
) -> hv.Overlay:
    """Figures against the size n; every row is a dot, the line is their mean.

    Args:
        rows: "n" and figures by name, one row for each size and seed; a figure may be absent from some.
        columns: {figure: what the legend calls it}.
        title: What this is.
        ylabel: What is counted, and in which direction it is better.
    """
    table, colors = pd.DataFrame(list(rows)), category_colors(columns.values())
    drawn: list[Any] = []
    for column, name in columns.items():
        figures = table[["n", column]].dropna().rename(columns={column: "figure"})
        mean = figures.groupby("n", as_index=False).mean()
        line, dots = hv.Curve(mean, "n", "figure", label=name), hv.Scatter(figures, "n", "figure")
        drawn.append(both(line, bokeh={"color": colors[name]}, mpl={"color": colors[name]}))
        drawn.append(both(dots, bokeh={"color": colors[name], "size": 6}, mpl={"color": colors[name], "s": 22}))
    axes = {"xticks": sorted(table["n"].unique()), "ylim": (0, None), "xlabel": "points", "ylabel": ylabel}
    return framed(both(hv.Overlay(drawn), bokeh=axes, mpl=axes), title=title, size=(520, 320), legend="right")


def _dots(points: np.ndarray, name: str, color: str) -> hv.Points:
    dots = hv.Points(np.asarray(points), label=name)
    return both(dots, bokeh={"color": color, "size": 5}, mpl={"color": color, "s": 12})


def _plane(overlay: hv.Overlay, title: str, legend: str | None) -> hv.Overlay:
    plain: dict[str, Any] = {"xaxis": None, "yaxis": None, "show_legend": legend is not None}
    overlay = both(overlay, bokeh={**plain, "data_aspect": 1}, mpl=plain)
    overlay = framed(overlay, title=title, size=(260 if legend is None else 320, 260), legend=legend)
    return overlay.opts(aspect="equal", backend="matplotlib")  # a length is the same in both directions
