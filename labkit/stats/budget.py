"""What each method cost, so that results are compared at equal budgets or the difference is seen.

    budget_table(Store().budgets(), baseline="clip")

Seconds are wall time on whatever machine ran, next to whatever else ran there: compare methods of one study, not
studies. Peak memory is that of the training, see `labkit.train.monitor`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .intervals import seed_interval
from .repeats import CLEAN, method_column

MEASURES = ("train_seconds", "step_seconds", "train_steps", "epochs", "peak_memory", "parameters")
_COLUMNS = (
    "variant", "epochs", "steps", "seconds", "low", "high", "interval", "step_ms", "peak_mb", "parameters",
    "times_baseline", "seeds",
)  # fmt: skip


def budget_table(budgets: pd.DataFrame, *, baseline: str = "") -> pd.DataFrame:
    """Means over seeds, the cheapest training first.

    Args:
        budgets: as from `Store.budgets`, or of a study with its cells.
        baseline: method whose seconds are the unit of `times_baseline`; none by default.

    Returns:
        variant, epochs, steps, seconds of training with low, high and interval (over seeds), step_ms (NaN for closed
        forms, which take no steps), peak_mb, parameters, times_baseline (NaN without a baseline) and seeds.

    Raises:
        ValueError: no budgets, or none of the baseline.
    """
    if budgets.empty:
        raise ValueError("no budgets: the runs are older than their record; `labkit study run NAME --rerun` makes it")
    rows = []
    for variant, runs in budgets.groupby(method_column(budgets), sort=True):
        interval = seed_interval(runs["train_seconds"].to_numpy())
        rows.append(
            {
                "variant": str(variant),
                "epochs": runs["epochs"].mean(),
                "steps": runs["train_steps"].mean(),
                "seconds": interval.value,
                "low": interval.low,
                "high": interval.high,
                "interval": interval.kind,
                "step_ms": 1000 * _step_seconds(runs).mean(),
                "peak_mb": runs["peak_memory"].mean() / 1e6,
                "parameters": runs["parameters"].mean(),
                "seeds": len(runs),
            }
        )
    table = pd.DataFrame(rows).sort_values("seconds", kind="stable", ignore_index=True)
    unit = table.loc[table["variant"] == baseline, "seconds"]
    if baseline and unit.empty:
        raise ValueError(f"no budget of baseline {baseline!r}; there are {', '.join(table['variant'])}")
    table["times_baseline"] = table["seconds"] / (unit.iloc[0] if len(unit) else np.nan)
    return table.loc[:, list(_COLUMNS)]


def budget_scores(budgets: pd.DataFrame) -> pd.DataFrame:
    """The same numbers as rows of a score table, so that claims about cost are tested like any other.

    Args:
        budgets: as from `Store.budgets`, or of a study with its cells and axes, which are kept.

    Returns:
        One row per run and measure of `MEASURES`, less is better, n = 1; no directions.
    """
    about = [c for c in budgets.columns if c not in (*MEASURES, "earlier_seconds", "total_seconds", "best_epoch")]
    values = budgets.assign(step_seconds=_step_seconds(budgets))
    tidy = values.melt(id_vars=about, value_vars=list(MEASURES), var_name="metric").dropna(subset=["value"])
    rest = {"source": "", "target": "", "corrupted": "", "severity": 0.0, "corruption_seed": 0, "n": 1}
    return tidy.assign(**CLEAN, **rest, higher_is_better=False)


def _step_seconds(budgets: pd.DataFrame) -> pd.Series:
    return budgets["train_seconds"] / budgets["train_steps"].where(budgets["train_steps"] > 0)
