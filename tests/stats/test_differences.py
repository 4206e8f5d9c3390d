"""Paired differences and tests against scipy, worked examples, definitions and simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labkit.stats import (
    cohen_dz,
    corrected_t_test,
    crossed_bootstrap,
    holm,
    minimum_detectable_effect,
    paired_difference,
)

SIMULATIONS = 2000


def table(values: np.ndarray, *, per_group: int = 1) -> pd.DataFrame:
    """values [seeds, points] as a table."""
    n_seeds, n = values.shape
    keys = np.tile(np.arange(n), n_seeds)
    return pd.DataFrame(
        {"key": keys, "seed": np.repeat(np.arange(n_seeds), n), "group": keys // per_group, "value": values.ravel()}
    )


def test_one_seed_is_tested_by_flipping_signs_like_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, size=(1, 10)), rng.normal(0, 1, size=(1, 10))
    result = paired_difference(table(a), table(b))
    theirs = stats.permutation_test(
        (a[0], b[0]), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert result.p == pytest.approx(theirs.pvalue)
    assert result.difference == pytest.approx((a - b).mean())
    assert result.effect_size == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert (result.effect_over, result.n_seeds, result.n_keys, result.n_unpaired) == ("groups", 1, 10, 0)
    assert "sign flips of groups, 1 seed" in result.kind


def test_sampled_sign_flips_agree_with_the_t_test_of_normal_data() -> None:
    d = np.random.default_rng(0).normal(0.15, 1, size=(1, 300))
    result = paired_difference(table(d), table(np.zeros_like(d)))
    assert result.p == pytest.approx(stats.ttest_1samp(d[0], 0).pvalue, abs=0.02)


def test_sign_flips_keep_groups_together() -> None:
    d = np.repeat(np.random.default_rng(0).normal(0.6, 1, size=8), 5)[None]
    grouped = paired_difference(table(d, per_group=5), table(0 * d, per_group=5))
    alone = paired_difference(table(d), table(0 * d))
    assert grouped.p == pytest.approx(paired_difference(table(d[:, ::5]), table(0 * d[:, ::5])).p)
    assert alone.p < grouped.p


def test_many_seeds_use_the_crossed_bootstrap() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, size=(5, 60)), rng.normal(0, 1, size=(5, 60))
    result = paired_difference(table(a), table(b))
    interval = crossed_bootstrap(table(a - b), n_resamples=2000)
    assert (result.difference, result.low, result.high) == (interval.value, interval.low, interval.high)
    assert result.n_seeds == 5
    assert result.effect_over == "seeds"
    assert result.effect_size == pytest.approx(cohen_dz((a - b).mean(axis=1)))


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("shift", [0.05, 0.2, 0.5])
def test_p_and_interval_agree(level: float, shift: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(shift, 1, size=(6, 40)), rng.normal(0, 1, size=(6, 40))
    result = paired_difference(table(a), table(b), level=level)
    assert (result.p < 1 - level) == (not result.low <= 0 <= result.high)


def test_two_runs_are_compared_by_key_alone() -> None:
    rng = np.random.default_rng(0)
    a, b = table(rng.normal(0.5, 1, size=(1, 30))), table(rng.normal(size=(1, 30)))
    assert paired_difference(a, b.assign(seed=7), on=("key",)) == paired_difference(a, b)


def test_swapping_the_methods_turns_the_sign() -> None:
    rng = np.random.default_rng(2)
    a, b = table(rng.normal(size=(3, 30))), table(rng.normal(size=(3, 30)))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert [one.difference, one.low, one.high] == pytest.approx([-other.difference, -other.high, -other.low])
    assert one.p == pytest.approx(other.p)


def test_only_points_that_both_have_count() -> None:
    rng = np.random.default_rng(0)
    a, b = table(rng.normal(size=(2, 20))), table(rng.normal(size=(2, 20)))
    b.loc[3, "value"] = np.nan
    result = paired_difference(a.iloc[2:], b.iloc[:-1])
    assert result.n_keys == 40 - 2 - 1 - 1
    assert result.n_unpaired == 38 + 39 - 2 * 36
    kept = paired_difference(a.drop(index=[0, 1, 3, 39]), b.drop(index=[0, 1, 3, 39]))
    assert result.difference == pytest.approx(kept.difference)


def test_equal_methods_do_not_differ() -> None:
    for seeds in (1, 3):
        a = table(np.random.default_rng(0).normal(size=(seeds, 20)))
        result = paired_difference(a, a)
        assert (result.difference, result.low, result.high, result.p, result.effect_size) == (0, 0, 0, 1, 0)


def test_unusable_pairs_are_explained() -> None:
    a = table(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"table b lacks \['value'\]"):
        paired_difference(a, a.drop(columns="value"))
    with pytest.raises(ValueError, match="table a has a point twice.*widen `on`"):
        paired_difference(pd.concat([a, a]), a)
    with pytest.raises(ValueError, match="no point is in both"):
        paired_difference(a, a.assign(seed=a["seed"] + 7))


def test_without_overlap_the_corrected_test_is_students() -> None:
    x = np.random.default_rng(0).normal(0.5, 1, size=9)
    ours, theirs = corrected_t_test(x, test_share=0.0), stats.ttest_1samp(x, 0)
    interval = theirs.confidence_interval(0.95)
    expected = [x.mean(), interval.low, interval.high, theirs.statistic, theirs.pvalue, 8]
    assert [ours.mean, ours.low, ours.high, ours.statistic, ours.p, ours.degrees] == pytest.approx(expected)


def test_corrected_test_worked_by_hand() -> None:
    # mean 2, variance 1, J = 3, n_test / n_train = 1 / 3: t = 2 / sqrt(1/3 + 1/3) = sqrt(6)
    test = corrected_t_test(np.array([1.0, 2.0, 3.0]), test_share=0.25)
    assert test.statistic == pytest.approx(np.sqrt(6))
    assert test.p == pytest.approx(2 * stats.t.sf(np.sqrt(6), 2))


def test_size_of_the_corrected_test_under_overlapping_splits() -> None:
    """Means of random subsets of one sample correlate by the share of the subset: where the correction is exact."""
    rng = np.random.default_rng(0)
    n, n_test, splits = 200, 50, 10
    corrected = plain = 0
    for _ in range(SIMULATIONS):
        z = rng.normal(size=n)
        order = rng.random((splits, n)).argsort(axis=1)[:, :n_test]
        differences = z[order].mean(axis=1)
        corrected += corrected_t_test(differences, test_share=n_test / n).p < 0.05
        plain += corrected_t_test(differences, test_share=0.0).p < 0.05
    assert abs(corrected / SIMULATIONS - 0.05) < 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)
    assert plain / SIMULATIONS > 0.2, "the simulation cannot tell the tests apart"


def test_constant_differences() -> None:
    test = corrected_t_test(np.array([0.5, 0.5, 0.5]), test_share=0.3)
    assert (test.low, test.high, test.statistic, test.p) == (0.5, 0.5, np.inf, 0.0)
    assert corrected_t_test(np.zeros(3), test_share=0.3).p == 1.0


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan]])
def test_too_few_differences(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more differences"):
        corrected_t_test(np.array(values), test_share=0.1)


def test_test_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="n_test"):
        corrected_t_test(np.array([1.0, 2.0]), test_share=1.0)


def test_the_minimum_detectable_effect_is_found_with_the_stated_power() -> None:
    rng = np.random.default_rng(0)
    pilot = stats.zscore(rng.normal(size=8), ddof=1) * 0.03
    for power in (0.5, 0.8, 0.9):
        effect = minimum_detectable_effect(pilot, power=power)
        new = rng.normal(effect, 0.03, size=(SIMULATIONS, 8))
        found = float(np.mean(stats.ttest_1samp(new, 0, axis=1).pvalue < 0.05))
        assert abs(found - power) < 3 * np.sqrt(power * (1 - power) / SIMULATIONS)


def test_overlap_and_few_splits_hide_effects() -> None:
    x = np.random.default_rng(0).normal(size=10)
    ratio = minimum_detectable_effect(x, test_share=0.25) / minimum_detectable_effect(x)
    assert ratio == pytest.approx(np.sqrt((1 / 10 + 1 / 3) / (1 / 10)))
    assert minimum_detectable_effect(np.array([-0.1, 0.1])) > 1.0
    with pytest.raises(ValueError, match="power in"):
        minimum_detectable_effect(x, power=1.0)


def test_holm_worked_example() -> None:
    # 4 x .005, 3 x .01, 2 x .03, then .04 raised to the value before it
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, np.nan, 0.9]), [1.0, np.nan, 1.0])
    assert holm([]).size == 0
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    rejected = set()
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if (len(p) - step) * p[index] > alpha:
            break
        rejected.add(int(index))
    assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= alpha} == rejected
