"""Neighbors and distances against brute force, scikit-learn and exact angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from labkit.geometry import chord_distances, knn, sphere_distances


def points(n: int = 40, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 7, 38, 39])
def test_neighbors_are_those_of_scikit_learn(metric, k, device):
    z = points()
    theirs = NearestNeighbors(n_neighbors=k, metric=metric).fit(z.numpy()).kneighbors(return_distance=False)
    assert (knn(z.to(device), k, metric=metric).cpu().numpy() == theirs).all()


@given(arrays(np.int8, (9, 2), elements=st.integers(-1, 1)), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ties_go_to_the_lower_index(grid, k):
    z = torch.as_tensor(grid, dtype=torch.float64)
    exact = ((grid[:, None].astype(int) - grid[None]) ** 2).sum(axis=-1)
    for i, found in enumerate(knn(z, k, metric="euclidean").tolist()):
        others = [j for j in range(9) if j != i]
        assert found == sorted(others, key=lambda j: (exact[i, j], j))[:k]


def test_a_sample_is_excluded_and_its_duplicate_is_not(device):
    z = points().to(device)
    z[5] = z[20]
    near = knn(z, 3)
    assert (near != torch.arange(40, device=device)[:, None]).all()
    assert near[5, 0] == 20
    assert near[20, 0] == 5


def test_indices_carry_no_gradient():
    z = points().requires_grad_()
    assert not knn(z, 3).requires_grad


@pytest.mark.parametrize("k", [0, 40, -1])
def test_k_has_limits(k):
    with pytest.raises(ValueError, match=f"k must be between 1 and 39 for 40 points; got {k}"):
        knn(points(), k)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="'cosine' or 'euclidean'; got 'manhattan'"):
        knn(points(), 3, metric="manhattan")


def test_distances_are_angles_and_chords(device):
    x, y = (F.normalize(points(seed=s), dim=1).to(device) for s in (0, 1))
    angle = torch.arccos((x @ y.T).clamp(-1, 1))
    assert sphere_distances(x, y).allclose(angle, rtol=1e-5, atol=1e-5)
    assert chord_distances(x, y).allclose(2 * (angle / 2).sin(), rtol=1e-4)
    assert chord_distances(x, y).allclose(torch.cdist(x, y), rtol=1e-4)


def test_distances_at_the_ends_of_the_range():
    x = F.normalize(points(5), dim=1)
    assert sphere_distances(x, x).diagonal().max() < 3e-3
    assert sphere_distances(x, -x).diagonal().numpy() == pytest.approx([math.pi] * 5, abs=3e-3)
    assert chord_distances(x, -x).diagonal().numpy() == pytest.approx([2.0] * 5, abs=1e-5)


@pytest.mark.parametrize("distances", [sphere_distances, chord_distances])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_gradient_is_finite_where_points_coincide_or_oppose(distances, sign):
    x = F.normalize(points(4), dim=1).requires_grad_()
    distances(x, sign * x.detach()).sum().backward()
    assert torch.isfinite(x.grad).all()
