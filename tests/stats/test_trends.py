"""Differences per level and their trends, against numpy, the corrected test and simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from labkit.stats import (
    cohen_dz,
    corrected_t_test,
    holm,
    level_differences,
    minimum_detectable_effect,
    slopes_over,
    trend,
    without_parts,
)

LEVELS = [1.0, 0.5, 0.25, 0.1]


def tables(slope: float = 0.0, *, seeds: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """a - b is 0.1 + slope * place of the level, with noise."""
    rng = np.random.default_rng(0)
    b = rng.normal(0.5, 0.05, size=(seeds, len(LEVELS)))
    a = b + 0.1 + slope * np.arange(len(LEVELS)) + 0.02 * rng.normal(size=b.shape)
    return pd.DataFrame(a, columns=LEVELS), pd.DataFrame(b, columns=LEVELS)


def test_every_level_is_a_corrected_test_of_the_same_seeds() -> None:
    a, b = tables()
    found = level_differences(a, b, test_share=0.3)
    assert found["level"].tolist() == LEVELS
    for row in found.to_dict("records"):
        d = (a[row["level"]] - b[row["level"]]).to_numpy()
        test = corrected_t_test(d, test_share=0.3)
        expected = [test.mean, test.low, test.high, test.p, cohen_dz(d), minimum_detectable_effect(d, test_share=0.3)]
        got = [row[c] for c in ("difference", "low", "high", "p", "effect_size", "detectable")]
        assert got == pytest.approx(expected)
        assert (row["seeds"], row["kind"]) == (8, "95% t over 8 seeds, corrected for overlapping splits")
    np.testing.assert_allclose(found["p_holm"], holm(found["p"].to_numpy()))


def test_without_a_second_method_the_values_are_the_differences() -> None:
    a, b = tables()
    pd.testing.assert_frame_equal(level_differences(a - b), level_differences(a, b))


def test_levels_and_seeds_that_one_side_lacks() -> None:
    a, b = tables()
    b.loc[1:, 0.1] = np.nan
    found = level_differences(a, b.drop(columns=1.0)).set_index("level")
    assert list(found.index) == [0.5, 0.25, 0.1]
    assert found.loc[0.1, "kind"] == "none: 1 seed(s) in common"
    assert np.isnan(found.loc[0.1, "p"])
    assert not np.isnan(found.loc[0.5, "p_holm"])
    with pytest.raises(ValueError, match="no level in common"):
        level_differences(a, b.rename(columns=str))


def test_slopes_are_those_of_numpy() -> None:
    a, b = tables(0.05)
    for positions in (None, [0.0, 1.0, 2.0, 5.0]):
        x = np.arange(4) if positions is None else np.array(positions)
        np.testing.assert_allclose(slopes_over(a - b, positions), np.polyfit(x, (a - b).to_numpy().T, 1)[0])


def test_a_trend_is_found_where_there_is_one() -> None:
    a, b = tables(0.05)
    test, slopes = trend(a - b, test_share=0.3)
    assert test == corrected_t_test(slopes, test_share=0.3)
    assert test.low < 0.05 < test.high
    assert test.p < 0.001
    a, b = tables(0.0)
    assert trend(a - b)[0].p > 0.05


def test_of_two_levels_it_is_the_interaction() -> None:
    a, b = tables(0.05)
    d = (a - b)[[1.0, 0.1]]
    assert trend(d)[0].mean == pytest.approx(float((d[0.1] - d[1.0]).mean()))


def test_seeds_with_a_gap_have_no_slope() -> None:
    a, b = tables(0.05)
    a.loc[0, 0.5] = np.nan
    assert len(trend(a - b)[1]) == 7


def test_an_ablation_is_the_whole_less_its_changed_forms() -> None:
    rng = np.random.default_rng(0)
    values = {"gotma": 0.6, "gotma without OT": 0.5, "gotma, epsilon=1": 0.55, "gotmax": 0.1, "clip": 0.2}
    rows = [
        {"cell": cell, "variant": cell, "seed": seed, "metric": "mrr", "source": "a", "target": "b", "split": "test",
         "corruption": "none", "step": "final", "value": value + 0.01 * rng.normal(), "n": 9, "higher_is_better": True}
        for cell, value in values.items() for seed in range(5)
    ]  # fmt: skip
    scores = pd.DataFrame(rows)
    found = without_parts(scores, metric="mrr", whole="gotma", test_share=0.3)
    assert found["level"].tolist() == ["gotma without OT", "gotma, epsilon=1"]
    wide = scores.pivot(index="seed", columns="cell", values="value")
    test = corrected_t_test((wide["gotma"] - wide["gotma without OT"]).to_numpy(), test_share=0.3)
    assert found.loc[0, ["difference", "p"]].tolist() == pytest.approx([test.mean, test.p])
    with pytest.raises(ValueError, match="needs the cell 'rma' and changed forms of it; cells are clip, gotma"):
        without_parts(scores, metric="mrr", whole="rma")


def test_errors() -> None:
    a, _ = tables()
    with pytest.raises(ValueError, match="two or more seeds that have every level; got 1"):
        trend(a.iloc[:1])
    with pytest.raises(ValueError, match="two or more levels, each with its position; got 1, 1"):
        slopes_over(a[[1.0]])
    with pytest.raises(ValueError, match="got 4, 2"):
        slopes_over(a, [0.0, 1.0])
