"""Maps: the stored 2-D positions of the samples of each modality in one frame.

A map is a picture, not evidence: lengths in it are no distances. `trust` says point by point how far its neighbors in
the picture are neighbors in the shared space. Up to 50,000 points are drawn as points, more are rasterized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import holoviews as hv
import numpy as np
import pandas as pd

from . import density
from ._style import both, framed, words
from .colors import MISSING, category_colors, modality_colors

MAX_POINTS = 50_000
MAX_LINKS = 5_000
_UNIT = ("trust", "value")  # columns on an absolute scale from 0 to 1


@dataclass(frozen=True)
class Coloring:
    """What the color of a point means.

    Attributes:
        column: column of the frame.
        categories: {category: color}, or None for a number.
        limits: range of a number.
    """

    column: str
    categories: Mapping[str, str] | None
    limits: tuple[float, float] = (0.0, 1.0)


def manifold_frame(points: pd.DataFrame, projection: pd.DataFrame, field: pd.DataFrame | None = None) -> pd.DataFrame:
    """Positions with what is known of each sample, one row per sample and modality.

    Args:
        points: as from `Run.points`.
        projection: as from `Run.projection`.
        field: key, source and value, as from `Run.field` for one target; its values become column "value" of the rows
            whose modality is the source. Several values of a point are averaged.

    Returns:
        Columns of `projection`, then those of `points`, "row" (position in `points`) and maybe "value".

    Raises:
        ValueError: a key of the projection is not among the points.
    """
    row = pd.Index(points["key"]).get_indexer(pd.Index(projection["key"]))
    if (row < 0).any():
        raise ValueError(f"key {projection['key'][row < 0].iloc[0]!r} of the projection is not among the points")
    known = points.drop(columns=["key", *(c for c in projection.columns if c in points.columns and c != "key")])
    frame = pd.concat([projection.reset_index(drop=True), known.iloc[row].reset_index(drop=True)], axis=1)
    frame["row"] = row
    if field is not None:
        mean = field.groupby(["key", "source"])["value"].mean()
        at = pd.MultiIndex.from_frame(frame[["key", "modality"]])
        frame["value"] = mean.reindex(at).to_numpy(dtype=float)
    return frame


def coloring(frame: pd.DataFrame, column: str) -> Coloring:
    """The colors of `column`, the same for every pane of a frame.

    Raises:
        ValueError: no such column.
    """
    if column not in frame.columns:
        raise ValueError(f"no column {column!r} to color by; columns are {list(map(str, frame.columns))}")
    values = frame[column]
    if column == "modality":
        return Coloring(column, modality_colors(dict.fromkeys(values)))
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        if column in _UNIT and values.min() >= -1 and values.max() <= 1:  # chance-corrected values go below zero
            return Coloring(column, None)
        low, high = (0.0, 1.0) if values.isna().all() else (float(values.min()), float(values.max()))
        return Coloring(column, None, (low, high if high > low else low + 1.0))
    return Coloring(column, category_colors(values))


def points_of(frame: pd.DataFrame, colors: Coloring, *, size: float = 5.0, alpha: float = 0.8) -> hv.Points:
    """Points of a frame, with hover texts; more than 50,000 belong to `rasterized`.

    They are drawn in a shuffled order, so that no modality or class hides the others; points without a number lie below
    the others, in gray.
    """
    told = [c for c in ("caption", "label", "split", "trust", "value", "key") if c in frame.columns]
    values = list(dict.fromkeys([colors.column, "modality", *told, "row", *(["point"] if "point" in frame else [])]))
    drawn = frame.sample(frac=1, random_state=0)
    if colors.categories is None:
        drawn = drawn.sort_values(colors.column, key=lambda column: column.notna(), kind="stable")
    else:
        drawn = drawn.assign(**{colors.column: drawn[colors.column].astype(str)})
    points = hv.Points(drawn, ["x", "y"], values)
    cmap: object = "viridis" if colors.categories is None else dict(colors.categories)
    tooltips = [(name, f"@{{{name}}}{{0.00}}" if name in _UNIT else f"@{{{name}}}") for name in ("modality", *told)]
    style: dict[str, object] = {"color": colors.column, "cmap": cmap, "alpha": alpha, "show_legend": False}
    paint: dict[str, object] = {}
    if colors.categories is not None:
        # given by name matplotlib would draw a second legend, of the categories that happen to be there
        paint = {"color": hv.dim(colors.column).categorize(dict(colors.categories), MISSING)}
    else:
        style |= {"clim": colors.limits, "clipping_colors": {"NaN": MISSING}}
    return both(
        points,
        bokeh={**style, "size": size, "line_color": None, "hover_tooltips": tooltips, "nonselection_alpha": alpha,
               "selection_alpha": alpha, "muted_alpha": alpha},
        mpl={**style, **paint, "s": size**2 / 2, "linewidth": 0},
    )  # fmt: skip


def rasterized(frame: pd.DataFrame, colors: Coloring, extent: density.Extent) -> hv.RGB:
    """A picture of the points of a frame: mean of a number, or mixture of categories, per pixel."""
    values = frame[colors.column]
    if colors.categories is not None:
        values = pd.Categorical(values.astype(str), categories=list(colors.categories))
    counts = density.count(pd.DataFrame({"x": frame["x"], "y": frame["y"], "color": values}), extent, (720, 450))
    image = density.shade(counts, list((colors.categories or {}).values()), colors.limits)
    return density.as_element(image, extent)


def pair_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Where the modalities of one sample lie: x0, y0, x1, y1 per sample and pair of its modalities.

    Args:
        frame: as from `manifold_frame`; only rows of the same "row" are tied.
    """
    unique = frame.drop_duplicates(["row", "modality"])
    parts = [rows.set_index("row")[["x", "y"]] for _, rows in unique.groupby("modality", sort=True)]
    lines = [a.merge(b, left_index=True, right_index=True, suffixes=("0", "1")) for a, b in combinations(parts, 2)]
    ends = pd.concat(lines) if lines else pd.DataFrame(columns=["x0", "y0", "x1", "y1"], dtype=float)
    return ends[["x0", "y0", "x1", "y1"]]


def pair_links(frame: pd.DataFrame, mask: np.ndarray) -> tuple[hv.Segments, int]:
    """Lines between the modalities of the selected samples.

    Args:
        frame: as from `manifold_frame`.
        mask: bool, one per sample, indexed by the frame's "row".

    Returns:
        At most 5,000 lines, and the number of all that there are.
    """
    ends = pair_ends(frame[mask[frame["row"].to_numpy()]])
    drawn = hv.Segments(ends.iloc[:MAX_LINKS], ["x0", "y0", "x1", "y1"])
    return (
        both(
            drawn,
            bokeh={"color": "#888888", "alpha": 0.45, "line_width": 1},
            mpl={"color": "#888888", "alpha": 0.45, "linewidth": 0.8},
        ),
        len(ends),
    )


def manifold(
    points: pd.DataFrame,
    projection: pd.DataFrame,
    *,
    color: str = "modality",
    modality: str | None = None,
    selection: np.ndarray | None = None,
    name: str = "",
) -> hv.Overlay:
    """The map of all modalities, or of one, as a finished figure.

    Args:
        points: as from `Run.points`.
        projection: as from `Run.projection`.
        color: modality, trust, or a column of `points`.
        modality: draw only this one.
        selection: bool, one per sample; selected samples are drawn strong with lines between their modalities.
        name: name of the projection, for the axes.

    Raises:
        ValueError: unknown column or modality, or a selection of the wrong length.
    """
    frame = manifold_frame(points, projection)
    return manifold_of(frame, coloring(frame, color), n=len(points), modality=modality, selection=selection, name=name)


def manifold_of(
    frame: pd.DataFrame,
    colors: Coloring,
    *,
    n: int,
    modality: str | None = None,
    selection: np.ndarray | None = None,
    name: str = "",
) -> hv.Overlay:
    """`manifold` of a frame that is joined already, in colors that are chosen already.

    Args:
        frame: as from `manifold_frame`, with the column of `colors`.
        colors: what a color means.
        n: samples.
        modality: draw only this one.
        selection: bool, one per sample.
        name: name of the projection, for the axes.

    Raises:
        ValueError: unknown modality, or a selection of the wrong length.
    """
    if selection is not None and len(selection) != n:
        raise ValueError(f"a selection has one value per sample, {n}; got {len(selection)}")
    if modality is not None:
        known = sorted(frame["modality"].unique())
        if modality not in known:
            raise ValueError(f"no modality {modality!r} in the projection; it has {known}")
        frame = frame[frame["modality"] == modality]
    alpha = 0.8 if selection is None else 0.15
    if len(frame) > MAX_POINTS:
        limits = [(float(frame[c].min()), float(frame[c].max())) for c in ("x", "y")]
        picture = rasterized(frame, colors, (limits[0], limits[1]))
        first = both(picture, bokeh={"alpha": min(1.0, 2 * alpha)}, mpl={"alpha": min(1.0, 2 * alpha)})
    else:
        first = points_of(frame, colors, alpha=alpha)
    layers: list[object] = [first]
    if selection is not None:
        layers += [pair_links(frame, selection)[0], points_of(frame[selection[frame["row"]]], colors, size=7)]
    overlay = hv.Overlay([*layers, *_legend(colors)])
    what = words(name) if name else "projection"
    axes: dict[str, object] = {"xlabel": f"{what} 1 (no unit)", "ylabel": f"{what} 2 (no unit)"}
    bare = {"xaxis": "bare", "yaxis": "bare"}
    overlay = both(overlay, bokeh=axes, mpl={**axes, **bare})
    count = f"n = {len(frame)} points" if selection is None else f"{int(selection.sum())} of {n} samples selected"
    title = f"{modality or 'all modalities'}, colored by {words(colors.column)}; {count}"
    return framed(overlay, title=title, size=(760, 480), legend="right")


def _legend(colors: Coloring) -> list[hv.Points]:
    """One empty entry per category, so that the legend does not depend on what is drawn."""
    entries = []
    for category, color in (colors.categories or {}).items():
        entry = hv.Points([(np.nan, np.nan)], label=category or "(none)")
        entries.append(both(entry, bokeh={"color": color, "size": 8}, mpl={"color": color, "s": 40}))
    return entries
