"""Pictures of robustness: small curves of a family of corruptions, one overview of all, and where samples first fail.

    levels = stats.curve_levels(stats.seed_curves(scores, metric="recall_at_10"))
    views.robustness_panels(levels, metric="recall_at_10", family="noise")

The overview is a table in colors, not a radar: the area of a radar depends on the order of its axes, and neither its
values nor their intervals can be read (Few, Information Dashboard Design, 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import holoviews as hv
import numpy as np
import pandas as pd

from labkit.stats import over_all, summarize_numbers

from ._style import both, framed, kinds, words
from .curves import curve_overlay

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "motion_blur"),
        "digital": ("pixelate", "jpeg", "contrast", "brightness"),
        "geometry": ("occlusion", "rotation"),
        "text": (
            "character_drop", "word_drop", "character_swap", "keyboard_typos", "word_mask", "word_shuffle",
        ),
        "audio": (
            "white_noise", "pink_noise", "reverberation", "band_limit", "clipping", "time_masking", "speed", "gain",
        ),
        "features": ("feature_noise", "feature_masking"),
        "missing": ("missing_modality", "missing_by_label"),
        "adversarial": ("fgsm", "pgd", "apgd", "random"),
    }
)  # fmt: skip
OTHER = "other"
_DAMAGE = "YlOrRd"
_COLUMNS = 3
_NUMBER = {
    "kept": "share of the clean {metric} above chance that is left",
    "area": "share of the clean {metric} that is left",
}
_LEVELS = ("corruption", "corrupted", "method", "severity", "value", "low", "high", "interval", "seeds", "n")
_CLEAN, _NEVER = "#7b6fb0", "#009e73"
_FIRST = ("#7f0000", "#c0392b", "#e67e22", "#f4b942", "#f9e29c")  # the earlier, the darker


def family_of(corruption: str) -> str:
    """The family of a corruption, whatever stands in for lost items, or of an attack; "other" where there is none."""
    name = corruption.partition("+")[0]
    attack = corruption.partition("_")[0]  # and its norm
    return next((family for family, names in FAMILIES.items() if name in names or attack in names), OTHER)


def robustness_panels(levels: pd.DataFrame, *, metric: str, family: str = "") -> hv.Layout:
    """A small drawing of the metric against severity for each corruption and modality, all to one scale.

    Args:
        levels: as from `labkit.stats.curve_levels` or `levels_over_samples`; with the columns radius and unit, as from
            `labkit.attacks.with_budgets`, the axis has the budgets of attacks in place of severities.
        metric: name of the metric, for the axis.
        family: only the corruptions of one of `FAMILIES`, or "other".

    Raises:
        ValueError: a column is missing, or nothing is of that family.
    """
    _check(levels, _LEVELS)
    levels = levels if "chance" in levels else levels.assign(chance=np.nan)
    rows = levels[[family in ("", family_of(name)) for name in levels["corruption"]]]
    if rows.empty:
        there = ", ".join(dict.fromkeys(map(family_of, levels["corruption"])))
        raise ValueError(f"no corruption of the family {family!r}; there are corruptions of {there}")
    cells = panel_order(rows)
    rows = rows.rename(columns={"method": "variant"})
    order, reach = _by_clean_value(rows), _reach(rows)
    panels, beside = [], min(_COLUMNS, len(cells)) - 1  # the end of the first row
    for i, (corruption, corrupted) in enumerate(cells):
        here = rows[(rows["corruption"] == corruption) & (rows["corrupted"] == corrupted)]
        axes: dict[str, object] = {**_severities(here), "ylabel": "" if i % _COLUMNS else words(metric), "ylim": reach}
        drawn = both(curve_overlay(here, order), bokeh=axes, mpl=axes)
        name = f"{words(corruption)} of {words(corrupted)}"
        panels.append(_panel(drawn, name, order, place=i, beside=beside))
    against = "budget" if "radius" in rows else "severity"
    title = f"{words(metric)} against {against}; n = {_span(rows['n'])}\nband: {kinds(rows['interval'])}"
    return both(
        hv.Layout(panels).cols(_COLUMNS),
        bokeh={"shared_axes": False, "title": title},
        mpl={"sublabel_format": "", "hspace": 0.3, "vspace": 0.3, "title": title, "fontsize": {"title": 12}},
    )


def panel_order(levels: pd.DataFrame) -> list[tuple[str, str]]:
    """Corruption and modality of each panel of `robustness_panels`: families in their order, then names.

    Args:
        levels: the rows that are drawn.
    """
    return sorted(levels.groupby(["corruption", "corrupted"]).groups, key=lambda cell: _place(*cell))


def severity_curves(levels: pd.DataFrame, *, metric: str) -> hv.Overlay:
    """The metric against the severity of one corruption of one modality, a line and a band per method.

    Args:
        levels: of one corruption and modality, as from `labkit.stats.curve_levels`.
        metric: name of the metric, for the axis.

    Raises:
        ValueError: a column is missing, there are no rows, or they are of several corruptions.
    """
    _check(levels, (*_LEVELS, "chance"))
    cells = panel_order(levels)
    if len(cells) > 1:
        raise ValueError(f"curves of one corruption of one modality are drawn; got {len(cells)}: use robustness_panels")
    rows = levels.rename(columns={"method": "variant"})
    axes: dict[str, object] = {**_severities(rows), "ylabel": words(metric), "ylim": _reach(rows)}
    axes["xlabel"] = "severity (0 = clean)"
    drawn = both(curve_overlay(rows, _by_clean_value(rows)), bokeh=axes, mpl=axes)
    what = f"{words(metric)} under {words(cells[0][0])} of {words(cells[0][1])}"
    title = f"{what}; n = {_span(rows['n'])}\nband: {kinds(rows['interval'])}"
    return framed(drawn, title=title, size=(760, 420), legend="right")


def robustness_overview(
    numbers: pd.DataFrame, *, metric: str, number: str = "kept", test_share: float = 0.0
) -> hv.Overlay:
    """Every method (columns, best first) under every corruption (rows, by family): the number and half its interval.

    Pale cells lose nothing, dark ones all. The first row is the mean over all corruptions and modalities that are
    shown; methods are in its order.

    Args:
        numbers: one row per corruption, corrupted, method and seed, as from `labkit.stats.curve_numbers`.
        metric: name of the metric, for the title.
        number: "kept" or "area".
        test_share: see `labkit.stats.corrected_t_test`.

    Raises:
        ValueError: another number, a column is missing, or there are no rows.
    """
    if number not in _NUMBER:
        raise ValueError(f"the overview shows shares, {' or '.join(_NUMBER)}; got {number!r}")
    _check(numbers, ("corruption", "corrupted", "method", "seed", number))
    cell = ["corruption", "corrupted", "method", "seed"]
    shown = numbers[[*cell, number]]
    whole = pd.concat([over_all(shown), shown], ignore_index=True)
    table = summarize_numbers(whole, test_share=test_share)
    means = table[table["corruption"] == ""].set_index("method")["value"]
    methods = list(means.sort_values(ascending=False, na_position="last").index)
    cells = sorted(table.groupby(["corruption", "corrupted"]).groups, key=lambda c: (c[0] != "", *_place(*c)))
    names = {cell: f"{words(cell[0])} of {words(cell[1])}" if cell[0] else "mean of all" for cell in cells}
    steps = [0.0, *(1.0 if family_of(a) == family_of(b) else 1.3 for (a, _), (b, _) in pairwise(cells))]
    places = dict(zip(cells, -np.cumsum(steps), strict=True))
    of_rows = list(zip(table["corruption"], table["corrupted"], strict=True))
    table = table.assign(
        column=[methods.index(m) for m in table["method"]],
        y=[places[c] for c in of_rows],
        what=[names[c] for c in of_rows],
        damage=1 - table["value"].clip(0, 1),
        text=[_cell(*v) for v in table[["value", "low", "high"]].itertuples(index=False)],
    )
    what = kinds(k for k in table["interval"] if not k.startswith("none")) or "no interval: one seed"
    head = _NUMBER[number].format(metric=words(metric))
    title = f"{head}, mean over severities\npale: nothing lost; ±: half of {what}"
    return _heat_map(table, columns=methods, rows=list(names.values()), title=title)


def failure_histogram(shares: pd.DataFrame, *, title: str = "") -> hv.Overlay:
    """Stacked bars, one per method: which share of the samples first fails at which severity.

    Args:
        shares: method, first and share, as from `labkit.stats.failure_shares`; several corruptions or modalities are
            averaged, so choose the rows of one to see it alone.
        title: what was corrupted; by default the corruptions and modalities of the table.

    Raises:
        ValueError: a column is missing, or there are no rows.
    """
    _check(shares, ("corruption", "corrupted", "method", "first", "share", "n", "seeds"))
    table = shares.groupby(["method", "first"])["share"].mean().unstack("first", fill_value=0.0)
    table = table / table.sum(axis=1).to_numpy()[:, None]
    first = sorted(table.columns)
    table = table[first].sort_values(first[-1], kind="stable")
    ends = table.cumsum(axis=1)
    colors = _first_colors(first)
    bars = []
    for i, severity in enumerate(first):
        start = ends.iloc[:, i - 1].to_numpy() if i else np.zeros(len(ends))
        boxes = pd.DataFrame({"x0": start, "x1": ends.iloc[:, i].to_numpy(), "share": table.iloc[:, i].to_numpy()})
        bars.append(_bar(boxes, _first_word(severity), colors[severity], list(table.index)))
    what = title or _conditions(shares)
    heading = (
        f"Severity at which a sample first fails: {what}\n{_span(shares['seeds'])} seeds, n = {_span(shares['n'])}"
    )
    axes: dict[str, object] = {
        "xlabel": "share of the samples",
        "ylabel": "",
        "xlim": (0, 1),
        "ylim": (-0.6, len(table) - 0.4),
        "yticks": list(enumerate(map(str, table.index))),
    }
    return framed(
        both(hv.Overlay(bars), bokeh=axes, mpl=axes),
        title=heading,
        size=(760, max(290, 130 + 34 * len(table))),
        legend="right",
    )


def _panel(drawn: hv.Overlay, title: str, names: Sequence[str], *, place: int, beside: int) -> hv.Overlay:
    """The panel at a place; the one at `beside` has the legend at its side, for which bokeh needs room.

    All panels of its column get that room: bokeh aligns their axes.
    """
    label = 7 * max(map(len, [*names, "chance"]))
    small = {"label_width": label, "label_height": 14, "glyph_height": 14, "spacing": 1, "padding": 4, "margin": 4}
    shown: dict[str, object] = {"show_legend": place == beside}
    room = {
        "width": 300 + (label + 45) * (place % _COLUMNS == beside),
        "legend_opts": small if place == beside else {},
    }
    return both(framed(drawn, title=title, size=(300, 240), legend="right"), bokeh={**room, **shown}, mpl=shown)


def _severities(rows: pd.DataFrame) -> dict[str, object]:
    """The horizontal axis: severities, or the budgets that they stand for."""
    first, last = float(rows["severity"].min()), float(rows["severity"].max())
    margin = 0.04 * (last - first or 1)
    limits = {"xlim": (first - margin, last + margin)}
    if "radius" not in rows:
        return {"xlabel": "severity", "xticks": sorted(rows["severity"].unique()), **limits}
    budgets = rows.drop_duplicates("severity").sort_values("severity")
    ticks = [(severity, f"{radius:g}") for severity, radius in budgets[["severity", "radius"]].itertuples(index=False)]
    return {"xlabel": f"budget ({budgets['unit'].iloc[0]})", "xticks": ticks, **limits}


def _reach(rows: pd.DataFrame) -> tuple[float, float]:
    low, high = rows[["low", "value", "chance"]].min().min(), rows[["high", "value", "chance"]].max().max()
    margin = 0.04 * (high - low)
    # an interval may reach below zero where no value can be
    return max(low - margin, 0.0) if rows["value"].min() >= 0 else low - margin, high + margin


def _heat_map(table: pd.DataFrame, *, columns: Sequence[str], rows: Sequence[str], title: str) -> hv.Overlay:
    """Cells at `column` and `y` (downwards from 0), colored by damage, with their text."""
    told = ["damage", "value", "low", "high", "method", "what", "interval", "seeds"]
    boxes = table.assign(
        x0=table["column"] - 0.48, x1=table["column"] + 0.48, y0=table["y"] - 0.46, y1=table["y"] + 0.46
    )
    cells = hv.Rectangles(boxes, ["x0", "y0", "x1", "y1"], told)
    numbers = hv.Labels(table, ["column", "y"], "text")
    painted: dict[str, object] = {"color": "damage", "cmap": _DAMAGE, "clim": (0, 1.25)}
    cells = both(cells, bokeh={**painted, "line_width": 0, "tools": ["hover"]}, mpl={**painted, "linewidth": 0})
    numbers = both(numbers, bokeh={"text_color": "black", "text_font_size": "9pt"}, mpl={"color": "black", "size": 9})
    places = table.drop_duplicates("what").set_index("what")["y"]
    bottom = float(places.min())
    axes: dict[str, object] = {
        "xlabel": "", "ylabel": "", "xaxis": "top", "xlim": (-0.52, len(columns) - 0.48), "ylim": (bottom - 0.5, 0.5),
        "xticks": list(enumerate(columns)), "yticks": [(float(places[what]), what) for what in rows],
        "xrotation": 30 if max(map(len, columns)) > 12 else 0,
    }  # fmt: skip
    overlay = both(cells * numbers, bokeh=axes, mpl={**axes, "show_frame": False})
    return framed(overlay, title=title, size=(max(640, 240 + 100 * len(columns)), 110 + round(-27 * bottom)))


def _bar(boxes: pd.DataFrame, label: str, color: str, methods: Sequence[str]) -> hv.Segments:
    rows = boxes.assign(y=range(len(boxes)), method=list(methods))
    bars = hv.Segments(rows, ["x0", "y", "x1", "y"], ["share", "method"], label=label)
    return both(
        bars,
        bokeh={"color": color, "line_width": 22, "tools": ["hover"]},
        mpl={"color": color, "linewidth": 16},
    )


def first_colors(first: Sequence[float]) -> dict[str, str]:
    """{what a severity of first failure is called: its color}, the same in histograms and maps.

    Args:
        first: severities, 0 for samples that fail when clean and infinity for those that never do.
    """
    colors = _first_colors(sorted(first))
    return {_first_word(severity): colors[severity] for severity in sorted(first)}


def _first_colors(first: Sequence[float]) -> dict[float, str]:
    """Violet for samples that fail when clean, then the darker the earlier, green for those that never fail."""
    later = [s for s in first if 0 < s < np.inf]
    colors = {s: _FIRST[round(i * (len(_FIRST) - 1) / max(1, len(later) - 1))] for i, s in enumerate(later)}
    return {0.0: _CLEAN, np.inf: _NEVER, **colors}


def _first_word(severity: float) -> str:
    return {0.0: "when clean", np.inf: "never"}.get(severity, f"severity {severity:g}")


def _conditions(rows: pd.DataFrame) -> str:
    cells = rows[["corruption", "corrupted"]].drop_duplicates()
    if len(cells) > 1:
        return f"mean over {len(cells)} corruptions and modalities"
    return f"{words(cells['corruption'].iloc[0])} of {words(cells['corrupted'].iloc[0])}"


def _by_clean_value(levels: pd.DataFrame) -> list[str]:
    clean = levels[levels["severity"] == levels["severity"].min()].groupby("variant")["value"].mean()
    return [str(m) for m in clean.sort_values(ascending=False, kind="stable").index]


def _place(corruption: str, corrupted: str) -> tuple[int, str, str]:
    """Families in their order, then names."""
    family = family_of(corruption)
    return list(FAMILIES).index(family) if family in FAMILIES else len(FAMILIES), corruption, corrupted


def _cell(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} ±{(high - low) / 2:.2f}"


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}-{high}"


def _check(table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [c for c in needed if c not in table.columns]
    if missing or table.empty:
        raise ValueError(f"the table has rows and the columns {', '.join(needed)}; lacking: {missing or 'rows'}")
