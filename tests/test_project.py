"""2-D frames against scikit-learn; repeatable, and with a trust score that means what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from labkit.project import NEIGHBORS, pca_frame, tsne_frame, umap_frame
from labkit.types import Embeddings

FRAMES = [pca_frame, tsne_frame, pytest.param(umap_frame, marks=pytest.mark.slow)]


@pytest.fixture
def shared(shared_latent) -> Embeddings:
    """Two modalities in one space, some items absent."""
    data = shared_latent(70, missing=0.2)
    return data.with_z({m: z[:, :6] for m, z in data.z.items()})


def stacked(shared: Embeddings) -> np.ndarray:
    return np.concatenate([shared.z[m][shared.present[m]].numpy() for m in shared.modalities])


def test_pca_is_that_of_scikit_learn_up_to_sign(shared):
    frame = pca_frame(shared)
    theirs = PCA(2).fit_transform(stacked(shared).astype(np.float64))
    ours = frame[["x", "y"]].to_numpy()
    assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-4)
    for axis in range(2):
        assert abs(np.corrcoef(ours[:, axis], theirs[:, axis])[0, 1]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("make", FRAMES)
def test_a_frame_has_a_row_per_present_item_and_repeats(make, shared):
    frame = make(shared)
    assert list(frame.columns) == ["key", "modality", "x", "y", "trust"]
    expected = [(key, m) for m in shared.modalities for key in shared.key[shared.present[m].numpy()]]
    assert list(zip(frame["key"], frame["modality"], strict=True)) == expected
    assert np.isfinite(frame[["x", "y"]].to_numpy()).all()
    assert frame["trust"].between(0, 1).all()
    assert frame["trust"].mean() == pytest.approx(
        trustworthiness(stacked(shared), frame[["x", "y"]].to_numpy(), n_neighbors=NEIGHBORS), abs=2e-3
    )
    again = make(shared)
    assert (again == frame).all().all()


@pytest.mark.parametrize("make", FRAMES[1:])
def test_another_seed_gives_another_frame_as_good(make, shared):
    first, second = make(shared, seed=0), make(shared, seed=1)
    assert not np.allclose(first["x"], second["x"])
    assert first["trust"].mean() == pytest.approx(second["trust"].mean(), abs=0.05)
    assert first["trust"].mean() > 0.8, "a random frame has about .5"


def test_a_plane_is_shown_faithfully_and_noise_is_not():
    generator = torch.Generator().manual_seed(0)
    plane, noise = torch.randn(100, 2, generator=generator), torch.randn(100, 50, generator=generator)
    key = [f"k{i}" for i in range(100)]
    assert (pca_frame(Embeddings(key=key, z={"m": plane}))["trust"] == 1).all()
    assert pca_frame(Embeddings(key=key, z={"m": noise}))["trust"].mean() < 0.75


def test_few_points_and_one_dimension():
    line = Embeddings(key=["a", "b", "c", "d"], z={"m": torch.tensor([[0.0], [1.0], [3.0], [6.0]])})
    frame = pca_frame(line)
    assert (frame["y"] == 0).all()
    assert frame["x"].diff().dropna().tolist() == pytest.approx([1, 2, 3])
    with pytest.raises(ValueError, match="a 2-D frame needs at least 3 points; got 2"):
        pca_frame(line.take([0, 1]))
    with pytest.raises(ValueError, match="t-SNE at perplexity 30 needs more than 90 points; got 4"):
        tsne_frame(line)


@pytest.mark.slow
def test_umap_leaves_the_number_of_threads_alone(shared):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    umap_frame(shared)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@pytest.mark.slow
def test_umap_needs_points():
    line = Embeddings(key=["a", "b", "c", "d"], z={"m": torch.eye(4)})
    with pytest.raises(ValueError, match="UMAP needs more than 15 points; got 4"):
        umap_frame(line)


def test_a_frame_is_computed_wherever_the_vectors_are(shared, device):
    here = pca_frame(shared.to(device))
    assert here["x"].to_numpy() == pytest.approx(pca_frame(shared)["x"].to_numpy(), abs=1e-4)
