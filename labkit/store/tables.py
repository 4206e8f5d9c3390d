"""Columns of the stored tables, checked before they are written.

Scores and fields are tidy: one row per number. Clean rows appear once, with corruption "none", severity 0 and
corrupted "" (nothing was corrupted). Where only some samples were corrupted, severity 0 of that corruption is the clean
value of these samples. Tables grow by merging: a row with the same identity replaces the old one, so
several commands may write into one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

SCORE_IDENTITY = (
    "metric", "source", "target", "split", "corrupted", "corruption", "severity", "corruption_seed", "seed", "step",
)  # fmt: skip
SCORE_COLUMNS = (*SCORE_IDENTITY, "value", "low", "high", "n", "interval", "higher_is_better", "chance")
FIELD_IDENTITY = ("split", "source", "target", "corrupted", "corruption", "severity")
FIELD_COLUMNS = ("key", *FIELD_IDENTITY, "value")
TOPOLOGY_COLUMNS = ("dimension", "birth", "death", "keys")

# pandas would store a column of nothing but empty lists as "null"
TOPOLOGY_SCHEMA = pa.schema(
    [("dimension", pa.int64()), ("birth", pa.float64()), ("death", pa.float64()), ("keys", pa.list_(pa.string()))]
)

_KINDS = {
    **dict.fromkeys(("key", "metric", "source", "target", "split", "corrupted", "corruption", "step"), "text"),
    **dict.fromkeys(("interval", "modality", "row_key", "col_key"), "text"),
    **dict.fromkeys(
        ("severity", "value", "low", "high", "chance", "x", "y", "trust", "mass", "birth", "death"), "float64"
    ),
    **dict.fromkeys(("corruption_seed", "seed", "n", "dimension"), "int64"),
    "higher_is_better": "bool",
    "keys": "lists",
}


def tidy(table: pd.DataFrame, columns: Sequence[str], what: str) -> pd.DataFrame:
    """`table` with exactly `columns`, in that order, each of its type; missing text is "".

    Raises:
        ValueError: missing or unknown columns, or a value of the wrong type; the message names the column.
    """
    missing = [c for c in columns if c not in table.columns]
    unknown = [c for c in table.columns if c not in columns]
    if missing or unknown:
        parts = [f"lacks {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(unknown)
        raise ValueError(f"table of {what} {' and '.join(parts)}; its columns are {list(columns)}")
    return pd.DataFrame({c: _typed(table[c], what) for c in columns}).reset_index(drop=True)


def tidy_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Scores ready to be stored.

    Raises:
        ValueError: see `tidy`; or two rows with the same identity; or clean rows that are not marked as such.
    """
    scores = tidy(table, SCORE_COLUMNS, "scores")
    _check_clean(scores, "scores")
    twice = scores.duplicated(list(SCORE_IDENTITY))
    if twice.any():
        row = scores.loc[twice, list(SCORE_IDENTITY)].iloc[0].to_dict()
        raise ValueError(f"{int(twice.sum())} score(s) occur twice in the table, the first is {row}")
    return scores


def tidy_field(table: pd.DataFrame) -> pd.DataFrame:
    """Per-point scores ready to be stored; values in float32.

    Raises:
        ValueError: see `tidy`; or a key occurs twice under one condition; or clean rows not marked as such.
    """
    field = tidy(table, FIELD_COLUMNS, "a field")
    _check_clean(field, "a field")
    twice = field.duplicated(["key", *FIELD_IDENTITY])
    if twice.any():
        row = field.loc[twice].iloc[0].to_dict()
        raise ValueError(f"{int(twice.sum())} point(s) of a field occur twice, the first is {row}")
    return field.astype({"value": "float32"})


def tidy_topology(table: pd.DataFrame) -> pd.DataFrame:
    """Bars of persistent homology ready to be stored; an infinite death is a class that never dies.

    Raises:
        ValueError: see `tidy`; or a bar that does not begin at a finite birth >= 0 and end after it.
    """
    bars = tidy(table, TOPOLOGY_COLUMNS, "topology")
    wrong = ~(np.isfinite(bars["birth"]) & (bars["birth"] >= 0) & (bars["death"] > bars["birth"]))
    wrong |= bars["dimension"] < 0
    if wrong.any():
        row = bars.loc[wrong, ["dimension", "birth", "death"]].iloc[0].to_dict()
        raise ValueError(f"{int(wrong.sum())} bar(s) do not have 0 <= birth < death, the first is {row}")
    return bars


def tidy_points(table: pd.DataFrame) -> pd.DataFrame:
    """Points ready to be stored: key, split, group, label, and per modality `m` the columns `m` and `present_m`.

    Raises:
        ValueError: a column is missing, keys are not unique, `present_m` is not boolean, or there are no rows.
    """
    modalities = modalities_of(table)
    needed = ["key", "split", "group", "label", *modalities]
    missing = [c for c in needed if c not in table.columns]
    if missing or not modalities:
        raise ValueError(
            f"table of points lacks {missing or ['present_<modality>']}; it needs key, split, group, label and, for "
            "each modality m, the raw items in column m (None where there are none) and a boolean present_m"
        )
    if len(table) == 0:
        raise ValueError("table of points is empty; a run needs at least one sample")
    points = table.reset_index(drop=True).assign(key=_typed(table["key"], "points").to_numpy())
    twice = points["key"].duplicated()
    if twice.any():
        raise ValueError(f"key {points.loc[twice, 'key'].iloc[0]!r} occurs more than once; keys must be unique")
    wrong = [m for m in modalities if points[f"present_{m}"].dtype != bool]
    if wrong:
        raise ValueError(f"columns {[f'present_{m}' for m in wrong]} of points must be boolean")
    # A column of nothing but None has no type of its own, and other readers would see "null".
    return points.astype({m: "string" for m in modalities})


def modalities_of(points: pd.DataFrame) -> list[str]:
    """Modalities of a table of points, in the order of its `present_<modality>` columns."""
    return [str(c).removeprefix("present_") for c in points.columns if str(c).startswith("present_")]


def merge(old: pd.DataFrame | None, new: pd.DataFrame, identity: Sequence[str]) -> pd.DataFrame:
    """Rows of `old` whose identity does not occur in `new`, then `new`."""
    if old is None or old.empty:
        return new
    columns = list(identity)
    stale = old.set_index(columns).index.isin(new.set_index(columns).index)
    kept = old.loc[~stale]
    return new if kept.empty else pd.concat([kept, new], ignore_index=True)


def without(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """`table` without the rows that have all the values of `where`.

    Raises:
        ValueError: `where` names a column that the table lacks.
    """
    unknown = [c for c in where if c not in table.columns]
    if unknown:
        raise ValueError(f"no column {unknown} to replace by; columns are {list(table.columns)}")
    matches = np.ones(len(table), dtype=bool)
    for column, value in where.items():
        matches &= (table[column] == value).to_numpy()
    return table.loc[~matches]


def _typed(column: Any, what: str) -> pd.Series:
    name = str(column.name)
    kind = _KINDS[name]
    if kind == "text":
        return column.astype(object).where(column.notna(), "").astype(str)
    if kind == "lists":
        return _lists(column, what)
    try:
        if kind != "float64" and column.isna().any():
            raise ValueError("some values are missing")
        typed = column.astype(kind)
        if kind == "int64" and not (typed == column).all():
            raise ValueError("some values are not whole numbers")
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} of {what} must be {kind}: {error}") from None
    return typed


def _lists(column: pd.Series, what: str) -> pd.Series:
    """Lists of text."""
    wrong = [value for value in column if not isinstance(value, (list, tuple, np.ndarray))]
    if wrong:
        raise ValueError(f"column {column.name!r} of {what} must hold lists of keys; got {wrong[0]!r}")
    return pd.Series([[str(key) for key in value] for value in column], index=column.index, dtype=object)


def _check_clean(table: pd.DataFrame, what: str) -> None:
    clean = table["corruption"].to_numpy() == "none"
    wrong = clean & (table["severity"].to_numpy() != 0)
    wrong |= clean != (table["corrupted"].to_numpy() == "")
    if wrong.any():
        row = table.loc[wrong, ["corruption", "severity", "corrupted"]].iloc[0].to_dict()
        raise ValueError(
            f"{int(wrong.sum())} row(s) of {what} are neither clean (corruption 'none', severity 0, corrupted '') nor "
            f"corrupted (a named corruption and modality); the first is {row}"
        )
