"""Intervals of one result: over samples, over seeds, or both; each says which in `kind`.

Samples that share a caption are one observation seen several times, so samples are resampled by group.

- mean of per-point values: percentile bootstrap of the ratio of resampled sums (Efron & Tibshirani, An Introduction
  to the Bootstrap, 1993, ch. 13; groups as in Cameron, Gelbach & Miller, REStat 90, 2008);
- median of per-point values: the same resamples (ch. 13; the jackknife of a median is inconsistent, ch. 11.6);
- a statistic that is neither: grouped jackknife (Efron & Tibshirani, ch. 11; unequal groups after Busing, Meijer &
  van der Leeden, Statistics and Computing 9, 1999);
- seeds: Student's t;
- seeds and samples: crossed bootstrap (Owen & Eckles, Annals of Applied Statistics 6, 2012), with the degrees of
  freedom of Cameron, Gelbach & Miller, JBES 29, 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from .resampling import cell_sums, crossed_means, resampled_medians, weight_blocks

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True)
class Interval:
    """A value and how far to trust it.

    Attributes:
        value: the estimate.
        low, high: ends; NaN where there is too little data for an interval.
        n: values it was computed from.
        n_groups: independent units: groups, or seeds.
        kind: what the interval is, e.g. "95% bootstrap over groups".
    """

    value: float
    low: float
    high: float
    n: int
    n_groups: int
    kind: str


def bootstrap_interval(
    per_point: Float[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"] | None = None,
    *,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean or median of `per_point`, groups resampled with replacement.

    With group sums S_g, group sizes C_g and multinomial weights w, a resample's mean is sum_g w_g S_g / sum_g w_g C_g.
    Its median counts every value w_g times.

    Args:
        per_point: the values; NaN is left out.
        groups: group of each value; every value its own by default.
        statistic: what the interval is of.
        level: probability that the interval covers the statistic.
        n_resamples: bootstrap resamples.
        seed: of the resampling; equal seeds resample equal numbers of groups alike, so metrics stay comparable.

    Raises:
        ValueError: lengths differ, or the level is not between 0 and 1.
    """
    values = np.asarray(per_point, dtype=float)
    codes = np.arange(len(values)) if groups is None else np.asarray(groups)
    _check(values, codes, level)
    values, codes = values[~np.isnan(values)], codes[~np.isnan(values)]
    kind = f"{level:.0%} bootstrap over {'points' if groups is None else 'groups'}"
    sums, sizes = (cells[0] for cells in cell_sums(values, np.zeros(len(values)), codes))
    center = np.median if statistic == "median" else np.mean
    value = float(center(values)) if len(values) else float("nan")
    if len(sums) < 2:
        return Interval(value, float("nan"), float("nan"), len(values), len(sums), f"none: {len(sums)} group(s)")
    weights = weight_blocks(len(sums), n_resamples, seed)
    if statistic == "median":
        drawn = np.concatenate([resampled_medians(values, codes, w) for w in weights])
    else:
        drawn = np.concatenate([(w @ sums) / (w @ sizes) for w in weights])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(values), len(sums), kind)


def jackknife_interval(
    statistic: Callable[[Int[np.ndarray, " m"]], float],
    groups: Shaped[np.ndarray, " n"],
    *,
    n_folds: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Student-t interval of a smooth statistic that is no mean (CKA, Procrustes, ...), by leaving out folds of groups.

    With the estimate T on all n rows, T_k without the m_k rows of fold k, h_k = n / m_k and the pseudo-values
    P_k = h_k T - (h_k - 1) T_k of mean P, the variance is (1 / K) sum_k (P_k - P)^2 / (h_k - 1)
    (Busing, Meijer & van der Leeden 1999). Folds of one row each give the ordinary jackknife.

    Args:
        statistic: function of an array of row numbers.
        groups: group of each row; a group is left out as a whole.
        n_folds: at most this many folds, groups dealt to them at random.
        level: probability that the interval covers the statistic.
        seed: of the dealing.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    n, n_groups = len(codes), int(codes.max(initial=-1)) + 1
    _check(codes, codes, level)
    rows = np.arange(n)
    value = float(statistic(rows))
    n_folds = min(n_folds, n_groups)
    if n_folds < 2:
        return Interval(value, float("nan"), float("nan"), n, n_groups, f"none: {n_groups} group(s)")
    fold = (np.random.default_rng(seed).permutation(n_groups) % n_folds)[codes]
    left_out = np.array([float(statistic(rows[fold != k])) for k in range(n_folds)])
    ratio = n / np.bincount(fold, minlength=n_folds)
    pseudo = ratio * value - (ratio - 1) * left_out
    error = np.sqrt(np.mean((pseudo - pseudo.mean()) ** 2 / (ratio - 1)))
    return _t_interval(
        value, error, n_folds - 1, level, (n, n_groups, f"{level:.0%} jackknife over {n_folds} folds of groups")
    )


def seed_interval(values: Float[np.ndarray, " seeds"], *, level: float = 0.95) -> Interval:
    """Student-t interval of the mean over seeds: mean +- t_(S-1) s / sqrt(S).

    Args:
        values: one value per seed; NaN is left out.
        level: probability that the interval covers the mean over all seeds.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    values = np.asarray(values, dtype=float)
    _check(values, values, level)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        value = float(values[0]) if n else float("nan")
        return Interval(value, float("nan"), float("nan"), n, n, f"none: {n} seed(s)")
    return _t_interval(float(values.mean()), stats.sem(values), n - 1, level, (n, n, f"{level:.0%} t over {n} seeds"))


def crossed_bootstrap(
    table: pd.DataFrame,
    *,
    value: str = "value",
    seed: str = "seed",
    group: str = "group",
    level: float = 0.95,
    n_resamples: int = 1000,
    random_seed: int = 0,
) -> Interval:
    """Interval of the mean over seeds of per-point values, for new seeds *and* new groups.

    Seeds and groups are both resampled with replacement, crossed: a row counts (times its seed is drawn) x (times its
    group is drawn). One draw less than there are units makes the variance of each way unbiased (Rao & Wu, JASA 83,
    1988). Interval: mean +- t_(min(S, G) - 1) x bootstrap standard error. The noise of single cells is counted more
    than once, so the interval errs on the wide side (Owen & Eckles 2012); no exact crossed bootstrap exists.

    Args:
        table: one row per seed and point.
        value: column of the per-point values; NaN is left out.
        seed: column of the seed (or split).
        group: column of the group of points that are one observation.
        level: probability that the interval covers the mean.
        n_resamples: bootstrap resamples.
        random_seed: of the resampling.

    Raises:
        ValueError: the level is not between 0 and 1.
    """
    rows = table.loc[table[value].notna(), [value, seed, group]]
    _check(rows[value].to_numpy(), rows[group].to_numpy(), level)
    sums, sizes = cell_sums(rows[value].to_numpy(dtype=float), rows[seed].to_numpy(), rows[group].to_numpy())
    n_seeds, n_groups = sums.shape
    if n_seeds < 2:
        one = bootstrap_interval(
            rows[value].to_numpy(), rows[group].to_numpy(), level=level, n_resamples=n_resamples, seed=random_seed
        )
        return Interval(one.value, one.low, one.high, one.n, one.n_groups, f"{one.kind}, {n_seeds} seed")
    estimate = float(np.mean(sums.sum(axis=1) / sizes.sum(axis=1)))
    kind = f"{level:.0%} bootstrap over {n_seeds} seeds x {n_groups} groups"
    if n_groups < 2:
        return Interval(estimate, float("nan"), float("nan"), len(rows), n_groups, f"none: {n_groups} group")
    means = crossed_means(sums, sizes, n_resamples, random_seed)
    degrees = min(n_seeds, n_groups) - 1
    return _t_interval(estimate, float(means.std(ddof=1)), degrees, level, (len(rows), n_groups, kind))


def _t_interval(value: float, error: float, degrees: int, level: float, about: tuple[int, int, str]) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * error
    return Interval(value, value - half, value + half, *about)


def _check(values: np.ndarray, groups: np.ndarray, level: float) -> None:
    if values.ndim != 1 or values.shape != groups.shape:
        raise ValueError(f"need one group per value; got values {list(values.shape)} and groups {list(groups.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, e.g. 0.95; got {level}")
