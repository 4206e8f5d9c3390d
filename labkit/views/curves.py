"""Curves: a metric against the severity of a corruption, and the course of a training.

`curve_table` averages over draws of the corruption and over directions within a run, then takes mean and interval over
runs (seeds) of one variant. Clean scores are severity 0 of the same directions, so a curve starts where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import holoviews as hv
import numpy as np
import pandas as pd

from labkit.stats import seed_interval, with_clean

from ._style import both, framed, kinds, words
from .colors import CHANCE, category_colors, variant_colors

_CELL = ["variant", "run", "seed", "corrupted", "source", "target", "severity"]
_COLUMNS = ["variant", "severity", "value", "low", "high", "interval", "seeds", "n", "chance"]
_DASHES = ("solid", "dashed", "dotdash", "dotted")
_MPL_DASHES = {"solid": "-", "dashed": "--", "dotdash": "-.", "dotted": ":"}
_MARKERS = (("circle", "o"), ("square", "s"), ("triangle", "^"), ("diamond", "d"))


def curve_table(
    scores: pd.DataFrame,
    *,
    metric: str,
    corruption: str,
    corrupted: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> pd.DataFrame:
    """Mean and interval per variant and severity.

    Args:
        scores: as from `Store.scores`.
        metric: name of the metric.
        corruption: name of the corruption.
        corrupted: the modality that is corrupted; the mean over all of them by default.
        source: modality of the queries; the mean over all by default.
        target: modality that is searched; the mean over all by default.

    Returns:
        variant, severity, value, low, high, interval (what it is), seeds, n (samples of the smallest run) and chance,
        sorted. With one seed the interval is the run's own, over samples, where the value is one direction's.

    Raises:
        ValueError: nothing matches; the message says what there is.
    """
    cells = _cells(scores, metric, corruption, {"corrupted": corrupted, "source": source, "target": target})
    n_directions = cells.groupby("run")[["corrupted", "source", "target"]].nunique().max(axis=1)
    cells["own"] = cells["run"].map(n_directions == 1)
    runs = cells.groupby(["variant", "run", "seed", "severity"], as_index=False).agg(
        value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), n=("n", "min"), chance=("chance", "mean"),
        interval=("interval", "first"), own=("own", "first"),
    )  # fmt: skip
    rows = [_row(rows) for _, rows in runs.groupby(["variant", "severity"], sort=True)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def robustness_curves(
    scores: pd.DataFrame,
    *,
    metric: str = "recall_at_10",
    corruption: str,
    corrupted: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> hv.Overlay:
    """Metric against severity, one line per variant; the band is the interval, the dashed line is chance.

    The title states the interval, the seeds and the samples. Arguments and errors are those of `curve_table`.
    """
    where = {"corrupted": corrupted, "source": source, "target": target}
    table = curve_table(scores, metric=metric, corruption=corruption, **where)
    overlay = curve_overlay(table, _ordered(table, scores, metric))
    title = f"{words(metric)} under {words(corruption)}{_scope(where)}\n{_sizes(table)}"
    last = table["severity"].max()
    axes: dict[str, object] = {
        "xlabel": "severity (0 = clean)",
        "ylabel": words(metric),
        "xticks": sorted(table["severity"].unique()),
        "xlim": (-0.03 * last, 1.03 * last),
    }
    overlay = both(overlay, bokeh=axes, mpl=axes)
    return framed(overlay, title=title, size=(760, 420), legend="right")


def curve_overlay(table: pd.DataFrame, order: Sequence[str]) -> hv.Overlay:
    """Bands below lines below dots, one of each per variant, and chance as a dashed line.

    Args:
        table: as from `curve_table`.
        order: of the legend; a variant looks the same whichever of the others the table has.
    """
    colors = variant_colors(order)
    bands, lines, dots = [], [], []
    for i, variant in enumerate(order):
        rows = table[table["variant"] == variant]
        if len(rows):
            bands.append(_band(rows, colors[variant]))
            lines.append(_line(rows, variant, colors[variant], _DASHES[i // 8 % len(_DASHES)]))
            dots.append(_dots(rows, colors[variant], _MARKERS[i % len(_MARKERS)]))
    return hv.Overlay([*bands, *_chance(table), *lines, *dots])


def training_curve(history: pd.DataFrame) -> hv.Layout:
    """Loss terms and validation score against the optimizer step.

    Args:
        history: as from `Run.history`: step, one column per loss term, and maybe validation.

    Raises:
        ValueError: no column "step" or nothing else to draw.
    """
    aside = {
        "step", "epoch", "learning_rate", "seconds", "step_seconds", "validation", "peak_memory", "effective_rank",
        "embedding_std", "time", "total",
    }  # fmt: skip
    numbers = [str(c) for c in history.select_dtypes("number").columns]
    terms = [c for c in numbers if c not in aside]
    if "step" not in numbers or not (terms or "validation" in numbers):
        raise ValueError(
            f"a training history has columns step and loss terms or validation; got {list(history.columns)}"
        )
    panels = []
    if terms:
        colors = category_colors(terms)
        lines = [_history_line(history, term, colors[term], label=words(term)) for term in terms]
        panels.append(_history_panel(hv.Overlay(lines), "weighted loss terms", "loss (lower is better)"))
    if "validation" in numbers:
        line = _history_line(history, "validation", "#0a84d0", label="validation")
        panels.append(_history_panel(hv.Overlay([line]), "validation", "validation score (higher is better)"))
    return both(hv.Layout(panels).cols(2), bokeh={"shared_axes": False}, mpl={"sublabel_format": ""})


def _cells(scores: pd.DataFrame, metric: str, corruption: str, where: dict[str, str | None]) -> pd.DataFrame:
    """One row per run, direction, corrupted modality and severity, clean ones as severity 0."""
    if "run" not in scores:
        scores = scores.assign(run=scores["variant"] + "-s" + scores["seed"].astype(str))
    rows = scores[(scores["metric"] == metric) & (scores["step"] == "final")]
    curve = rows[rows["corruption"] == corruption]
    for column, value in where.items():
        if value is not None:
            curve = curve[curve[column] == value]
    if curve.empty:
        chosen = {k: v for k, v in where.items() if v is not None}
        there = rows.loc[rows["corruption"] != "none", "corruption"].unique()
        raise ValueError(
            f"no scores of {metric!r} under {corruption!r} with {chosen or 'any modality'}; corruptions of this metric "
            f"are {sorted(map(str, there)) or 'none'}"
        )
    return (
        with_clean(curve, rows[rows["corruption"] == "none"], on=["run", "source", "target", "split"])
        .groupby(_CELL, as_index=False)
        .agg(
            value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), n=("n", "min"),
            chance=("chance", "mean"), interval=("interval", "first"),
        )
    )  # fmt: skip


def _row(rows: pd.DataFrame) -> dict[str, object]:
    first = rows.iloc[0]
    if len(rows) > 1:
        interval = seed_interval(rows["value"].to_numpy())
        low, high, kind = interval.low, interval.high, interval.kind
    elif first["own"]:
        low, high, kind = first["low"], first["high"], f"{first['interval']}, 1 seed"
    else:
        low, high, kind = np.nan, np.nan, "none: 1 seed"
    return {
        "variant": first["variant"], "severity": first["severity"], "value": float(rows["value"].mean()), "low": low,
        "high": high, "interval": kind, "seeds": len(rows), "n": int(rows["n"].min()),
        "chance": float(rows["chance"].mean()),
    }  # fmt: skip


def _ordered(table: pd.DataFrame, scores: pd.DataFrame, metric: str) -> list[str]:
    """Variants from best to worst when clean, the order of the legend."""
    higher = bool(scores.loc[scores["metric"] == metric, "higher_is_better"].iloc[0])
    first = table.sort_values("severity", kind="stable").drop_duplicates("variant")
    return [str(v) for v in first.sort_values("value", ascending=not higher, kind="stable")["variant"]]


def _band(rows: pd.DataFrame, color: str) -> hv.Area:
    known = rows.dropna(subset=["low", "high"])
    area = hv.Area(known, "severity", ["low", "high"])
    return both(
        area,
        bokeh={"color": color, "alpha": 0.12, "line_alpha": 0, "muted_alpha": 0.02},
        # both: either backend's default color cycle would win over one of them, by which backend is current
        mpl={"color": color, "facecolor": color, "edgecolor": "none", "alpha": 0.12, "linewidth": 0},
    )


def _line(rows: pd.DataFrame, variant: str, color: str, dash: str) -> hv.Curve:
    curve = hv.Curve(rows, "severity", "value", label=variant)
    return both(
        curve,
        bokeh={"color": color, "line_width": 2, "line_dash": dash},
        mpl={"color": color, "linewidth": 2, "linestyle": _MPL_DASHES[dash]},
    )


def _dots(rows: pd.DataFrame, color: str, marker: tuple[str, str]) -> hv.Scatter:
    dots = hv.Scatter(rows, "severity", ["value", "variant", "low", "high", "interval", "seeds", "n"])
    return both(
        dots,
        bokeh={"color": color, "size": 7, "marker": marker[0], "tools": ["hover"], "show_legend": False},
        mpl={"color": color, "s": 28, "marker": marker[1], "show_legend": False},
    )


def _chance(table: pd.DataFrame) -> list[hv.Curve]:
    """Chance of each severity, the mean over variants; nothing for metrics that have none."""
    chance = table.groupby("severity", as_index=False)["chance"].mean().dropna()
    if chance.empty:
        return []
    line = hv.Curve(chance.rename(columns={"chance": "level"}), "severity", "level", label="chance")
    return [
        both(
            line,
            bokeh={"color": CHANCE, "line_dash": "dashed", "line_width": 1.5},
            mpl={"color": CHANCE, "linestyle": "--", "linewidth": 1.5},
        )
    ]


def _scope(where: dict[str, str | None]) -> str:
    corrupted, source, target = (where[k] for k in ("corrupted", "source", "target"))
    of = f" of {corrupted}" if corrupted else " of each modality in turn"
    if source is None and target is None:
        return f"{of}, mean over directions"
    return f"{of}, {source or 'any'} → {target or 'any'}"


def _sizes(table: pd.DataFrame) -> str:
    return f"band: {kinds(table['interval'])}; n = {_span(table['n'])} test samples"


def _span(values: pd.Series) -> str:
    low, high = cast("int", values.min()), cast("int", values.max())
    return str(low) if low == high else f"{low}-{high}"


def _history_line(history: pd.DataFrame, column: str, color: str, label: str) -> hv.Curve:
    # a label that is also the name of a dimension is taken for the dimension by the matplotlib backend
    rows = history[["step", column]].dropna().rename(columns={column: "logged value"})
    curve = hv.Curve(rows, "step", "logged value", label=label)
    return both(
        curve, bokeh={"color": color, "line_width": 2, "tools": ["hover"]}, mpl={"color": color, "linewidth": 2}
    )


def _history_panel(lines: hv.Overlay, title: str, ylabel: str) -> hv.Overlay:
    axes: dict[str, object] = {"xlabel": "optimizer step", "ylabel": ylabel}
    return framed(both(lines, bokeh=axes, mpl=axes), title=title, size=(480, 320), legend="top_right")
