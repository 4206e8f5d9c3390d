"""Ranks against scipy, the tables and the worked example of Demsar 2006, and simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from labkit.stats import corrected_t_test, friedman, holm, nemenyi, rank_comparison

# Demsar 2006, table 6: AUC of four classifiers on 14 data sets. The row with .9751 shows .975 twice and ranks 2 and 3
DEMSAR = pd.DataFrame(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)  # fmt: skip


def test_the_worked_example_of_demsar() -> None:
    found = rank_comparison(DEMSAR, alpha=0.10)
    expected = {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert list(found.ranks.index) == list(expected)
    np.testing.assert_allclose(found.ranks, list(expected.values()), atol=5e-4)
    # "the critical difference is 2.291 sqrt(4 5 / 6 14) = 1.12": C4.5 differs from both with m, C4.5+cf from none
    assert found.critical_difference == pytest.approx(1.12, abs=0.005)
    different = {frozenset(pair) for pair in found.pairs.loc[found.pairs["different"], ["a", "b"]].to_numpy()}
    assert different == {frozenset({"C4.5", "C4.5+m"}), frozenset({"C4.5", "C4.5+m+cf"})}
    assert found.cliques == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))
    assert found.n_blocks == 14
    # "at 5 per cent [...] 2.569 sqrt(4 5 / 6 14) = 1.25"
    assert rank_comparison(DEMSAR).critical_difference == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_critical_values_of_demsars_table(k: int, q: float) -> None:
    assert nemenyi(k, 1) / np.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=1.1e-3)


def test_friedman_against_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.integers(0, 6, size=(9, 5)).astype(float) + [0, 0, 1, 1, 2])
    n, k = values.shape
    chi_square = stats.friedmanchisquare(*values.to_numpy().T).statistic
    f = (n - 1) * chi_square / (n * (k - 1) - chi_square)
    assert friedman(values) == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))


def test_friedman_at_its_ends() -> None:
    assert friedman(pd.DataFrame(np.ones((4, 3)))) == 1.0
    assert friedman(pd.DataFrame(np.tile([1.0, 2.0, 3.0], (4, 1)))) == 0.0


def test_lower_is_better_turns_the_ranks() -> None:
    up, down = rank_comparison(DEMSAR), rank_comparison(DEMSAR, higher_is_better=False)
    np.testing.assert_allclose(down.ranks[up.ranks.index], 5 - up.ranks)


def test_pairs_by_signed_ranks_with_holm() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(12, 4)) + [3, 1.5, 1.4, 0], columns=list("abcd"))
    pairs = rank_comparison(values, method="wilcoxon").pairs
    p = [stats.wilcoxon(values[a] - values[b]).pvalue for a, b in pairs[["a", "b"]].to_numpy()]
    np.testing.assert_allclose(pairs["p"], p)
    np.testing.assert_allclose(pairs["p_holm"], holm(p))


def test_pairs_by_the_corrected_test() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(10, 3)) + [4, 2, 0], columns=list("abc"))
    found = rank_comparison(values, method="corrected", test_share=0.3)
    expected = [corrected_t_test((values[a] - values[b]).to_numpy(), test_share=0.3).p for a, b in ("ab", "ac", "bc")]
    np.testing.assert_allclose(found.pairs["p"], expected)
    assert np.isnan(found.critical_difference)
    assert "corrected for overlapping splits" in found.kind


def test_cliques_are_maximal_and_hold_no_pair_that_differs() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        values = pd.DataFrame(rng.normal(size=(15, 12)) + np.linspace(0, 3, 12), columns=list("abcdefghijkl"))
        found = rank_comparison(values)
        differ = {frozenset(p) for p in found.pairs.loc[found.pairs["different"], ["a", "b"]].to_numpy()}
        order = list(found.ranks.index)
        for clique in found.cliques:
            assert not any(frozenset({a, b}) in differ for a in clique for b in clique)
            first, last = order.index(clique[0]), order.index(clique[-1])
            assert first == 0 or any(frozenset({order[first - 1], b}) in differ for b in clique)
            assert last == 11 or any(frozenset({order[last + 1], b}) in differ for b in clique)
        together = {frozenset({a, b}) for c in found.cliques for a in c for b in c if a != b}
        alike = {frozenset({a, b}) for a in order for b in order if a != b} - differ
        assert together == alike, "by the critical difference, what is alike shares a bar"


def test_blocks_with_a_gap_do_not_count() -> None:
    values = DEMSAR.copy()
    values.iloc[0, 0] = np.nan
    assert rank_comparison(values).n_blocks == 13


@pytest.mark.parametrize("method", ["nemenyi", "wilcoxon"])
def test_equal_methods_are_rarely_told_apart(method: str) -> None:
    rng = np.random.default_rng(0)
    repeats = 80
    wrong = sum(
        rank_comparison(pd.DataFrame(rng.normal(size=(10, 5))), method=method).pairs["different"].any()  # type: ignore[arg-type]
        for _ in range(repeats)
    )
    assert wrong / repeats <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)


def test_errors() -> None:
    with pytest.raises(ValueError, match="two or more methods in two or more complete blocks; got 4 methods in 1"):
        rank_comparison(DEMSAR.iloc[:1])
    with pytest.raises(ValueError, match="'nemenyi', 'wilcoxon' or 'corrected'; got 'bonferroni'"):
        rank_comparison(DEMSAR, method="bonferroni")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs method='corrected'"):
        rank_comparison(DEMSAR, test_share=0.3)
