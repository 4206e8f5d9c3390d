"""The 2-D frames of stored runs: PCA, UMAP and t-SNE of the final space, with every kept step of the training in them.

A frame is stored as `<method>` or, with the gap between the modalities closed before, as `<method>-<gap>`. `labkit run`
stores the principal components, `labkit project` all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import get_args

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from labkit import project
from labkit.project import Gap
from labkit.store import Run
from labkit.types import Embeddings

FINAL = "final"
METHODS = ("pca", "umap", "tsne")
GAPS: tuple[Gap, ...] = get_args(Gap)
# points of a frame that take minutes rather than hours
_LARGEST: Mapping[str, int] = MappingProxyType({"umap": 200_000, "tsne": 20_000})
_FEWEST: Mapping[str, int] = MappingProxyType({"pca": 3, "umap": project.NEIGHBORS + 1, "tsne": 91})


def write_principal(run: Run, shared: Embeddings) -> None:
    """Store the principal components of a run whose vectors are stored: of the final space, and its steps on them."""
    run.write_projection("pca", FINAL, project.pca_frame(shared))
    steps = {step: _space(run, str(step)) for step in _steps(run)}
    for step, frame in project.pca_steps(shared, steps).items():
        run.write_projection("pca", step, frame)


def add_frames(found: Sequence[Run], methods: Sequence[str] = METHODS, gaps: Sequence[Gap] = GAPS) -> list[str]:
    """Compute and store the frames that complete runs lack; a progress bar counts them.

    Args:
        found: complete runs.
        methods: some of `METHODS`.
        gaps: what is done with the gap, see `labkit.project.gap_closed`.

    Returns:
        A sentence for every frame that cannot be made of a run: too few points, or too many.
    """
    wanted: list[tuple[Run, str, Gap]] = [
        (run, method, gap) for run in found for method in methods for gap in gaps if _lacks(run, method, gap)
    ]
    skipped = []
    for run, method, gap in tqdm(wanted, desc="frames", unit="frame", disable=not wanted):
        final = project.gap_closed(_space(run, FINAL), gap)
        n = sum(int(here.sum()) for here in final.present.values())
        if n < _FEWEST[method]:
            skipped.append(f"run {run.id}: {method} needs at least {_FEWEST[method]} points; it has {n}")
        elif n > _LARGEST.get(method, n):
            skipped.append(f"run {run.id}: {method} takes at most {_LARGEST[method]:,} points; it has {n:,}")
        else:
            _write(run, method, gap, final)
    return list(dict.fromkeys(skipped))


def _write(run: Run, method: str, gap: Gap, final: Embeddings) -> None:
    name = _name(method, gap)
    make = {"pca": project.pca_frame, "umap": project.umap_frame, "tsne": project.tsne_frame}[method]
    frame = run.projection(name, FINAL) if run.has("projections", name, FINAL) else make(final)
    for step in _steps(run):
        moved = project.gap_closed(_space(run, str(step)), gap)
        if method != "pca":
            placed = project.placed(frame, final, moved)
        else:
            placed = project.measured(project.pca_steps(final, {step: moved})[step], moved)
        run.write_projection(name, step, placed)
    run.write_projection(name, FINAL, frame)  # last: where it is, the steps are


def _lacks(run: Run, method: str, gap: Gap) -> bool:
    """Whether a frame, one of its steps or the trust of one is not stored."""
    name = _name(method, gap)
    if not all(run.has("projections", name, step) for step in (FINAL, *_steps(run))):
        return True
    steps: list[pd.DataFrame] = [run.projection(name, step) for step in _steps(run)]
    return any(bool(frame["trust"].isna().all()) for frame in steps)


def _name(method: str, gap: Gap) -> str:
    return method if gap == "raw" else f"{method}-{gap}"


def _steps(run: Run) -> list[int]:
    """Steps before the final one whose vectors are stored for every modality."""
    stored = run.steps("embeddings")
    common = set.intersection(*(set(stored.get(m, ())) for m in run.info["modalities"]))
    return sorted(int(step) for step in common if step.isdecimal())


def _space(run: Run, step: str) -> Embeddings:
    points, modalities = run.points(), run.info["modalities"]
    stored = {m: np.asarray(run.embedding(m, step), dtype=np.float32) for m in modalities}
    return Embeddings(
        key=points["key"].to_numpy(dtype=str),
        z={m: torch.from_numpy(z) for m, z in stored.items()},
        present={m: torch.tensor(points[f"present_{m}"].to_numpy(dtype=bool)) for m in modalities},
    )
