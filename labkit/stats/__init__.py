"""Statistics of results: intervals, paired tests, leaderboards; every number says what it is over.

Results vary over samples (grouped: samples of one caption are one observation) and over seeds (each seed draws
another split). Nothing here loads torch.
"""

from .board import compare, leaderboard
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

__all__ = [
    "Interval",
    "PairedDifference",
    "TTest",
    "bootstrap_interval",
    "cohen_dz",
    "compare",
    "corrected_t_test",
    "crossed_bootstrap",
    "holm",
    "jackknife_interval",
    "leaderboard",
    "minimum_detectable_effect",
    "paired_difference",
    "seed_interval",
]
