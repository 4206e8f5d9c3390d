"""Curves of seeds and the numbers that sum them up, against small tables worked out by hand and naive loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from labkit.stats import (
    corrected_t_test,
    curve_levels,
    curve_numbers,
    effective_robustness,
    seed_curves,
    summarize_numbers,
)

COMMON = {"metric": "mrr", "split": "test", "step": "final", "n": 40, "higher_is_better": True, "chance": 0.2}


def scores(values: dict[str, list[float]], *, seeds: int = 3, draws: int = 2) -> pd.DataFrame:
    """Method -> its curve; text -> image scores .1 more, seeds lie .02 apart and draws .01 around their mean."""
    rows = []
    for method, curve in values.items():
        for seed in range(seeds):
            for source, target, extra in (("image", "text", 0.0), ("text", "image", 0.1), ("text", "speech", 9.0)):
                base = COMMON | {"variant": method, "run": f"{method}-{seed}", "seed": seed, "source": source}
                base |= {"target": target}
                for severity, value in enumerate(curve):
                    clean = severity == 0
                    where = {"corruption": "none" if clean else "fog", "corrupted": "" if clean else "image"}
                    for draw in range(1 if clean else draws):
                        shift = extra + 0.02 * seed + (0.0 if clean else 0.01 * (2 * draw - draws + 1))
                        at = {"severity": float(severity), "corruption_seed": draw, "value": value + shift}
                        if clean or "image" in (source, target):
                            rows.append(base | where | at)
    return pd.DataFrame(rows)


def table(values: dict[str, list[list[float]]], *, severities: list[float] | None = None, chance: float = 0.2):
    """As from `seed_curves`: method -> curve of each seed."""
    rows = [
        {"corruption": "fog", "corrupted": "image", "method": method, "seed": seed, "value": value, "chance": chance,
         "severity": float(severities[i]) if severities else float(i), "n": 40}
        for method, curves in values.items()
        for seed, curve in enumerate(curves)
        for i, value in enumerate(curve)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_means_over_draws_and_over_the_directions_that_were_corrupted() -> None:
    curves = seed_curves(scores({"clip": [0.8, 0.6, 0.4]}), metric="mrr")
    assert curves["severity"].tolist() == [0, 1, 2] * 3
    wide = curves.pivot(index="seed", columns="severity", values="value").to_numpy()
    expected = np.array([0.85, 0.65, 0.45]) + 0.02 * np.arange(3)[:, None]  # text -> speech never had the fog
    np.testing.assert_allclose(wide, expected)
    assert (curves["corruption"] == "fog").all()
    assert (curves["corrupted"] == "image").all()
    assert (curves["n"] == 40).all()
    np.testing.assert_allclose(curves["chance"], 0.2)


def test_one_direction() -> None:
    curves = seed_curves(scores({"clip": [0.8, 0.6]}), metric="mrr", directions=[("text", "image")])
    np.testing.assert_allclose(curves.loc[curves["seed"] == 0, "value"], [0.9, 0.7])


def test_a_method_without_one_of_the_directions_has_no_value() -> None:
    both = scores({"clip": [0.8, 0.6], "cca": [0.8, 0.6]})
    lacking = both[~((both["variant"] == "cca") & (both["source"] == "text") & (both["corruption"] == "fog"))]
    curves = seed_curves(lacking, metric="mrr").set_index(["method", "severity"])["value"]
    assert curves["cca"].isna().all()
    assert curves["clip"].notna().all()


def test_cells_of_a_study_are_methods() -> None:
    one = scores({"clip": [0.8, 0.6]})
    curves = seed_curves(one.assign(cell="clip, missing=0.3"), metric="mrr")
    assert set(curves["method"]) == {"clip, missing=0.3"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(higher_is_better=False), "less of 'mrr' is better"),
        (lambda t: pd.concat([t, t.assign(run="again")]), "two runs of method 'clip' have seed 0"),
        (lambda t: t[t["corruption"] == "none"], "it has none"),
    ],
)
def test_tables_without_curves_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_curves(change(scores({"clip": [0.8, 0.6]})), metric="mrr")


def test_what_does_not_match_is_answered_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="it has fog of image"):
        seed_curves(scores({"clip": [0.8, 0.6]}), metric="mrr", where={"corruption": "rain"})


def test_numbers_of_a_curve_by_hand() -> None:
    (row,) = curve_numbers(table({"clip": [[0.8, 0.6, 0.4]]})).to_dict("records")
    # the mean is (.8 / 2 + .6 + .4 / 2) / 2 = .6
    assert row["drop"] == pytest.approx(0.2)
    assert row["area"] == pytest.approx(0.6 / 0.8)
    assert row["kept"] == pytest.approx((0.6 - 0.2) / (0.8 - 0.2))


def test_severities_at_unequal_distances_equal_the_trapezoid_rule() -> None:
    severities, values = [0, 1, 3, 5], [0.9, 0.7, 0.35, 0.3]
    (row,) = curve_numbers(table({"clip": [values]}, severities=severities)).to_dict("records")
    mean = np.trapezoid(values, np.array(severities) / 5)
    assert row["drop"] == pytest.approx(0.9 - mean)
    assert row["area"] == pytest.approx(mean / 0.9)
    assert row["kept"] == pytest.approx((mean - 0.2) / 0.7)


def test_chance_that_changes_with_severity_is_taken_off_at_each() -> None:
    curves = table({"clip": [[0.8, 0.6, 0.4]]}).assign(chance=[0.2, 0.3, 0.4])
    kept = [1.0, 0.3 / 0.6, 0.0]
    np.testing.assert_allclose(curve_levels(curves)["kept"], kept, atol=1e-12)
    assert curve_numbers(curves)["kept"].item() == pytest.approx(np.trapezoid(kept, [0, 0.5, 1]))


def test_a_flat_curve_loses_nothing_and_one_at_chance_has_nothing_to_lose() -> None:
    flat, chance = curve_numbers(table({"flat": [[0.7] * 4], "lost": [[0.2] * 4]})).to_dict("records")
    assert (flat["drop"], flat["area"], flat["kept"]) == pytest.approx((0.0, 1.0, 1.0))
    assert chance["area"] == pytest.approx(1)
    assert np.isnan(chance["kept"])


def test_a_lacking_severity_leaves_no_number() -> None:
    curves = table({"clip": [[0.8, 0.6, 0.4], [0.8, 0.6, 0.4]]})
    numbers = curve_numbers(curves[~((curves["seed"] == 1) & (curves["severity"] == 1))])
    assert numbers.set_index("seed").loc[1, ["drop", "area", "kept"]].isna().all()
    summary = summarize_numbers(numbers).set_index("number")
    assert summary["value"].isna().all()
    assert summary.loc["area", "interval"] == "none: 1 of 2 seeds have no value"


def test_curves_without_a_clean_value_are_refused() -> None:
    curves = table({"clip": [[0.8, 0.6, 0.4]]})
    with pytest.raises(ValueError, match="severity 0"):
        curve_numbers(curves[curves["severity"] > 0])


def test_area_is_one_minus_the_mean_relative_degradation() -> None:
    random = np.random.default_rng(0)
    curves = table({"clip": [[*random.uniform(0.3, 0.9, 6)] for _ in range(4)]})
    levels, area = curve_levels(curves), curve_numbers(curves)["area"].mean()
    relative = levels.set_index("severity")["relative"].to_numpy()
    assert area == pytest.approx(1 - np.trapezoid(relative, np.linspace(0, 1, 6)))
    kept = levels.set_index("severity")["kept"].to_numpy()
    assert curve_numbers(curves)["kept"].mean() == pytest.approx(np.trapezoid(kept, np.linspace(0, 1, 6)))


def test_levels_by_hand_with_the_corrected_interval() -> None:
    curves = table({"clip": [[0.8, 0.4], [0.9, 0.6], [0.7, 0.5]]})
    last = curve_levels(curves, test_share=0.3).set_index("severity").loc[1]
    test = corrected_t_test(np.array([0.4, 0.6, 0.5]), test_share=0.3)
    assert (last["value"], last["low"], last["high"]) == pytest.approx((0.5, test.low, test.high))
    assert last["interval"] == "95% t over 3 seeds, corrected for overlapping splits"
    assert last["relative"] == pytest.approx(np.mean([0.5, 1 / 3, 2 / 7]))
    assert last["kept"] == pytest.approx(np.mean([0.2 / 0.6, 0.4 / 0.7, 0.3 / 0.5]))


def test_without_overlap_the_interval_is_students() -> None:
    values = [0.4, 0.6, 0.45]
    summary = summarize_numbers(table({"clip": [[v, v / 2] for v in values]}).pipe(curve_numbers)).set_index("number")
    drops = np.array(values) / 4
    low, high = scipy_stats.t.interval(0.95, 2, loc=drops.mean(), scale=scipy_stats.sem(drops))
    assert tuple(summary.loc["drop", ["value", "low", "high"]]) == pytest.approx((drops.mean(), low, high))


def odds(p: float) -> float:
    return np.log(p / (1 - p))


def share(z: float) -> float:
    return 1 / (1 + np.exp(-z))


def test_effective_robustness_over_one_baseline_equals_the_naive_shift_of_its_log_odds() -> None:
    base, own = [[0.6, 0.5, 0.3], [0.5, 0.45, 0.2]], [[0.8, 0.7, 0.65], [0.7, 0.6, 0.3]]
    found = effective_robustness(table({"late": base, "gotma": own}), ["late"]).set_index(["method", "seed"])
    for seed in range(2):
        b, v = base[seed], own[seed]
        excess = [v[s] - share(odds(v[0]) + odds(b[s]) - odds(b[0])) for s in (1, 2)]
        assert found.loc[("gotma", seed), "effective"] == pytest.approx(np.mean(excess))
        assert found.loc[("late", seed), "effective"] == pytest.approx(0, abs=1e-12)


def test_effective_robustness_over_a_line_of_baselines_that_lie_on_it() -> None:
    clean = {"a": 0.3, "b": 0.5, "c": 0.8, "own": 0.6}
    lines = {1: (-0.2, 0.9), 2: (-1.0, 0.6)}
    curves = {m: [[p, *(share(a + k * odds(p)) for a, k in lines.values())]] for m, p in clean.items()}
    curves["own"][0][2] += 0.1
    found = effective_robustness(table(curves), ["a", "b", "c"]).set_index("method")["effective"]
    assert found[["a", "b", "c"]].abs().max() == pytest.approx(0, abs=1e-12)
    assert found["own"] == pytest.approx(0.05)


def test_effective_robustness_is_finite_at_the_ends_of_the_range() -> None:
    found = effective_robustness(table({"late": [[1.0, 0.0]], "own": [[1.0, 1.0]]}), ["late"]).set_index("method")
    half = 0.5 / 40
    assert found.loc["own", "effective"] == pytest.approx(1 - half)  # late fusion is predicted to end at half a sample


def test_effective_robustness_refuses_what_it_cannot_judge() -> None:
    with pytest.raises(ValueError, match="baselines are methods of the curves, own"):
        effective_robustness(table({"own": [[0.5, 0.4]]}), ["late"])
    with pytest.raises(ValueError, match="within 0..1"):
        effective_robustness(table({"own": [[5.0, 4.0]]}), ["own"])
