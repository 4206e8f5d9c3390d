"""Tuning: the same random search, with the same budget, for every variant.

Each trial draws the variant's own hyper-parameters (its `search`) and, where it is trained, those of the optimizer. It
is scored by validation recall@10, averaged over directions and seeds; the test samples are never touched. All variants
get their first trial before any gets its second, so a partial record is fair; every trial is recorded as soon as it is
finished, so a search that was killed continues where it was, and one that fails is recorded with its error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from labkit import run as runs
from labkit import samples, variants
from labkit.config import RunConfig, TrainingConfig
from labkit.study import Study
from labkit.train import DivergedError, validation_score
from labkit.variants import Trained

OPTIMIZER = {"learning_rate": (1e-3, 2e-3, 5e-3), "weight_decay": (1e-2, 1e-1)}
COLUMNS = ("variant", "trial", "score", "score_sd", "seeds", "seconds", "error", "options", "training", "key")


@dataclass(frozen=True)
class Trial:
    """One draw of a variant's hyper-parameters."""

    variant: str
    number: int
    options: dict[str, Any]
    training: dict[str, Any]


def tune(
    study: Study,
    *,
    trials: int,
    seeds: int | None = None,
    jobs: int | None = None,
    only: tuple[str, ...] = (),
    record: Path | None = None,
) -> pd.DataFrame:
    """Search for every variant of `study`.

    Args:
        study: its data, training and seeds; options, labels and grids written in it are ignored.
        trials: draws per variant, fewer where it has no more; trial 0 is the variant's defaults.
        seeds: how many of the study's seeds score a trial; all by default.
        jobs: processes; one per core by default, one thread each.
        only: variants to tune; all of the study by default.
        record: .csv to which each finished trial is appended. Trials that it holds already, of the same data, training
            and seeds, are not run again unless they failed.

    Returns:
        One row per trial, by variant: `COLUMNS`, with score the mean over seeds, options and training as JSON, and key
        a hash of what was run. Score is missing and error says why where a trial failed.

    Raises:
        UnknownNameError: a variant that does not exist.
        ValueError: data that cannot be used, or a record that is none.
    """
    study = study.model_copy(update={"seeds": study.seeds[:seeds]})
    names = list(dict.fromkeys(variants.get(n).name() for n in only or (cell.variant for cell in study.variants)))
    drawn = [draw(name, trials) for name in names]
    balanced = sorted((trial for one in drawn for trial in one), key=lambda trial: trial.number)
    samples.load(_config(study, balanced[0], study.seeds[0]))  # data that cannot be used is no failure of a variant
    old = _read(record)
    rows = {key: row for row in old.to_dict("records") if not _missing(row["score"]) for key in [row["key"]]}
    missing = [trial for trial in balanced if _key(study, trial) not in rows]
    bar = tqdm(total=len(balanced), initial=len(balanced) - len(missing), desc="tuning", unit="trial")
    with bar:
        for row in _searched(study, missing, jobs or joblib.cpu_count()):
            rows[row["key"]] = row
            _append(record, row)
            bar.update()
            if row["error"]:
                bar.write(f"{row['variant']} trial {row['trial']} failed: {row['error']}")
    wanted = [rows[_key(study, trial)] for one in drawn for trial in one]
    table = pd.DataFrame(wanted, columns=list(COLUMNS))
    if record is not None:
        rest = old[~old["key"].isin(set(table["key"]))]  # of a larger budget, or of variants that were not asked for
        rest = rest[[row["variant"] not in names or _is_of(study, row) for row in rest.to_dict("records")]]
        save(pd.concat([rest, table]) if len(rest) else table, record)
    return table


def draw(variant: str, trials: int) -> list[Trial]:
    """Up to `trials` different draws for a variant; the same for the same arguments. Trial 0 is the defaults."""
    cls = variants.get(variant)
    optimizer = OPTIMIZER if issubclass(cls, Trained) else {}
    random = np.random.default_rng(0)
    possible = math.prod(len(values) for values in (*cls.search.values(), *optimizer.values()))

    def pick(space: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        return {name: values[random.integers(len(values))] for name, values in space.items()}

    drawn = [Trial(variant, 0, {}, {})]
    seen: set[str] = set()
    while (cls.search or optimizer) and len(drawn) < trials and len(seen) < possible:
        trial = Trial(variant, len(drawn), pick(cls.search), pick(optimizer))
        text = json.dumps([trial.options, trial.training], sort_keys=True)
        if text not in seen:
            seen.add(text)
            drawn.append(trial)
    return drawn


def save(table: pd.DataFrame, path: Path) -> None:
    """Write the record of a search, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{path.name}")
    table.to_csv(scratch, index=False, float_format="%.6g")
    scratch.replace(path)


def _searched(study: Study, trials: list[Trial], jobs: int) -> Iterator[dict[str, Any]]:
    """Rows of finished trials, as they come. Each thread has its own process: if that dies, its trial has failed."""
    # torch has threads, which a forked process would inherit in whatever state they are
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    mine = threading.local()

    def one(trial: Trial) -> dict[str, Any]:
        if not hasattr(mine, "process"):
            mine.process = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
        try:
            return mine.process.submit(_row, study, trial).result()
        except BrokenProcessPool:
            del mine.process
            return _described(study, trial) | {"error": "the process died, of too little memory perhaps"}

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, trial) for trial in trials]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Make this process end when the one that started it does; a killed search would leave its trials running."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _row(study: Study, trial: Trial) -> dict[str, Any]:
    """The record of one trial; whatever it raises is part of it."""
    started = time.perf_counter()
    logging.getLogger("labkit").setLevel(logging.ERROR)
    row = _described(study, trial)
    try:
        scores = _score(study, trial)
        sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
        row |= {"score": float(np.mean(scores)), "score_sd": sd}
    except Exception as error:  # noqa: BLE001 - a failed trial is a result, and the others go on
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return row | {"seconds": time.perf_counter() - started}


def _described(study: Study, trial: Trial) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, math.nan) | {
        "variant": trial.variant,
        "trial": trial.number,
        "seeds": len(study.seeds),
        "error": "",
        "options": json.dumps(trial.options, sort_keys=True),
        "training": json.dumps(trial.training, sort_keys=True),
        "key": _key(study, trial),
    }


def _score(study: Study, trial: Trial) -> list[float]:
    """Validation score of each seed; 0 where training diverged."""
    torch.set_num_threads(1)
    scores = []
    for seed in study.seeds:
        config = _config(study, trial, seed)
        content = samples.load(config)
        aligner = variants.get(config.variant)(config.options, training=config.training, seed=seed)
        try:
            aligner.fit(content.train, content.validation)
            scores.append(validation_score(aligner.embed(content.validation)))
        except DivergedError:
            scores.append(0.0)
    return scores


def _config(study: Study, trial: Trial, seed: int) -> RunConfig:
    training = TrainingConfig.model_validate(study.training.model_dump() | trial.training)
    return runs.resolve(
        RunConfig(data=study.data, variant=trial.variant, options=trial.options, training=training, seed=seed)
    )


def _key(study: Study, trial: Trial) -> str:
    """Hash of all that decides the score of a trial."""
    configs = [_config(study, trial, seed).model_dump(mode="json", exclude={"evaluation"}) for seed in study.seeds]
    return hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()[:12]


def _is_of(study: Study, row: dict[str, Any]) -> bool:
    """Whether a recorded trial was run on the data, training and seeds of `study`."""
    trial = Trial(row["variant"], row["trial"], json.loads(row["options"]), json.loads(row["training"]))
    try:
        return _key(study, trial) == row["key"]
    except ValueError:  # options that the variant had when the trial was recorded
        return False


def _read(record: Path | None) -> pd.DataFrame:
    """What a record holds; a line that a killed process left half written is left out."""
    if record is None or not record.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.read_csv(record, on_bad_lines="skip", dtype={"key": str})
    unknown = [c for c in ("variant", "trial", "score", "options", "training") if c not in table.columns]
    if unknown:
        raise ValueError(f"{record} is no record of `labkit tune`: it lacks the columns {unknown}; give another --out")
    if "key" in table.columns:
        table = table[table["key"].astype(str).str.fullmatch(r"[0-9a-f]{12}")]
    return (
        table.reindex(columns=list(COLUMNS)).astype({"error": object, "key": object}).fillna({"error": "", "key": ""})
    )


def _append(record: Path | None, row: dict[str, Any]) -> None:
    """Add one line, which is on the disk when this returns."""
    if record is None:
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    fresh = not record.is_file() or not record.stat().st_size
    line = pd.DataFrame([row], columns=list(COLUMNS)).to_csv(index=False, header=fresh, float_format="%.6g")
    with record.open("a+b") as file:
        if not fresh:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line  # after a half line that a killed process left
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _missing(score: Any) -> bool:
    return not math.isfinite(float(score))
