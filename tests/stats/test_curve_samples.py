"""Curves of samples: against loops, against the numbers of the mean curves, and intervals against known ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from labkit.stats import (
    bootstrap_interval,
    crossed_bootstrap,
    curve_numbers,
    failure_shares,
    first_failures,
    levels_over_samples,
    newly_failed,
    numbers_over_samples,
    sample_curves,
)

SEVERITIES = 4


def fields(
    n: int = 30, *, seeds: int = 2, methods: tuple[str, ...] = ("clip", "cca"), per_group: int = 2, directions: int = 2
):
    """Hits of samples that get rarer; the second direction lacks a third of the samples; a stray direction is clean."""
    random = np.random.default_rng(0)
    rows = []
    for method in methods:
        for seed in range(seeds):
            for d, (source, target) in enumerate([("image", "text"), ("text", "image"), ("text", "speech")]):
                count = n if d == 0 else n * 2 // 3
                for severity in range(SEVERITIES if d < directions else 1):
                    clean = severity == 0
                    for i in range(count):
                        rows.append((
                            method, f"{method}-{seed}", seed, source, target, "test", f"k{i}", i // per_group,
                            "none" if clean else "fog", "" if clean else "image", float(severity),
                            float(random.random() < 0.9 - 0.2 * severity),
                        ))  # fmt: skip
    columns = ["variant", "run", "seed", "source", "target", "split", "key", "group", "corruption", "corrupted"]
    return pd.DataFrame(rows, columns=[*columns, "severity", "value"])


def test_rows_are_samples_and_columns_severities() -> None:
    made = fields()
    samples = sample_curves(made)
    assert list(samples.columns) == [0, 1, 2, 3]
    assert len(samples) == 2 * 2 * (30 + 20)  # text -> speech never had the fog
    for _, row in made[made["target"] != "speech"].sample(40, random_state=1).iterrows():
        at = ("fog", "image", *row[["variant", "seed", "source", "target", "key", "group"]])
        assert samples.loc[at, row["severity"]] == row["value"]


def test_first_failure_equals_a_loop() -> None:
    samples = sample_curves(fields())
    found = first_failures(samples)["first"].tolist()
    expected = []
    for values in samples.to_numpy():
        failed = [s for s, v in zip(samples.columns, values, strict=True) if v < 0.5]
        expected.append(failed[0] if failed else np.inf)
    assert found == expected
    assert {0.0, 1.0, 2.0, 3.0, np.inf} == set(found)


def test_a_sample_that_was_not_asked_at_some_severity_is_left_out() -> None:
    made = fields()
    gone = (made["key"] == "k3") & (made["severity"] == 2) & (made["target"] == "text")
    assert len(first_failures(sample_curves(made[~gone]))) == len(first_failures(sample_curves(made))) - 4


def test_newly_failed_are_those_that_were_found_when_clean() -> None:
    made = fields(methods=("clip",), seeds=1)
    found = newly_failed(sample_curves(made), 2)
    values = made[made["target"] != "speech"].set_index(["key", "target", "severity"])["value"]
    lost = {k for k, t, s in values.index if s == 2 and values[k, t, 0.0] == 1 and values[k, t, 2.0] == 0}
    assert found == sorted(lost)
    assert 0 < len(found) < 30


def test_ties_fail_below_the_threshold() -> None:
    samples = sample_curves(fields()) * 0.4
    assert (first_failures(samples)["first"] == 0).all()
    assert np.isinf(first_failures(samples + 0.1, threshold=0.1)["first"]).all()


def test_shares_of_first_failures_by_hand() -> None:
    made = fields(4, seeds=2, methods=("clip",), directions=1)
    hits = {0: [1, 1, 1, 0], 1: [1, 1, 0, 1], 2: [1, 1, 1, 1], 3: [1, 0, 1, 1]}  # severity -> samples, both seeds
    made = made[made["target"] == "text"].copy()
    made["value"] = [float(hits[int(s)][int(k[1:])]) for s, k in zip(made["severity"], made["key"], strict=True)]
    shares = failure_shares(first_failures(sample_curves(made)))
    assert dict(zip(shares["first"], shares["share"], strict=True)) == {0: 0.25, 1: 0.25, 3: 0.25, np.inf: 0.25}
    assert set(shares["seeds"]) == {2}
    assert set(shares["n"]) == {4}


def test_shares_of_every_curve_sum_to_one() -> None:
    shares = failure_shares(first_failures(sample_curves(fields())))
    np.testing.assert_allclose(shares.groupby("method")["share"].sum(), 1)


def mean_curves(made: pd.DataFrame, chance: float) -> pd.DataFrame:
    """As from `seed_curves`: means over samples, then over the two directions."""
    made = made[made["target"] != "speech"].assign(method=made["variant"], corruption="fog", corrupted="image")
    by = ["corruption", "corrupted", "method", "seed", "severity"]
    means = made.groupby([*by, "source"])["value"].mean().groupby(by).mean().reset_index()
    return means.assign(chance=chance, n=20)


@pytest.mark.parametrize("seeds", [1, 3])
def test_numbers_are_those_of_the_mean_curves(seeds: int) -> None:
    made = fields(seeds=seeds)
    curves = mean_curves(made, 0.1)
    found = numbers_over_samples(sample_curves(made), curves).set_index(["method", "number"])
    expected = curve_numbers(curves).groupby("method")[["drop", "area", "kept"]].mean()
    for method in expected.index:
        for number, value in expected.loc[method].items():
            row = found.loc[(method, number)]
            assert row["value"] == pytest.approx(value)
            assert row["low"] < row["value"] < row["high"]
            assert row["seeds"] == seeds
            assert row["n"] == 15
    assert found["interval"].nunique() == 1


def test_without_chance_there_is_no_kept() -> None:
    assert set(numbers_over_samples(sample_curves(fields()))["number"]) == {"drop", "area"}


def test_at_chance_there_is_nothing_to_keep() -> None:
    made = fields()
    found = numbers_over_samples(sample_curves(made), mean_curves(made, 0.99)).set_index("number")
    assert found.loc["kept", "value"].isna().all()
    assert found.loc["area", "value"].notna().all()


def test_interval_of_the_area_equals_the_delta_method() -> None:
    made = fields(3000, seeds=1, methods=("clip",), per_group=1, directions=1)
    made = made[made["target"] == "text"]
    v = sample_curves(made).to_numpy()
    mean, clean = v @ np.array([1, 2, 2, 1]) / 6, v[:, 0]
    ratio = mean.mean() / clean.mean()
    error = np.std(mean - ratio * clean) / clean.mean() / np.sqrt(len(v))
    area = numbers_over_samples(sample_curves(made)).set_index("number").loc["area"]
    assert area["value"] == pytest.approx(ratio)
    assert area["high"] - area["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_levels_of_one_direction_have_the_intervals_of_their_values(seeds: int) -> None:
    made = fields(seeds=seeds, methods=("clip",))
    made = made[made["target"] == "text"]
    found = levels_over_samples(sample_curves(made)).set_index("severity")
    for severity, rows in made.groupby("severity"):
        one = bootstrap_interval(rows["value"].to_numpy(), rows["group"].to_numpy())
        expected = crossed_bootstrap(rows) if seeds > 1 else one
        ends = found.loc[severity, ["value", "low", "high"]]
        assert tuple(ends) == pytest.approx((expected.value, expected.low, expected.high))


def test_two_runs_of_one_seed_are_refused() -> None:
    made = fields()
    with pytest.raises(ValueError, match="two runs of method 'clip' have seed 0"):
        sample_curves(pd.concat([made, made.assign(run="again")]))
    with pytest.raises(ValueError, match="corruptions with such values are fog"):
        sample_curves(made, where={"corruption": "rain"})
