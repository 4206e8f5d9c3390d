"""Paired tests of curves against scipy and the functions they use, and the exceptions to monotone curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from labkit.stats import compare_numbers, compare_samples, curve_numbers, holm, paired_difference, rises

POINT = ["key", "seed", "source", "target"]


def numbers(seeds: int = 4) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        {"corruption": corruption, "corrupted": "image", "method": method, "seed": seed,
         "kept": random.normal(mean, 0.05)}
        for corruption in ("fog", "rain")
        for method, mean in (("clip", 0.5), ("cca", 0.4), ("gotma", 0.8))
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def samples(n: int = 24, *, seeds: int = 3) -> pd.DataFrame:
    """Two methods, two directions, three severities."""
    random = np.random.default_rng(0)
    names = ["corruption", "corrupted", "method", "seed", "source", "target", "key", "group"]
    index, values = [], []
    for method, loss in (("clip", 0.3), ("gotma", 0.1)):
        for seed in range(seeds):
            for source, target in (("image", "text"), ("text", "image")):
                for i in range(n):
                    index.append(("fog", "image", method, seed, source, target, f"k{i}", i // 2))
                    values.append((random.random(3) < 0.9 - loss * np.arange(3)).astype(float))
    return pd.DataFrame(values, index=pd.MultiIndex.from_tuples(index, names=names), columns=[0.0, 1.0, 2.0])


def test_numbers_are_compared_by_a_t_test_over_seeds() -> None:
    table = numbers()
    found = compare_numbers(table, number="kept", baseline="clip")
    assert found[["corruption", "method"]].apply(tuple, axis=1).tolist() == [
        ("fog", "cca"), ("fog", "gotma"), ("rain", "cca"), ("rain", "gotma")
    ]  # fmt: skip
    for row in found.to_dict("records"):
        part = table[table["corruption"] == row["corruption"]].pivot(index="seed", columns="method", values="kept")
        test = scipy_stats.ttest_rel(part[row["method"]], part["clip"])
        ends = test.confidence_interval(0.95)
        assert (row["p"], row["low"], row["high"]) == pytest.approx((test.pvalue, ends.low, ends.high))
        assert row["kind"] == "95% t over 4 seeds"
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))


def test_the_mean_over_all_corruptions_is_one_test_a_method() -> None:
    table = numbers()
    found = compare_numbers(table, number="kept", baseline="clip", by=()).set_index("method")
    means = table.groupby(["seed", "method"])["kept"].mean().unstack()
    assert found.loc["gotma", "p"] == pytest.approx(scipy_stats.ttest_rel(means["gotma"], means["clip"]).pvalue)


def test_a_seed_counts_if_it_has_everything() -> None:
    table = numbers()
    table.loc[(table["corruption"] == "fog") & (table["method"] == "cca") & (table["seed"] == 2), "kept"] = np.nan
    whole = compare_numbers(table, number="kept", baseline="clip", by=()).set_index("method")["seeds"]
    assert (whole["cca"], whole["gotma"]) == (3, 4)
    each = compare_numbers(table, number="kept", baseline="clip").set_index(["corruption", "method"])["seeds"]
    assert (each["fog", "cca"], each["rain", "cca"]) == (3, 4)


def test_one_seed_cannot_be_tested() -> None:
    found = compare_numbers(numbers(1), number="kept", baseline="clip")
    assert found["p"].isna().all()
    assert set(found["kind"]) == {"none: 1 seed(s) in common"}


def test_overlapping_splits_make_differences_less_certain() -> None:
    plain, corrected = (compare_numbers(numbers(), number="kept", baseline="clip", test_share=s) for s in (0.0, 0.3))
    assert (corrected["p"] > plain["p"]).all()
    np.testing.assert_allclose(plain["difference"], corrected["difference"])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'area' of 'clip'"):
        compare_numbers(numbers(), number="area", baseline="clip")
    with pytest.raises(ValueError, match="'kept' of 'ot'"):
        compare_numbers(numbers(), number="kept", baseline="ot")
    with pytest.raises(ValueError, match="methods are clip, gotma"):
        compare_samples(samples(), baseline="ot")


@pytest.mark.parametrize("seeds", [1, 3])
def test_samples_are_compared_by_their_losses(seeds: int) -> None:
    table = samples(seeds=seeds)
    (row,) = compare_samples(table, baseline="clip").to_dict("records")
    losses = table.index.to_frame(index=False)
    losses["value"] = [v[0] - (v[0] / 2 + v[1] + v[2] / 2) / 2 for v in table.to_numpy()]
    of = {m: losses[losses["method"] == m] for m in ("clip", "gotma")}
    expected = paired_difference(of["gotma"], of["clip"], on=POINT)
    assert (row["difference"], row["p"]) == pytest.approx((expected.difference, expected.p))
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert row["difference"] < 0, "gotma loses less"
    assert row["seeds"] == seeds


def test_the_mean_loss_over_all_corruptions_is_one_test_a_method() -> None:
    fog = samples()
    rain = fog.copy()
    rain.index = rain.index.set_levels(["rain"], level="corruption")
    rain[1.0] = 0.0
    both = pd.concat([fog, rain])
    (row,) = compare_samples(both, baseline="clip", by=()).to_dict("records")
    each = compare_samples(both, baseline="clip").set_index("corruption")["difference"]
    assert row["difference"] == pytest.approx(each.mean())
    assert set(row) & {"corruption", "corrupted"} == set()


def test_mean_loss_of_the_samples_is_the_drop_of_the_mean_curve() -> None:
    table = samples()
    drops = {}
    for method in ("clip", "gotma"):
        mean = table.xs(method, level="method").mean().to_numpy()
        drops[method] = mean[0] - (mean[0] / 2 + mean[1] + mean[2] / 2) / 2
    (row,) = compare_samples(table, baseline="clip").to_dict("records")
    assert row["difference"] == pytest.approx(drops["gotma"] - drops["clip"])


def curves(of_seeds: list[list[float]]) -> pd.DataFrame:
    rows = [
        {"corruption": "fog", "corrupted": "image", "method": "clip", "seed": seed, "severity": float(s), "value": v,
         "chance": 0.1, "n": 40}
        for seed, curve in enumerate(of_seeds)
        for s, v in enumerate(curve)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_monotone_curve_has_no_exceptions() -> None:
    assert rises(curves([[0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.6, 0.1]])).empty


def test_a_rise_in_every_seed_is_an_exception_and_one_within_noise_is_not() -> None:
    always = rises(curves([[0.9, 0.5, 0.71], [0.8, 0.4, 0.6], [0.7, 0.3, 0.52]])).iloc[0]
    assert (always["lowest"], always["severity"]) == (1, 2)
    assert always["difference"] == pytest.approx(0.21)
    assert always["beyond"]
    noise = rises(curves([[0.9, 0.5, 0.8], [0.8, 0.4, 0.2], [0.7, 0.3, 0.4]])).iloc[0]
    assert noise["difference"] > 0
    assert not noise["beyond"]
    test = scipy_stats.ttest_1samp([0.3, -0.2, 0.1], 0)
    assert noise["p"] == pytest.approx(test.pvalue)


def test_a_rise_is_measured_from_the_lowest_value_before_it() -> None:
    found = rises(curves([[0.9, 0.3, 0.5, 0.6], [0.9, 0.3, 0.5, 0.6]]))
    assert found["lowest"].tolist() == [1, 1]
    np.testing.assert_allclose(found["difference"], [0.2, 0.3])


def test_rises_with_samples_are_paired_by_sample() -> None:
    table = samples().xs("clip", level="method", drop_level=False).copy()
    table[2.0] = 1.0  # the hardest severity is always right
    mean = table.groupby(level="seed").mean().stack().rename_axis(["seed", "severity"]).rename("value").reset_index()
    mean = mean.assign(corruption="fog", corrupted="image", method="clip", chance=0.1, n=24)
    (row,) = rises(mean, table).to_dict("records")
    after, before = (table[s].rename("value").reset_index() for s in (2.0, row["lowest"]))
    expected = paired_difference(after, before, on=POINT)
    assert (row["difference"], row["p"], row["low"]) == pytest.approx((expected.difference, expected.p, expected.low))
    assert "groups" in row["kind"]


def test_numbers_of_monotone_curves_lie_between_the_last_value_and_the_first() -> None:
    values = curve_numbers(curves([[0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.6, 0.1]]))
    assert ((values["drop"] > 0) & (values["drop"] < 0.7)).all()
    assert values["area"].between(0.1 / 0.8, 1).all()
