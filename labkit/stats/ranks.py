"""Many methods over several repeats at once: mean ranks, and which of them cannot be told apart.

In every block (split) the methods are ranked, 1 is best, ties share the mean rank. Friedman's test asks whether they
differ at all, in the F form of Iman & Davenport (1980). If so, pairs are compared: by Nemenyi's critical difference
CD = q_alpha sqrt(k (k + 1) / (6 N)) of mean ranks, with q_alpha the studentized range over sqrt(2), or by tests of each
pair with Holm's correction over all pairs (Demsar, Statistical comparisons of classifiers over multiple data sets,
JMLR 7, 2006; Benavoli, Corani & Mangili, JMLR 17, 2016, on why pairs beat mean ranks).

The rank tests take blocks for independent. Random splits of one data set overlap: then `method="corrected"`, or read
the ranks as the order on these samples and no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from .differences import corrected_t_test, holm

Method = Literal["nemenyi", "wilcoxon", "corrected"]


@dataclass(frozen=True)
class RankComparison:
    """Mean ranks and what can be told apart.

    Attributes:
        ranks: mean rank of each method over the blocks, best first.
        p: of all methods being equal (Friedman's test, F form).
        critical_difference: of mean ranks by Nemenyi; NaN for tests of pairs.
        pairs: a, b, difference (rank of b minus rank of a, a is the better), p, p_holm, different; p is NaN where only
            the critical difference decides.
        cliques: methods next to each other in rank, no two of which differ; maximal ones of two or more.
        n_blocks: complete blocks that counted.
        kind: what the comparison of pairs is.
    """

    ranks: pd.Series
    p: float
    critical_difference: float
    pairs: pd.DataFrame
    cliques: tuple[tuple[str, ...], ...]
    n_blocks: int
    kind: str


def rank_comparison(
    values: pd.DataFrame,
    *,
    higher_is_better: bool = True,
    method: Method = "nemenyi",
    alpha: float = 0.05,
    test_share: float = 0.0,
) -> RankComparison:
    """Compare all methods with each other over the same blocks.

    Args:
        values: one row per block and one column per method, as from `per_seed`; blocks with a gap are left out.
        higher_is_better: direction of the values.
        method: how pairs are compared: "nemenyi" (critical difference), "wilcoxon" (signed ranks, Holm) or "corrected"
            (t test for overlapping splits, Holm).
        alpha: error that all pairs together may have.
        test_share: n_test / (n_test + n_train) of overlapping splits, for "corrected".

    Raises:
        ValueError: fewer than two methods or two complete blocks, an unknown method, or a `test_share` that the method
            does not use.
    """
    if method not in ("nemenyi", "wilcoxon", "corrected"):
        raise ValueError(f"method is 'nemenyi', 'wilcoxon' or 'corrected'; got {method!r}")
    if test_share and method != "corrected":
        raise ValueError(f"{method!r} takes blocks for independent; a test_share needs method='corrected'")
    complete = values.dropna()
    n, k = complete.shape
    if n < 2 or k < 2:
        raise ValueError(f"needs two or more methods in two or more complete blocks; got {k} methods in {n} blocks")
    better = complete if higher_is_better else -complete
    ranks = better.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    order = [str(name) for name in ranks.index]
    better = better.loc[:, ranks.index].set_axis(order, axis=1)
    ranks = ranks.set_axis(order)
    critical = nemenyi(k, n, alpha=alpha) if method == "nemenyi" else float("nan")
    pairs = _pairs(better, ranks, critical, method, alpha, test_share)
    kind = {
        "nemenyi": f"Nemenyi, {alpha:.0%} over {n} blocks taken as independent",
        "wilcoxon": f"signed ranks with Holm, {alpha:.0%} over {n} blocks taken as independent",
        "corrected": f"t tests corrected for overlapping splits with Holm, {alpha:.0%} over {n} blocks",
    }[method]
    return RankComparison(ranks, friedman(better), critical, pairs, _cliques(order, pairs), n, kind)


def friedman(values: pd.DataFrame) -> float:
    """Probability under all columns having equal ranks: F_F = (N - 1) X / (N (k - 1) - X) with Friedman's chi-square X.

    Degrees of freedom k - 1 and (k - 1)(N - 1) (Demsar 2006, section 3.2.2). For two columns X is the sign test's.
    """
    n, k = values.shape
    ranked = values.rank(axis=1).to_numpy()
    spread = ((ranked - (k + 1) / 2) ** 2).sum()
    if spread == 0:
        return 1.0
    # ties make ranks vary less: scaled by what they vary, not by what untied ones would (Conover 1999, section 5.8)
    chi_square = (k - 1) * ((ranked.sum(axis=0) - n * (k + 1) / 2) ** 2).sum() / spread
    rest = n * (k - 1) - chi_square
    if rest <= 1e-9 * n * k:
        return 0.0
    statistic = (n - 1) * chi_square / rest
    return float(stats.f.sf(statistic, k - 1, (k - 1) * (n - 1)))


def nemenyi(n_methods: int, n_blocks: int, *, alpha: float = 0.05) -> float:
    """Critical difference of mean ranks (Demsar 2006, section 3.2.2)."""
    q = float(stats.studentized_range.ppf(1 - alpha, n_methods, np.inf)) / np.sqrt(2)
    return q * float(np.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks)))


def _pairs(
    better: pd.DataFrame, ranks: pd.Series, critical: float, method: Method, alpha: float, test_share: float
) -> pd.DataFrame:
    rows = []
    for a, b in combinations(better.columns, 2):
        d = (better[a] - better[b]).to_numpy(dtype=float)
        if method == "nemenyi":
            p = float("nan")
        elif not d.any():
            p = 1.0
        elif method == "wilcoxon":
            p = float(stats.wilcoxon(d, zero_method="zsplit").pvalue)
        else:
            p = corrected_t_test(d, test_share=test_share).p
        rows.append({"a": a, "b": b, "difference": ranks[b] - ranks[a], "p": p})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    table["different"] = table["difference"] > critical if method == "nemenyi" else table["p_holm"] < alpha
    return table


def _cliques(order: list[str], pairs: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of neighbors in rank without a pair that differs."""
    place = {name: i for i, name in enumerate(order)}
    differs = np.zeros((len(order), len(order)), dtype=bool)
    for a, b in pairs.loc[pairs["different"], ["a", "b"]].itertuples(index=False):
        differs[place[a], place[b]] = True
    found: list[tuple[int, int]] = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and not differs[first : last + 2, first : last + 2].any():
            last += 1
        if last > first and not any(a <= first and last <= b for a, b in found):
            found.append((first, last))
    return tuple(tuple(order[a : b + 1]) for a, b in found)
