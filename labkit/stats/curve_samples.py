"""Robustness curves of single samples: where each first fails, and the numbers of curves with intervals over samples.

Samples of one caption are one observation, so groups are resampled, crossed with seeds where there are several
(`labkit.stats.intervals`). Every sample weighs 1 / (samples of its seed and direction), so that values are means over
directions as in `labkit.stats.curves`, whose formulas these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from .curves import CURVE, severity_weights
from .repeats import method_column, select
from .resampling import cell_sums, crossed_means, weight_blocks

if TYPE_CHECKING:
    from jaxtyping import Float

SAMPLE = (*CURVE, "source", "target", "key", "group")
_RESAMPLES = 1000


def sample_curves(fields: pd.DataFrame, *, where: Mapping[str, object] | None = None) -> pd.DataFrame:
    """One row per sample and direction, one column per severity, those of clean samples being severity 0.

    Args:
        fields: per-point values of one metric, clean and corrupted, as from `Store.fields`.
        where: values, or lists of values, that columns of the corrupted rows must have.

    Returns:
        Index corruption, corrupted, method, seed, source, target, key, group; float columns 0, 1, ...; NaN where a
        severity was not measured.

    Raises:
        ValueError: a column is missing, nothing matches, or a method has two runs of one seed.
    """
    rows = select(fields, {"split": "test"})
    rows = rows.assign(method=rows[method_column(fields)].astype(str))
    curve = select(rows[rows["corruption"] != "none"], where or {})
    if curve.empty:
        there = sorted(map(str, rows.loc[rows["corruption"] != "none", "corruption"].unique()))
        raise ValueError(f"no per-point values match; corruptions with such values are {', '.join(there) or 'none'}")
    clean = rows[rows["corruption"] == "none"].drop(columns=["corruption", "corrupted"])
    one = [c for c in SAMPLE if c not in ("corruption", "corrupted")]
    start = curve[list(SAMPLE)].drop_duplicates().merge(clean[[*one, "severity", "value"]], on=one)
    whole = pd.concat([start, curve[[*SAMPLE, "severity", "value"]]], ignore_index=True)
    if (twice := whole.duplicated([*SAMPLE, "severity"])).any():
        first = whole[twice].iloc[0]
        raise ValueError(f"two runs of method {first['method']!r} have seed {first['seed']}: choose one of them")
    table = whole.set_index([*SAMPLE, "severity"])["value"].astype(float).unstack("severity")
    return table.sort_index(axis=1)


def first_failures(samples: pd.DataFrame, *, threshold: float = 0.5) -> pd.DataFrame:
    """The severity at which each sample first fails: 0 if it does when clean, infinity if it never does.

    Args:
        samples: as from `sample_curves`, of a metric of which more is better (whether the target was found).
        threshold: a value below it is a failure; values between 0 and 1 come from ties and from means over draws.

    Returns:
        The columns of the index and first; samples that were not asked at some severity are left out.
    """
    complete = samples.dropna()
    failed = complete.to_numpy() < threshold
    severities = complete.columns.to_numpy(dtype=float)
    first = np.where(failed.any(axis=1), severities[failed.argmax(axis=1)], np.inf)
    return complete.index.to_frame(index=False).assign(first=first)


def newly_failed(samples: pd.DataFrame, severity: float, *, threshold: float = 0.5) -> list[str]:
    """Keys of the samples that fail at a severity and do not when clean, in at least one direction; sorted.

    Args:
        samples: as from `sample_curves`, of one method and seed.
        severity: one of its columns.
        threshold: see `first_failures`.
    """
    asked = samples[[0, severity]].dropna()
    failed = (asked[severity] < threshold) & (asked[0] >= threshold)
    return sorted(set(asked.index.get_level_values("key")[failed]))


def failure_shares(first: pd.DataFrame) -> pd.DataFrame:
    """Share of samples by the severity at which they first fail, mean over seeds and directions.

    Args:
        first: as from `first_failures`.

    Returns:
        corruption, corrupted, method, first, share, seeds, n (samples of the smallest seed and direction); shares of
        one curve sum to 1.
    """
    cell = [*CURVE, "source", "target"]
    counts = first.groupby([*cell, "first"]).size().unstack("first", fill_value=0)
    shares = counts.div(counts.sum(axis=1), axis=0)
    by = ["corruption", "corrupted", "method"]
    table = shares.groupby(by).mean().melt(ignore_index=False, var_name="first", value_name="share")
    sizes = pd.DataFrame({"n": counts.sum(axis=1)}).reset_index()
    about = sizes.groupby(by).agg(seeds=("seed", "nunique"), n=("n", "min"))
    return table.join(about).reset_index().sort_values([*by, "first"], ignore_index=True)


def numbers_over_samples(
    samples: pd.DataFrame, chance: pd.DataFrame | None = None, *, level: float = 0.95, random_seed: int = 0
) -> pd.DataFrame:
    """drop, area and kept of every method (see `labkit.stats.curves`), with intervals for new samples and new seeds.

    area and kept are ratios of two means, resampled together; the interval is the mean +- t_(min(S, G) - 1) x standard
    deviation of the resamples with two or more seeds, and from percentiles with one.

    Args:
        samples: as from `sample_curves`; samples that lack a severity of their corruption are left out.
        chance: as from `seed_curves`, for kept; without it there is none.
        level: probability that an interval covers the number.
        random_seed: of the resampling.

    Returns:
        corruption, corrupted, method, number, value, low, high, interval, seeds, n (groups).
    """
    rows = []
    for where, part in samples.groupby(level=["corruption", "corrupted", "method"], sort=True):
        known = part.dropna(axis=1, how="all").dropna()
        weights = severity_weights(known.columns.to_numpy(dtype=float))
        v, cells = known.to_numpy(), _Cells(known)
        of_clean, of_area, one = cells(v[:, 0]), cells(v @ weights), cells(np.ones(len(v)))
        ratios = {"drop": (of_clean - of_area, one), "area": (of_area, of_clean)}
        if chance is not None:
            c = _chance(chance, dict(zip(("corruption", "corrupted", "method"), where, strict=True)), cells.seeds)
            ratios["kept"] = of_area - (c @ weights)[:, None] * one, of_clean - c[:, :1] * one
        labels = dict(zip(("corruption", "corrupted", "method"), where, strict=True))
        for number, (above, below) in ratios.items():
            found = _ratio_interval(above, below, level, random_seed)
            rows.append({**labels, "number": number, **found, "seeds": len(one), "n": one.shape[1]})
    return pd.DataFrame(rows)


def levels_over_samples(samples: pd.DataFrame, *, level: float = 0.95, random_seed: int = 0) -> pd.DataFrame:
    """Mean of every method at every severity, with intervals for new samples and (with two or more) new seeds.

    Args:
        samples: as from `sample_curves`; samples that lack a severity of their corruption are left out.
        level: probability that an interval covers the mean.
        random_seed: of the resampling; the same at all severities, so that a curve moves as one.

    Returns:
        corruption, corrupted, method, severity, value, low, high, interval, seeds, n (groups).
    """
    rows = []
    for where, part in samples.groupby(level=["corruption", "corrupted", "method"], sort=True):
        known = part.dropna(axis=1, how="all").dropna()
        cells = _Cells(known)
        one = cells(np.ones(len(known)))
        labels = dict(zip(("corruption", "corrupted", "method"), where, strict=True))
        for severity in known.columns:
            found = _ratio_interval(cells(known[severity].to_numpy()), one, level, random_seed)
            rows.append({**labels, "severity": severity, **found, "seeds": len(one), "n": one.shape[1]})
    return pd.DataFrame(rows)


class _Cells:
    """Sums over the samples of each (seed, group), a sample weighing 1 / (samples of its seed and direction)."""

    def __init__(self, samples: pd.DataFrame) -> None:
        index = samples.index.to_frame(index=False)
        direction = index.groupby(["source", "target"]).ngroup()
        self._weight = 1 / direction.groupby([index["seed"], direction]).transform("size").to_numpy()
        self._seed, self._group = index["seed"].to_numpy(), index["group"].to_numpy()
        self.seeds = np.unique(self._seed)

    def __call__(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "seeds groups"]:
        return cell_sums(values * self._weight, self._seed, self._group)[0]


def _ratio_interval(
    above: Float[np.ndarray, "seeds groups"], below: Float[np.ndarray, "seeds groups"], level: float, random_seed: int
) -> dict[str, object]:
    """Mean over seeds of sum above / sum below, seeds and groups resampled together."""
    n_seeds, n_groups = above.shape
    total = below.sum(axis=1)
    if (total <= 0).any():
        return {"value": np.nan, "low": np.nan, "high": np.nan, "interval": "none: nothing to lose when clean"}
    value = float(np.mean(above.sum(axis=1) / total))
    if n_groups < 2:
        return {"value": value, "low": np.nan, "high": np.nan, "interval": f"none: {n_groups} group"}
    if n_seeds < 2:
        weights = np.concatenate(list(weight_blocks(n_groups, _RESAMPLES, random_seed)))
        drawn = (weights @ above[0]) / (weights @ below[0])
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        kind = f"{level:.0%} bootstrap over groups, 1 seed"
        return {"value": value, "low": float(low), "high": float(high), "interval": kind}
    error = float(crossed_means(above, below, _RESAMPLES, random_seed).std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, min(n_seeds, n_groups) - 1)) * error
    kind = f"{level:.0%} bootstrap over {n_seeds} seeds x {n_groups} groups"
    return {"value": value, "low": value - half, "high": value + half, "interval": kind}


def _chance(
    curves: pd.DataFrame, where: Mapping[str, object], seeds: Sequence[int] | np.ndarray
) -> Float[np.ndarray, "seeds severities"]:
    rows = select(curves, where)
    return rows.pivot(index="seed", columns="severity", values="chance").loc[list(seeds)].to_numpy()
