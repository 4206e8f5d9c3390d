"""Which rows of a study's scores belong into one comparison of robustness curves, and means over them."""

from __future__ import annotations

import pandas as pd

from .curves import CURVE
from .repeats import method_column

LOST = "missing_modality"


def fully_measured(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the methods that were measured under the most corruptions of the most modalities.

    A study has others, too, e.g. cells that were trained on samples that lack items and are tested for these alone;
    means over corruptions of the two would be of different things.

    Args:
        scores: as from `Store.scores`, or of a study.

    Returns:
        Clean rows and curves of these methods; none where nothing was corrupted.
    """
    method = method_column(scores)
    curves = scores.loc[scores["corruption"] != "none", [method, "corruption", "corrupted"]].drop_duplicates()
    sizes = curves.groupby(method).size()
    return scores[scores[method].isin(sizes[sizes == sizes.max()].index)]


def by_imputation(levels: pd.DataFrame, *, method: str) -> pd.DataFrame:
    """The curves of one method under loss of items, told apart by what stands in for them.

    Args:
        levels: as from `labkit.stats.curve_levels` or `curve_numbers`, with corruptions "missing_modality" and
            "missing_modality+mean", ...
        method: whose curves.

    Returns:
        Their rows, with the name of the imputation in the place of the method ("others" where none is named).

    Raises:
        ValueError: the method has no such curves.
    """
    base = levels["corruption"].str.partition("+")
    rows = (levels["method"] == method) & (base[0] == LOST)
    if not rows.any():
        raise ValueError(f"no curves of {method!r} under {LOST}; methods are {', '.join(levels['method'].unique())}")
    named = base.loc[rows, 2].replace("", "others")
    return levels[rows].assign(method=named, corruption=LOST)


def over_all(numbers: pd.DataFrame) -> pd.DataFrame:
    """The mean over all corruptions and modalities, seed by seed.

    Args:
        numbers: corruption, corrupted, method, seed and one column per number, as from `labkit.stats.curve_numbers`.

    Returns:
        The same columns, with corruption and corrupted empty; NaN where a corruption has no number.
    """
    names = [c for c in numbers.columns if c not in CURVE]
    means = numbers.groupby(["method", "seed"], as_index=False)[names].agg(lambda v: v.mean(skipna=False))
    return means.assign(corruption="", corrupted="")[[*CURVE, *names]]
