"""Low-rank transport against POT, closed forms and the limits of its rank."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch

from labkit import ot
from labkit.ot import factors, stream


def dense(coupling):
    return coupling.rows(slice(None))


@pytest.fixture
def clusters(device):
    """Three tight clusters that move apart: x, y, labels of both."""
    generator = torch.Generator().manual_seed(1)
    centers = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(20), torch.arange(3).repeat(20)
    clouds = (
        (c[k] + 0.1 * torch.randn(60, 2, generator=generator, dtype=torch.float64)).to(device)
        for c, k in ((centers, labels[0]), (centers + 1, labels[1]))
    )
    return *clouds, *(k.to(device) for k in labels)


@pytest.mark.parametrize("rank", [2, 5, 20])
def test_is_as_good_as_pot(make_clouds, rank):
    x, y, a, b = make_clouds(n=80, m=60)
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), a, b, rank=rank)
    cost = torch.cdist(x, y).square()
    torch.testing.assert_close((dense(coupling) * cost).sum(), coupling.cost)
    arrays = [t.cpu().numpy() for t in (x, y, a, b)]
    q, r, g = pot.lowrank_sinkhorn(
        *arrays, reg=0, rank=rank, init="kmeans", seed_init=0, numItermax=2000, stopThr=1e-7, warn=False
    )
    theirs = (q @ np.diag(1 / g) @ r.T * cost.cpu().numpy()).sum()
    exact = pot.emd2(*arrays[2:], cost.cpu().numpy())
    # The problem is not convex: neither solver is always below the other.
    assert exact <= coupling.cost.item() <= 1.03 * theirs


def test_one_cluster_is_the_product(make_clouds):
    x, y, a, b = make_clouds()
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), a, b, rank=1)
    torch.testing.assert_close(dense(coupling), torch.outer(a, b))


def test_more_rank_costs_less_down_to_exact_transport(make_clouds):
    x, y, _, _ = make_clouds(n=12, m=12, d=2)
    exact = pot.emd2([], [], torch.cdist(x, y).square().cpu().numpy())
    costs = [ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=r, tolerance=1e-6).cost.item() for r in (1, 3, 12)]
    assert costs[0] > costs[1] > costs[2] >= exact - 1e-6
    assert costs[2] < exact + 0.05 * (costs[0] - exact)


def test_finds_the_clusters(clusters):
    x, y, of_x, of_y = clusters
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=3)
    torch.testing.assert_close(coupling.g, torch.full_like(coupling.g, 1 / 3), rtol=1e-3, atol=0)
    matched = dense(coupling) > 1e-6
    assert torch.equal(matched, of_x[:, None] == of_y)


def test_order_of_the_points_does_not_matter(clusters, generator):
    x, y, _, _ = clusters
    order = torch.randperm(60, generator=generator).to(x.device)
    plan = dense(ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=3, tolerance=1e-9))
    shuffled = dense(ot.sinkhorn_low_rank(ot.PointCloud(x[order], y), rank=3, tolerance=1e-9))
    torch.testing.assert_close(shuffled, plan[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_marginals(make_clouds, epsilon, dtype):
    x, y, a, b = make_clouds(n=70, m=90, dtype=dtype)
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), 3 * a, 3 * b, rank=6, epsilon=epsilon)
    assert coupling.converged
    plan = dense(coupling)
    error = ((plan.sum(1) - 3 * a).abs().sum() + (plan.sum(0) - 3 * b).abs().sum()) / 3
    assert error <= 1e-4
    assert plan.min() >= 0
    torch.testing.assert_close(coupling.q.sum(1), 3 * a)
    torch.testing.assert_close(coupling.r.sum(1), 3 * b)
    torch.testing.assert_close(coupling.q.sum(0), coupling.g, rtol=1e-3, atol=1e-5)


def test_entropy_spreads_the_factors(make_clouds):
    x, y, _, _ = make_clouds(n=50, m=50)
    sharp, soft, product = (
        ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=5, epsilon=epsilon) for epsilon in (0.0, 0.2, 1e4)
    )
    assert torch.special.entr(sharp.q).sum() < torch.special.entr(soft.q).sum()
    torch.testing.assert_close(dense(product), torch.full_like(dense(product), 1 / 2500), rtol=1e-2, atol=0)


def test_points_without_mass(make_clouds):
    x, y, a, b = make_clouds(n=40, m=30)
    a[5:8] = 0
    x[6] = 1e5
    a = a / a.sum()
    with_them = ot.sinkhorn_low_rank(ot.PointCloud(x, y), a, b, rank=4)
    massive = a > 0
    without = ot.sinkhorn_low_rank(ot.PointCloud(x[massive], y), a[massive], b, rank=4)
    assert not dense(with_them)[~massive].any()
    torch.testing.assert_close(with_them.cost, without.cost, rtol=0.03, atol=0)
    assert torch.isfinite(with_them.barycenter(y)).all()


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "euclidean"])
def test_gradient_of_the_value(make_clouds, cost):
    x, y, a, b = make_clouds(n=25, m=20)
    x.requires_grad_()
    y.requires_grad_()
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y, cost), a, b, rank=4)
    torch.testing.assert_close(coupling.regularized_cost, coupling.cost)
    found = torch.autograd.grad(coupling.regularized_cost, (x, y), retain_graph=True)
    plan = dense(coupling).detach()
    expected = torch.autograd.grad((ot.PointCloud(x, y, cost).matrix() * plan).sum(), (x, y))
    torch.testing.assert_close(found, expected)
    (first,) = torch.autograd.grad(coupling.regularized_cost, x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        first.sum().backward()


def test_gradient_is_that_of_the_optimum(clusters):
    x, y, _, _ = clusters
    x.requires_grad_()

    def value(points):
        geometry = ot.PointCloud(points, y)
        return ot.sinkhorn_low_rank(geometry, rank=3, epsilon=0.02, scale_cost=10.0, tolerance=1e-8).regularized_cost

    (gradient,) = torch.autograd.grad(value(x), x)
    direction = torch.linspace(-1, 1, x.numel()).to(x).reshape(x.shape)
    with torch.no_grad():
        expected = (value(x + 1e-3 * direction) - value(x - 1e-3 * direction)) / 2e-3
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-4, atol=1e-6)


def test_landmarks_replace_a_large_matrix(make_clouds, monkeypatch):
    x, y, a, b = make_clouds(n=400, m=300, d=2)
    geometry = ot.CostFunction(lambda i, j: torch.cdist(x[i], y[j]), 400, 300, x.device)
    exact = ot.sinkhorn_low_rank(geometry, a, b, rank=5)
    monkeypatch.setattr(stream, "DENSE_ENTRIES", 0)
    monkeypatch.setattr(factors, "LANDMARKS", 60)
    landmarks = ot.sinkhorn_low_rank(geometry, a, b, rank=5)
    assert exact.cost_error == 0 < landmarks.cost_error < 0.03
    true_cost = (dense(landmarks) * torch.cdist(x, y)).sum()
    torch.testing.assert_close(landmarks.cost, true_cost, rtol=0.02, atol=0)
    torch.testing.assert_close(true_cost, exact.cost, rtol=0.03, atol=0)


def test_reads_the_coupling(make_clouds):
    x, y, a, b = make_clouds()
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), a, b, rank=4)
    plan = dense(coupling)
    torch.testing.assert_close(coupling.apply(y), plan @ y)
    torch.testing.assert_close(coupling.apply(b), plan @ b)
    torch.testing.assert_close(coupling.barycenter(y), plan @ y / plan.sum(1, keepdim=True))
    torch.testing.assert_close(coupling.top(3).mass, plan.topk(3).values)
    with pytest.raises(ValueError, match="k=26"):
        coupling.top(26)
    with pytest.raises(ValueError, match="each of the 25 targets"):
        coupling.apply(x)


def test_many_points_in_linear_memory(device, generator):
    x = torch.rand(10_000, 3, generator=generator).to(device)
    y = (torch.rand(10_000, 3, generator=generator) ** 2).to(device)
    coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=8, tolerance=1e-3)
    assert coupling.marginal_error <= 1e-3
    product = ot.sinkhorn_low_rank(ot.PointCloud(x, y), rank=1)
    assert coupling.cost < 0.6 * product.cost


def test_says_when_it_did_not_converge(make_clouds):
    x, y, a, b = make_clouds()
    with pytest.warns(ot.NotConvergedWarning, match="max_iterations=3"):
        coupling = ot.sinkhorn_low_rank(ot.PointCloud(x, y), a, b, rank=4, max_iterations=3)
    assert not coupling.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"rank": 26}, "rank=26"),
        ({"rank": 2, "epsilon": -1.0}, "epsilon=-1"),
        ({"rank": 2, "tolerance": 0.0}, "tolerance=0"),
        ({"rank": 2, "max_iterations": 0}, "max_iterations=0"),
        ({"rank": 2, "scale_cost": "max"}, "needs all costs"),
    ],
)
def test_refuses(make_clouds, options, message):
    x, y, _, _ = make_clouds()
    with pytest.raises(ValueError, match=message):
        ot.sinkhorn_low_rank(ot.PointCloud(x, y), **options)
    with pytest.raises(ValueError, match="one by one"):
        ot.sinkhorn_low_rank(ot.PointCloud(x[None], y[None]), rank=2)
