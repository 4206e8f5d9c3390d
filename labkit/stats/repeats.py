"""One number per repeat: a metric of every method under every seed, averaged over directions of retrieval.

A seed draws split and initialization, so it is the unit over which methods are compared; everything that compares over
seeds (tests of claims, ranks, trends) starts from this table. Seeds of one data set redraw splits of the same samples:
see `corrected_t_test`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

CLEAN: Mapping[str, object] = {"corruption": "none", "split": "test", "step": "final"}


def per_seed(
    scores: pd.DataFrame,
    *,
    metric: str,
    by: Sequence[str] | None = None,
    where: Mapping[str, object] | None = None,
    directions: Sequence[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """Mean over directions, one row per seed and one column per method.

    Args:
        scores: as from `Store.scores`.
        metric: name of the metric.
        by: columns that tell the methods apart, `method_column` by default; with several of them the columns of the
            result have several levels.
        where: values that columns must have, or lists of values; clean rows of the test samples at the final step
            unless it says otherwise.
        directions: (source, target) pairs; all that the methods have by default.

    Returns:
        `[seeds, methods]`, NaN where a method has no run of a seed or lacks one of the directions, which would compare
        means over different things. `attrs` has `n` (samples of the smallest score) and `higher_is_better`.

    Raises:
        ValueError: a column is missing, nothing matches, or a method has two runs of one seed.
    """
    by = list(by or [method_column(scores)])
    rows = select(scores, {**CLEAN, **(where or {}), "metric": metric})
    asked = None if directions is None else {tuple(pair) for pair in directions}
    if asked is not None:
        found = [pair in asked for pair in zip(rows["source"], rows["target"], strict=True)]
        rows = rows[found]
    if rows.empty:
        raise ValueError(_nothing(scores, metric, where or {}, asked))
    cell = [c for c in ("source", "target", "corrupted", "severity", "corruption_seed") if c in rows and c not in by]
    if (twice := rows.duplicated(["seed", *by, *cell], keep=False)).any():
        first = rows[twice].iloc[0]
        name = ", ".join(f"{c} {first[c]!r}" for c in by)
        raise ValueError(
            f"two runs with {name} have seed {first['seed']}: add the column that tells them apart to `by`, or choose "
            "one with `where`"
        )
    wide = rows.pivot(index="seed", columns=[*by, *cell], values="value")
    methods = by if len(by) > 1 else by[0]
    mean = wide.T.groupby(level=methods).mean().T
    complete = wide.notna().T.groupby(level=methods).sum().T
    mean = mean.where(complete == rows.drop_duplicates(cell).shape[0])
    mean.attrs = {"n": int(rows["n"].min()), "higher_is_better": bool(rows["higher_is_better"].iloc[0])}
    return mean


def _nothing(scores: pd.DataFrame, metric: str, where: Mapping[str, object], asked: set[tuple[str, ...]] | None) -> str:
    metrics = sorted(map(str, scores["metric"].unique()))
    if metric not in metrics:
        return f"no scores of {metric!r}; metrics are {', '.join(metrics)}"
    conditions = " and ".join(f"{column} {value!r}" for column, value in where.items())
    directions = "" if asked is None else " from " + ", ".join(f"{a} to {b}" for a, b in sorted(asked))
    return f"no scores of {metric!r}{directions} with {conditions or 'clean test samples'}"


def method_column(table: pd.DataFrame) -> str:
    """What tells the methods of a table apart: "cell" of studies (a variant with its options), else "variant"."""
    return "cell" if "cell" in table else "variant"


def along(scores: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Rows of the cells of a study that vary `axis`, with the column method: the cell's label without that axis.

    "gotma, epsilon=0.2" along options.epsilon is method "gotma"; "clip, pairs=0.5, unpaired=dropped" along data.pairs
    is "clip, unpaired=dropped".

    Args:
        scores: of a study.
        axis: e.g. "options.epsilon".

    Raises:
        ValueError: no cell varies the axis.
    """
    part = f", {axis.rpartition('.')[2]}="
    rows = scores[scores["cell"].str.contains(part, regex=False)] if "cell" in scores else scores.iloc[:0]
    if rows.empty or axis not in rows:
        raise ValueError(f"no cell varies {axis!r}; columns are {', '.join(map(str, scores.columns))}")
    return rows.assign(method=rows["cell"].str.replace(re.escape(part) + "[^,]*", "", regex=True))


def select(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Rows in which every column has the given value, or one of the given list.

    Raises:
        ValueError: the table lacks a column.
    """
    missing = [c for c in where if c not in table.columns]
    if missing:
        raise ValueError(f"the table lacks the columns {missing}; it has {', '.join(map(str, table.columns))}")
    mask = pd.Series(True, index=table.index)
    for column, value in where.items():
        mask &= table[column].isin(value) if isinstance(value, (list, tuple, set)) else table[column] == value
    return table.loc[mask]
