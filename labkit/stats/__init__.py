"""Statistics of results: intervals, paired tests, leaderboards; every number says what it is over.

Results vary over samples (grouped: samples of one caption are one observation) and over seeds (each seed draws
another split). Nothing here loads torch.
"""

from .association import Correlation, common_repeats, correlation
from .board import compare, leaderboard
from .budget import budget_scores, budget_table
from .curve_samples import (
    failure_shares,
    first_failures,
    levels_over_samples,
    newly_failed,
    numbers_over_samples,
    sample_curves,
)
from .curve_selection import by_imputation, fully_measured, over_all
from .curve_tests import compare_numbers, compare_samples, rises
from .curves import curve_levels, curve_numbers, effective_robustness, seed_curves, summarize_numbers, with_clean
from .differences import (
    PairedDifference,
    TTest,
    cohen_dz,
    corrected_t_test,
    holm,
    minimum_detectable_effect,
    paired_difference,
)
from .intervals import Interval, bootstrap_interval, crossed_bootstrap, jackknife_interval, seed_interval
from .ranks import RankComparison, friedman, nemenyi, rank_comparison
from .repeats import along, method_column, per_seed
from .trends import level_differences, slopes_over, trend, without_parts
from .verdicts import Evidence, decide, p_values

__all__ = [
    "Correlation",
    "Evidence",
    "Interval",
    "PairedDifference",
    "RankComparison",
    "TTest",
    "along",
    "bootstrap_interval",
    "budget_scores",
    "budget_table",
    "by_imputation",
    "cohen_dz",
    "common_repeats",
    "compare",
    "compare_numbers",
    "compare_samples",
    "corrected_t_test",
    "correlation",
    "crossed_bootstrap",
    "curve_levels",
    "curve_numbers",
    "decide",
    "effective_robustness",
    "failure_shares",
    "first_failures",
    "friedman",
    "fully_measured",
    "holm",
    "jackknife_interval",
    "leaderboard",
    "level_differences",
    "levels_over_samples",
    "method_column",
    "minimum_detectable_effect",
    "nemenyi",
    "newly_failed",
    "numbers_over_samples",
    "over_all",
    "p_values",
    "paired_difference",
    "per_seed",
    "rank_comparison",
    "rises",
    "sample_curves",
    "seed_curves",
    "seed_interval",
    "slopes_over",
    "summarize_numbers",
    "trend",
    "with_clean",
    "without_parts",
]
