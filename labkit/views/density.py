"""Pictures of more points than can be drawn one by one: datashader counts them per pixel, the colors are mixed here.

Counts per modality are kept apart until the end, so that the picture of all modalities is the sum of their counts and
not a second pass over the points. Contours enclose a share of the points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import holoviews as hv
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from .colors import MISSING

Extent = tuple[tuple[float, float], tuple[float, float]]
SHARES = (0.25, 0.5, 0.75, 0.9)
_FAINTEST = 0.25  # opacity of a pixel with one point; the fullest pixel has 1
_GRID = 96  # cells a side in which the density is estimated
_VIRIDIS = 256


@dataclass(frozen=True)
class Counts:
    """Points per pixel.

    Attributes:
        total: `[h, w]`, number of points; the first row is the lowest.
        by: `[h, w, k]`, of each category; None where the color is a number.
        mean_of: `[h, w]`, sum of the values of the points that have one; None where the color is a category.
        known: `[h, w]`, how many have one.
    """

    total: np.ndarray
    by: np.ndarray | None = None
    mean_of: np.ndarray | None = None
    known: np.ndarray | None = None

    def __add__(self, other: Counts) -> Counts:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("total", "by", "mean_of", "known"))
        return Counts(*(None if a is None else a + b for a, b in pairs))  # type: ignore[arg-type]


def count(points: pd.DataFrame, extent: Extent, size: tuple[int, int]) -> Counts:
    """Count points per pixel.

    Args:
        points: x, y and "color": a categorical, or a float (NaN where unknown).
        extent: what the picture shows, in x and in y.
        size: width and height in pixels.
    """
    import datashader as ds  # compiles, and most pictures are small

    canvas = ds.Canvas(plot_width=size[0], plot_height=size[1], x_range=extent[0], y_range=extent[1])
    if len(points) == 0:
        shape = (size[1], size[0])
        if isinstance(points["color"].dtype, pd.CategoricalDtype):
            return Counts(np.zeros(shape), by=np.zeros((*shape, len(points["color"].cat.categories))))
        return Counts(np.zeros(shape), mean_of=np.zeros(shape), known=np.zeros(shape))
    if isinstance(points["color"].dtype, pd.CategoricalDtype):
        if len(points["color"].cat.categories) == 1:
            total = canvas.points(points, "x", "y", ds.count()).to_numpy()
            return Counts(total, by=total[..., None])
        by = canvas.points(points, "x", "y", ds.by("color", ds.count())).to_numpy()
        return Counts(by.sum(axis=-1), by=by)
    found = canvas.points(points, "x", "y", ds.summary(n=ds.count(), known=ds.count("color"), s=ds.sum("color")))
    return Counts(found["n"].to_numpy(), mean_of=np.nan_to_num(found["s"].to_numpy()), known=found["known"].to_numpy())


def count_lines(ends: Mapping[str, np.ndarray], extent: Extent, size: tuple[int, int]) -> np.ndarray:
    """Lines per pixel, `[h, w]`; `ends` has x0, y0, x1 and y1."""
    import datashader as ds

    if len(ends["x0"]) == 0:
        return np.zeros((size[1], size[0]))
    canvas = ds.Canvas(plot_width=size[0], plot_height=size[1], x_range=extent[0], y_range=extent[1])
    return canvas.line(pd.DataFrame(dict(ends)), ["x0", "x1"], ["y0", "y1"], ds.count(), axis=1).to_numpy()


def shade(counts: Counts, colors: Sequence[str], limits: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """A picture `[h, w]` of packed RGBA (as bokeh's ImageRGBA takes it), the lowest row first.

    Args:
        counts: of the points.
        colors: of the categories, in their order; mixed by the shares of the points. Of a number, viridis shows the
            mean of the points in the pixel, and gray those without a number.
        limits: range of a number.
    """
    if counts.by is not None:
        base = np.array([to_rgb(color) for color in colors], dtype=np.float32)
        mixed = counts.by.astype(np.float32) @ base / np.maximum(counts.total, 1)[..., None].astype(np.float32)
    else:
        assert counts.mean_of is not None
        assert counts.known is not None
        mean = counts.mean_of / np.maximum(counts.known, 1)
        at = np.clip((mean - limits[0]) / ((limits[1] - limits[0]) or 1.0), 0, 1)
        mixed = _ramp()[(at * (_VIRIDIS - 1)).astype(int)]
        mixed[counts.known == 0] = to_rgb(MISSING)
    return _packed(mixed, _opacity(counts.total))


def shade_lines(counts: np.ndarray, color: str) -> np.ndarray:
    """Lines in one color, more opaque where many cross; packed as by `shade`."""
    colors = np.broadcast_to(np.array(to_rgb(color), dtype=np.float32), (*counts.shape, 3))
    return _packed(colors, _opacity(counts) * 0.7)


def as_element(image: np.ndarray, extent: Extent) -> hv.RGB:
    """A packed picture as an element of HoloViews."""
    (left, right), (low, high) = extent
    rgba = np.ascontiguousarray(image[::-1]).view(np.uint8).reshape(*image.shape, 4)
    return hv.RGB(rgba, bounds=(left, low, right, high), vdims=hv.RGB.vdims + [hv.RGB.alpha_dimension])


def contours(x: np.ndarray, y: np.ndarray, extent: Extent) -> list[tuple[float, list[np.ndarray]]]:
    """Curves that enclose shares of the points.

    The density is a histogram of 96 x 96 cells smoothed by a Gaussian of two cells; a curve is a level of it.

    Returns:
        For each share of `SHARES` its closed curves, `[n, 2]`; none where there are fewer than ten points.
    """
    from contourpy import contour_generator
    from scipy.ndimage import gaussian_filter

    if len(x) < 10:
        return []
    counted, xs, ys = np.histogram2d(x, y, bins=_GRID, range=extent)
    density = gaussian_filter(counted.T, 2.0, mode="constant")
    density = np.pad(density, 1)  # so that every curve closes
    ranked = np.sort(density.ravel())[::-1]
    enclosed = np.cumsum(ranked) / ranked.sum()
    middles = [edges[0] + (edges[1] - edges[0]) * (np.arange(_GRID + 2) - 0.5) for edges in (xs, ys)]
    drawn = contour_generator(middles[0], middles[1], density)
    levels = [float(ranked[np.searchsorted(enclosed, share)]) for share in SHARES]
    curves = [[np.asarray(curve) for curve in drawn.lines(level)] for level in levels]
    return list(zip(SHARES, curves, strict=True))


def _opacity(total: np.ndarray) -> np.ndarray:
    """Logarithmic in the number of points; nothing where there are none."""
    largest = max(float(total.max(initial=0)), 1.0)
    share = np.log1p(total, dtype=np.float32) / np.float32(np.log1p(largest))
    return np.where(total > 0, _FAINTEST + (1 - _FAINTEST) * share, 0)


def _packed(colors: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    rgba = np.empty((*opacity.shape, 4), dtype=np.uint8)
    rgba[..., :3] = np.rint(colors * 255)
    rgba[..., 3] = np.rint(np.minimum(opacity, 1) * 255)
    return rgba.view(np.uint32)[..., 0]


def _ramp() -> np.ndarray:
    from matplotlib import colormaps

    return colormaps["viridis"](np.arange(_VIRIDIS))[:, :3].astype(np.float32)
