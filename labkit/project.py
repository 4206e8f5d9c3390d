"""One 2-D frame for all modalities of a run and all steps of its training, with a trust score per point.

Pictures, not evidence: every point carries how far its 2-D neighbors are its neighbors in the shared space
(trustworthiness, Venna and Kaski 2001), so a reader sees where not to trust the map. A frame is fitted once, to the
final space; the vectors of earlier steps are placed in it (`pca_steps`, `placed`), for frames that are fitted anew at
every step turn and flip at random, which looks like learning.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import torch

from labkit.metrics.projection import reference_trustworthiness, trustworthiness
from labkit.types import Embeddings

Gap = Literal["raw", "centered", "procrustes"]
NEIGHBORS = 15
# larger runs are measured against a random sample of their points, whose neighborhoods are wider
LARGEST_TRUST, REFERENCES = 20_000, 2_000
_ROWS = 1024  # of a similarity matrix held at a time


def pca_frame(shared: Embeddings) -> pd.DataFrame:
    """Joint principal components of all present points.

    Returns:
        Columns key, modality, x, y, trust (0..1, higher is better).

    Raises:
        ValueError: fewer than three points.
    """
    points, table = _stack(shared)
    mean, axes = _principal(points)
    return _framed(table, points, _project(points, mean, axes))


def pca_steps(final: Embeddings, steps: Mapping[int, Embeddings]) -> dict[int, pd.DataFrame]:
    """Earlier steps of a training on the principal axes of its final space.

    Returns:
        Frames as from `pca_frame(final)`; their trust is not measured (NaN).
    """
    mean, axes = _principal(_stack(final)[0])
    frames = {}
    for step, shared in steps.items():
        points, table = _stack(shared)
        frames[step] = _table(table, _project(points, mean, axes), np.full(len(points), np.nan))
    return frames


def measured(frame: pd.DataFrame, shared: Embeddings) -> pd.DataFrame:
    """A frame of a space with the trust of its points."""
    return frame.assign(trust=_trust(_stack(shared)[0], torch.tensor(frame[["x", "y"]].to_numpy())).astype(np.float32))


def placed(frame: pd.DataFrame, final: Embeddings, moved: Embeddings) -> pd.DataFrame:
    """Other vectors of the same space in a frame that was fitted to `final`.

    A point comes to the mean place of the `NEIGHBORS` final points that are most similar to it (cosine), weighted by
    the inverse squares of the chords to them; so the final points keep their places.

    Args:
        frame: of `final`, as from the functions of this module.
        final: what it was fitted to.
        moved: what is placed: any samples of any of the modalities.

    Returns:
        A frame with the trust of `moved`.

    Raises:
        ValueError: `frame` does not have the points of `final`.
    """
    reference, table = _stack(final)
    if table["key"].tolist() != frame["key"].tolist() or table["modality"].tolist() != frame["modality"].tolist():
        raise ValueError("the frame was made of other points: compute it anew")
    points, rows = _stack(moved, fewest=1)
    places = torch.as_tensor(frame[["x", "y"]].to_numpy(dtype=np.float64))
    near, unit = torch.nn.functional.normalize(reference, dim=1), torch.nn.functional.normalize(points, dim=1)
    k = min(NEIGHBORS, len(reference))
    parts = []
    for block in unit.split(_ROWS):
        found = (block @ near.T).topk(k)
        parts.append(interpolated(found.values, places[found.indices]))
    return _framed(rows, points, torch.cat(parts).numpy())


def interpolated(similarity: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Where points go whose neighbors have places: the means of these, weighted by the inverse squares of the chords.

    Args:
        similarity: [n k] cosine similarity to the neighbors.
        places: [n k 2] of the neighbors.
    """
    weight = 1 / ((1 - similarity.double()).clamp(min=0) + 1e-9)
    return (weight[..., None] * places).sum(dim=1) / weight.sum(dim=1, keepdim=True)


def gap_closed(shared: Embeddings, how: Gap) -> Embeddings:
    """The space without the distance between the clouds of its modalities (Liang et al. 2022, arXiv:2203.02053).

    Args:
        shared: the shared space.
        how: "raw" leaves it; "centered" moves the mean of every modality to the origin; "procrustes" also turns each
            modality to the first, by the orthogonal map that brings the pairs of both together best.
    """
    if how == "raw":
        return shared
    shared = shared.to("cpu")
    z = {m: (v.float() - v[shared.present[m]].float().mean(dim=0)) for m, v in shared.z.items()}
    first = shared.modalities[0]
    for m in shared.modalities[1:] if how == "procrustes" else ():
        both = shared.present[first] & shared.present[m]
        left, _, right = torch.linalg.svd((z[m][both].T @ z[first][both]).double())
        z[m] = (z[m].double() @ left @ right).float()
    return shared.with_z(z)


def tsne_frame(shared: Embeddings, *, seed: int = 0) -> pd.DataFrame:
    """Joint t-SNE (van der Maaten and Hinton 2008, cosine) of all present points; repeatable for a seed.

    Returns:
        Columns as in `pca_frame`.

    Raises:
        ValueError: fewer points than the perplexity of 30 needs.
    """
    from sklearn.manifold import TSNE  # two seconds that runs do without

    points, table = _stack(shared)
    if len(points) <= 90:
        raise ValueError(f"t-SNE at perplexity 30 needs more than 90 points; got {len(points)}")
    unit = torch.nn.functional.normalize(points, dim=1).numpy()
    return _framed(table, points, TSNE(metric="cosine", init="random", random_state=seed).fit_transform(unit))


def umap_frame(shared: Embeddings, *, seed: int = 0) -> pd.DataFrame:
    """Joint UMAP (McInnes et al. 2018, cosine) of all present points; repeatable for a seed.

    The neighbors are exact; importing UMAP costs seconds of compilation a process.

    Returns:
        Columns as in `pca_frame`.

    Raises:
        ValueError: fewer points than neighbors.
    """
    from umap import UMAP  # compiles on import

    points, table = _stack(shared)
    unit = torch.nn.functional.normalize(points, dim=1)
    if len(unit) <= NEIGHBORS:
        raise ValueError(f"UMAP needs more than {NEIGHBORS} points; got {len(unit)}")
    found = []
    for start, block in zip(range(0, len(unit), _ROWS), unit.split(_ROWS), strict=True):
        distance = 1 - block @ unit.T
        distance[torch.arange(len(block)), torch.arange(start, start + len(block))] = -1.0  # each point itself first
        found.append(distance.topk(NEIGHBORS, largest=False))
    indices, values = torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])
    knn = (indices.int().numpy(), values.clamp(min=0).numpy(), None)
    reducer = UMAP(
        n_neighbors=NEIGHBORS, metric="cosine", random_state=seed, precomputed_knn=knn, n_epochs=200, n_jobs=1
    )
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        # expected: one thread for repeatability, and no search index, since nothing is projected later
        warnings.filterwarnings("ignore", message=r"precomputed_knn\[2\]|n_jobs value", category=UserWarning)
        xy = np.asarray(reducer.fit_transform(unit.numpy()))
    torch.set_num_threads(threads)  # numba's pool raises it for the whole process
    return _framed(table, points, xy)


def _principal(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and the first two principal axes, whose largest entry is positive."""
    mean = points.double().mean(dim=0)
    centered = points.double() - mean
    if len(points) > points.shape[1]:
        _, vectors = torch.linalg.eigh(centered.T @ centered)
        axes = vectors.T.flip(0)
    else:
        _, _, axes = torch.linalg.svd(centered, full_matrices=False)
    return mean, axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(dim=1, keepdim=True)).sign()


def _project(points: torch.Tensor, mean: torch.Tensor, axes: torch.Tensor) -> np.ndarray:
    # one-dimensional spaces: y = 0
    return torch.nn.functional.pad((points.double() - mean) @ axes.T, (0, 2 - len(axes))).numpy()


def _stack(shared: Embeddings, fewest: int = 3) -> tuple[torch.Tensor, pd.DataFrame]:
    shared = shared.to("cpu")
    parts = [(m, shared.z[m][shared.present[m]], shared.key[shared.present[m].numpy()]) for m in shared.modalities]
    points = torch.cat([z for _, z, _ in parts]).float()
    if len(points) < fewest:
        raise ValueError(f"a 2-D frame needs at least {fewest} points; got {len(points)}")
    table = pd.DataFrame(
        {
            "key": np.concatenate([key for _, _, key in parts]),
            "modality": np.concatenate([np.full(len(key), m) for m, _, key in parts]),
        }
    )
    return points, table


def _framed(table: pd.DataFrame, points: torch.Tensor, xy: np.ndarray) -> pd.DataFrame:
    return _table(table, xy, _trust(points, torch.as_tensor(xy)))


def _table(table: pd.DataFrame, xy: np.ndarray, trust: np.ndarray) -> pd.DataFrame:
    places = {"x": xy[:, 0].astype(np.float32), "y": xy[:, 1].astype(np.float32)}
    return table.assign(**places, trust=trust.astype(np.float32))


def _trust(points: torch.Tensor, xy: torch.Tensor) -> np.ndarray:
    """Trustworthiness of every point; NaN where there are too few to measure it."""
    n = len(points)
    k = min(NEIGHBORS, (n - 1) // 2)
    if k < 1:
        return np.full(n, np.nan)
    if n <= LARGEST_TRUST:
        return trustworthiness(points, xy, k).numpy()
    sample = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: REFERENCES + 1]
    return reference_trustworthiness(points, xy, sample, NEIGHBORS).numpy()
