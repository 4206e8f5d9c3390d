"""One 2-D frame for all modalities of a run, with a trust score per point.

Pictures, not evidence: every point carries how far its 2-D neighbors are its neighbors in the shared space
(trustworthiness, Venna and Kaski 2001), so a reader sees where not to trust the map.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import torch

from labkit.metrics.projection import trustworthiness
from labkit.types import Embeddings

NEIGHBORS = 15


def pca_frame(shared: Embeddings) -> pd.DataFrame:
    """Joint principal components of all present points.

    Returns:
        Columns key, modality, x, y, trust (0..1, higher is better).

    Raises:
        ValueError: fewer than three points.
    """
    points, table = _stack(shared)
    centered = points - points.mean(dim=0)
    _, _, axes = torch.linalg.svd(centered.double(), full_matrices=False)
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(dim=1, keepdim=True)).sign()
    xy = torch.nn.functional.pad(centered.double() @ axes.T, (0, 2 - len(axes)))  # one-dimensional spaces: y = 0
    return _framed(table, points, xy.numpy())


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
    nearest = (1 - unit @ unit.T).fill_diagonal_(-1.0).topk(NEIGHBORS, largest=False)
    knn = (nearest.indices.int().numpy(), nearest.values.clamp(min=0).numpy(), None)
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


def _stack(shared: Embeddings) -> tuple[torch.Tensor, pd.DataFrame]:
    shared = shared.to("cpu")
    parts = [(m, shared.z[m][shared.present[m]], shared.key[shared.present[m].numpy()]) for m in shared.modalities]
    points = torch.cat([z for _, z, _ in parts]).float()
    if len(points) < 3:
        raise ValueError(f"a 2-D frame needs at least 3 points; got {len(points)}")
    table = pd.DataFrame(
        {
            "key": np.concatenate([key for _, _, key in parts]),
            "modality": np.concatenate([np.full(len(key), m) for m, _, key in parts]),
        }
    )
    return points, table


def _framed(table: pd.DataFrame, points: torch.Tensor, xy: np.ndarray) -> pd.DataFrame:
    k = min(NEIGHBORS, (len(points) - 1) // 2)
    trust = trustworthiness(points, torch.as_tensor(xy), k)
    return table.assign(
        x=xy[:, 0].astype(np.float32), y=xy[:, 1].astype(np.float32), trust=trust.numpy().astype(np.float32)
    )
