"""Robustness curves v(s) of a metric against severity s = 0 (clean) .. S, one per seed, and numbers that sum them up.

With x = s / S and c(s) the metric's chance, integrals by the trapezoid rule over the severities that were measured:

    drop = v(0) - int v dx                       what the corruption costs on average, in units of the metric
    area = int v dx / v(0)                       share of the clean value that is left; 1 loses nothing
    kept = int (v - c) dx / (v(0) - c(0))        the same above chance; 0 is chance (c may depend on s)

1 - area is the mean relative degradation (v(0) - v) / v(0) of Liang et al. 2021 (MultiBench, arXiv:2107.07502);
`effective_robustness` is the excess over what a baseline's line from clean to corrupted predicts (Taori et al. 2020,
arXiv:2007.00644). A seed is one repeat, so each number is computed per seed and then averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from .differences import corrected_t_test
from .repeats import method_column, select

if TYPE_CHECKING:
    from jaxtyping import Float

CURVE = ("corruption", "corrupted", "method", "seed")
NUMBERS = ("drop", "area", "kept")
_LINE = 3  # baselines that a slope is fitted to


def seed_curves(
    scores: pd.DataFrame,
    *,
    metric: str,
    where: Mapping[str, object] | None = None,
    directions: Sequence[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """One row per corruption, corrupted modality, method, seed and severity; clean scores are severity 0.

    Args:
        scores: as from `Store.scores`, or of a study, whose cells are then the methods.
        metric: name of the metric, one of which more is better.
        where: values, or lists of values, that columns must have; `corruption`, `corrupted` and `severity` choose
            among the corrupted rows, to which the clean rows of the same directions are added.
        directions: (source, target) pairs; all that were measured under a corruption by default.

    Returns:
        corruption, corrupted, method, seed, severity, value and chance (means over draws, then over directions; NaN
        where a method lacks one of the directions), and n (samples of the smallest score).

    Raises:
        ValueError: a column is missing, nothing matches, less of the metric is better, or a method has two runs of one
            seed.
    """
    asked = dict(where or {})
    of_curve = {c: asked.pop(c) for c in ("corruption", "corrupted", "severity") if c in asked}
    rows = select(scores, {"split": "test", "step": "final", **asked, "metric": metric})
    rows = rows.assign(method=rows[method_column(scores)].astype(str))
    if directions is not None:
        pairs = {tuple(pair) for pair in directions}
        rows = rows[[pair in pairs for pair in zip(rows["source"], rows["target"], strict=True)]]
    curve = select(rows[rows["corruption"] != "none"], of_curve)
    _check(scores, rows, curve, metric=metric)
    cell = ["method", "seed", "source", "target"]
    whole = with_clean(curve, rows[rows["corruption"] == "none"], on=cell)
    draws = whole.groupby([*CURVE, "source", "target", "severity"])
    of_direction = draws.agg(value=("value", "mean"), chance=("chance", "mean"), n=("n", "min"))
    curves = of_direction.groupby([*CURVE, "severity"]).agg(
        value=("value", "mean"), chance=("chance", "mean"), n=("n", "min"), directions=("value", "count")
    )
    all_directions = curves.groupby(["corruption", "corrupted"])["directions"].transform("max")
    curves.loc[curves["directions"] < all_directions, ["value", "chance"]] = np.nan
    return curves.drop(columns="directions").reset_index()


def with_clean(curve: pd.DataFrame, clean: pd.DataFrame, *, on: Sequence[str]) -> pd.DataFrame:
    """The clean scores of each curve, as its severity 0, and then the curves.

    A curve that was measured on some of the test samples alone has the clean score of these as a severity 0 of its own,
    which then stands in place of that of all samples.

    Args:
        curve: rows of one metric under corruptions.
        clean: rows of that metric without one.
        on: what tells the rows of one severity of a curve apart, beside corruption and corrupted modality.
    """
    cell = ["corruption", "corrupted", *on]
    start = curve[cell].drop_duplicates().merge(clean.drop(columns=["corruption", "corrupted"]), on=list(on))
    own = pd.MultiIndex.from_frame(curve.loc[curve["severity"] == 0, cell])
    return pd.concat([start[~pd.MultiIndex.from_frame(start[cell]).isin(own)], curve], ignore_index=True)


def curve_levels(curves: pd.DataFrame, *, test_share: float = 0.0) -> pd.DataFrame:
    """Each severity of each curve: mean over seeds with its interval, and how far it lies below the clean value.

    Args:
        curves: as from `seed_curves`.
        test_share: n_test / (n_test + n_train) of overlapping splits, see `corrected_t_test`.

    Returns:
        corruption, corrupted, method, severity, value, low, high (95 %), interval, seeds, n, chance, relative (mean of
        (v(0) - v) / v(0)) and kept (mean of (v - c) / (v(0) - c(0)); NaN where a clean value is at chance or below).
    """
    clean = curves[curves["severity"] == 0].set_index(list(CURVE))[["value", "chance"]]
    joined = curves.join(clean.add_suffix("_clean"), on=list(CURVE))
    joined["relative"] = 1 - joined["value"] / joined["value_clean"].where(joined["value_clean"] > 0)
    above = joined["value_clean"] - joined["chance_clean"]
    joined["kept"] = (joined["value"] - joined["chance"]) / above.where(above > 0)
    rows = []
    for name, group in joined.groupby(["corruption", "corrupted", "method", "severity"], sort=True):
        where = dict(zip(("corruption", "corrupted", "method", "severity"), name, strict=True))
        means = {c: group[c].mean(skipna=False) for c in ("chance", "relative", "kept")}
        rows.append({**where, **over_seeds(group["value"].to_numpy(), test_share), "n": group["n"].min(), **means})
    return pd.DataFrame(rows)


def curve_numbers(curves: pd.DataFrame) -> pd.DataFrame:
    """drop, area and kept of every curve, see the module.

    Args:
        curves: as from `seed_curves`.

    Returns:
        corruption, corrupted, method, seed, drop, area, kept. NaN where a severity that the corruption was measured at
        is lacking; area also where the clean value is 0, kept where it is at chance or below, or chance is not known.

    Raises:
        ValueError: a corruption without clean scores, or with nothing else.
    """
    parts = []
    for _, rows in curves.groupby("corruption", sort=True):
        value, chance = (rows.pivot(index=list(CURVE), columns="severity", values=c) for c in ("value", "chance"))
        weights = severity_weights(value.columns.to_numpy(dtype=float))
        v, c = value.to_numpy(), chance.to_numpy()
        mean, above = v @ weights, v[:, 0] - c[:, 0]
        numbers = {
            "drop": v[:, 0] - mean,
            "area": mean / np.where(v[:, 0] > 0, v[:, 0], np.nan),
            "kept": (mean - c @ weights) / np.where(above > 0, above, np.nan),
        }
        parts.append(pd.DataFrame(numbers, index=value.index).reset_index())
    return pd.concat(parts, ignore_index=True)


def severity_weights(severities: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """Weights of the trapezoid rule over severity / largest severity; they sum to 1.

    Args:
        severities: in ascending order, the first 0.

    Raises:
        ValueError: the first is not 0, or it is the only one.
    """
    if len(severities) < 2 or severities[0] != 0:
        raise ValueError(f"a curve goes from the clean value, severity 0, to others; got severities {list(severities)}")
    steps = np.diff(severities) / severities[-1]
    return (np.append(steps, 0.0) + np.append(0.0, steps)) / 2


def effective_robustness(curves: pd.DataFrame, baselines: Sequence[str]) -> pd.DataFrame:
    """Mean excess over what the baselines' line predicts from the clean value, in units of the metric.

        effective = mean over s > 0 of v(s) - beta_s(v(0)),   logit beta_s(u) = a_s + k_s logit u

    The line of each corruption, severity and seed goes through the baselines' (clean, corrupted) values: with one or
    two of them k_s = 1 and a_s is their mean change, with three or more both are fitted by least squares. Logits, as
    in Taori et al. 2020, so that a prediction stays within the metric's range; MultiBench shifts its late-fusion
    baseline in the same way on the plain scale. Values are held half a sample away from 0 and 1. Positive: more robust
    than the baselines would be if they had the method's clean value. A single baseline has 0.

    For late fusion, give the method whose modalities are aligned without each other and the metric in which they are
    fused last: `fused_recall_at_10` (mean of two modalities' similarities) or a probe's "a+b" direction (mean
    posterior).

    Args:
        curves: as from `seed_curves`, of a metric within 0..1.
        baselines: names of methods.

    Returns:
        corruption, corrupted, method, seed, effective; NaN where the method or a baseline lacks a severity.

    Raises:
        ValueError: values outside 0..1, or a baseline that the curves do not have.
    """
    methods = sorted(curves["method"].unique())
    if not baselines or (unknown := sorted(set(baselines) - set(methods))):
        raise ValueError(f"baselines are methods of the curves, {', '.join(methods)}; got {list(baselines or unknown)}")
    if not curves["value"].dropna().between(0, 1).all():
        raise ValueError("effective robustness is of a metric within 0..1; some values lie outside")
    half = 0.5 / curves["n"]
    parts = []
    odds = curves.assign(odds=logit(curves["value"].clip(half, 1 - half)))
    for name, rows in odds.groupby(["corruption", "corrupted", "seed"], sort=True):
        value, z = (rows.pivot(index="method", columns="severity", values=c) for c in ("value", "odds"))
        severity_weights(value.columns.to_numpy(dtype=float))  # refuses curves without a clean value
        excess = value.iloc[:, 1:] - expit(_line(z, baselines))
        found = pd.DataFrame({"method": value.index, "effective": excess.mean(axis=1, skipna=False).to_numpy()})
        parts.append(found.assign(**dict(zip(("corruption", "corrupted", "seed"), name, strict=True))))
    return pd.concat(parts, ignore_index=True)[[*CURVE, "effective"]]


def summarize_numbers(numbers: pd.DataFrame, *, test_share: float = 0.0) -> pd.DataFrame:
    """Mean over seeds of each number, with its interval.

    Args:
        numbers: corruption, corrupted, method, seed and one column per number, as from `curve_numbers`.
        test_share: see `corrected_t_test`.

    Returns:
        corruption, corrupted, method, number, value, low, high (95 %), interval, seeds.
    """
    names = [c for c in numbers.columns if c not in CURVE]
    rows = []
    for where, group in numbers.groupby(["corruption", "corrupted", "method"], sort=True):
        labels = dict(zip(("corruption", "corrupted", "method"), where, strict=True))
        rows += [{**labels, "number": n, **over_seeds(group[n].to_numpy(dtype=float), test_share)} for n in names]
    return pd.DataFrame(rows)


def over_seeds(values: Float[np.ndarray, " seeds"], test_share: float) -> dict[str, object]:
    """Mean and 95 % interval of `corrected_t_test` as columns; NaN as soon as one seed has none.

    A mean over the seeds that happen to have a number would be of other seeds than its neighbors' means.
    """
    n = len(values)
    if n < 2 or np.isnan(values).any():
        kind = "none: 1 seed" if n < 2 else f"none: {int(np.isnan(values).sum())} of {n} seeds have no value"
        return {"value": float(np.mean(values)), "low": np.nan, "high": np.nan, "interval": kind, "seeds": n}
    test = corrected_t_test(values, test_share=test_share)
    kind = f"95% t over {n} seeds" + (", corrected for overlapping splits" if test_share else "")
    return {"value": test.mean, "low": test.low, "high": test.high, "interval": kind, "seeds": n}


def _line(odds: pd.DataFrame, baselines: Sequence[str]) -> pd.DataFrame:
    """Logits that the baselines predict for every method (rows) at every severity but 0 (columns)."""
    known = odds.reindex(list(baselines))
    clean, there = known.iloc[:, 0].to_numpy()[:, None], known.iloc[:, 1:].to_numpy()
    slope = np.ones(there.shape[1])
    if len(known) >= _LINE and np.ptp(clean) > 0:
        away = clean - clean.mean()
        slope = (away * there).sum(axis=0) / (away**2).sum()
    start = there.mean(axis=0) - slope * clean.mean()
    return start + odds.iloc[:, :1].to_numpy() * slope + 0 * odds.iloc[:, 1:]


def _check(scores: pd.DataFrame, rows: pd.DataFrame, curve: pd.DataFrame, *, metric: str) -> None:
    if curve.empty:
        measured = scores.loc[scores["corruption"] != "none", ["metric", "corruption", "corrupted"]].drop_duplicates()
        there = sorted({" of ".join(r[1:]) for r in measured.itertuples(index=False) if r[0] == metric})
        raise ValueError(f"no corrupted scores of {metric!r} match; it has {', '.join(there) or 'none'}")
    if not rows["higher_is_better"].all():
        raise ValueError(f"less of {metric!r} is better; curves are of metrics of which more is better, e.g. mrr")
    cell = ["method", "seed", "source", "target", "corrupted", "corruption", "severity", "corruption_seed"]
    if (twice := rows.duplicated(cell)).any():
        first = rows[twice].iloc[0]
        raise ValueError(
            f"two runs of method {first['method']!r} have seed {first['seed']}: choose one with `where`, or give each "
            "configuration a name of its own in the column 'cell'"
        )
