"""Resampling with replacement, as weights: how often each unit was drawn.

Sums per unit and a matrix of weights turn every bootstrap into two matrix products, whatever the number of points.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

_BLOCK = 2_000_000  # weights held at once


def cell_sums(
    values: Float[np.ndarray, " n"], rows: Shaped[np.ndarray, " n"], columns: Shaped[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, "r c"]]:
    """Sum and number of the values in each cell (row name, column name)."""
    row_names, r = np.unique(rows, return_inverse=True)
    column_names, c = np.unique(columns, return_inverse=True)
    shape = (max(len(row_names), 1), len(column_names))
    cells, n_cells = r * shape[1] + c, shape[0] * shape[1]
    sums = np.bincount(cells, weights=values, minlength=n_cells)
    return sums.reshape(shape), np.bincount(cells, minlength=n_cells).reshape(shape).astype(float)


def weight_blocks(
    n_units: int, n_resamples: int, seed: int, n_draws: int | None = None
) -> Iterator[Float[np.ndarray, "rows units"]]:
    """Multinomial weights [n_resamples, n_units], in blocks of rows.

    Args:
        n_units: what is drawn from.
        n_resamples: rows in all.
        seed: of the draws.
        n_draws: draws in each row; `n_units` by default.
    """
    n_draws = n_units if n_draws is None else n_draws
    rows = max(1, _BLOCK // n_units)
    if n_resamples <= rows:
        yield _small_table(n_units, n_resamples, seed, n_draws)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, rows):
        yield _draw(rng, min(rows, n_resamples - start), n_units, n_draws)


def crossed_means(
    sums: Float[np.ndarray, "r c"], sizes: Float[np.ndarray, "r c"], n_resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    """Means over resampled rows of the means over resampled columns.

    Args:
        sums: sum of the values in each cell.
        sizes: number of values in each cell.
        n_resamples: resamples; each draws one row and one column less than there are.
        seed: of the draws.
    """
    n_rows, n_columns = sums.shape
    drawn = _draw(np.random.default_rng(seed), n_resamples, n_rows, n_rows - 1)
    blocks = list(weight_blocks(n_columns, n_resamples, seed + 1, n_columns - 1))
    total = np.concatenate([weights @ sums.T for weights in blocks])
    count = np.concatenate([weights @ sizes.T for weights in blocks])
    drawn = drawn * (count > 0)  # a row none of whose columns was drawn has no mean
    means = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return (drawn * means).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)


def resampled_medians(
    values: Float[np.ndarray, " n"], columns: Shaped[np.ndarray, " n"], weights: Float[np.ndarray, "rows units"]
) -> Float[np.ndarray, " rows"]:
    """Median of each resample, in which a value occurs as often as its unit was drawn.

    Args:
        values: the values.
        columns: name of the unit of each value; units in sorted order are the columns of `weights`.
        weights: how often each unit was drawn.
    """
    order = np.argsort(values)
    values, unit = values[order], np.unique(columns, return_inverse=True)[1][order]
    rows = max(1, _BLOCK // len(values))
    medians = []
    for start in range(0, len(weights), rows):
        up_to = weights[start : start + rows, unit].cumsum(axis=1)
        total = up_to[:, -1:]
        middle = [(up_to > place).argmax(axis=1) for place in ((total - 1) // 2, total // 2)]
        medians.append((values[middle[0]] + values[middle[1]]) / 2)
    return np.concatenate(medians)


@lru_cache(maxsize=8)
def _small_table(n_units: int, n_resamples: int, seed: int, n_draws: int) -> np.ndarray:
    weights = _draw(np.random.default_rng(seed), n_resamples, n_units, n_draws)
    weights.flags.writeable = False
    return weights


def _draw(rng: np.random.Generator, n_resamples: int, n_units: int, n_draws: int) -> np.ndarray:
    units = rng.integers(n_units, size=(n_resamples, n_draws))
    units += np.arange(n_resamples)[:, None] * n_units
    return np.bincount(units.ravel(), minlength=n_resamples * n_units).reshape(n_resamples, n_units).astype(float)
