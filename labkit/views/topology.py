"""Persistence diagrams and barcodes of stored topology, one color and marker per dimension.

A bar far from the diagonal, or a long one, is shape; a short one is noise. Classes that never die are drawn to the
edge of the picture with a triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd

from ._style import both, framed
from .colors import MISSING

NAMES = {0: "H0 components", 1: "H1 loops", 2: "H2 voids"}
COLORS = {0: "#0a84d0", 1: "#d55e00", 2: "#009e73"}
_MARKERS = {0: ("circle", "o"), 1: ("square", "s"), 2: ("diamond", "d")}
_COLUMNS = ("dimension", "birth", "death", "keys")
_EDGE = 1.08  # of the largest finite death: where the edge is
MOST = 30


def persistence_diagram(table: pd.DataFrame, *, title: str = "persistence diagram") -> hv.Overlay:
    """Death against birth of every bar, above the diagonal.

    Args:
        table: as from `Run.topology`: dimension, birth, death and keys; each row that is drawn keeps its number in the
            table as "bar", for selections.
        title: what this is.

    Raises:
        ValueError: other columns, no bars, or dimensions above 2.
    """
    bars, edge = _drawn(table)
    line = both(
        hv.Curve(([0, edge], [0, edge]), "birth", "death"),
        bokeh={"color": MISSING, "line_width": 1, "show_legend": False},
        mpl={"color": MISSING, "linewidth": 1, "show_legend": False},
    )
    dots: list[Any] = [line]
    for dimension, rows in _by_dimension(bars[~bars["forever"]]):
        dots.append(_dots(rows, dimension))
    dots += _forever(bars, "birth", "death")
    span = (-0.03 * edge, 1.03 * edge)
    axes: dict[str, object] = {"xlabel": "birth", "ylabel": "death", "xlim": span, "ylim": span}
    overlay = both(hv.Overlay(dots), bokeh=axes, mpl=axes)
    return framed(overlay, title=f"{title}\n{_forever_note(bars)}", size=(460, 420), legend="bottom_right")


def barcode(table: pd.DataFrame, *, title: str = "barcode", most: int = MOST) -> hv.Overlay:
    """Bars from birth to death, by dimension, the longest on top.

    Args:
        table: see `persistence_diagram`.
        title: what this is.
        most: bars of each dimension that are drawn; the title says how many there are.

    Raises:
        ValueError: see `persistence_diagram`; or most < 1.
    """
    bars, edge = _placed(table, most)
    shown = bars.dropna(subset=["row"])
    drawn: list[Any] = []
    for dimension, rows in _by_dimension(shown):
        drawn.append(_lines(rows.assign(end=rows["row"]), dimension))
    drawn += _forever(shown, "death", "row")
    parts = [f"H{dimension}: {min(most, len(rows))} of {len(rows)}" for dimension, rows in _by_dimension(bars)]
    axes: dict[str, object] = {"xlabel": "scale", "ylabel": "bars", "yaxis": None, "xlim": (-0.02 * edge, 1.03 * edge)}
    overlay = both(hv.Overlay(drawn), bokeh=axes, mpl=axes)
    return framed(overlay, title=f"{title}\n{', '.join(parts)}", size=(620, 420), legend="right")


def bar_places(table: pd.DataFrame, *, most: int = MOST) -> pd.DataFrame:
    """Where the bars are in both drawings, so that a click finds its bar.

    Args:
        table: see `persistence_diagram`.
        most: see `barcode`.

    Returns:
        dimension, birth, death (of classes that never die the edge of the picture), length, samples, bar (number of
        the row in the table), forever, and row, the height in the barcode, NaN where the barcode leaves the bar out.

    Raises:
        ValueError: see `barcode`.
    """
    return _placed(table, most)[0]


def _placed(table: pd.DataFrame, most: int) -> tuple[pd.DataFrame, float]:
    if most < 1:
        raise ValueError(f"most must be at least 1; got {most}")
    bars, edge = _drawn(table)
    shown = bars.groupby("dimension").head(most)
    return bars.assign(row=pd.Series(np.arange(len(shown), 0, -1) - 2.0 * shown["dimension"], shown.index)), edge


def _drawn(table: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Bars in drawing order with their row, length and number of samples; those that never die end at the edge."""
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing or len(table) == 0:
        raise ValueError(f"topology has columns {list(_COLUMNS)} and at least one bar; got {list(table.columns)}")
    unknown = sorted(set(table["dimension"]) - set(NAMES))
    if unknown:
        raise ValueError(f"dimensions {unknown} are not drawn; known are {list(NAMES)}")
    forever = np.isinf(table["death"].to_numpy())
    finite = table["death"].to_numpy()[~forever]
    largest = max(float(finite.max(initial=0.0)), float(table["birth"].max()))
    edge = _EDGE * largest if largest > 0 else 1.0
    bars = pd.DataFrame(
        {
            "dimension": table["dimension"].to_numpy(),
            "birth": table["birth"].to_numpy(),
            "death": np.where(forever, edge, table["death"].to_numpy()),
            "length": (table["death"] - table["birth"]).to_numpy(),
            "samples": [len(keys) for keys in table["keys"]],
            "bar": np.arange(len(table)),
            "forever": forever,
        }
    )
    return bars.sort_values(["dimension", "length"], ascending=[True, False], kind="stable"), edge


def _by_dimension(bars: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    for dimension in NAMES:
        rows = bars[bars["dimension"] == dimension]
        if len(rows):
            yield dimension, rows


def _dots(rows: pd.DataFrame, dimension: int) -> hv.Scatter:
    dots = hv.Scatter(rows, "birth", ["death", "length", "samples", "bar"], label=NAMES[dimension])
    marker, mpl_marker = _MARKERS[dimension]
    color, size = COLORS[dimension], 7 if len(rows) < 100 else 5
    return both(
        dots,
        bokeh={"color": color, "size": size, "marker": marker, "alpha": 0.7, "tools": ["hover"]},
        mpl={"color": color, "s": size**2 / 1.6, "marker": mpl_marker, "alpha": 0.7},
    )


def _lines(rows: pd.DataFrame, dimension: int) -> hv.Segments:
    ends, facts = ["birth", "row", "death", "end"], ["bar", "length", "samples"]
    segments = hv.Segments(rows, ends, facts, label=NAMES[dimension])
    return both(
        segments,
        bokeh={"color": COLORS[dimension], "line_width": 2.5, "tools": ["hover"]},
        mpl={"color": COLORS[dimension], "linewidth": 1.8},
    )


def _forever(bars: pd.DataFrame, x: str, y: str) -> list[hv.Points]:
    """Triangles where classes that never die meet the edge."""
    triangles = []
    up = y == "death"
    for dimension, rows in _by_dimension(bars[bars["forever"]]):
        color = COLORS[dimension]
        triangles.append(
            both(
                hv.Points(rows, [x, y], ["bar", "samples"]),
                bokeh={"color": color, "size": 11, "marker": "triangle", "angle": 0 if up else -90, "tools": ["hover"],
                       "show_legend": False},
                mpl={"color": color, "s": 70, "marker": "^" if up else ">", "show_legend": False},
            )
        )  # fmt: skip
    return triangles


def _forever_note(bars: pd.DataFrame) -> str:
    count = int(bars["forever"].sum())
    return f"{len(bars)} bars" + (f"; triangle: never dies ({count})" if count else "")
