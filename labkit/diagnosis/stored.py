"""`labkit diagnose RUN`: the aligned space of a stored run is diagnosed, and what the dashboard shows is added to it.

Written are scores, fields, topology and couplings of the test samples; topology also of the encoders' own spaces and of
every stored step of the training. What the run's own metrics stored under the same name is left as it is. The same
command writes the same files again, and several runs may be diagnosed at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from labkit.data import from_arrays
from labkit.diagnosis.clouds import LARGEST
from labkit.diagnosis.result import Diagnosis
from labkit.diagnosis.sampling import Samples
from labkit.diagnosis.shape import bars_of
from labkit.diagnosis.survey import Metric, diagnose
from labkit.geometry.topology import persistence
from labkit.metrics import METRICS
from labkit.ot import NotConvergedWarning, PointCloud, sinkhorn
from labkit.store import Run
from labkit.types import Embeddings

STEP = "final"
UNLABELED = "other"  # what a run's points have for a label that is not known
SPLIT = "test"
EPSILONS = (0.05, 0.01)
LARGEST_COUPLING = 2000
TARGETS = 10  # of each sample whose mass is stored


def diagnose_run(
    run: Run,
    *,
    metric: Metric = "euclidean",
    k: int = 10,
    measures: Sequence[str] | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Diagnose the test samples of a run in its aligned space, and store scores, fields, topology and couplings.

    Args:
        run: complete.
        metric: see `labkit.diagnose`.
        k: neighbors.
        measures: names of the diagnostics; all by default.
        seed: of sampling, references and intervals.

    Raises:
        ValueError: the run is not complete, or has too few test samples.
        StoreError: it cannot be read or written.
    """
    if run.status != "complete":
        raise ValueError(f"run {run.id} is {run.status}, not complete: finish it with `labkit run {run.id}`")
    aligned = aligned_space(run)
    found = diagnose(aligned, metric=metric, k=k, shared=True, measures=measures, seed=seed)
    run.write_scores(_scores(run, found))
    for name, field in found.fields.items():
        if name not in METRICS:
            run.write_field(name, STEP, _clean(field))
    for modality, bars in found.persistence.items():
        run.write_topology(modality, STEP, bars, bars.attrs)
    _write_earlier_topology(run, list(found.persistence), cosine=metric == "cosine", seed=seed)
    _write_couplings(run, aligned, seed)
    return found


def aligned_space(run: Run, step: str = STEP) -> Embeddings:
    """The test samples of a run in its aligned space; at an earlier step of the training, or "raw" before it."""
    points = run.points()
    chosen = np.flatnonzero((points["split"] == SPLIT).to_numpy())
    if len(chosen) == 0:
        raise ValueError(f"run {run.id} has no samples of the split {SPLIT!r}")
    points = points.iloc[chosen]
    return from_arrays(
        {m: np.asarray(run.embedding(m, step)[chosen], dtype=np.float32) for m in run.info["modalities"]},
        keys=points["key"].to_numpy(dtype=str),
        labels=points["label"].where(points["label"] != UNLABELED, None).to_numpy(dtype=object),
        groups=points["group"].to_numpy(),
        present={m: points[f"present_{m}"].to_numpy(dtype=bool, copy=True) for m in run.info["modalities"]},
    )


def _scores(run: Run, found: Diagnosis) -> pd.DataFrame:
    """The measures of pairs in the columns of the store; those that were refused have no number to store."""
    table = found.measures[found.measures["value"].notna() & ~found.measures["measure"].isin(METRICS.names())]
    columns = ["source", "target", "value", "low", "high", "n", "interval", "higher_is_better", "chance"]
    return table[columns].assign(
        metric=table["measure"], split=SPLIT, step=STEP, seed=run.info["seed"], corruption_seed=0, **_UNCORRUPTED
    )


_UNCORRUPTED = {"corrupted": "", "corruption": "none", "severity": 0}


def _clean(field: pd.DataFrame) -> pd.DataFrame:
    return field.assign(split=SPLIT, **_UNCORRUPTED)


def _write_earlier_topology(run: Run, modalities: Sequence[str], *, cosine: bool, seed: int) -> None:
    """Bars of the same samples before and during the training, where their vectors are stored."""
    stored = run.steps("embeddings")
    common = set.intersection(*(set(stored[m]) for m in run.info["modalities"]))
    for step in common - {STEP}:
        samples = Samples(aligned_space(run, step), k=1, cosine=cosine, seed=seed)
        for modality in modalities:
            rows = samples.rows(modality, largest=LARGEST)
            made = persistence(samples.points(modality, rows), 1, representatives=True)
            bars = bars_of(made, samples.embeddings.key[rows])
            run.write_topology(modality, step, bars, bars.attrs)


def _write_couplings(run: Run, aligned: Embeddings, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(aligned))
    for a, b in combinations(aligned.modalities, 2):
        both = (aligned.present[a] & aligned.present[b]).numpy()
        rows = np.sort(order[both[order]][:LARGEST_COUPLING])
        geometry = PointCloud(aligned.z[a][rows], aligned.z[b][rows])
        for epsilon in EPSILONS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConvergedWarning)  # the record says so
                solved = sinkhorn(geometry, epsilon=epsilon)
            top = solved.top(min(TARGETS, len(rows)))
            keys = aligned.key[rows]
            table = pd.DataFrame(
                {
                    "row_key": np.repeat(keys, top.index.shape[1]),
                    "col_key": keys[top.index.flatten().numpy()],
                    "mass": top.mass.flatten().double().numpy(),
                }
            )
            meta = {
                "converged": solved.converged,
                "marginal_error": float(solved.marginal_error),
                "mass_kept": float(top.mass.sum() / solved.plan.sum()),
                "n": len(rows),
                "sampled_from": int(both.sum()),
                "split": SPLIT,
            }
            run.write_coupling(a, b, "sinkhorn", epsilon, STEP, table, meta)
