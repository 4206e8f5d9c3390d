"""Critical-difference picture: mean ranks of many methods, and which of them cannot be told apart.

Demsar (JMLR 7, 2006, figure 1) hangs the names from a horizontal axis, which tangles beyond ten or so. Here every
method has a row, best on top, and a vertical bar joins the rows of methods that cannot be told apart, so thirty of them
still read.
"""

from __future__ import annotations

import holoviews as hv
import pandas as pd

from labkit.stats import RankComparison

from ._style import both, framed
from .colors import MISSING, variant_colors

_BAR = "#555555"
_SHOWN = 12  # bars side by side; more become a hatching that nobody reads


def critical_difference(comparison: RankComparison, *, title: str = "mean ranks") -> hv.Overlay:
    """One row per method at its mean rank; bars join what cannot be told apart.

    Under Nemenyi's test the gray line that starts at the best method is the critical difference: what lies within it
    cannot be told from the best.

    Args:
        comparison: as from `labkit.stats.rank_comparison`.
        title: what was ranked; a second line says how it was tested, on how many blocks.
    """
    table = comparison.ranks.rename("rank").rename_axis("method").reset_index()
    n = len(table)
    table["y"] = range(n, 0, -1)
    table["color"] = table["method"].map(variant_colors(table["method"]))
    place = dict(zip(table["method"], table["y"], strict=True))
    dots = hv.Points(table, ["rank", "y"], ["method", "color"])
    dots = both(dots, bokeh={"color": "color", "size": 9, "tools": ["hover"]}, mpl={"color": "color", "s": 45})
    first, step = n + 0.04 * n, 0.025 * n
    bars, left_out = _bars(comparison, place, first, step)
    reach = first + step * max(1, len(bars)) + 0.5 * step
    axes: dict[str, object] = {
        "xlabel": "mean rank (1 is best); bars join what cannot be told apart",
        "ylabel": "",
        "yticks": list(zip(table["y"], table["method"], strict=True)),
        "xticks": _ticks(n),
        "xlim": (0.6, reach),
        "ylim": (0.2, n + 1.2),
    }
    overlay = hv.Overlay(
        [_segments(_critical(comparison, n), MISSING, 4), _segments(bars, _BAR, 4), _stems(table), dots]
    )
    p = "p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.3f}"
    hidden = f"; {left_out} further bars are not drawn" if left_out else ""
    title = f"{title}; Friedman {p}{hidden}\n{comparison.kind}"
    return framed(both(overlay, bokeh=axes, mpl=axes), title=title, size=(680, 130 + 22 * n))


def _bars(comparison: RankComparison, place: dict[str, int], first: float, step: float) -> tuple[pd.DataFrame, int]:
    """One vertical bar per clique, the longest ones where there are too many, and the number left out."""
    cliques = sorted(comparison.cliques, key=len, reverse=True)[:_SHOWN]
    cliques.sort(key=lambda clique: -place[clique[0]])
    rows = [
        (first + i * step, place[clique[0]] + 0.25, first + i * step, place[clique[-1]] - 0.25)
        for i, clique in enumerate(cliques)
    ]
    return pd.DataFrame(rows, columns=["x0", "y0", "x1", "y1"], dtype=float), len(comparison.cliques) - len(cliques)


def _critical(comparison: RankComparison, n: int) -> pd.DataFrame:
    start = float(comparison.ranks.iloc[0])
    known = comparison.critical_difference == comparison.critical_difference
    rows = [(start, n + 0.7, start + comparison.critical_difference, n + 0.7)] if known else []
    return pd.DataFrame(rows, columns=["x0", "y0", "x1", "y1"], dtype=float)


def _stems(table: pd.DataFrame) -> hv.Segments:
    rows = pd.DataFrame({"x0": 1.0, "y0": table["y"], "x1": table["rank"], "y1": table["y"]})
    return _segments(rows, "#dddddd", 1)


def _segments(rows: pd.DataFrame, color: str, width: int) -> hv.Segments:
    drawn = hv.Segments(rows, ["x0", "y0", "x1", "y1"])
    return both(drawn, bokeh={"color": color, "line_width": width}, mpl={"color": color, "linewidth": width})


def _ticks(n: int) -> list[int]:
    return list(range(1, n + 1)) if n <= 12 else [1, *range(5, n + 1, 5)]
