"""How far partners are from each other, against random pairs: the number beside every picture of two clouds."""

from __future__ import annotations

from collections.abc import Mapping

import holoviews as hv
import numpy as np

from ._style import both, framed
from .colors import MISSING, category_colors

LARGEST = 1.5  # cosine distance; what is farther counts in the last bin
_BINS = 45


def partner_distances(partners: Mapping[str, np.ndarray], random: np.ndarray) -> hv.Overlay:
    """Share of pairs by their cosine distance, on axes that do not move from one drawing to the next.

    Args:
        partners: distances of true pairs, by the name of their two modalities.
        random: distances of things that are no partners.

    Raises:
        ValueError: there is no pair.
    """
    drawn = {name: found for name, found in partners.items() if len(found)}
    if not drawn:
        raise ValueError("no pair of modalities has a distance")
    colors = category_colors(list(drawn))
    curves = [_curve(found, f"{name} (n = {len(found):,})", colors[name], 2.0) for name, found in drawn.items()]
    if len(random):
        curves.insert(0, _curve(random, f"random pairs (n = {len(random):,})", MISSING, 1.2))
    axes: dict[str, object] = {
        "xlabel": "cosine distance", "ylabel": "share of pairs", "xlim": (0, LARGEST), "ylim": (0, None)
    }  # fmt: skip
    overlay = both(hv.Overlay(curves), bokeh=axes, mpl=axes)
    return framed(overlay, title="distance between partners", size=(440, 210), legend="top_right")


def _curve(distances: np.ndarray, name: str, color: str, width: float) -> hv.Curve:
    counts, edges = np.histogram(np.clip(distances, 0, LARGEST), bins=_BINS, range=(0, LARGEST))
    middles = (edges[:-1] + edges[1:]) / 2
    curve = hv.Curve((middles, counts / len(distances)), "distance", "share", label=name)
    return both(
        curve,
        bokeh={"color": color, "line_width": width, "interpolation": "steps-mid"},
        mpl={"color": color, "linewidth": width, "interpolation": "steps-mid"},
    )
