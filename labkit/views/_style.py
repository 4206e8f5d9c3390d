"""Options shared by the drawings, once for bokeh and once for matplotlib."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

import holoviews.plotting.bokeh  # registers the backend
import holoviews.plotting.mpl  # noqa: F401  registers the backend
from holoviews.core.dimension import Dimensioned

Element = TypeVar("Element", bound=Dimensioned)

_SEEDS = re.compile(r"\b(\d+) seeds\b")
_WORDS = {
    "mrr": "mean reciprocal rank",
    "cka": "CKA (debiased)",
    "pca": "PCA",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "ndcg_at_10": "NDCG@10",
    "cka_biased": "CKA (biased)",
    "mmd": "MMD^2",
    "mutual_knn": "mutual kNN",
    "rtd": "RTD",
    "foscttm": "FOSCTTM",
}


def both(element: Element, *, bokeh: dict[str, object], mpl: dict[str, object]) -> Element:
    """`element` with options for each backend."""
    return element.opts(**bokeh, backend="bokeh").opts(**mpl, backend="matplotlib")


def framed(overlay: Element, *, title: str, size: tuple[int, int], legend: str | None = None) -> Element:
    """Title, size in pixels (100 to the inch in matplotlib) and legend of a finished drawing."""
    width, height = size
    # HoloViews drops the legend of more than 25 elements, which ten lines with their dots and bars exceed
    side = {} if legend is None else {"legend_position": legend, "legend_limit": 200}
    bokeh = {"width": width, "height": height, "title": title, "toolbar": "right", "shared_axes": False, **side}
    fonts = {"title": 11, "labels": 10, "ticks": 9, "legend": 9}
    mpl = {
        "fig_inches": (width / 100, height / 100),
        "aspect": width / height,
        "title": title,
        "fontsize": fonts,
        **side,
    }
    return both(overlay, bokeh={**bokeh, "fontsize": {k: f"{v}pt" for k, v in fonts.items()}}, mpl=mpl)


def kinds(intervals: Iterable[object]) -> str:
    """What intervals are, each kind once; kinds that differ in their number of seeds alone are told together.

    "95% t over 5 seeds" and "95% t over 10 seeds" -> "95% t over 5-10 seeds".
    """
    found: dict[str, list[int]] = {}
    for kind in map(str, intervals):
        found.setdefault(_SEEDS.sub("{} seeds", kind), []).extend(int(n) for n in _SEEDS.findall(kind)[:1])
    merged = {k: "-".join(map(str, sorted({min(n), max(n)}))) if n else "" for k, n in found.items()}
    return " | ".join(sorted(k.replace("{}", n) for k, n in merged.items()))


def words(name: str) -> str:
    """A stored name as people write it: `recall_at_10` -> "recall@10", `feature_noise` -> "feature noise"."""
    return _WORDS.get(name) or name.replace("_at_", "@").replace("_", " ")
