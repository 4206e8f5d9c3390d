"""Does one method degrade less than another, and does more corruption ever help?

Two kinds of evidence, told apart in `kind`: numbers of curves paired by seed (`compare_numbers`), and losses of single
samples paired by sample and seed (`compare_samples`). p values are Holm-corrected over the rows of each table. `rises`
lists where a curve is not monotone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .curves import CURVE, severity_weights
from .differences import cohen_dz, corrected_t_test, holm, paired_difference

_POINT = ["corruption", "corrupted", "key", "seed", "source", "target"]
_NOTHING = dict.fromkeys(("difference", "low", "high", "p", "effect_size"), np.nan)


def compare_numbers(
    numbers: pd.DataFrame,
    *,
    number: str,
    baseline: str,
    by: Sequence[str] = ("corruption", "corrupted"),
    test_share: float = 0.0,
) -> pd.DataFrame:
    """Each method minus `baseline`, seed by seed.

    Args:
        numbers: as from `curve_numbers` or `effective_robustness`.
        number: name of the column; of kept, area and effective more is better, of drop less.
        baseline: method that is subtracted.
        by: what is tested apart: by default every corruption of every modality; () tests the mean over all of them.
        test_share: see `corrected_t_test`.

    Returns:
        The columns of `by`, method, baseline, difference, low, high (95 %), p, p_holm, effect_size (d_z), seeds, kind;
        NaN and the reason where fewer than two seeds have both.

    Raises:
        ValueError: no such number or baseline.
    """
    if number not in numbers or baseline not in set(numbers["method"]):
        raise ValueError(
            f"no {number!r} of {baseline!r}: the table has {', '.join(c for c in numbers if c not in CURVE)} of "
            f"{', '.join(sorted(numbers['method'].unique()))}"
        )
    wide = numbers.pivot(index=["corruption", "corrupted", "seed"], columns="method", values=number)
    rows = []
    for where, part in wide.groupby(level=list(by), sort=True) if by else [((), wide)]:
        for method in wide.columns.drop(baseline):
            # a seed counts if it has everything that the mean is over
            d = (part[method] - part[baseline]).unstack("seed").dropna(axis=1).mean().to_numpy()
            labels = dict(zip(by, where, strict=True))
            rows.append({**labels, "method": method, "baseline": baseline, **_over_seeds(d, test_share)})
    return _corrected(rows, by)


def compare_samples(
    samples: pd.DataFrame, *, baseline: str, by: Sequence[str] = ("corruption", "corrupted")
) -> pd.DataFrame:
    """Each method's loss minus that of `baseline`, sample by sample; negative: the method loses less.

    The loss of a sample is its clean value less its mean over severities (drop, see `labkit.stats.curves`), so that its
    mean is the method's. Interval and p are those of `paired_difference`.

    Args:
        samples: as from `sample_curves`; samples that lack a severity of their corruption are left out.
        baseline: method that is subtracted.
        by: what is tested apart: by default every corruption of every modality; () tests the mean over all of them.

    Returns:
        The columns of `by`, method, baseline, difference, low, high (95 %), p, p_holm, effect_size (d_z), seeds, kind.

    Raises:
        ValueError: no such baseline.
    """
    methods = samples.index.unique("method")
    if baseline not in methods:
        raise ValueError(f"no samples of baseline {baseline!r}; methods are {', '.join(sorted(methods))}")
    losses = _losses(samples)
    rows = []
    for where, part in losses.groupby(list(by), sort=True) if by else [((), losses)]:
        base = part[part["method"] == baseline]
        for method in sorted(set(part["method"]) - {baseline}):
            labels = dict(zip(by, where, strict=True))
            found = _over_points(part[part["method"] == method], base)
            rows.append({**labels, "method": method, "baseline": baseline, **found})
    return _corrected(rows, by)


def rises(curves: pd.DataFrame, samples: pd.DataFrame | None = None, *, test_share: float = 0.0) -> pd.DataFrame:
    """Where a mean curve lies above its own lowest earlier value: the exceptions to "more corruption is worse".

    Args:
        curves: as from `seed_curves`.
        samples: as from `sample_curves`, for intervals over samples and seeds (`paired_difference`); without, over
            seeds alone (`corrected_t_test`).
        test_share: see `corrected_t_test`.

    Returns:
        corruption, corrupted, method, lowest (the earlier severity), severity, difference (the rise), low, high (95 %),
        p, p_holm, effect_size, seeds, kind, and beyond: whether the interval excludes that nothing rose. No rows: every
        mean curve is monotone; none `beyond`: every curve is monotone within its interval.
    """
    rows = []
    for name, group in curves.groupby(["corruption", "corrupted", "method"], sort=True):
        where: dict[str, object] = dict(zip(("corruption", "corrupted", "method"), name, strict=True))
        wide = group.pivot(index="seed", columns="severity", values="value").dropna()
        mean = wide.mean().to_numpy()
        lowest = [int(mean[:i].argmin()) for i in range(1, len(mean))]
        for i, start in enumerate(lowest, start=1):
            if len(wide) and mean[i] - mean[start] > 1e-12:
                at = {"lowest": wide.columns[start], "severity": wide.columns[i]}
                d = (wide.iloc[:, i] - wide.iloc[:, start]).to_numpy()
                found = _over_seeds(d, test_share) if samples is None else _rise(samples, where, at)
                rows.append({**where, **at, **found})
    table = _corrected(rows, ("corruption", "corrupted"), ("lowest", "severity"))
    return table.assign(beyond=table["low"] > 0)


def _losses(samples: pd.DataFrame) -> pd.DataFrame:
    """Columns of the index, and value: what each sample loses under each corruption."""
    parts = []
    for _, part in samples.groupby(level="corruption", sort=True):
        known = part.dropna(axis=1, how="all").dropna()  # severities at which this corruption was measured
        v = known.to_numpy()
        mean = v @ severity_weights(known.columns.to_numpy(dtype=float))
        parts.append(known.index.to_frame(index=False).assign(value=v[:, 0] - mean))
    return pd.concat(parts, ignore_index=True)


def _rise(samples: pd.DataFrame, where: Mapping[str, object], at: Mapping[str, float]) -> dict[str, object]:
    rows = samples.xs(tuple(where.values()), level=tuple(where), drop_level=False)
    after, before = (rows[at[end]].rename("value").reset_index() for end in ("severity", "lowest"))
    return _over_points(after.dropna(), before.dropna())


def _over_seeds(d: np.ndarray, test_share: float) -> dict[str, object]:
    if len(d) < 2:
        return {**_NOTHING, "seeds": len(d), "kind": f"none: {len(d)} seed(s) in common"}
    test = corrected_t_test(d, test_share=test_share)
    return {
        "difference": test.mean,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "effect_size": cohen_dz(d),
        "seeds": len(d),
        "kind": f"95% t over {len(d)} seeds" + (", corrected for overlapping splits" if test_share else ""),
    }


def _over_points(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, object]:
    try:
        found = paired_difference(a, b, on=_POINT)
    except ValueError as error:
        return {**_NOTHING, "seeds": 0, "kind": str(error)}
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "effect_size": found.effect_size,
        "seeds": found.n_seeds,
        "kind": found.kind,
    }


def _corrected(rows: list[dict[str, object]], by: Sequence[str], also: Sequence[str] = ("baseline",)) -> pd.DataFrame:
    columns = [*by, "method", *also, "difference", "low", "high", "p", "effect_size", "seeds", "kind"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"].to_numpy(dtype=float)))
    return table
