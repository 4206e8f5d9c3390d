"""The rule of verdicts: hand-made cases, error rates and power over simulated repeats with known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from labkit.stats import Evidence, corrected_t_test, correlation, decide, holm, p_values
from labkit.stats.verdicts import Expectation

SEEDS = 10
MARGIN = 0.02


def evidence(value: float, error: float = 0.01, degrees: int = 9) -> Evidence:
    half = stats.t.ppf(0.975, degrees) * error
    return Evidence(value, value - half, value + half, error, degrees)


def verdict(value: float, expect: Expectation, *, error: float = 0.004) -> str:
    p, p_no = p_values(evidence(value, error), expect, MARGIN)
    return decide([p], [p_no])[0][0]


@pytest.mark.parametrize(
    ("expect", "expected"),
    [
        # effects far below -m, within -m..0, 0..m, beyond m, known to a tenth of the margin
        ("greater", ["does not hold", "does not hold", "does not hold", "holds"]),
        ("less", ["holds", "does not hold", "does not hold", "does not hold"]),
        ("not worse", ["does not hold", "holds", "holds", "holds"]),
        ("equal", ["does not hold", "holds", "holds", "does not hold"]),
    ],
)
def test_verdicts_of_effects_that_are_known_well(expect: Expectation, expected: list[str]) -> None:
    assert [verdict(v, expect, error=MARGIN / 10) for v in (-0.05, -0.01, 0.01, 0.05)] == expected


@pytest.mark.parametrize("expect", ["greater", "less", "not worse", "equal"])
def test_what_is_known_badly_is_undecided(expect: Expectation) -> None:
    assert verdict(0.001, expect, error=0.1) == "undecided"


def test_p_values_by_hand() -> None:
    # value 0.03, error 0.01: 3 errors above 0, 1 above m = 0.02, 5 above -m
    e = evidence(0.03)
    t = lambda x: 2 * stats.t.sf(x, 9)
    assert p_values(e, "greater", MARGIN) == pytest.approx((t(3), 1.0))
    assert p_values(e, "less", MARGIN) == pytest.approx((1.0, min(1.0, t(5))))
    assert p_values(e, "not worse", MARGIN) == pytest.approx((t(5), 1.0))
    assert p_values(e, "equal", MARGIN) == pytest.approx((1.0, t(1)))


def test_p_and_interval_say_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        e = Evidence.of_test(corrected_t_test(rng.normal(0.01, 0.02, size=6), test_share=0.3))
        p, p_no = p_values(e, "greater", MARGIN)
        assert (p < 0.05) == (e.low > 0)
        assert (p_no < 0.05) == (e.high < MARGIN)


def test_correlations_are_tested_where_their_interval_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.7, 1.5):
        x = pd.DataFrame(rng.normal(size=(4, 20)))
        c = correlation(x, shift * x.mean() + pd.DataFrame(rng.normal(size=(4, 20))))
        e = Evidence.of_correlation(c)
        p, p_no = p_values(e, "greater", 0.3)
        assert p == pytest.approx(c.p if c.value > 0 else 1.0, rel=1e-6) or c.value < 0
        assert (p_no < 0.05) == (c.high < 0.3)
    with pytest.raises(ValueError, match="< 1 for a correlation"):
        p_values(e, "greater", 1.5)


def test_holm_is_over_the_family_in_both_directions() -> None:
    p_for, p_no = [0.01, 0.02, 0.9], [0.9, 0.9, 0.001]
    verdicts, shown, refuted = decide(p_for, p_no)
    np.testing.assert_allclose(shown, holm(p_for))
    np.testing.assert_allclose(refuted, holm(p_no))
    assert verdicts == ["holds", "holds", "does not hold"]
    assert decide([0.03] * 3, [1.0] * 3)[0] == ["undecided"] * 3
    assert decide([], [])[0] == []


def test_an_effect_too_small_to_matter_does_not_hold() -> None:
    p, p_no = p_values(evidence(0.01, error=0.001), "greater", MARGIN)
    assert p < 0.001
    assert decide([p], [p_no])[0] == ["does not hold"]


def test_without_any_variation() -> None:
    exact = Evidence(0.05, 0.05, 0.05, 0.0, 9)
    assert p_values(exact, "greater", MARGIN) == (0.0, 1.0)
    assert p_values(Evidence(0.0, 0.0, 0.0, 0.0, 9), "greater", MARGIN) == (1.0, 0.0)


def test_errors() -> None:
    with pytest.raises(ValueError, match="above 0|> 0"):
        p_values(evidence(0.1), "greater", 0.0)
    with pytest.raises(ValueError, match="'greater', 'less', 'not worse' or 'equal'; got 'more'"):
        p_values(evidence(0.1), "more", MARGIN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two p values; got 1 for and 2 against"):
        decide([0.1], [0.1, 0.2])


def overlapping(rng: np.random.Generator, effect: float, *, claims: int) -> np.ndarray:
    """Differences [claims, seeds] over random test splits of one data set that is itself a draw."""
    n, n_test = 800, 200
    points = effect + 0.3 * rng.normal(size=(claims, n))
    rows = rng.random((SEEDS, n)).argsort(axis=1)[:, :n_test]
    return points[:, rows].mean(axis=2) + 0.01 * rng.normal(size=(claims, SEEDS))


def family(rng: np.random.Generator, effect: float, expect: Expectation, *, claims: int = 6) -> list[str]:
    found = [
        p_values(Evidence.of_test(corrected_t_test(d, test_share=0.294)), expect, 0.05)
        for d in overlapping(rng, effect, claims=claims)
    ]
    return list(decide([p for p, _ in found], [q for _, q in found])[0])


@pytest.mark.parametrize(
    ("effect", "expect", "wrong"),
    [
        (0.0, "greater", "holds"),
        (0.0, "less", "holds"),
        (-0.05, "not worse", "holds"),
        (0.05, "equal", "holds"),
        (0.05, "greater", "does not hold"),
        (-0.05, "less", "does not hold"),
        (-0.05, "not worse", "does not hold"),
        (0.05, "equal", "does not hold"),
    ],
)
def test_families_with_any_wrong_verdict_are_rare(effect: float, expect: Expectation, wrong: str) -> None:
    """At the boundary, where errors are most frequent."""
    rng = np.random.default_rng(0)
    repeats = 200
    rate = sum(wrong in family(rng, effect, expect) for _ in range(repeats)) / repeats
    assert rate <= 0.05


def test_power() -> None:
    rng = np.random.default_rng(0)
    verdicts = [v for _ in range(20) for v in family(rng, 0.15, "greater")]
    assert verdicts.count("holds") / len(verdicts) > 0.9
    verdicts = [v for _ in range(20) for v in family(rng, -0.06, "greater")]
    assert verdicts.count("does not hold") / len(verdicts) > 0.8


def test_without_the_correction_for_overlap_the_error_would_be_large() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for d in overlapping(rng, 0.0, claims=300):
        wrong += p_values(Evidence.of_test(corrected_t_test(d, test_share=0.0)), "greater", 0.05)[0] < 0.05
    assert wrong / 300 > 0.05, "the simulation cannot tell the tests apart"
