"""Evaluation of a fitted aligner on the test samples: every registered metric, with intervals, clean and corrupted.

Intervals of means and medians are bootstraps over caption groups; other statistics (CKA, Procrustes, ...) get a
delete-a-group-fold jackknife. Curves use the same samples at every severity, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import stats
from labkit.conditions import Condition, Conditions, Skipped
from labkit.config import EvaluationConfig
from labkit.encoders.raw_features import RawFeatures
from labkit.metrics import METRICS, Metric
from labkit.types import Aligner, Embeddings, Score

CURVE_METRICS = ("recall_at_10", "mrr")
FIELD_OF_CURVES = "recall_at_10"


@dataclass(frozen=True)
class Evaluation:
    """What was measured, as the run store keeps it.

    Attributes:
        scores: tidy rows, one per metric, direction, corruption and severity.
        fields: metric -> one row per sample, direction, corruption and severity.
        skipped: corruptions that could not be measured, or not on all items.
    """

    scores: pd.DataFrame
    fields: dict[str, pd.DataFrame]
    skipped: list[Skipped] = field(default_factory=list)


def evaluate(
    aligner: Aligner,
    train: Embeddings,
    test: Embeddings,
    config: EvaluationConfig,
    *,
    seed: int,
    raw: RawFeatures | None = None,
) -> Evaluation:
    """Measure `aligner` on `test`.

    Args:
        aligner: fitted.
        train: raw training samples, for the corruption statistics and the neutral substitute of missing items.
        test: raw test samples.
        config: corruptions and number of resamples.
        seed: of corruptions of features, and of resamples.
        raw: the test samples' raw items; needed where `config` names corruptions of them.

    Raises:
        UnknownNameError: no such corruption.
        ValueError: a corruption of raw items without `raw`.
    """
    collected = _Collector(test, config.bootstrap, seed)
    shared = aligner.embed(test).to("cpu")
    for name in METRICS.names():
        for score in _with_intervals(cast("Metric", METRICS.get(name)), shared, test, collected):
            collected.add(score, corruption="none", severity=0, corrupted="", corruption_seed=0)
    conditions = Conditions(train, test, seed=seed, raw=raw)
    grid = conditions.grid(config.corruptions, draws=config.corruption_seeds)
    if grid:
        _curves(aligner, train, conditions, grid, collected)
    return collected.result(conditions.skipped)


def curves(
    aligner: Aligner,
    train: Embeddings,
    conditions: Conditions,
    grid: Sequence[Condition],
    *,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Measure `aligner` under some conditions alone, as `evaluate` does.

    Args:
        aligner: fitted.
        train: raw training samples, for the neutral substitute of missing items.
        conditions: of the raw test samples.
        grid: which of them; all draws of a severity, as per-sample values are means over the draws.
        resamples: of each interval.
        seed: of the run.
    """
    collected = _Collector(conditions.test, resamples, seed)
    _curves(aligner, train, conditions, grid, collected)
    return collected.result(conditions.skipped)


def substitute(shared: Embeddings, pair: tuple[str, str], neutral: dict[str, Tensor]) -> Embeddings:
    """Two modalities made complete: an absent item is stood in for by the sample's other modalities.

    The stand-in is the normalized mean of the sample's present embeddings outside the pair (the other side of the
    question would give the answer away); where there is none, the mean training embedding, which says nothing about
    the sample.

    Args:
        shared: embedded samples, some with absent items.
        pair: the modality that asks and the one that is searched, in either order.
        neutral: modality -> mean embedding `[d]` of the training samples.
    """
    total = torch.zeros_like(shared.z[pair[0]])
    for m in shared.modalities:
        if m not in pair:
            total = total + shared.z[m] * shared.present[m][:, None]
    known = total.norm(dim=1, keepdim=True) > 0
    z = {}
    for m in pair:
        stand_in = torch.where(known, F.normalize(total, dim=1), neutral[m].expand_as(total))
        z[m] = torch.where(shared.present[m][:, None], shared.z[m], stand_in)
    complete = {m: torch.ones_like(shared.present[m]) for m in pair}
    return shared.select(pair).with_z(z, complete)


def _curves(
    aligner: Aligner, train: Embeddings, conditions: Conditions, grid: Sequence[Condition], collected: _Collector
) -> None:
    trained = aligner.embed(train).to("cpu")
    neutral = {m: trained.z[m][trained.present[m]].mean(dim=0) for m in trained.modalities}
    conditions.fill(grid)
    for condition in grid:
        corrupted = conditions(condition)
        shared = aligner.embed(corrupted.samples).to("cpu")
        counted = {m: mask.cpu() for m, mask in corrupted.asked.items()}
        for other in shared.modalities:
            if other == condition.modality:
                continue
            whole = substitute(shared, (condition.modality, other), neutral)
            asked = whole.with_z(whole.z, {m: counted[m] for m in whole.modalities})
            for metric in CURVE_METRICS:
                for score in cast("Metric", METRICS.get(metric))(asked, asked):
                    collected.add(
                        collected.bootstrapped(score),
                        corruption=condition.corruption,
                        severity=condition.severity,
                        corrupted=condition.modality,
                        corruption_seed=condition.draw,
                    )


def _with_intervals(metric: Metric, shared: Embeddings, raw: Embeddings, collected: _Collector) -> list[Score]:
    scores = metric(shared, raw)
    # one metric is one statistic in every direction; in a single one the mean may equal the median
    if all(_is(np.nanmean, s) for s in scores):
        return [collected.bootstrapped(s) for s in scores]
    if all(_is(np.nanmedian, s) for s in scores):
        return [collected.bootstrapped(s, "median") for s in scores]
    return [_jackknifed(metric, s, shared, raw) for s in scores]


def _is(center: Callable[[np.ndarray], Any], score: Score) -> bool:
    if score.per_point is None:
        return False
    return math.isclose(float(center(score.per_point.numpy())), score.value, rel_tol=1e-6, abs_tol=1e-9)


def _jackknifed(metric: Metric, score: Score, shared: Embeddings, raw: Embeddings) -> Score:
    names = tuple(m for m in (score.source, score.target) if m) or shared.modalities
    shared, raw = shared.select(names), raw.select(names)

    def again(rows: np.ndarray) -> float:
        found = metric(shared.take(rows), raw.take(rows))
        return next((s.value for s in found if (s.source, s.target) == (score.source, score.target)), math.nan)

    interval = stats.jackknife_interval(again, shared.groups.numpy())
    return replace(score, low=interval.low, high=interval.high, interval=interval.kind)


class _Collector:
    """Rows of the score and field tables, with the samples they belong to."""

    def __init__(self, test: Embeddings, resamples: int, seed: int) -> None:
        self.seed = seed
        self._key = test.key
        self._groups = test.groups.cpu().numpy()
        self._resamples = resamples
        self._rows: list[dict[str, Any]] = []
        self._fields: dict[str, list[dict[str, np.ndarray]]] = {}

    def bootstrapped(self, score: Score, statistic: Literal["mean", "median"] = "mean") -> Score:
        """`score`, a statistic of its summands, with a bootstrap interval over caption groups."""
        assert score.per_point is not None
        interval = stats.bootstrap_interval(
            score.per_point.numpy(), self._groups, statistic=statistic, n_resamples=self._resamples, seed=self.seed
        )
        return replace(score, low=interval.low, high=interval.high, interval=interval.kind)

    def add(self, score: Score, *, corruption: str, severity: int, corrupted: str, corruption_seed: int) -> None:
        """Record one score and, where it has them, its per-sample values."""
        where = {"source": score.source, "target": score.target, "corrupted": corrupted, "corruption": corruption}
        self._rows.append(
            {
                "metric": score.name,
                **where,
                "split": "test",
                "severity": severity,
                "corruption_seed": corruption_seed,
                "seed": self.seed,
                "step": "final",
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "n": score.n,
                "interval": score.interval,
                "higher_is_better": score.higher_is_better,
                "chance": score.chance,
            }
        )
        if score.per_point is None or (corruption != "none" and score.name != FIELD_OF_CURVES):
            return
        values = score.per_point.numpy().astype(np.float32)
        here = ~np.isnan(values)
        # plain arrays here and one table at the end: a table per curve point costs a second a run
        constant = {"split": "test", **where, "severity": severity}
        columns = {name: np.full(int(here.sum()), value) for name, value in constant.items()}
        self._fields.setdefault(score.name, []).append({"key": self._key[here], **columns, "value": values[here]})

    def result(self, skipped: list[Skipped]) -> Evaluation:
        """Tables in the store's columns; per-sample values are averaged over the draws of a corruption."""
        fields = {}
        for name, parts in self._fields.items():
            table = pd.DataFrame({c: np.concatenate([part[c] for part in parts]) for c in parts[0]})
            keys = [c for c in table.columns if c != "value"]
            fields[name] = table.groupby(keys, as_index=False, sort=False)["value"].mean()
        return Evaluation(pd.DataFrame(self._rows), fields, skipped)
