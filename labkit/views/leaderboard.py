"""Leaderboard as a dot-and-interval plot (Cleveland 1984): position on a common scale reads better than bars."""

from __future__ import annotations

import holoviews as hv
import pandas as pd

from ._style import both, framed, kinds, words
from .colors import CHANCE, variant_colors

_NEEDED = ("variant", "value", "low", "high", "interval", "seeds", "n", "chance", "higher_is_better")


def leaderboard_plot(table: pd.DataFrame, *, metric: str = "value", direction: str = "") -> hv.Overlay:
    """One row per variant, best on top: mean, interval, and chance as a dashed line.

    Args:
        table: as from `labkit.stats.leaderboard`.
        metric: name of the metric, for the axis.
        direction: e.g. "image → text", for the title.

    Raises:
        ValueError: a column is missing or there are no rows.
    """
    missing = [c for c in _NEEDED if c not in table.columns]
    if missing or table.empty:
        raise ValueError(f"a leaderboard has rows and the columns {list(_NEEDED)}; lacking: {missing or 'rows'}")
    board = table.reset_index(drop=True)
    board["y"] = range(len(board), 0, -1)
    colors = variant_colors(board["variant"])
    board["color"] = board["variant"].map(colors)
    parts = [*_chance(board), _intervals(board), _dots(board)]
    better = "higher" if bool(board["higher_is_better"].iloc[0]) else "lower"
    axes: dict[str, object] = {
        "xlabel": f"{words(metric)} ({better} is better)",
        "ylabel": "",
        "yticks": list(zip(board["y"], board["variant"], strict=True)),
        "ylim": (0.4, len(board) + 0.6),
    }
    overlay = both(hv.Overlay(parts), bokeh=axes, mpl=axes)
    chance = "; dashed: chance" if parts[0].label == "chance" else ""
    over = _wrapped(kinds(board["interval"]))
    title = f"{words(metric)}{', ' if direction else ''}{direction}; n = {_span(board['n'])}{chance}\n{over}"
    return framed(overlay, title=title, size=(680, 130 + 34 * len(board)))


def _intervals(board: pd.DataFrame) -> hv.Segments:
    known = board.dropna(subset=["low", "high"])
    segments = hv.Segments(known, ["low", "y", "high", "y"], ["color"])
    return both(
        segments,
        bokeh={"color": "color", "line_width": 3, "alpha": 0.6},
        mpl={"color": "color", "linewidth": 3, "alpha": 0.6},
    )


def _dots(board: pd.DataFrame) -> hv.Points:
    points = hv.Points(board, ["value", "y"], ["variant", "low", "high", "interval", "seeds", "n", "color"])
    return both(points, bokeh={"color": "color", "size": 11, "tools": ["hover"]}, mpl={"color": "color", "s": 60})


def _chance(board: pd.DataFrame) -> list[hv.VLine]:
    if board["chance"].isna().all():
        return []
    line = hv.VLine(float(board["chance"].mean()), label="chance")
    return [
        both(
            line,
            bokeh={"color": CHANCE, "line_dash": "dashed", "line_width": 1.5},
            mpl={"color": CHANCE, "linestyle": "--", "linewidth": 1.5},
        )
    ]


def _span(values: pd.Series) -> str:
    return str(values.min()) if values.min() == values.max() else f"{values.min()}-{values.max()}"


def _wrapped(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
