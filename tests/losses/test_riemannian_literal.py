"""The proposals' own Riemannian losses against loops, the traps that they document, and LLE against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import floyd_warshall
from scipy.stats import ortho_group
from sklearn.manifold._locally_linear import barycenter_kneighbors_graph
from torch import Tensor
from torch.nn import functional as F

from labkit.geometry import diffusion_distances
from labkit.losses import rc, rc_literal, rma_isometric, rma_literal, rma_lle

K = 4


def cloud(n: int = 15, d: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nearest(z: Tensor, i: int) -> list[int]:
    return sorted((j for j in range(len(z)) if j != i), key=lambda j: float((z[i] - z[j]).norm()))[:K]


def graph_distances(z: Tensor) -> np.ndarray:
    graph = np.full((len(z), len(z)), np.inf)
    for i in range(len(z)):
        for j in nearest(z, i):
            graph[i, j] = graph[j, i] = float((z[i] - z[j]).norm())
    found = floyd_warshall(graph)
    assert np.isfinite(found).all()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_rc_as_proposed_by_its_double_loop(seed):
    x, y = cloud(seed=seed), 2 * cloud(seed=seed + 10)
    g_x, g_y = graph_distances(x), graph_distances(y)
    expected = sum((g_x[i, j] - g_y[i, j]) ** 2 for i in range(15) for j in nearest(x, i)) / 15
    assert rc_literal(x, y, k=K).item() == pytest.approx(expected)
    # between neighbors of the graph's own modality, the geodesic is the edge
    assert all(g_x[i, j] == pytest.approx(float((x[i] - x[j]).norm())) for i in range(15) for j in nearest(x, i))


@pytest.mark.parametrize("seed", range(3))
def test_rma_as_proposed_by_its_double_loop(seed):
    x, y = cloud(seed=seed), cloud(seed=seed + 10)
    expected = sum(float((x[i] - y[j]).square().sum()) for i in range(15) for j in nearest(x, i))
    assert rma_literal(x, y, k=K).item() == pytest.approx(expected)


def test_what_is_unsound_about_rma_as_proposed():
    x = F.normalize(cloud(), dim=1)
    assert rma_literal(x, x, k=K).item() > 5  # perfect alignment
    assert rma_isometric(x, x, k=K).item() == pytest.approx(0, abs=1e-12)
    constant = torch.ones(15, 5, dtype=torch.float64)
    assert rma_literal(0 * x, 0 * x, k=K).item() == rma_literal(constant, constant, k=K).item() == 0
    heads = [torch.eye(5, dtype=torch.float64).requires_grad_() for _ in range(2)]
    optimizer = torch.optim.SGD(heads, lr=0.003)
    for _ in range(300):
        optimizer.zero_grad()
        rma_literal(x @ heads[0], cloud(seed=1) @ heads[1], k=K).backward()
        optimizer.step()
    assert max(head.norm().item() for head in heads) < 0.05  # trained alone, it collapses the encoders


def test_what_is_unsound_about_rc_as_proposed():
    x, y = cloud(), cloud(seed=1)
    assert rc_literal(0.1 * x, 0.1 * y, k=K).item() == pytest.approx(0.01 * rc_literal(x, y, k=K).item())
    assert rc_literal(x, y, k=K).item() != pytest.approx(rc_literal(y, x, k=K).item(), rel=0.05)
    constant = torch.ones(15, 5, dtype=torch.float64)
    assert rc_literal(constant, constant, k=K).item() == 0
    turned = x @ torch.as_tensor(ortho_group.rvs(5, random_state=0))
    assert rc_literal(x, turned, k=K).item() == pytest.approx(0, abs=1e-20)


def test_reconstruction_weights_by_scikit_learn():
    x, y = (F.normalize(cloud(seed=s), dim=1) for s in (0, 1))
    total = 0.0
    for a, b in ((x, y), (y, x)):
        weights = barycenter_kneighbors_graph(a.numpy(), n_neighbors=K, reg=1e-3).toarray()
        total += np.square(b.numpy() - weights @ b.numpy()).sum(axis=1).mean() / 2
    assert rma_lle(x, y, k=K).item() == pytest.approx(total, rel=1e-6)


def test_lle_weights_carry_over_a_rotation_and_a_shear_breaks_nothing_within_the_span():
    """Points on a plane are exact combinations of their neighbors, so all linear images have no error."""
    plane = F.pad(cloud(30, 2), (0, 1), value=3.0)
    turned = plane @ torch.as_tensor(ortho_group.rvs(3, random_state=0))
    assert rma_lle(plane, turned, k=6).item() == pytest.approx(rma_lle(plane, plane, k=6).item(), rel=1e-6)
    shuffled = plane[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    assert rma_lle(plane, shuffled, k=6).item() > 10 * rma_lle(plane, plane, k=6).item()


@pytest.mark.parametrize("distance", ["sphere", "euclidean", "cosine"])
def test_rc_and_rma_compare_the_distance_that_is_named(distance):
    x, y = (F.normalize(cloud(seed=s), dim=1) for s in (0, 1))

    def measured(a: Tensor, b: Tensor) -> Tensor:
        cosine = (a @ b.T).clamp(-1, 1)
        return {"sphere": cosine.arccos(), "euclidean": (2 - 2 * cosine).sqrt(), "cosine": 1 - cosine}[distance]

    near = [torch.tensor([nearest(z, i) for i in range(15)]) for z in (x, y)]
    d_x, d_y, across = measured(x, x), measured(y, y), measured(x, y)
    stress = (d_x / d_x.mean() - d_y / d_y.mean()).square()
    expected = sum(stress.gather(1, n).mean().item() for n in near) / 2
    assert rc(x, y, k=K, distance=distance).item() == pytest.approx(expected, rel=2e-3)
    gaps = (d_x - across).gather(1, near[0]), (d_y - across.T).gather(1, near[1])
    expected = sum(g.square().mean().item() for g in gaps) / 2
    assert rma_isometric(x, y, k=K, distance=distance).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("distance", ["geodesic", "diffusion"])
def test_rc_and_rma_follow_graph_and_walks(distance):
    x, y = (F.normalize(cloud(seed=s), dim=1) for s in (0, 1))
    near = [torch.tensor([nearest(z, i) for i in range(15)]) for z in (x, y)]

    def measured(z: Tensor) -> Tensor:
        return torch.as_tensor(graph_distances(z)) if distance == "geodesic" else diffusion_distances(z, k=K)

    stress = (measured(x) / measured(x).mean() - measured(y) / measured(y).mean()).square()
    expected = sum(stress.gather(1, n).mean().item() for n in near) / 2
    assert rc(x, y, k=K, distance=distance).item() == pytest.approx(expected, rel=1e-9)
    both = measured(torch.cat([x, y]))
    gaps = (both[:15, :15] - both[:15, 15:]).gather(1, near[0]), (both[15:, 15:] - both[15:, :15]).gather(1, near[1])
    expected = sum(g.square().mean().item() for g in gaps) / 2
    assert rma_isometric(x, y, k=K, distance=distance).item() == pytest.approx(expected, rel=1e-9)
    for loss in (rc, rma_isometric):
        assert loss(x, x, k=K, distance=distance).item() == pytest.approx(0, abs=1e-10)
        a, b = cloud(7, 3).requires_grad_(), cloud(7, 3, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda u, v, f=loss: f(u, v, k=3, distance=distance), (a, b), atol=1e-5)


@pytest.mark.parametrize("loss", [rc, rma_isometric])
def test_an_unknown_distance_is_refused(loss):
    with pytest.raises(ValueError, match="distance must be one of sphere, euclidean, cosine, geodesic, diffusion"):
        loss(cloud(), cloud(seed=1), k=K, distance="taxi")


@pytest.mark.parametrize("loss", [rc_literal, rma_literal, rma_lle])
def test_bad_input_is_refused(loss):
    with pytest.raises(ValueError, match="row i of x and of y must be one sample"):
        loss(cloud(), cloud()[:1])
    with pytest.raises(ValueError, match="k must be between 1 and 14 for 15 points; got 15"):
        loss(cloud(), cloud(), k=15)
