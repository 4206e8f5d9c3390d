"""What a condition does to a difference: fewer pairs, more modalities, another distance.

`level_differences` compares two methods at every level of an axis, corrected for the number of levels, and
`without_parts` a method with its ablations; `trend` asks
whether the difference itself changes along the axis: per seed the least-squares slope over the levels, or the last
level less the first (an interaction), tested over seeds like any other difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .differences import TTest, cohen_dz, corrected_t_test, holm, minimum_detectable_effect
from .repeats import per_seed

if TYPE_CHECKING:
    from jaxtyping import Float

_COLUMNS = (
    "level", "difference", "low", "high", "p", "p_holm", "effect_size", "detectable", "seeds", "kind",
)  # fmt: skip


def level_differences(a: pd.DataFrame, b: pd.DataFrame | None = None, *, test_share: float = 0.0) -> pd.DataFrame:
    """Mean of a - b at every level.

    Args:
        a: one row per seed, one column per level, as from `per_seed(..., by=[axis])`.
        b: the same of the other method; zeros by default, for columns that are differences already.
        test_share: n_test / (n_test + n_train) of overlapping splits, see `corrected_t_test`.

    Returns:
        level, difference, low, high (95 %), p, p_holm (over the levels), effect_size (d_z), detectable (the true
        difference that this many, this noisy seeds find with power 0.8), seeds and kind, levels in the order of `a`;
        NaN where fewer than two seeds have both.

    Raises:
        ValueError: no level in common.
    """
    levels = [level for level in a.columns if b is None or level in b.columns]
    if not levels:
        raise ValueError(f"no level in common: {list(a.columns)} and {[] if b is None else list(b.columns)}")
    rows = []
    for level in levels:
        d = (a[level] if b is None else a[level] - b[level]).dropna().to_numpy(dtype=float)
        rows.append({"level": level, **_row(d, test_share)})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    return table.loc[:, list(_COLUMNS)]


def without_parts(
    scores: pd.DataFrame, *, metric: str, whole: str, where: Mapping[str, object] | None = None, test_share: float = 0.0
) -> pd.DataFrame:
    """Ablation: the cell `whole` less each of its changed forms, the cells whose labels begin with its name.

    Args:
        scores: of a study, e.g. with the cells "gotma", "gotma without OT" and "gotma without RC".
        metric: name of the metric.
        whole: label of the unchanged cell.
        where: see `per_seed`.
        test_share: see `level_differences`, whose columns the result has; `level` is the changed cell.

    Raises:
        ValueError: no such cell, or none that changes it.
    """
    values = per_seed(scores, metric=metric, where=where)
    changed = [c for c in values.columns if str(c).startswith((f"{whole} ", f"{whole},"))]
    if whole not in values or not changed:
        raise ValueError(f"needs the cell {whole!r} and changed forms of it; cells are {', '.join(map(str, values))}")
    return level_differences(-values[changed].sub(values[whole], axis=0), test_share=test_share)


def trend(
    differences: pd.DataFrame, *, positions: Sequence[float] | None = None, test_share: float = 0.0
) -> tuple[TTest, Float[np.ndarray, " seeds"]]:
    """Least-squares slope of the columns, per seed, tested against zero.

    With two columns and no positions it is the interaction: second less first.

    Args:
        differences: one row per seed, one column per level; seeds with a gap are left out.
        positions: of the levels on the axis; 0, 1, 2, ... by default, so that the slope is per step.
        test_share: see `corrected_t_test`.

    Returns:
        The test, and the slope of every seed.

    Raises:
        ValueError: fewer than two levels or complete seeds, or positions that do not fit.
    """
    slopes = slopes_over(differences.dropna(), positions).to_numpy()
    if len(slopes) < 2:
        raise ValueError(f"a trend is tested over two or more seeds that have every level; got {len(slopes)}")
    return corrected_t_test(slopes, test_share=test_share), slopes


def slopes_over(values: pd.DataFrame, positions: Sequence[float] | None = None) -> pd.Series:
    """Least-squares slope of each row over its columns: sum_l (x_l - mean x) v_l / sum_l (x_l - mean x)^2.

    Args:
        values: one row per seed, one column per level.
        positions: of the levels; 0, 1, 2, ... by default.

    Raises:
        ValueError: fewer than two levels, or not one position for each, or all positions equal.
    """
    x = np.arange(values.shape[1]) if positions is None else np.asarray(positions, dtype=float)
    if len(x) != values.shape[1] or len(x) < 2 or not np.ptp(x):
        raise ValueError(f"a slope needs two or more levels, each with its position; got {values.shape[1]}, {len(x)}")
    x = x - x.mean()
    return values @ (x / (x @ x))


def _row(d: np.ndarray, test_share: float) -> dict[str, object]:
    if len(d) < 2:
        nothing = dict.fromkeys(("difference", "low", "high", "p", "effect_size", "detectable"), np.nan)
        return {**nothing, "seeds": len(d), "kind": f"none: {len(d)} seed(s) in common"}
    test = corrected_t_test(d, test_share=test_share)
    return {
        "difference": test.mean,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "effect_size": cohen_dz(d),
        "detectable": minimum_detectable_effect(d, test_share=test_share),
        "seeds": len(d),
        "kind": f"95% t over {len(d)} seeds" + (", corrected for overlapping splits" if test_share else ""),
    }
