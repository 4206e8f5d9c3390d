"""Whether one method beats another: paired differences, tests and how small a difference could have been seen.

- per-point values of the same points under the same seeds, with groups: `paired_difference`;
- one number per seed, where the splits of the seeds overlap: `corrected_t_test` (Nadeau & Bengio, Inference for the
  generalization error, Machine Learning 52, 2003);
- many comparisons: `holm` (Holm, Scandinavian Journal of Statistics 6, 1979);
- power: `minimum_detectable_effect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import optimize, stats

from .intervals import bootstrap_interval, crossed_bootstrap
from .resampling import cell_sums

if TYPE_CHECKING:
    from jaxtyping import Float

_RESAMPLES = 2000
_FLIPS = 9999
_EXACT_GROUPS = 12  # up to here all patterns of signs are tried
_BLOCK = 2_000_000  # signs held at once


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over the points that both have.

    Attributes:
        difference: mean over seeds of the mean difference of the points.
        low, high: interval; NaN where there is too little data.
        p: two-sided, of no difference.
        effect_size: Cohen's d_z, the mean divided by the standard deviation of the units in `effect_over`.
        effect_over: "seeds" or "groups".
        n_seeds: seeds in common.
        n_keys: points in common, over all seeds.
        n_unpaired: rows of either table without a partner, left out.
        kind: what interval and p are.
    """

    difference: float
    low: float
    high: float
    p: float
    effect_size: float
    effect_over: str
    n_seeds: int
    n_keys: int
    n_unpaired: int
    kind: str


@dataclass(frozen=True)
class TTest:
    """Test of a mean against zero.

    Attributes:
        mean: the mean.
        low, high: 95% interval of the mean.
        statistic: Student's t.
        p: two-sided.
        degrees: of freedom.
    """

    mean: float
    low: float
    high: float
    statistic: float
    p: float
    degrees: int


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    on: Sequence[str] = ("key", "seed"),
    group: str = "group",
    level: float = 0.95,
    random_seed: int = 0,
) -> PairedDifference:
    """Mean of a - b over the points in both tables, for new groups and (with two or more seeds) new seeds.

    Two or more seeds: interval and p from `crossed_bootstrap`, with t = difference / standard error. One seed: interval
    from `bootstrap_interval`; p from flipping the sign of whole groups at random, which is exact if the difference of
    a group is symmetric about zero under the hypothesis (Efron & Tibshirani 1993, ch. 15).

    Args:
        a: one row per point: the columns of `on`, `group` and value.
        b: the same for the other method.
        on: columns that identify a point; without "seed" among them all points count as one seed's.
        group: column of the group of points that are one observation.
        level: probability that the interval covers the difference.
        random_seed: of the resampling.

    Raises:
        ValueError: a column is missing, a point occurs twice, or no point is in both.
    """
    both, n_unpaired = _paired(a, b, list(on), group)
    values, groups = both["value"].to_numpy(), both[group].to_numpy()
    sums, sizes = cell_sums(values, both["seed"].to_numpy(), groups)
    per_seed = sums.sum(axis=1) / sizes.sum(axis=1)
    per_group = sums.sum(axis=0) / sizes.sum(axis=0)
    if len(per_seed) > 1:
        interval = crossed_bootstrap(both, group=group, level=level, n_resamples=_RESAMPLES, random_seed=random_seed)
        p = _p_of_interval(interval.value, interval.high, min(sums.shape) - 1, level)
        kind, units, over = f"{interval.kind}, t test", per_seed, "seeds"
    else:
        interval = bootstrap_interval(values, groups, level=level, n_resamples=_RESAMPLES, seed=random_seed)
        p = _sign_flip(sums[0], random_seed)
        kind, units, over = f"{interval.kind}, sign flips of groups, 1 seed", per_group, "groups"
    return PairedDifference(
        interval.value,
        interval.low,
        interval.high,
        p,
        cohen_dz(units),
        over,
        len(per_seed),
        len(both),
        n_unpaired,
        kind,
    )


def corrected_t_test(differences: Float[np.ndarray, " splits"], *, test_share: float) -> TTest:
    """Student's t test of differences over overlapping random splits.

    The training sets of random splits overlap, so their results are not independent and the plain t test finds too
    much. With J differences of mean d and variance s^2: t = d / sqrt((1 / J + n_test / n_train) s^2), J - 1 degrees of
    freedom (Nadeau & Bengio 2003, the corrected resampled t test).

    Args:
        differences: one per split.
        test_share: n_test / (n_test + n_train), e.g. 0.25 / 0.85 for splits of 60 % training, 15 % validation and
            25 % test; 0 gives the plain t test of independent differences.

    Raises:
        ValueError: fewer than two differences, a NaN, or a share outside [0, 1).
    """
    values, error = _differences(differences, test_share)
    mean, degrees = float(values.mean()), len(values) - 1
    half = float(stats.t.ppf(0.975, degrees)) * error
    statistic = _ratio(mean, error)
    p = float(2 * stats.t.sf(abs(statistic), degrees)) if mean else 1.0
    return TTest(mean, mean - half, mean + half, statistic, p, degrees)


def minimum_detectable_effect(
    differences: Float[np.ndarray, " splits"], *, power: float = 0.8, alpha: float = 0.05, test_share: float = 0.0
) -> float:
    """Smallest true mean difference that a two-sided test of this many, this noisy differences finds.

    Solves P(t' > t_(1 - alpha / 2)) = power for the mean, t' being noncentral t with noncentrality mean / standard
    error (the standard error of `corrected_t_test`); the other tail is negligible from a power of 0.5 on.

    Args:
        differences: one per split or seed.
        power: probability of finding it.
        alpha: level of the test.
        test_share: see `corrected_t_test`; 0 for independent differences.

    Raises:
        ValueError: see `corrected_t_test`; or alpha is not in (0, 0.5), or power not in [0.5, 1).
    """
    if not (0 < alpha < 0.5 <= power < 1):
        raise ValueError(f"needs alpha in (0, 0.5) and power in [0.5, 1); got alpha {alpha} and power {power}")
    values, error = _differences(differences, test_share)
    degrees = len(values) - 1
    critical = float(stats.t.ppf(1 - alpha / 2, degrees))

    def lacking(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - power

    return float(optimize.brentq(lacking, 0.0, 4 * critical + 10)) * error  # type: ignore[arg-type]


def holm(p_values: Sequence[float] | Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Adjust p values for being a family: max over j <= i of (m - j + 1) p_(j), at most 1 (Holm 1979).

    Args:
        p_values: of m tests; NaN (no test) stays NaN and does not count.

    Raises:
        ValueError: a value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(f"p values lie in [0, 1]; got {p[known].min():g} to {p[known].max():g}")
    order = np.argsort(p[known], kind="stable")
    factors = np.arange(known.sum(), 0, -1)
    adjusted = np.empty(known.sum())
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[known][order]), 1.0)
    result = np.full(p.shape, np.nan)
    result[known] = adjusted
    return result


def cohen_dz(differences: Float[np.ndarray, " n"]) -> float:
    """Mean of the differences divided by their standard deviation; NaN for fewer than two."""
    values = np.asarray(differences, dtype=float)
    return _ratio(float(values.mean()), float(values.std(ddof=1))) if len(values) > 1 else float("nan")


def _paired(a: pd.DataFrame, b: pd.DataFrame, on: list[str], group: str) -> tuple[pd.DataFrame, int]:
    for name, table in (("a", a), ("b", b)):
        missing = [c for c in (*on, group, "value") if c not in table.columns]
        if missing:
            raise ValueError(f"table {name} lacks {missing}; it has {list(table.columns)}")
        if table.duplicated(on).any():
            row = table.loc[table.duplicated(on), on].iloc[0].to_dict()
            raise ValueError(f"table {name} has a point twice, e.g. {row}; filter it to one condition, or widen `on`")
    both = a[[*on, group, "value"]].merge(b[[*on, "value"]], on=on, suffixes=("", "_b"))
    both["value"] = both["value"].astype(float) - both["value_b"].astype(float)
    both = both.dropna(subset=["value"])
    both = both if "seed" in on else both.assign(seed=0)
    if both.empty:
        raise ValueError(f"no point is in both tables by {on}; compare runs of the same data and seeds")
    return both, len(a) + len(b) - 2 * len(both)


def _p_of_interval(value: float, high: float, degrees: int, level: float) -> float:
    """Two-sided p of the t test that belongs to a symmetric t interval."""
    if degrees < 1:
        return float("nan")
    if value == 0:
        return 1.0
    error = (high - value) / float(stats.t.ppf((1 + level) / 2, degrees))
    return float(2 * stats.t.sf(abs(_ratio(value, error)), degrees))


def _sign_flip(group_sums: np.ndarray, random_seed: int) -> float:
    """Two-sided p of the sum under random signs; the observed signs count as one draw."""
    informative = group_sums[group_sums != 0]
    if len(informative) == 0:
        return 1.0
    total = abs(informative.sum())
    total -= 1e-12 * np.abs(informative).sum()  # sums in another order differ in their last bits
    n = len(informative)
    if n <= _EXACT_GROUPS:
        signs = 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) - 1
        return float(np.mean(np.abs(signs @ informative) >= total))
    rng = np.random.default_rng(random_seed)
    extreme, rows = 0, max(1, _BLOCK // n)
    for start in range(0, _FLIPS, rows):
        signs = 2.0 * rng.integers(0, 2, size=(min(rows, _FLIPS - start), n), dtype=np.int8) - 1.0
        extreme += int((np.abs(signs @ informative) >= total).sum())
    return (extreme + 1) / (_FLIPS + 1)


def _differences(differences: np.ndarray, test_share: float) -> tuple[np.ndarray, float]:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or len(values) < 2 or np.isnan(values).any():
        raise ValueError(f"needs two or more differences without NaN; got {values.tolist()}")
    if not 0 <= test_share < 1:
        raise ValueError(f"test_share is n_test / (n_test + n_train), in [0, 1); got {test_share}")
    variance = (1 / len(values) + test_share / (1 - test_share)) * values.var(ddof=1)
    return values, float(np.sqrt(variance))


def _ratio(value: float, scale: float) -> float:
    """`value / scale`; infinite where nothing varies."""
    return value / scale if scale else float(np.copysign(np.inf, value)) if value else 0.0
