"""Correlations over methods: scipy, invariances, and coverage in simulations with known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from labkit.stats import correlation


def measured(
    rng: np.random.Generator, *, methods: int, rho: float, seeds: int = 5, noise: float = 0.3
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two metrics of correlated methods; a seed shifts all of them alike."""
    latent = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=methods)
    tables = []
    for side in latent.T:
        values = side + noise * rng.normal(size=(seeds, methods)) + 3 * rng.normal(size=(seeds, 1))
        tables.append(pd.DataFrame(values, columns=[f"m{i}" for i in range(methods)]))
    return tables[0], tables[1]


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_the_coefficient_is_that_of_the_means(method: str) -> None:
    x, y = measured(np.random.default_rng(0), methods=12, rho=0.7)
    theirs = stats.spearmanr if method == "spearman" else stats.pearsonr
    found = correlation(x, y, method=method)  # type: ignore[arg-type]
    assert found.value == pytest.approx(theirs(x.mean(), y.mean()).statistic)
    assert (found.n_methods, found.n_seeds) == (12, 5)
    assert found.low < found.value < found.high
    assert found.kind == f"{method}, 95% bootstrap over 12 methods x 5 seeds"


def test_more_seeds_are_not_more_methods() -> None:
    x, y = measured(np.random.default_rng(0), methods=10, rho=0.6)
    once, often = correlation(x, y), correlation(*(pd.concat([t] * 8, ignore_index=True) for t in (x, y)))
    assert often.value == pytest.approx(once.value)
    assert often.error > 0.7 * once.error


def test_what_a_seed_does_to_all_methods_is_no_correlation() -> None:
    x, y = measured(np.random.default_rng(0), methods=15, rho=0.0)
    easy = pd.Series([0.0, 50.0, 100.0, -50.0, 5.0])
    shifted = correlation(x.add(easy, axis=0), y.add(easy, axis=0))
    plain = correlation(x, y)
    assert shifted.value == pytest.approx(plain.value)
    assert shifted.p == pytest.approx(plain.p, abs=1e-6)


def test_turning_a_metric_turns_the_sign() -> None:
    x, y = measured(np.random.default_rng(3), methods=12, rho=0.5)
    one, other = correlation(x, y), correlation(x, -y)
    assert [one.value, one.low, one.high] == pytest.approx([-other.value, -other.high, -other.low])
    assert correlation(y, x).value == pytest.approx(one.value)


def test_only_common_methods_and_seeds_count() -> None:
    x, y = measured(np.random.default_rng(0), methods=12, rho=0.5)
    y.loc[2, "m3"] = np.nan
    found = correlation(x.drop(columns="m0"), y.iloc[:4])
    assert (found.n_methods, found.n_seeds) == (11, 3), "a seed is given up for a method"
    y.loc[0:3, "m3"] = np.nan
    found = correlation(x, y)
    assert (found.n_methods, found.n_seeds) == (11, 5), "a method with fewer than half of the seeds is left out"
    kept = correlation(x.drop(columns="m3"), y.drop(columns="m3"))
    assert found == kept


@pytest.mark.parametrize("methods", [8, 25])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_cover_the_truth(methods: int, rho: float) -> None:
    rng = np.random.default_rng(7)
    # Spearman's coefficient of normal variables: 6 / pi asin(r / 2), r lowered by the noise that seeds leave
    r = rho / (1 + 0.3**2 / 5)
    truth, repeats, covered, found = 6 / np.pi * np.arcsin(r / 2), 40, 0, 0
    for _ in range(repeats):
        c = correlation(*measured(rng, methods=methods, rho=rho))
        covered += c.low <= truth <= c.high
        found += c.p < 0.05
    assert covered / repeats >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / repeats)
    if rho == 0:
        assert found / repeats <= 0.05 + 2 * np.sqrt(0.95 * 0.05 / repeats)
    elif methods == 25:
        assert found / repeats > 0.95, "it cannot see a strong correlation"


def test_p_and_interval_agree() -> None:
    for seed in range(12):
        c = correlation(*measured(np.random.default_rng(seed), methods=14, rho=0.5))
        assert (c.p < 0.05) == (c.low > 0 or c.high < 0)


def test_perfect_and_few() -> None:
    x, _ = measured(np.random.default_rng(0), methods=9, rho=0.0, noise=0.0)
    same = correlation(x, 2 * x + 1)
    assert same.value == pytest.approx(1)
    assert 0.8 < same.low < same.high < 1
    # of four methods one in twelve pairs of rankings agrees or is opposed by chance
    assert correlation(x.iloc[:, :4], x.iloc[:, :4]).p > 1 / 12
    three = correlation(x.iloc[:, :3], x.iloc[:, :3])
    assert np.isnan(three.low)
    assert three.kind == "none: 3 methods"


def test_errors() -> None:
    x, y = measured(np.random.default_rng(0), methods=5, rho=0.0)
    with pytest.raises(ValueError, match="three or more methods with both metrics .* got 2 methods"):
        correlation(x.iloc[:, :2], y)
    with pytest.raises(ValueError, match="nothing to correlate"):
        correlation(x * 0 + 0.1, y)
    with pytest.raises(ValueError, match="'spearman' or 'pearson'"):
        correlation(x, y, method="kendall")  # type: ignore[arg-type]
