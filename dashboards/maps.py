"""Coordinates and colors of a run's points as flat arrays, shared by all sessions and never modified.

A million points per modality cost 40 MB here; as a table of objects they would cost a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from itertools import combinations
from operator import add

import numpy as np
import pandas as pd
import shapely

from dashboards import content as contents
from dashboards import robust
from dashboards.content import Content
from dashboards.frames import Shown
from dashboards.session import FIELDS, FIRST, MEASURES
from labkit.store import NotComputedError, StoreError
from labkit.views import density, first_colors
from labkit.views.colors import MISSING, category_colors, modality_colors
from labkit.views.density import Counts, Extent
from labkit.views.manifolds import Coloring, coloring

SIZE = (480, 360)  # pixels of a picture
_CELLS = 256  # a side, of the grid in which points are found
_MOST = 24  # categories with a color of their own; the others are gray


@dataclass(frozen=True, eq=False)
class Frame:
    """Places of all points at one step, modality after modality.

    Attributes:
        key: what it was read from, for caches.
        modalities: in the order of the points.
        starts: where each begins, and the end.
        row: sample of each point.
        x, y: places.
        trust: how far the neighborhood in the picture is that of the space, 0..1; NaN where unknown.
        extent: what a map shows: all steps of the frame, with a margin.
        n: samples of the run.
    """

    key: tuple[str, int, str, str]
    modalities: tuple[str, ...]
    starts: tuple[int, ...]
    row: np.ndarray
    x: np.ndarray
    y: np.ndarray
    trust: np.ndarray
    extent: Extent
    n: int

    def __len__(self) -> int:
        return len(self.row)

    def part(self, modality: str | None) -> slice:
        """Points of a modality, or of all."""
        if modality is None:
            return slice(0, len(self))
        at = self.modalities.index(modality)
        return slice(self.starts[at], self.starts[at + 1])

    def points(self, modality: str | None, mask: np.ndarray) -> np.ndarray:
        """Positions of the points of the samples in a mask."""
        part = self.part(modality)
        return part.start + np.flatnonzero(mask[self.row[part]])

    def ends(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Lines between the points of the same sample: x0, y0, x1, y1."""
        pairs = []
        for a, b in combinations(range(len(self.modalities)), 2):
            first, second = (self._place[m][rows] for m in (a, b))
            both = (first >= 0) & (second >= 0)
            pairs.append((first[both], second[both]))
        p, q = (np.concatenate([pair[i] for pair in pairs] or [np.zeros(0, dtype=int)]) for i in (0, 1))
        return {"x0": self.x[p], "y0": self.y[p], "x1": self.x[q], "y1": self.y[q]}

    def place(self, row: int, modality: str) -> tuple[float, float] | None:
        """Where a sample is, None where it has no such item."""
        at = self._place[self.modalities.index(modality)][row]
        return None if at < 0 else (float(self.x[at]), float(self.y[at]))

    def within(self, area: shapely.Polygon, modality: str | None) -> np.ndarray:
        """Samples with a point in an area. Only points in cells that its boundary crosses are looked at one by one."""
        part = self.part(modality)
        state = _cell_states(area, self.extent)
        found = state[self._cell[part]]
        unsure = np.flatnonzero(found == 2)
        found[unsure] = shapely.contains_xy(area, self.x[part][unsure], self.y[part][unsure])
        return self.row[part][found.astype(bool)]

    def nearest(self, x: float, y: float, modality: str | None, scale: tuple[float, float]) -> tuple[int, float]:
        """Sample of the point nearest to a place, and how far it is in units of `scale`; -1 where there is none."""
        part = self.part(modality)
        if part.stop == part.start:
            return -1, np.inf
        away = ((self.x[part] - x) / scale[0]) ** 2 + ((self.y[part] - y) / scale[1]) ** 2
        at = int(np.argmin(away))
        return int(self.row[part][at]), float(np.sqrt(away[at]))

    @cached_property
    def _place(self) -> list[np.ndarray]:
        """For each modality the point of every sample, -1 where it has none."""
        places = []
        for modality in self.modalities:
            part = self.part(modality)
            place = np.full(self.n, -1, dtype=np.int32)
            place[self.row[part]] = np.arange(part.start, part.stop, dtype=np.int32)
            places.append(place)
        return places

    @cached_property
    def _cell(self) -> np.ndarray:
        """Cell of every point."""
        return (_bin(self.y, self.extent[1]) * _CELLS + _bin(self.x, self.extent[0])).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class Paint:
    """What the points of a frame look like.

    Attributes:
        coloring: what a color means.
        values: of each point: code of its category, or a number.
        problem: why this is not the color that was asked for; empty if it is.
    """

    coloring: Coloring
    values: np.ndarray
    problem: str = ""

    @property
    def colors(self) -> list[str]:
        """Of the categories, in the order of the codes."""
        return list((self.coloring.categories or {}).values())

    def table(self, frame: Frame, at: slice | np.ndarray) -> pd.DataFrame:
        """Some points of a frame for `labkit.views.density.count`."""
        values = self.values[at]
        if self.coloring.categories is not None:
            values = pd.Categorical.from_codes(values, categories=list(self.coloring.categories))
        return pd.DataFrame({"x": frame.x[at], "y": frame.y[at], "color": values}, copy=False)


def frame(content: Content, shown: Shown) -> Frame:
    """The places of a run.

    Raises:
        StoreError: they cannot be read.
    """
    return _frame(str(content.run.folder), content.stamp, shown.name, shown.step)


def paint(content: Content, of: Frame, color: str) -> Paint:
    """The color of every point; by modality where the run does not have what was asked for."""
    return _paint(of, content, color)


def counted(of: Frame, with_paint: Paint, modality: str | None, extent: Extent) -> Counts:
    """Points per pixel of a map; what a map shows at first is counted once for all sessions."""
    first = extent == of.extent
    if modality is not None:
        return _first(of, with_paint, modality) if first else _count(of, with_paint, modality, extent)
    return reduce(add, (counted(of, with_paint, m, extent) for m in of.modalities))


@lru_cache(maxsize=8)
def _first(of: Frame, with_paint: Paint, modality: str) -> Counts:
    return _count(of, with_paint, modality, of.extent)


def _count(of: Frame, with_paint: Paint, modality: str, extent: Extent) -> Counts:
    return density.count(with_paint.table(of, of.part(modality)), extent, SIZE)


@lru_cache(maxsize=12)
def _frame(folder: str, stamp: int, name: str, step: str) -> Frame:
    content = contents.at(folder, stamp)
    table = content.run.projection(name, step)
    rows, places = [], []
    for modality in content.modalities:
        part = table[(table["modality"] == modality).to_numpy()]
        rows.append(_rows(content, modality, part["key"]))
        places.append(part[["x", "y", "trust"]].to_numpy(dtype=np.float32))
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    x, y, trust = np.concatenate(places).T
    return Frame(
        key=(folder, stamp, name, step),
        modalities=tuple(content.modalities),
        starts=tuple(int(s) for s in starts),
        row=np.concatenate(rows).astype(np.int32),
        x=np.ascontiguousarray(x),
        y=np.ascontiguousarray(y),
        trust=np.ascontiguousarray(trust),
        extent=_extent(folder, stamp, name),
        n=len(content.points),
    )


@lru_cache(maxsize=32)
def _extent(folder: str, stamp: int, name: str) -> Extent:
    """What all stored steps of a frame need, so that nothing jumps while the steps are played."""
    run = contents.at(folder, stamp).run
    tables = [run.projection(name, step)[["x", "y"]] for step in run.steps("projections")[name]]
    low = np.min([t.min().to_numpy() for t in tables], axis=0)
    high = np.max([t.max().to_numpy() for t in tables], axis=0)
    pad = np.where(high > low, 0.05 * (high - low), 1.0)
    return (float(low[0] - pad[0]), float(high[0] + pad[0])), (float(low[1] - pad[1]), float(high[1] + pad[1]))


@lru_cache(maxsize=12)
def _paint(of: Frame, content: Content, color: str) -> Paint:
    points = content.points
    if color == "trust":
        return Paint(coloring(pd.DataFrame({"trust": of.trust}), "trust"), of.trust)
    if color in FIELDS:
        try:
            values = _field(content, of, FIELDS[color])
            return Paint(coloring(pd.DataFrame({"value": values}), "value"), values)
        except StoreError as error:
            return Paint(*_by_modality(of), problem=str(error))
    if color in MEASURES:
        try:
            values = _field(content, of, MEASURES[color])
        except NotComputedError:
            told = f"The {color} is not computed for this run: `labkit diagnose {content.run.id}` does it."
            return Paint(*_by_modality(of), problem=told)
        except StoreError as error:
            return Paint(*_by_modality(of), problem=str(error))
        top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
        return Paint(Coloring("value", None, (0.0, top if top > 0 else 1.0)), values)
    if color.startswith(FIRST):
        try:
            return _by_first_failure(content, of, color.partition(": ")[2])
        except StoreError as error:
            return Paint(*_by_modality(of), problem=str(error))
    if color == "modality":
        return Paint(*_by_modality(of))
    if color not in points:
        told = f"The samples of this run have no {color}; the maps are colored by modality."
        return Paint(*_by_modality(of), problem=told)
    column = points[color]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=np.float32)[of.row]
        return Paint(coloring(pd.DataFrame({color: values}), color), values)
    codes, categories = _codes(column)
    return Paint(Coloring(color, categories), codes[of.row])


def _by_modality(of: Frame) -> tuple[Coloring, np.ndarray]:
    codes = np.repeat(np.arange(len(of.modalities), dtype=np.int8), np.diff(of.starts))
    return Coloring("modality", modality_colors(of.modalities)), codes


def _by_first_failure(content: Content, of: Frame, under: str) -> Paint:
    """Each point by the severity at which its sample, as a query, first fails in any direction."""
    values, told = robust.first_failures(content, of.modalities, under)
    first = np.concatenate([values[m][of.row[of.part(m)]] for m in of.modalities])
    known = np.unique(first[~np.isnan(first)])
    colors = {**first_colors(known.tolist()), "not measured": MISSING}
    codes = np.where(np.isnan(first), len(known), np.searchsorted(known, first)).astype(np.int16)
    return Paint(Coloring(FIRST, colors), codes, problem=told)


def _codes(column: pd.Series) -> tuple[np.ndarray, dict[str, str]]:
    """Code of each value, and {category: color}; of many categories the frequent ones keep a color."""
    codes, found = pd.factorize(column.fillna("").astype(str), sort=True)
    colors = category_colors(found)
    if len(found) <= _MOST:
        return codes.astype(np.int16), {str(name): colors[name] for name in found}
    kept = np.sort(np.argsort(-np.bincount(codes), kind="stable")[:_MOST])
    new = np.full(len(found), _MOST, dtype=np.int16)
    new[kept] = np.arange(_MOST)
    rest = f"{len(found) - _MOST} others"
    return new[codes], {**{str(found[i]): colors[found[i]] for i in kept}, rest: MISSING}


def _field(content: Content, of: Frame, metric: str) -> np.ndarray:
    """Clean value of each point, the mean where it has several; NaN where it has none."""
    field = content.field(metric)
    values = np.full(len(of), np.nan, dtype=np.float32)
    for modality in of.modalities:
        rows = field[(field["source"] == modality).to_numpy()]
        mean = np.full(of.n, np.nan)
        at = content.index.get_indexer(rows["key"])
        known = at >= 0
        counted = np.bincount(at[known], minlength=of.n)
        summed = np.bincount(at[known], weights=rows["value"].to_numpy(dtype=float)[known], minlength=of.n)
        mean[counted > 0] = summed[counted > 0] / counted[counted > 0]
        values[of.part(modality)] = mean[of.row[of.part(modality)]]
    return values


def _rows(content: Content, modality: str, keys: pd.Series) -> np.ndarray:
    """Samples of the points; they are usually all that have the modality, in order, which is looked at first."""
    present = content.present(modality)
    if len(present) == len(keys) and (content.points["key"].iloc[present].array == keys.array).all():
        return present
    rows = content.index.get_indexer(keys)
    if (rows < 0).any():
        told = f"the map of run {content.run.id} has samples that the run does not"
        raise StoreError(f"{told}: delete its folder projections/ and `labkit project {content.run.id}`")
    return rows


def _bin(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    share = (values - limits[0]) / (limits[1] - limits[0])
    return np.clip((share * _CELLS).astype(np.int32), 0, _CELLS - 1)


def _cell_states(area: shapely.Polygon, extent: Extent) -> np.ndarray:
    """For each cell: 0 outside, 1 inside, 2 the boundary may cross it."""
    widths = [(high - low) / _CELLS for low, high in extent]
    line = shapely.segmentize(area.exterior, 0.5 * min(widths))
    x, y = shapely.get_coordinates(line).T
    crossed = np.zeros((_CELLS, _CELLS), dtype=bool)
    crossed[_bin(y, extent[1]), _bin(x, extent[0])] = True
    grown = crossed.copy()  # by one cell around, for points between two steps along the line
    for axis in (0, 1):
        for step in (-1, 1):
            grown |= np.roll(grown, step, axis)
    grown[[0, -1]] = grown[:, [0, -1]] = True  # cells at the edge hold what lies beyond them
    middles = [low + width * (np.arange(_CELLS) + 0.5) for (low, _), width in zip(extent, widths, strict=True)]
    shapely.prepare(area)
    inside = shapely.contains_xy(area, *(m.ravel() for m in np.meshgrid(*middles)))
    return np.where(grown.ravel(), 2, inside).astype(np.uint8)
