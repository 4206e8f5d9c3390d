"""Evaluation of a fitted aligner on the test samples: every metric and task, with intervals, clean and corrupted.

Intervals of means and medians are bootstraps over caption groups; other statistics (CKA, Procrustes, ...) get a
delete-a-group-fold jackknife. Curves use the same samples at every severity, so differences are paired.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import sklearn
from torch import Tensor
from tqdm import tqdm

from labkit import imputation, stats
from labkit.attacks.evaluation import SUCCESS, Outcome
from labkit.conditions import Condition, Conditions, Skipped
from labkit.config import EvaluationConfig
from labkit.encoders.raw_features import RawFeatures
from labkit.imputation import Imputation
from labkit.metrics import METRICS, Metric, tasks
from labkit.metrics.retrieval import curve_scores
from labkit.metrics.tasks import TASKS, Judge
from labkit.types import Aligner, Embeddings, Score

CURVE_METRICS = ("recall_at_10", "mrr")
FIELD_OF_CURVES = "recall_at_10"
# of what is stored per sample under corruptions, too
FIELDS_OF_CURVES = (FIELD_OF_CURVES, "fused_recall_at_10", "linear_probe_accuracy", SUCCESS)
_MANY = 2_000  # samples whose metrics take seconds


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
    validation: Embeddings | None = None,
) -> Evaluation:
    """Measure `aligner` on `test`.

    Args:
        aligner: fitted.
        train: raw training samples, for the corruption statistics and what stands in for missing items.
        test: raw test samples.
        config: corruptions and number of resamples.
        seed: of corruptions of features, and of resamples.
        raw: the test samples' raw items; needed where `config` names corruptions of them.
        validation: raw validation samples, for the hyper-parameters of the tasks, which are left out without.

    Raises:
        UnknownNameError: no such corruption.
        ValueError: a corruption of raw items without `raw`.
    """
    collected = _Collector(test, config.bootstrap, seed)
    shared = aligner.embed(test).to("cpu")
    fitted = [] if validation is None else judges(aligner, train, validation)
    for name in METRICS.names():
        for score in _with_intervals(cast("Metric", METRICS.get(name)), shared, test, collected):
            collected.add(score, corruption="none", severity=0, corrupted="", corruption_seed=0)
    for judge in fitted:
        for score in judge(shared):
            collected.add(collected.bootstrapped(score), corruption="none", severity=0, corrupted="", corruption_seed=0)
    conditions = Conditions(train, test, seed=seed, raw=raw)
    grid = conditions.grid(config.corruptions, draws=config.corruption_seeds)
    if grid:
        _curves(aligner, train, conditions, grid, fitted, collected)
    return collected.result(conditions.skipped)


def of_space(space: Embeddings, *, resamples: int, seed: int = 0, without: Sequence[str] = ()) -> Evaluation:
    """Measure a space as it is, without the aligner that made it or the features that it was made of.

    Args:
        space: samples in the shared space.
        resamples: of each interval.
        seed: of resamples.
        without: registered metrics that are left out, as those that compare with the features.
    """
    collected = _Collector(space, resamples, seed)
    names = [name for name in METRICS.names() if name not in without]
    for name in tqdm(names, desc="metrics", unit="metric", leave=False, disable=len(space) < _MANY):
        for score in _with_intervals(cast("Metric", METRICS.get(name)), space, space, collected):
            collected.add(score, corruption="none", severity=0, corrupted="", corruption_seed=0)
    return collected.result([])


def judges(aligner: Aligner, train: Embeddings, validation: Embeddings) -> list[Judge]:
    """Every registered task, fitted on clean samples in the shared space of `aligner`.

    Args:
        aligner: fitted.
        train: raw training samples.
        validation: raw validation samples.
    """
    trained, validated = (aligner.embed(part).to("cpu") for part in (train, validation))
    return [tasks.fit(name, trained, validated) for name in TASKS.names()]


def curves(
    aligner: Aligner,
    train: Embeddings,
    conditions: Conditions,
    grid: Sequence[Condition],
    *,
    resamples: int,
    seed: int,
    fitted: Sequence[Judge] = (),
) -> Evaluation:
    """Measure `aligner` under some conditions alone, as `evaluate` does.

    Args:
        aligner: fitted.
        train: raw training samples, for what stands in for missing items.
        conditions: of the raw test samples.
        grid: which of them; all draws of a severity, as per-sample values are means over the draws.
        resamples: of each interval.
        seed: of the run.
        fitted: the tasks that are measured beside retrieval, as from `judges`.
    """
    collected = _Collector(conditions.test, resamples, seed)
    _curves(aligner, train, conditions, grid, fitted, collected)
    return collected.result(conditions.skipped)


def under_attack(outcomes: Sequence[Outcome], test: Embeddings, *, resamples: int, seed: int) -> Evaluation:
    """Tables of attacks, their budgets as severities.

    Severity 0 is the clean value of the attacked samples, which may be few of the test samples.

    Args:
        outcomes: of `labkit.attacks.evaluate_attack`.
        test: clean test samples.
        resamples: of each interval.
        seed: of the run.

    Raises:
        ValueError: a budget that is no severity.
    """
    collected = _Collector(test, resamples, seed)
    for outcome in outcomes:
        if outcome.severity is None:
            raise ValueError(f"{outcome.label} has the budget {outcome.radius:g}; only severities can be stored")
        for score in outcome.scores:
            if score.n:  # an attacker can have nothing to attack
                collected.add(
                    collected.bootstrapped(score),
                    corruption=outcome.label,
                    severity=outcome.severity,
                    corrupted=score.source,
                    corruption_seed=outcome.threat.seed,
                )
    return collected.result([])


def _curves(
    aligner: Aligner,
    train: Embeddings,
    conditions: Conditions,
    grid: Sequence[Condition],
    fitted: Sequence[Judge],
    collected: _Collector,
) -> None:
    trained = aligner.embed(train).to("cpu")
    imputations = functools.cache(lambda name: imputation.fit(name, trained))
    conditions.fill(grid)
    for condition in grid:
        corrupted = conditions(condition)
        shared = aligner.embed(corrupted.samples).to("cpu")
        counted = {m: mask.cpu() for m, mask in corrupted.asked.items()}
        impute = imputations(condition.imputation)
        scores = _retrieval(shared, counted, condition.modality, impute)
        # thousands of small calls, which spend most of their time on checks of their parameters
        with sklearn.config_context(skip_parameter_validation=True):
            for judge in fitted:
                scores += judge(shared, counted, involving=condition.modality, impute=impute)
        for score in scores:
            collected.add(
                collected.bootstrapped(score),
                corruption=condition.corruption,
                severity=condition.severity,
                corrupted=condition.modality,
                corruption_seed=condition.draw,
            )


def _retrieval(shared: Embeddings, counted: dict[str, Tensor], corrupted: str, impute: Imputation) -> list[Score]:
    """Retrieval between the corrupted modality and each other one."""
    scores = []
    for other in shared.modalities:
        if other != corrupted:
            whole = impute(shared, (corrupted, other))
            asked = whole.with_z(whole.z, {m: counted[m] for m in whole.modalities})
            scores += curve_scores(asked)
    return scores


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
        """`score`, a statistic of its summands, with a bootstrap interval over caption groups; else as it is."""
        if score.per_point is None:
            return score
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
        if score.per_point is None or (corruption != "none" and score.name not in FIELDS_OF_CURVES):
            return
        if corruption != "none" and severity == 0:  # per sample it is the clean value, which is there already
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
