"""Whether two metrics go together over methods: correlations with intervals that resample methods *and* seeds.

Methods are the units: ten seeds of one method are one observation seen ten times, so seeds are averaged first, what all
methods of a seed have in common (an easy split) being removed. Interval: both ways are resampled, crossed; z = artanh r
of the resamples gives the standard error, and r comes back from z +- t_(k - 2) x error (Fisher 1921; Efron & Tibshirani
1993, ch. 12: bootstrap intervals belong on the scale on which the error is constant). Few methods in perfect order show
the bootstrap no variation, so |r| is held below 1 - 1 / k^2, and the error above the one of k independent pairs,
sqrt((1 + r^2 / 2) / (k - 3)) for ranks and 1 / sqrt(k - 3) else (Bonett & Wright, Psychometrika 65, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from .resampling import weight_blocks

if TYPE_CHECKING:
    from jaxtyping import Float

_RESAMPLES = 2000


@dataclass(frozen=True)
class Correlation:
    """Correlation of two metrics over methods.

    Attributes:
        value: coefficient of the means over seeds.
        low, high: interval for new methods and new seeds; NaN for fewer than four methods.
        p: two-sided, of no correlation; the t test that belongs to the interval.
        error: standard error of artanh(value).
        degrees: of freedom, methods less two.
        n_methods: methods with both metrics.
        n_seeds: seeds that counted.
        kind: what it is.
    """

    value: float
    low: float
    high: float
    p: float
    error: float
    degrees: int
    n_methods: int
    n_seeds: int
    kind: str


def correlation(
    x: pd.DataFrame,
    y: pd.DataFrame,
    *,
    method: Literal["spearman", "pearson"] = "spearman",
    level: float = 0.95,
    random_seed: int = 0,
) -> Correlation:
    """Correlation of `x` and `y` over their columns.

    Args:
        x: one row per seed, one column per method, as from `per_seed`.
        y: the same for the other metric. What counts is as in `common_repeats`.
        method: "spearman" (ranks) or "pearson".
        level: probability that the interval covers the correlation.
        random_seed: of the resampling.

    Raises:
        ValueError: an unknown method, a level outside (0, 1), fewer than three methods, or a metric that does not vary.
    """
    if method not in ("spearman", "pearson") or not 0 < level < 1:
        raise ValueError(f"method is 'spearman' or 'pearson', level in (0, 1); got {method!r} and {level}")
    a, b = (_centered(table) for table in common_repeats(x, y))
    n_seeds, n_methods = a.shape
    if n_methods < 3 or n_seeds < 1:
        raise ValueError(
            "a correlation needs three or more methods with both metrics under the same seeds; "
            f"got {n_methods} methods with {n_seeds} common seeds"
        )
    value = float(_coefficients(a.mean(axis=0)[None], b.mean(axis=0)[None], np.ones((1, n_methods)), method)[0])
    if np.isnan(value):
        raise ValueError("one of the metrics is the same for all methods: there is nothing to correlate")
    kind = f"{method}, {level:.0%} bootstrap over {n_methods} methods x {n_seeds} seeds"
    if n_methods < 4:
        nan = float("nan")
        return Correlation(value, nan, nan, nan, nan, n_methods - 2, n_methods, n_seeds, f"none: {n_methods} methods")
    least = np.sqrt((1 + (value**2 / 2 if method == "spearman" else 0.0)) / (n_methods - 3))
    error, degrees = max(_error(a, b, method, random_seed), float(least)), n_methods - 2
    z = float(_fisher(np.array(value), n_methods))
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(z) / error, degrees))
    low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    return Correlation(value, low, high, p, error, degrees, n_methods, n_seeds, kind)


def common_repeats(x: pd.DataFrame, y: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables without gaps: methods that have at least half of the seeds, and the seeds that all of these have.

    Args:
        x: one row per seed, one column per method.
        y: the same for another metric.
    """
    both = x.notna() & y.reindex(index=x.index, columns=x.columns).notna()
    methods = both.columns[both.sum() >= max(1.0, both.any(axis=1).sum() / 2)]
    seeds = both.index[both[methods].all(axis=1)]
    return x.loc[seeds, methods], y.loc[seeds, methods]


def _centered(table: pd.DataFrame) -> Float[np.ndarray, "seeds methods"]:
    values = table.to_numpy(dtype=float)
    return values - values.mean(axis=1, keepdims=True)


def _error(a: np.ndarray, b: np.ndarray, method: str, random_seed: int) -> float:
    """Standard deviation of z over crossed resamples; those without variation have no z and are left out."""
    n_seeds, n_methods = a.shape
    of_methods = np.concatenate(list(weight_blocks(n_methods, _RESAMPLES, random_seed)))
    of_seeds = np.concatenate(list(weight_blocks(n_seeds, _RESAMPLES, random_seed + 1))) / n_seeds
    r = _coefficients(of_seeds @ a, of_seeds @ b, of_methods, method)
    return float(_fisher(r[~np.isnan(r)], n_methods).std(ddof=1))


def _fisher(r: np.ndarray, n_methods: int) -> np.ndarray:
    limit = 1 - 1 / n_methods**2
    return np.arctanh(np.clip(r, -limit, limit))


def _coefficients(x: np.ndarray, y: np.ndarray, weights: np.ndarray, method: str) -> np.ndarray:
    """Weighted correlation of each row `[rows, methods]`; NaN where a side does not vary."""
    if method == "spearman":
        x, y = _ranks(x, weights), _ranks(y, weights)
    w = weights / weights.sum(axis=1, keepdims=True)
    x, y = (v - (w * v).sum(axis=1, keepdims=True) for v in (x, y))
    xx, yy, xy = ((w * p).sum(axis=1) for p in (x * x, y * y, x * y))
    # sums of squares of constants leave rounding errors behind, which are no variation
    tiny = 1e-24 * np.maximum(1.0, (np.abs(x).max(axis=1) + np.abs(y).max(axis=1)) ** 2)
    varies = (xx > tiny) & (yy > tiny)
    return np.divide(xy, np.sqrt(xx * yy), out=np.full(len(x), np.nan), where=varies)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ranks of resampled values: one that was drawn w times is w tied values."""
    below = (values[:, None, :] < values[:, :, None]) * weights[:, None, :]
    equal = (values[:, None, :] == values[:, :, None]) * weights[:, None, :]
    return below.sum(axis=2) + (equal.sum(axis=2) + 1) / 2
