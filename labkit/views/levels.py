"""A metric along an axis of a study: pairs kept, modalities, a hyper-parameter, one line per method.

Levels stand at equal distances, in order: many axes are powers, some are words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import holoviews as hv
import pandas as pd

from labkit.stats import along, common_repeats, correlation, per_seed, seed_interval

from ._labels import place_labels
from ._style import both, framed, kinds, words
from .colors import variant_colors

_DASHES = (("solid", "-"), ("dashed", "--"), ("dotdash", "-."), ("dotted", ":"))
_FRAME = (620, 420)
_MARKERS = (("circle", "o"), ("square", "s"), ("triangle", "^"), ("diamond", "D"), ("inverted_triangle", "v"))


def level_curves(
    scores: pd.DataFrame,
    *,
    axis: str,
    metric: str = "recall_at_10",
    by: str = "",
    directions: Sequence[tuple[str, str]] | None = None,
    where: Mapping[str, object] | None = None,
    descending: bool = False,
) -> hv.Overlay:
    """Mean over seeds at every level, one line per method; bars are intervals over seeds.

    Args:
        scores: of a study, with the column `axis`.
        axis: column of the levels.
        metric: name of the metric.
        by: column that tells the methods apart; by default the cells that vary the axis, less the axis
            (`labkit.stats.along`).
        directions: (source, target) pairs that are averaged; all by default.
        where: see `labkit.stats.per_seed`.
        descending: largest level first.

    Raises:
        ValueError: see `labkit.stats.per_seed`.
    """
    table = level_table(scores, axis=axis, metric=metric, by=by, directions=directions, where=where)
    over = kinds(table["interval"])
    title = f"{words(metric)} along {words(axis.rpartition('.')[2])}; n = {table['n'].min()}\n{over}"
    return framed(_overlay(table, axis, metric, descending), title=title, size=(760, 380), legend="right")


def level_panels(scores: pd.DataFrame, axes: Sequence[str], *, metric: str = "recall_at_10") -> hv.Layout:
    """A small drawing like `level_curves` for each axis, all to one scale.

    Args:
        scores: of a study, with the columns `axes`.
        axes: columns of the levels, each varied by some cells.
        metric: name of the metric.

    Raises:
        ValueError: no axis, or see `labkit.stats.per_seed`.
    """
    if not axes:
        raise ValueError(f"no axis to draw; columns are {', '.join(map(str, scores.columns))}")
    tables = [level_table(scores, axis=axis, metric=metric) for axis in axes]
    low, high = (min(t["low"].min() for t in tables), max(t["high"].max() for t in tables))
    reach = (low - 0.35 * (high - low), high + 0.04 * (high - low))  # room for the legend
    panels = []
    for axis, table in zip(axes, tables, strict=True):
        drawn = both(_overlay(table, axis, metric, False), bokeh={"ylim": reach}, mpl={"ylim": reach})
        panels.append(
            framed(drawn, title="\n".join(dict.fromkeys(table["interval"])), size=(400, 280), legend="bottom_left")
        )
    return both(
        hv.Layout(panels).cols(2),
        bokeh={"shared_axes": False},
        mpl={"sublabel_format": "", "hspace": 0.35, "vspace": 0.4},
    )


def _overlay(table: pd.DataFrame, axis: str, metric: str, descending: bool) -> hv.Overlay:
    levels = sorted(table["level"].unique(), key=_order, reverse=descending)
    table = table.assign(x=table["level"].map({level: i for i, level in enumerate(levels)}))
    names = list(dict.fromkeys(table["method"]))
    parts = []
    for i, (name, color, dash) in enumerate(_looks(names)):
        rows = table[table["method"] == name].sort_values("x")
        # beside each other, or the bars of one method hide those of the next
        rows = rows.assign(x=rows["x"] + 0.3 * (i / max(1, len(names) - 1) - 0.5) * (len(names) > 1))
        parts += _line(rows, name, color, dash, _MARKERS[i % len(_MARKERS)])
    axes: dict[str, object] = {
        "xlabel": words(axis.rpartition(".")[2]),
        "ylabel": words(metric),
        "xticks": [(i, _word(level)) for i, level in enumerate(levels)],
        "xlim": (-0.4, len(levels) - 0.6),
        "xrotation": 20 if sum(len(_word(level)) for level in levels) > 30 else 0,
    }
    return both(hv.Overlay(parts), bokeh=axes, mpl=axes)


def _looks(names: Sequence[str]) -> list[tuple[str, str, tuple[str, str]]]:
    """Name, color and dash: the color is the variant's, "clip" and "clip, depth=3" differ by their dashes."""
    bases, rests = zip(*(name.partition(", ")[::2] for name in names), strict=True)
    colors, order = variant_colors(bases), list(dict.fromkeys(rests))
    return [
        (name, colors[base], _DASHES[order.index(rest) % len(_DASHES)])
        for name, base, rest in zip(names, bases, rests, strict=True)
    ]


def level_table(
    scores: pd.DataFrame,
    *,
    axis: str,
    metric: str,
    by: str = "",
    directions: Sequence[tuple[str, str]] | None = None,
    where: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """method, level, value, low, high, interval, seeds, n: the numbers of `level_curves`; arguments are the same."""
    known = scores if by else along(scores, axis)
    values = per_seed(known, metric=metric, by=[by or "method", axis], where=where, directions=directions)
    rows = []
    for (method, level), column in values.items():
        interval = seed_interval(column.to_numpy())
        about = {"low": interval.low, "high": interval.high, "interval": interval.kind, "seeds": interval.n_groups}
        rows.append({"method": str(method), "level": level, "value": interval.value, **about, "n": values.attrs["n"]})
    return pd.DataFrame(rows).dropna(subset=["value"])


def association_plot(x: pd.DataFrame, y: pd.DataFrame, *, xlabel: str, ylabel: str) -> hv.Overlay:
    """One dot per method, means over seeds; the title states rank correlation, interval and p.

    Args:
        x: one row per seed and one column per method, as from `labkit.stats.per_seed`.
        y: the same for the other metric.
        xlabel: what x is.
        ylabel: what y is.

    Raises:
        ValueError: see `labkit.stats.correlation`.
    """
    found = correlation(x, y)
    x, y = common_repeats(x, y)
    names = [str(c) for c in x.columns]
    table = pd.DataFrame({"x": x.mean().to_numpy(), "y": y.mean().to_numpy(), "method": names})
    table["color"] = table["method"].map(variant_colors(table["method"]))
    dots = hv.Points(table, ["x", "y"], ["method", "color"])
    dots = both(dots, bokeh={"color": "color", "size": 9, "tools": ["hover"]}, mpl={"color": "color", "s": 45})
    placed = place_labels(table["x"].to_numpy(), table["y"].to_numpy(), table["method"].tolist(), frame=_FRAME)
    named = [
        both(
            hv.Labels(placed[placed["side"] == side], ["x", "y"], "label"),
            bokeh={"text_font_size": "8pt", "text_color": "#777777", "text_align": side},
            mpl={"size": 8, "color": "#444444", "horizontalalignment": side},
        )
        for side in placed["side"].unique()
    ]
    axes: dict[str, object] = {"xlabel": xlabel, "ylabel": ylabel, "padding": 0.12}
    value = f"rho = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}], p = {found.p:.3f}"
    left = len(table) - len(placed)
    title = f"{value}\n{found.kind}" + (f"; {left} in the crowd without a name" if left else "")
    return framed(both(hv.Overlay([dots, *named]), bokeh=axes, mpl=axes), title=title, size=_FRAME)


def _line(
    rows: pd.DataFrame, name: str, color: str, dash: tuple[str, str], marker: tuple[str, str]
) -> list[hv.Element]:
    known = rows.dropna(subset=["low", "high"])
    bars = hv.Segments(known, ["x", "low", "x", "high"])
    line = hv.Curve(rows, "x", "value", label=name)
    dots = hv.Scatter(rows, "x", ["value", "level", "seeds", "n"])
    return [
        both(
            bars,
            bokeh={"color": color, "line_width": 2, "alpha": 0.5},
            mpl={"color": color, "linewidth": 2, "alpha": 0.5},
        ),
        both(
            line,
            bokeh={"color": color, "line_width": 2, "line_dash": dash[0]},
            mpl={"color": color, "linewidth": 2, "linestyle": dash[1]},
        ),
        both(
            dots,
            bokeh={"color": color, "size": 8, "marker": marker[0], "tools": ["hover"]},
            mpl={"color": color, "s": 34, "marker": marker[1]},
        ),
    ]


def _order(level: object) -> tuple[bool, float, int, str]:
    """Numbers by size, words by the number of their parts (`image+text`), then by name."""
    number = isinstance(level, Real)  # NumPy's integers are no int
    return not number, float(level) if number else 0.0, str(level).count("+"), str(level)  # type: ignore[arg-type]


def _word(level: object) -> str:
    return f"{float(level):g}" if isinstance(level, Real) else str(level)
