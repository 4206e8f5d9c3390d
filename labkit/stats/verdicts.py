"""Does a claim hold? Rule, decided for a family of claims at once.

A claim says that an effect is greater than nothing, less than nothing, not worse than another, or equal, and names a
margin m > 0: the smallest effect that would matter. Two questions are tested, each by Student's t at the boundary:

    expect      holds if it is shown that    does not hold if it is shown that
    greater     effect > 0                   effect < m
    less        effect < 0                   effect > -m
    not worse   effect > -m                  effect < -m         (effect counted so that more is better)
    equal       -m < effect < m              effect < -m or > m

p is twice the one-sided value, so that p < alpha says that the 95 % interval lies beyond the boundary; Holm corrects
p over all tested claims, for either question. *Shown* is corrected p < alpha. Both shown (there is an effect, too small
to matter) does not hold; neither is undecided, which is not the same as no effect. So the chance that any claim without
effect is said to hold is at most alpha, and so is the chance that any effect of size m is said to be none (two
one-sided tests: Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987; Wellek, Testing Statistical Hypotheses
of Equivalence and Noninferiority, 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from .association import Correlation
from .differences import TTest, holm

Expectation = Literal["greater", "less", "not worse", "equal"]
Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Evidence:
    """An effect and how well it is known.

    Attributes:
        value: the effect.
        low, high: its 95 % interval.
        error: standard error; of artanh(value) for a correlation.
        degrees: of freedom.
        bounded: a correlation, tested on the scale of artanh.
    """

    value: float
    low: float
    high: float
    error: float
    degrees: int
    bounded: bool = False

    @classmethod
    def of_test(cls, test: TTest) -> Evidence:
        """Of a t test."""
        error = (test.high - test.low) / 2 / float(stats.t.ppf(0.975, test.degrees))
        return cls(test.mean, test.low, test.high, error, test.degrees)

    @classmethod
    def of_correlation(cls, found: Correlation) -> Evidence:
        """Of a correlation."""
        return cls(found.value, found.low, found.high, found.error, found.degrees, bounded=True)

    def above(self, bound: float) -> float:
        """One-sided p of the effect being at most `bound`: small where it is shown to be greater."""
        return self._tail(bound, 1.0)

    def below(self, bound: float) -> float:
        """One-sided p of the effect being at least `bound`: small where it is shown to be less."""
        return self._tail(bound, -1.0)

    def _tail(self, bound: float, side: float) -> float:
        if self.bounded:  # the middle of the interval on the scale of artanh, where it is symmetric
            distance = (np.arctanh(self.low) + np.arctanh(self.high)) / 2 - np.arctanh(bound)
        else:
            distance = self.value - bound
        if not self.error:
            return float(side * distance <= 0)
        return float(stats.t.sf(side * distance / self.error, self.degrees))


def p_values(evidence: Evidence, expect: Expectation, margin: float) -> tuple[float, float]:
    """Twice the one-sided p for the claim, and against it; see the module.

    Args:
        evidence: the effect; for "not worse" counted so that more is better.
        expect: what the claim says.
        margin: smallest effect that would matter, > 0.

    Raises:
        ValueError: an unknown expectation, or a margin that is not positive (below 1 for a correlation).
    """
    if not 0 < margin < (1 if evidence.bounded else np.inf):
        raise ValueError(f"margin is the smallest effect that matters, > 0 (and < 1 for a correlation); got {margin}")
    above, below = evidence.above, evidence.below
    if expect == "greater":
        one_sided = above(0), below(margin)
    elif expect == "less":
        one_sided = below(0), above(-margin)
    elif expect == "not worse":
        one_sided = above(-margin), below(-margin)
    elif expect == "equal":
        one_sided = max(above(-margin), below(margin)), min(below(-margin), above(margin))
    else:
        raise ValueError(f"a claim expects 'greater', 'less', 'not worse' or 'equal'; got {expect!r}")
    return min(1.0, 2 * one_sided[0]), min(1.0, 2 * one_sided[1])


def decide(
    p_for: Sequence[float], p_against: Sequence[float], *, alpha: float = 0.05
) -> tuple[list[Verdict], np.ndarray, np.ndarray]:
    """Verdicts of a family of claims, and both p values corrected by Holm.

    Args:
        p_for: of every tested claim, as from `p_values`.
        p_against: the same.
        alpha: chance of any wrong "holds", and of any wrong "does not hold".

    Raises:
        ValueError: the two differ in length, or p values outside [0, 1].
    """
    if len(p_for) != len(p_against):
        raise ValueError(f"every claim has two p values; got {len(p_for)} for and {len(p_against)} against")
    shown, refuted = holm(p_for), holm(p_against)
    verdicts: list[Verdict] = [
        "does not hold" if no < alpha else "holds" if yes < alpha else "undecided"
        for yes, no in zip(shown, refuted, strict=True)
    ]
    return verdicts, shown, refuted
