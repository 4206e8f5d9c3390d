"""Tuning: the same random search, with the same budget, for every variant.

Each trial draws the variant's own hyper-parameters (its `search`) and, where it is trained, those of the optimizer.
It is scored by validation recall@10, averaged over directions and seeds; the test samples are never touched. Every
trial is recorded, so that the choice can be checked.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from labkit import run as runs
from labkit import variants
from labkit.config import RunConfig, TrainingConfig
from labkit.study import Cell, Study
from labkit.train import DivergedError, validation_score
from labkit.variants import Trained

OPTIMIZER = {"learning_rate": (1e-3, 2e-3, 5e-3), "weight_decay": (1e-2, 1e-1)}


@dataclass(frozen=True)
class Trial:
    """One draw of a variant's hyper-parameters."""

    variant: str
    number: int
    options: dict[str, Any]
    training: dict[str, Any]


def tune(study: Study, *, trials: int, jobs: int | None = None, only: tuple[str, ...] = ()) -> pd.DataFrame:
    """Search for every variant of `study`.

    Args:
        study: its data, training and seeds; the options written in it are ignored.
        trials: draws per variant; trial 0 is the variant's defaults.
        jobs: processes; one per core by default, one thread each.
        only: variants to tune; all of the study by default.

    Returns:
        One row per trial: variant, trial, score (mean over seeds), score_sd, seeds, options and training as JSON.
    """
    names = dict.fromkeys(only or (cell.variant for cell in study.variants))
    drawn = [trial for name in names for trial in draw(name, trials)]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(max_workers=jobs or joblib.cpu_count()) as pool:
        scores = list(
            tqdm(pool.map(_score, [study] * len(drawn), drawn), total=len(drawn), desc="tuning", unit="trial")
        )
    rows = [
        {
            "variant": t.variant,
            "trial": t.number,
            "score": float(np.mean(s)),
            "score_sd": float(np.std(s, ddof=1)) if len(s) > 1 else float("nan"),
            "seeds": len(s),
            "options": json.dumps(t.options, sort_keys=True),
            "training": json.dumps(t.training, sort_keys=True),
        }
        for t, s in zip(drawn, scores, strict=True)
    ]
    return pd.DataFrame(rows)


def best(table: pd.DataFrame) -> list[Cell]:
    """The best trial of every variant, as cells of a study."""
    top = table.loc[table.groupby("variant", sort=False)["score"].idxmax()]
    return [
        Cell(variant=row["variant"], options=json.loads(row["options"]), training=json.loads(row["training"]))
        for row in top.to_dict("records")
    ]


def draw(variant: str, trials: int) -> list[Trial]:
    """`trials` draws for a variant; the same for the same arguments. Trial 0 is the defaults."""
    cls = variants.get(variant)
    optimizer = OPTIMIZER if issubclass(cls, Trained) else {}
    random = np.random.default_rng(0)

    def pick(space: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        return {name: values[random.integers(len(values))] for name, values in space.items()}

    drawn = [Trial(variant, 0, {}, {})]
    drawn += [Trial(variant, i, pick(cls.search), pick(optimizer)) for i in range(1, trials)]
    return drawn


def save(table: pd.DataFrame, path: Path) -> None:
    """Write the record of a search, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{path.name}")
    table.to_csv(scratch, index=False, float_format="%.6g")
    scratch.replace(path)


def _score(study: Study, trial: Trial) -> list[float]:
    torch.set_num_threads(1)
    training = TrainingConfig.model_validate(study.training.model_dump() | trial.training)
    scores = []
    for seed in study.seeds:
        config = runs.resolve(
            RunConfig(data=study.data, variant=trial.variant, options=trial.options, training=training, seed=seed)
        )
        content = runs.samples(config)
        aligner = variants.get(config.variant)(config.options, training=training, seed=seed)
        try:
            aligner.fit(content.train, content.validation)
            scores.append(validation_score(aligner.embed(content.validation)))
        except DivergedError:
            scores.append(0.0)
    return scores
