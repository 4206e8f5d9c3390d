"""Robustness curves of stored runs: corruptions that a run was not evaluated under are measured and added to it.

    found = measure(Store().open("gotma-s0"), ("gaussian_noise", "feature_noise"))
    found.table                                       # one row per corruption, modality, direction and severity

    found = measure_attacks(Store().open("gotma-s0"), ("pgd", "apgd_l2"), samples=60)

The stored aligner is loaded, the test samples are those of the run's configuration, and what the run already has is not
measured again. Rows are stored after each curve, so an interrupted command goes on where it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from labkit import attacked, samples, stats, variants
from labkit.attacked import Attacks
from labkit.conditions import HARDER, Condition, Conditions, Skipped, canonical, is_raw
from labkit.config import RunConfig, of_run
from labkit.corruptions import raw as raw_corruptions
from labkit.encoders.cache import cache_root
from labkit.encoders.raw_features import RawFeatures
from labkit.evaluate import FIELD_OF_CURVES, curves, judges
from labkit.run import check_data, pick_device
from labkit.store import Run

STORED = 5e-3  # relative difference of features that were stored in float16


@dataclass(frozen=True, eq=False)
class Measured:
    """What was added to a run.

    Attributes:
        run: its id.
        table: recall@10 of the conditions that were asked for, stored before or now: corruption, corrupted, source,
            target, severity, value (mean over the draws), n; severity 0 is the clean result.
        conditions: how many were measured now.
        stored: how many were there before.
        skipped: what could not be measured, or not on all items.
    """

    run: str
    table: pd.DataFrame
    conditions: int
    stored: int
    skipped: list[Skipped]


def measure(
    run: Run,
    names: Sequence[str] = (),
    *,
    severities: Sequence[int] = HARDER,
    draws: int | None = None,
    modalities: Sequence[str] | None = None,
    device: str = "auto",
) -> Measured:
    """Measure a complete run under corruptions, and store the rows in it.

    Args:
        run: complete.
        names: of corruptions of features or raw items; by default all of raw items that fit the run's modalities.
        severities: 1..5.
        draws: independent draws of each; those of the run's configuration by default.
        modalities: whose items are corrupted, one at a time; all of the run by default.
        device: where the encoders run; "cpu", "cuda", ... or "auto" for CUDA where there is one.

    Returns:
        What was measured, and what had to be left out.

    Raises:
        UnknownNameError: no such corruption.
        ConfigError: a version of labkit with other settings made the run.
        ValueError: the run is not complete, its data has changed, a severity or a modality that there is not, or
            nothing of what was asked for can be measured.
        StoreError: the run or the cache cannot be read or written.
    """
    config, content = content_of(run)
    raw = RawFeatures(config.data, content.all, root=cache_root(run.folder.parent), device=pick_device(device))
    conditions = Conditions(content.train, content.test, seed=config.seed, raw=raw)
    chosen = _chosen(config, raw, tuple(map(canonical, names)), modalities)
    draws = draws or config.evaluation.corruption_seeds
    grid = conditions.grid(chosen, severities=severities, draws=draws, modalities=modalities)
    if not grid:
        raise ValueError(_nothing(run, conditions.skipped))
    there = _stored(run)
    # a draw that is lacking brings all of its severity: per-sample values are means over the draws
    short = {(c.curve, c.severity) for c in grid if c not in there}
    lacking = [c for c in grid if (c.curve, c.severity) in short]
    if lacking:
        aligner = variants.load(run.folder / "checkpoints" / "aligner")
        fitted = judges(aligner, content.train, content.validation)
        conditions.fill(lacking)
        parts = [list(part) for _, part in itertools.groupby(lacking, key=lambda c: c.curve)]
        for part in tqdm(parts, desc=f"curves of {run.id}", unit="curve", disable=len(parts) == 1):
            found = curves(
                aligner,
                content.train,
                conditions,
                part,
                resamples=config.evaluation.bootstrap,
                seed=config.seed,
                fitted=fitted,
            )
            attacked.add(run, found)
        run.write_skipped(_skips(run, conditions.skipped, lacking))
    measured = len(_stored(run).intersection(lacking))
    return Measured(run.id, _table(run, grid), measured, len(grid) - len(lacking), conditions.skipped)


def measure_attacks(
    run: Run,
    names: Sequence[str],
    *,
    samples: int | None = None,
    severities: Sequence[int] = (),
    draws: int | None = None,
    modalities: Sequence[str] | None = None,
    device: str = "auto",
) -> Measured:
    """Attack test samples of a complete run, and store the rows in it.

    Args:
        run: complete.
        names: of attacks, e.g. pgd, apgd_l2, pgd_linf_features_targeted (`labkit.attacks.names`).
        samples: how many of each modality are attacked; by default as many as the run's configuration says, at most.
            More than are stored bring all of a curve again.
        severities: budgets, 1..5; those of the run's configuration by default.
        draws: seeds of the random starts; 1 by default.
        modalities: whose items are attacked, one at a time; all of the run by default.
        device: as in `measure`, for pictures.

    Returns:
        What was measured, and what had to be left out.

    Raises:
        UnknownNameError: no such attack.
        ValueError: as in `measure`; or more samples than there are.
        ConfigError, StoreError: as in `measure`.
    """
    config, content = content_of(run)
    wanted = config.evaluation.attacks
    raw = RawFeatures(config.data, content.all, root=cache_root(run.folder.parent), device=pick_device(device))
    attacker = Attacks(content.train, content.test, samples=samples or wanted.samples, raw=raw)
    severities = severities or wanted.severities
    grid = attacker.grid(names, severities=severities, draws=draws or 1, modalities=modalities)
    if not grid:
        raise ValueError(_nothing(run, attacker.skipped))
    for m in dict.fromkeys(c.modality for c in grid):
        if samples is not None and samples > attacker.available(m):
            raise ValueError(
                f"asked to attack {samples} samples, but {attacker.available(m)} test samples of run {run.id} have an "
                f"item of {m!r}; ask for at most as many, or leave it open"
            )
    lacking = _lacking_attacks(run, attacker, grid)
    if lacking:
        aligner = variants.load(run.folder / "checkpoints" / "aligner")
        attacked.measure(run, aligner, attacker, lacking, resamples=config.evaluation.bootstrap, seed=config.seed)
        run.write_skipped(_skips(run, attacker.skipped, lacking))
    done = _stored(run)
    if not done.intersection(grid):
        raise ValueError(_nothing(run, attacker.skipped))
    measured, stored = done.intersection(lacking), len(set(grid) - set(lacking))
    return Measured(run.id, _table(run, grid), len(measured), stored, attacker.skipped)


def _lacking_attacks(run: Run, attacker: Attacks, grid: Sequence[Condition]) -> list[Condition]:
    """What of the grid is not stored of enough samples, and what is stored of fewer of the same curves."""
    rows = run.scores().query("metric == @FIELD_OF_CURVES and source == corrupted and severity > 0")
    there: dict[Condition, dict[str, int]] = {}
    columns = ["corruption", "corrupted", "severity", "corruption_seed", "target", "n"]
    for corruption, modality, severity, draw, target, n in rows[columns].itertuples(index=False):
        there.setdefault(Condition(corruption, modality, int(severity), int(draw)), {})[target] = int(n)
    lacking: list[Condition] = []
    for curve in attacker.curves(grid):
        sizes = attacker.sizes(curve[0])
        stored = [c for c in there if c.curve == curve[0].curve]
        few = [c for c in stored if any(there[c].get(target, 0) < n for target, n in sizes.items())]
        if few:
            lacking += dict.fromkeys([*curve, *stored])
            continue
        # a draw that is lacking brings all of its severity: per-sample values are means over the draws
        short = {c.severity for c in curve if c not in there}
        lacking += [c for c in curve if c.severity in short]
    return lacking


def _nothing(run: Run, skipped: Sequence[Skipped]) -> str:
    return f"nothing to measure of run {run.id}: " + "; ".join(map(str, skipped))


def content_of(run: Run) -> tuple[RunConfig, samples.Samples]:
    """The run's configuration and samples, if they are what the run was made from.

    Raises:
        ConfigError: a version of labkit with other settings made the run.
        ValueError: the run is not complete, or its data has changed.
        StoreError: it cannot be read.
    """
    if run.status != "complete":
        raise ValueError(f"run {run.id} is {run.status}; complete it first: `labkit run {run.id}`")
    config = of_run(run.config, run.id)
    check_data(run)
    made_from, now = run.info["environment"].get("encoders"), samples.encoder_names(config)
    if made_from is not None and made_from != now:
        raise ValueError(
            f"run {run.id} was fitted on features of the encoders {made_from}, the data set now has those of {now}; "
            f"features of different encoders are not mixed: make the run anew with `labkit run {run.id} --rerun`"
        )
    content = samples.load(config)
    if reason := _changed(run, content):
        raise ValueError(
            f"the data of run {run.id} has changed since it was made ({reason}); make it anew with "
            f"`labkit run {run.id} --rerun`"
        )
    return config, content


def _changed(run: Run, content: samples.Samples) -> str:
    """How the data set differs from what the run was made from; empty if it does not."""
    points = run.points()
    if points["key"].tolist() != content.all.key.tolist():
        return f"{len(points)} samples then, {len(content.all)} now, or other keys"
    if (points["split"].to_numpy(dtype=str) != content.split).any():
        return "the samples are split in another way"
    for m in content.all.modalities:
        if (points[f"present_{m}"].to_numpy() != content.all.present[m].numpy()).any():
            return f"other samples have an item of {m!r}"
        then = torch.from_numpy(np.array(run.embedding(m, "raw"), dtype=np.float32))
        now = content.all.z[m].float()
        if then.shape != now.shape or float((then - now).norm()) > STORED * float(now.norm()):
            return f"other features of {m!r}"
    return ""


def _chosen(
    config: RunConfig, raw: RawFeatures, names: tuple[str, ...], modalities: Sequence[str] | None
) -> tuple[str, ...]:
    """The corruptions to measure: those that were named, or all of raw items that fit some modality."""
    if names:
        return names
    if not samples.has_raw_items(config):
        raise ValueError(
            f"{config.data.dataset} has no raw items to corrupt: name corruptions of features, e.g. feature_noise"
        )
    kinds = {raw.kind(m) for m in modalities or config.data.modalities}
    return tuple(name for name in raw_corruptions.names() if raw_corruptions.get(name).kind in kinds)


def _stored(run: Run) -> set[Condition]:
    """The conditions that the run has rows of."""
    rows = run.scores()[["corruption", "corrupted", "severity", "corruption_seed"]].drop_duplicates()
    return {Condition(str(c), str(m), int(s), int(d)) for c, m, s, d in rows.itertuples(index=False)}


def _skips(run: Run, now: Sequence[Skipped], measured: Sequence[Condition]) -> list[dict[str, Any]]:
    """What the run has to say of skipped items: what it said before, but for what has been measured since."""
    done = {c.curve for c in measured} | {("", c.modality) for c in measured if is_raw(c.corruption)}
    done |= {(one.corruption, one.modality) for one in now}
    before = [one for one in run.info.get("skipped", ()) if (one["corruption"], one["modality"]) not in done]
    return [*before, *(asdict(one) for one in now)]


def _table(run: Run, grid: Sequence[Condition]) -> pd.DataFrame:
    scores = run.scores()
    scores = scores[scores["metric"] == FIELD_OF_CURVES]
    asked = {(*c.curve, severity) for c in grid for severity in (0, c.severity)}
    at = zip(scores["corruption"], scores["corrupted"], scores["severity"].astype(int), strict=True)
    measured = scores[[one in asked for one in at]]
    rows = stats.with_clean(measured, scores[scores["corruption"] == "none"], on=["source", "target"])
    by = ["corruption", "corrupted", "source", "target", "severity"]
    return rows.groupby(by, as_index=False, sort=False).agg(value=("value", "mean"), n=("n", "min"))
