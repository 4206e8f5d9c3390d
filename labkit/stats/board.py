"""Leaderboard over variants, and every variant against a baseline, from the tables of the run store.

    scores = Store().scores()
    fields = Store().fields("recall_at_10", where={"corruption": "none"})
    leaderboard(scores, fields, metric="recall_at_10", source="image", target="text")
    compare(scores, fields, metric="recall_at_10", source="image", target="text", baseline="clip")

Only clean rows of the final step count. With `fields` (per-point values) intervals are over seeds and groups, without
over seeds alone; every row says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from .differences import cohen_dz, corrected_t_test, holm, paired_difference
from .intervals import Interval, crossed_bootstrap, seed_interval
from .repeats import method_column

_BOARD = ("rank", "variant", "value", "low", "high", "interval", "seeds", "n", "chance", "higher_is_better")
_VERSUS = (
    "variant", "baseline", "difference", "low", "high", "p", "p_holm", "effect_size", "effect_over", "seeds", "n",
    "kind", "higher_is_better",
)  # fmt: skip


def leaderboard(
    scores: pd.DataFrame,
    fields: pd.DataFrame | None = None,
    *,
    metric: str,
    source: str,
    target: str,
    split: str = "test",
) -> pd.DataFrame:
    """Variants in order of their mean over seeds, best first.

    Args:
        scores: as from `Store.scores`, or of a study, whose cells (a variant with its options) are then the variants.
        fields: per-point values of `metric`, as from `Store.fields`; where a variant has them for all its seeds,
            its interval is over seeds and groups.
        metric: name of the metric.
        source: modality of the queries, "" for metrics that have none.
        target: modality that is searched.
        split: which samples.

    Returns:
        rank, variant, value, low, high, interval (what it is), seeds, n (samples of the smallest seed), chance and
        higher_is_better; no rows if nothing matches.

    Raises:
        ValueError: two runs of one variant have the same seed, so that they are no independent repeats.
    """
    table = _select(scores, {"metric": metric, "source": source, "target": target, "split": split, "step": "final"})
    _check_one_run_per_seed(table)
    if table.empty:
        return pd.DataFrame(columns=list(_BOARD))
    points = None if fields is None else _select(fields, {"source": source, "target": target, "split": split})
    rows = [_board_row(str(variant), rows, points) for variant, rows in table.groupby("variant", sort=True)]
    board = pd.DataFrame(rows)
    ascending = not bool(table["higher_is_better"].iloc[0])
    board = board.sort_values("value", ascending=ascending, kind="stable", na_position="last", ignore_index=True)
    board.insert(0, "rank", np.arange(1, len(board) + 1))
    return board.loc[:, list(_BOARD)]


def compare(
    scores: pd.DataFrame,
    fields: pd.DataFrame | None = None,
    *,
    metric: str,
    source: str,
    target: str,
    baseline: str,
    test_share: float = 0.0,
) -> pd.DataFrame:
    """Each variant minus `baseline` on the test split, p values adjusted by Holm over the table.

    With `fields`: differences of the same points under the same seeds, `paired_difference`. Without: differences of
    the same seeds, `corrected_t_test`.

    Args:
        scores: as from `Store.scores`.
        fields: per-point values of `metric`, as from `Store.fields`.
        metric: name of the metric.
        source: modality of the queries.
        target: modality that is searched.
        baseline: variant that is subtracted.
        test_share: n_test / (n_test + n_train) of overlapping splits, for the test over seeds.

    Returns:
        variant, baseline, difference, low, high, p, p_holm, effect_size, effect_over, seeds, n, kind and
        higher_is_better, one row per other variant; NaN and the reason in `kind` where nothing can be compared.

    Raises:
        ValueError: the baseline has no such scores, or two runs of one variant have the same seed.
    """
    where = {"source": source, "target": target, "split": "test"}
    table = _select(scores, {**where, "metric": metric, "step": "final"})
    _check_one_run_per_seed(table)
    variants = sorted(table["variant"].unique())
    if baseline not in variants:
        raise ValueError(f"no {metric} of baseline {baseline!r} from {source!r} to {target!r}; variants are {variants}")
    points = None if fields is None else _select(fields, where)
    rows = []
    for variant in variants:
        if variant != baseline:
            row = (
                _over_seeds(table, variant, baseline, test_share)
                if points is None
                else _over_points(points, variant, baseline)
            )
            rows.append({"variant": variant, "baseline": baseline, **row})
    versus = pd.DataFrame(rows, columns=[c for c in _VERSUS if c not in ("p_holm", "higher_is_better")])
    versus["p_holm"] = holm(versus["p"].to_numpy(dtype=float))
    versus["higher_is_better"] = bool(table["higher_is_better"].iloc[0])
    return versus.loc[:, list(_VERSUS)]


def _board_row(variant: str, rows: pd.DataFrame, points: pd.DataFrame | None) -> dict[str, object]:
    own = None if points is None else points.loc[(points["variant"] == variant) & points["seed"].isin(rows["seed"])]
    first: dict[str, Any] = rows.iloc[0].to_dict()
    if own is not None and own["seed"].nunique() == len(rows):
        interval = crossed_bootstrap(own)
    elif len(rows) > 1:
        interval = seed_interval(rows["value"].to_numpy())
    else:
        kind = f"{first['interval']}, 1 seed" if first["interval"] else "none: 1 seed"
        interval = Interval(first["value"], first["low"], first["high"], int(first["n"]), 1, kind)
    return {
        "variant": variant,
        "value": rows["value"].mean(),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.kind,
        "seeds": len(rows),
        "n": rows["n"].min(),
        "chance": rows["chance"].mean(),
        "higher_is_better": first["higher_is_better"],
    }


def _over_points(points: pd.DataFrame, variant: str, baseline: str) -> dict[str, object]:
    a, b = (points.loc[points["variant"] == name] for name in (variant, baseline))
    try:
        row = asdict(paired_difference(a, b))
    except ValueError as error:
        return _nothing(str(error))
    return {**row, "seeds": row["n_seeds"], "n": row["n_keys"]}


def _over_seeds(table: pd.DataFrame, variant: str, baseline: str, test_share: float) -> dict[str, object]:
    a, b = (table[table["variant"] == name].set_index("seed")["value"] for name in (variant, baseline))
    differences = (a - b).dropna().to_numpy()
    if len(differences) < 2:
        return _nothing(f"none: {len(differences)} seed(s) in common")
    test = corrected_t_test(differences, test_share=test_share)
    return {
        "difference": test.mean,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "effect_size": cohen_dz(differences),
        "effect_over": "seeds",
        "seeds": len(differences),
        "n": len(differences),
        "kind": f"95% t over {len(differences)} seeds" + (", corrected for overlapping splits" if test_share else ""),
    }


def _nothing(reason: str) -> dict[str, object]:
    return {
        **dict.fromkeys(("difference", "low", "high", "p", "effect_size"), np.nan),
        "seeds": 0,
        "n": 0,
        "kind": reason,
    }


def _select(table: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """Clean rows with the given values; where the table has cells of a study, each cell is a variant of its own."""
    table = table.assign(variant=table[method_column(table)])
    mask = table["corruption"] == "none"
    for column, value in where.items():
        mask &= table[column] == value
    return table.loc[mask]


def _check_one_run_per_seed(table: pd.DataFrame) -> None:
    twice = table.duplicated(["variant", "seed"], keep=False)
    if twice.any():
        first = table[twice].iloc[0]
        runs = table.loc[twice & (table["variant"] == first["variant"]) & (table["seed"] == first["seed"]), "run"]
        raise ValueError(
            f"variant {first['variant']!r} has {len(runs)} runs of seed {first['seed']} ({', '.join(map(str, runs))}): "
            "choose the runs of one configuration first"
        )
