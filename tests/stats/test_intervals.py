"""Intervals against scipy, enumeration, exact formulas and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from labkit.stats import Interval, bootstrap_interval, crossed_bootstrap, jackknife_interval, seed_interval
from labkit.stats.resampling import cell_sums, crossed_means, resampled_medians, weight_blocks

SIMULATIONS = 300
STANDARD_ERROR = np.sqrt(0.95 * 0.05 / SIMULATIONS)


def ends(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def covers(interval: Interval, truth: float = 0.0) -> bool:
    return interval.low <= truth <= interval.high


def test_bootstrap_of_independent_points_is_that_of_scipy() -> None:
    x = np.random.default_rng(0).exponential(size=80)
    ours = bootstrap_interval(x, n_resamples=20_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(x.mean())
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=0.02 * x.std())
    assert (ours.n, ours.n_groups, ours.kind) == (80, 80, "95% bootstrap over points")


def test_bootstrap_over_groups_is_that_of_scipy_on_ratios() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 6, size=40))
    x = rng.normal(size=40)[groups] + 0.1 * rng.normal(size=len(groups))
    sums, sizes = np.bincount(groups, x), np.bincount(groups)
    theirs = stats.bootstrap(
        (sums, sizes), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, vectorized=True, n_resamples=20_000,
        method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    ours = bootstrap_interval(x, groups, n_resamples=20_000)
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=0.02 * x.std())
    assert (ours.n, ours.n_groups) == (len(x), 40)
    alone = bootstrap_interval(x)
    assert ours.high - ours.low > 1.4 * (alone.high - alone.low), "points of a group are not independent"


def test_bootstrap_of_a_median_is_that_of_scipy() -> None:
    x = np.random.default_rng(0).exponential(size=81)
    ours = bootstrap_interval(x, statistic="median", n_resamples=20_000)
    theirs = stats.bootstrap((x,), np.median, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == np.median(x)
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=0.02 * x.std())


@pytest.mark.parametrize("n_groups", [7, 8])
def test_resampled_medians_are_those_of_the_repeated_values(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"g{i}" for i in rng.integers(n_groups, size=30)] + [f"g{i}" for i in range(n_groups)])
    x = rng.integers(0, 9, size=len(groups)).astype(float)
    weights = np.concatenate(list(weight_blocks(n_groups, 200, seed=1)))
    names = np.unique(groups)
    expected = [
        np.median(np.concatenate([np.repeat(x[groups == g], int(w)) for g, w in zip(names, row, strict=True)]))
        for row in weights
    ]
    assert resampled_medians(x, groups, weights) == pytest.approx(expected)
    whole = bootstrap_interval(x, groups, statistic="median", n_resamples=200, seed=1)
    assert ends(whole) == pytest.approx([np.median(x), *np.quantile(expected, [0.025, 0.975])])


def test_many_values_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, groups = np.random.default_rng(0).normal(size=90), np.arange(90) // 3
    weights = np.concatenate(list(weight_blocks(30, 50, seed=0)))
    whole = resampled_medians(x, groups, weights)
    monkeypatch.setattr("labkit.stats.resampling._BLOCK", 90 * 7)
    assert (resampled_medians(x, groups, weights) == whole).all()


def test_coverage_of_the_bootstrap_of_a_grouped_median() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(120) // 2
    hits = [
        covers(bootstrap_interval(rng.normal(size=60)[groups], groups, statistic="median", n_resamples=400))
        for _ in range(SIMULATIONS)
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * STANDARD_ERROR)


def test_nan_is_left_out_of_the_median() -> None:
    x = np.array([1.0, np.nan, 3.0, 8.0, 4.0])
    interval = bootstrap_interval(x, statistic="median")
    assert (interval.value, interval.n) == (3.5, 4)
    assert ends(interval) == ends(bootstrap_interval(x[~np.isnan(x)], statistic="median"))


def test_weights_are_multinomial_and_come_in_blocks() -> None:
    small = np.concatenate(list(weight_blocks(5, 4000, seed=0)))
    assert small.shape == (4000, 5)
    assert set(small.sum(axis=1)) == {5.0}
    assert small.var(axis=0) == pytest.approx(np.full(5, 5 * 0.2 * 0.8), rel=0.1)
    blocks = [block.shape for block in weight_blocks(700_000, 5, seed=0)]
    assert blocks == [(2, 700_000), (2, 700_000), (1, 700_000)]


def test_nan_is_left_out_of_the_bootstrap() -> None:
    x = np.array([1.0, np.nan, 3.0, 5.0, np.nan])
    groups = np.array(["a", "b", "a", "c", "c"])
    kept = ~np.isnan(x)
    assert bootstrap_interval(x, groups) == bootstrap_interval(x[kept], groups[kept])
    assert bootstrap_interval(x, groups).n == 3


@pytest.mark.parametrize("values", [[], [np.nan], [1.0], [1.0, 2.0]])
def test_one_group_has_no_interval(values: list[float]) -> None:
    interval = bootstrap_interval(np.array(values), np.zeros(len(values)))
    assert np.isnan([interval.low, interval.high]).all()
    assert interval.kind.startswith("none")
    assert interval.value == pytest.approx(np.mean(values) if len(values) else np.nan, nan_ok=True)


def test_coverage_of_the_grouped_bootstrap() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(80), 4)
    grouped = alone = 0
    for i in range(SIMULATIONS):
        x = rng.normal(size=80)[groups] + rng.normal(size=320)
        grouped += covers(bootstrap_interval(x, groups, n_resamples=500, seed=i))
        alone += covers(bootstrap_interval(x, n_resamples=500, seed=i))
    assert abs(grouped / SIMULATIONS - 0.95) < 3 * STANDARD_ERROR
    assert alone / SIMULATIONS < 0.95 - 3 * STANDARD_ERROR, "the simulation cannot tell grouped from independent points"


def test_jackknife_of_the_mean_is_the_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=50)
    interval = jackknife_interval(lambda rows: x[rows].mean(), np.arange(50), n_folds=50)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert ends(interval) == pytest.approx([x.mean(), theirs.low, theirs.high])


def test_jackknife_over_groups_is_the_standard_error_of_equal_groups() -> None:
    means = np.random.default_rng(0).normal(size=12)
    groups = np.repeat([f"g{i}" for i in range(12)], 3)
    interval = jackknife_interval(lambda rows: np.repeat(means, 3)[rows].mean(), groups)
    half = stats.sem(means) * stats.t.ppf(0.975, 11)
    assert ends(interval) == pytest.approx([means.mean(), means.mean() - half, means.mean() + half])
    assert (interval.n, interval.n_groups, interval.kind) == (36, 12, "95% jackknife over 12 folds of groups")


def test_jackknife_never_splits_a_group() -> None:
    groups = np.random.default_rng(0).integers(0, 30, size=100)
    seen = []

    def statistic(rows: np.ndarray) -> float:
        seen.append(rows)
        return 0.0

    jackknife_interval(statistic, groups, n_folds=7)
    assert len(seen[0]) == 100
    left_out = [np.setdiff1d(np.arange(100), rows) for rows in seen[1:]]
    np.testing.assert_array_equal(np.sort(np.concatenate(left_out)), np.arange(100))
    sets = [set(groups[rows]) for rows in left_out]
    assert sum(map(len, sets)) == len(set().union(*sets)) == len(set(groups))


def test_coverage_of_the_jackknife_of_a_correlation() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(100), 2)
    hits = 0
    for i in range(SIMULATIONS):
        z = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=100)[groups]
        hits += covers(jackknife_interval(lambda r, z=z: np.corrcoef(z[r].T)[0, 1], groups, seed=i), 0.6)
    assert abs(hits / SIMULATIONS - 0.95) < 3 * STANDARD_ERROR


def test_seed_interval_is_students() -> None:
    x = np.array([0.41, 0.47, 0.44, np.nan])
    theirs = stats.ttest_1samp(x[:3], 0).confidence_interval(0.95)
    assert ends(seed_interval(x)) == pytest.approx([0.44, theirs.low, theirs.high])
    assert seed_interval(x).kind == "95% t over 3 seeds"
    assert np.isnan(seed_interval(np.array([0.4])).low)


def crossed_table(
    rng: np.random.Generator, *, seeds: int, groups: int, spread: tuple[float, float, float]
) -> pd.DataFrame:
    by_seed, by_group, noise = spread
    s, g = (a.ravel() for a in np.meshgrid(np.arange(seeds), np.arange(groups), indexing="ij"))
    value = (
        by_seed * rng.normal(size=seeds)[s] + by_group * rng.normal(size=groups)[g] + noise * rng.normal(size=len(s))
    )
    return pd.DataFrame({"seed": s, "group": g, "value": value})


def test_crossed_resamples_have_the_enumerated_spread() -> None:
    table = crossed_table(np.random.default_rng(0), seeds=3, groups=3, spread=(1, 1, 1)).iloc[1:]
    sums, sizes = cell_sums(table["value"].to_numpy(), table["seed"].to_numpy(), table["group"].to_numpy())
    assert sizes.tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    exact = []
    for seeds in itertools.product(range(3), repeat=2):
        for groups in itertools.product(range(3), repeat=2):
            rows = [(sums[s, list(groups)].sum(), sizes[s, list(groups)].sum()) for s in seeds]
            known = [total / count for total, count in rows if count]
            exact.append(np.mean(known) if known else 0.0)
    drawn = crossed_means(sums, sizes, 200_000, seed=0)
    assert drawn.mean() == pytest.approx(np.mean(exact), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(exact), rel=0.01)


@pytest.mark.parametrize(("seeds", "groups", "spread"), [(5, 9, (1, 0, 0)), (9, 5, (0, 1, 0))])
def test_one_way_spread_gives_the_standard_error_of_that_way(
    seeds: int, groups: int, spread: tuple[float, float, float]
) -> None:
    table = crossed_table(np.random.default_rng(0), seeds=seeds, groups=groups, spread=spread)
    interval = crossed_bootstrap(table, n_resamples=50_000)
    units = table.groupby("seed" if spread[0] else "group")["value"].mean()
    assert ends(interval) == pytest.approx(ends(seed_interval(units.to_numpy())), abs=0.02)
    assert (interval.n, interval.kind) == (45, f"95% bootstrap over {seeds} seeds x {groups} groups")


def test_coverage_of_the_crossed_bootstrap() -> None:
    rng = np.random.default_rng(3)
    crossed = groups_only = 0
    for i in range(SIMULATIONS):
        table = crossed_table(rng, seeds=10, groups=50, spread=(0.3, 1.0, 0.5))
        table = table[rng.random(len(table)) < 0.4]  # each split tests some of the groups
        crossed += covers(crossed_bootstrap(table, n_resamples=300, random_seed=i))
        groups_only += covers(bootstrap_interval(table["value"].to_numpy(), table["group"].to_numpy(), n_resamples=300))
    assert crossed / SIMULATIONS > 0.95 - 3 * STANDARD_ERROR
    assert groups_only / SIMULATIONS < crossed / SIMULATIONS


def test_crossed_bootstrap_of_one_seed_says_so() -> None:
    table = crossed_table(np.random.default_rng(0), seeds=1, groups=20, spread=(1, 1, 1))
    interval = crossed_bootstrap(table)
    assert interval.kind == "95% bootstrap over groups, 1 seed"
    assert ends(interval) == ends(bootstrap_interval(table["value"].to_numpy(), table["group"].to_numpy()))


def test_crossed_bootstrap_of_one_group_has_no_interval() -> None:
    table = crossed_table(np.random.default_rng(0), seeds=4, groups=1, spread=(1, 1, 1))
    assert np.isnan(crossed_bootstrap(table).low)


@settings(max_examples=30, deadline=None)
@given(
    shift=st.floats(-100, 100),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_intervals_move_and_stretch_with_the_values(shift: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, groups, seeds = rng.normal(size=40), rng.integers(0, 15, size=40), np.repeat([0, 1], 20)
    moved = shift + scale * x

    def intervals(values: np.ndarray) -> list[float]:
        table = pd.DataFrame({"value": values, "seed": seeds, "group": groups})
        all_of_them = (
            bootstrap_interval(values, groups, n_resamples=50),
            jackknife_interval(lambda rows: float(np.median(values[rows])), groups),
            seed_interval(values),
            crossed_bootstrap(table, n_resamples=50),
        )
        return [end for interval in all_of_them for end in ends(interval)]

    expected = shift + scale * np.array(intervals(x))
    np.testing.assert_allclose(intervals(moved), expected, rtol=1e-7, atol=1e-7 * (abs(shift) + scale))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, groups = rng.normal(size=30), rng.integers(0, 10, size=30)
    order = rng.permutation(30)
    np.testing.assert_allclose(ends(bootstrap_interval(x, groups)), ends(bootstrap_interval(x[order], groups[order])))


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(ValueError, match="level is a probability"):
        bootstrap_interval(np.ones(3), level=level)


def test_groups_must_match_the_values() -> None:
    with pytest.raises(ValueError, match=r"one group per value; got values \[3\] and groups \[2\]"):
        bootstrap_interval(np.ones(3), np.ones(2))
