"""Effects with their intervals against zero: differences of an ablation, verdicts of claims.

A row per effect, as in a forest plot (Lewis & Clarke, BMJ 322, 2001). Effects in other units never share an axis.
"""

from __future__ import annotations

from textwrap import shorten

import holoviews as hv
import pandas as pd

from ._style import both, framed
from .colors import MISSING

VERDICT = {"holds": "#009e73", "does not hold": "#d55e00", "undecided": "#0a84d0", "not tested": MISSING}
_SHADE = "#ececec"


def effect_plot(
    table: pd.DataFrame,
    *,
    title: str,
    xlabel: str,
    name: str = "level",
    value: str = "difference",
    color: str = "#0a84d0",
) -> hv.Overlay:
    """One row per effect: dot, interval, and a line at no effect.

    Args:
        table: with columns `name`, `value`, low and high, first row on top; a column "color" overrides `color`, and a
            column "margin" shades what is smaller than the smallest effect that matters.
        title: what this is; the second line is what the column "kind" says of the intervals, where there is one.
        xlabel: the effect and its unit.
        name: column of the rows' names.
        value: column of the effects.
        color: of all rows.

    Raises:
        ValueError: a column is missing or there are no rows.
    """
    missing = [c for c in (name, value, "low", "high") if c not in table.columns]
    if missing or table.empty:
        raise ValueError(f"effects have rows and the columns {name}, {value}, low, high; lacking: {missing or 'rows'}")
    rows = pd.DataFrame(
        {
            "row": [f"{v:g}" if isinstance(v, float) else str(v) for v in table[name]],
            "effect": table[value].to_numpy(dtype=float),
            "low": table["low"].to_numpy(dtype=float), "high": table["high"].to_numpy(dtype=float),
            "y": range(len(table), 0, -1), "color": table["color"].to_numpy() if "color" in table else color,
        }
    )  # fmt: skip
    zero = both(hv.VLine(0.0), bokeh={"color": "#555555", "line_width": 1}, mpl={"color": "#555555", "linewidth": 1})
    axes: dict[str, object] = {
        "xlabel": xlabel,
        "ylabel": "",
        "yticks": list(zip(rows["y"], rows["row"], strict=True)),
        "ylim": (0.4, len(rows) + 0.6),
    }
    if "kind" in table:
        title += "\n" + shorten(" | ".join(dict.fromkeys(table["kind"])), 92, placeholder=" ...")
    parts = [*_margins(table, rows), zero, _intervals(rows), _dots(rows)]
    return framed(both(hv.Overlay(parts), bokeh=axes, mpl=axes), title=title, size=(720, 120 + 26 * len(rows)))


def verdict_plot(table: pd.DataFrame, *, correlations: bool = False) -> hv.Overlay:
    """Effects of the tested claims, colored by verdict; the shaded strip is smaller than what would matter.

    Args:
        table: as from `labkit.claims.evaluate`.
        correlations: those claims that say that two metrics go together; by default the others, whose effects are
            differences of a metric (slopes are per step of their axis).

    Raises:
        ValueError: no such claim is tested.
    """
    rows = table[(table["verdict"] != "not tested") & (table["methods"].notna() == correlations)]
    if rows.empty:
        raise ValueError("no such claim is tested yet: run the studies, see `labkit claims`")
    names = rows["id"] + " (" + rows["expect"] + ")"
    rows = rows.assign(color=rows["verdict"].map(VERDICT), name=names)
    counts = ", ".join(f"{n} {v}" for v, n in rows["verdict"].value_counts().items())
    # what a training costs is one number per run, not one per sample
    samples = rows.loc[rows["n"] > 1, "n"]
    title = f"{counts}; n = {samples.min():.0f} samples or more" if len(samples) else counts
    xlabel = "rank correlation over methods" if correlations else "difference of the metric"
    return effect_plot(rows, title=title, xlabel=xlabel, name="name", value="effect")


def _margins(table: pd.DataFrame, rows: pd.DataFrame) -> list[hv.Rectangles]:
    if "margin" not in table:
        return []
    margin = table["margin"].to_numpy(dtype=float)
    boxes = pd.DataFrame({"x0": -margin, "y0": rows["y"] - 0.4, "x1": margin, "y1": rows["y"] + 0.4})
    drawn = hv.Rectangles(boxes, ["x0", "y0", "x1", "y1"])
    return [both(drawn, bokeh={"color": _SHADE, "line_width": 0}, mpl={"color": _SHADE, "linewidth": 0})]


def _intervals(rows: pd.DataFrame) -> hv.Segments:
    known = rows.dropna(subset=["low", "high"])
    segments = hv.Segments(known, ["low", "y", "high", "y"], ["color"])
    return both(
        segments,
        bokeh={"color": "color", "line_width": 3, "alpha": 0.6},
        mpl={"color": "color", "linewidth": 3, "alpha": 0.6},
    )


def _dots(rows: pd.DataFrame) -> hv.Points:
    points = hv.Points(rows, ["effect", "y"], ["row", "low", "high", "color"])
    return both(points, bokeh={"color": "color", "size": 10, "tools": ["hover"]}, mpl={"color": "color", "s": 50})
