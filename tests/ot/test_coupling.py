"""What one reads off a coupling: plan, barycenter, map and largest masses, and their errors."""

from __future__ import annotations

import pytest
import torch

from labkit import ot


def test_plan_is_made_of_the_potentials(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=0.1)
    exponent = (solution.f[:, None] + solution.g - solution.geometry.matrix()) / solution.epsilon_absolute
    torch.testing.assert_close(solution.plan, torch.outer(a, b) * exponent.exp())
    torch.testing.assert_close((solution.plan * solution.geometry.matrix()).sum(), solution.cost)


def test_map_on_the_old_points_is_the_barycenter(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    barycenter = solution.barycenter(y)
    torch.testing.assert_close(barycenter, solution.plan @ y / solution.plan.sum(1, keepdim=True))
    assert (solution.map(x) - barycenter).abs().max() <= 1e-13


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "geodesic"])
def test_jacobian_is_that_of_autograd(make_clouds, cost):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y, cost), a, b)
    new = x[:4] + 0.3
    expected = torch.stack([torch.autograd.functional.jacobian(lambda p: solution.map(p[None])[0], p) for p in new])
    found = solution.jacobian(new)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_jacobian_for_the_squared_distance_is_the_conditional_covariance(make_clouds):
    # J(x) = (2 / epsilon) Cov(y | x), symmetric and positive semi-definite.
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    new = torch.tensor([0.3, -0.2, 0.1], dtype=x.dtype, device=x.device)
    score = (solution.g - (new - y).square().sum(1)) / solution.epsilon_absolute + b.log()
    p = score.softmax(0)
    centered = y - p @ y
    jacobian = solution.jacobian(new[None])[0]
    torch.testing.assert_close(jacobian, 2 / solution.epsilon_absolute * (centered.mT * p) @ centered)
    assert torch.linalg.eigvalsh(jacobian).min() >= 0


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
def test_jacobian_is_differentiable_batched_and_blockwise(make_clouds, monkeypatch, cost):
    x, y, _, _ = make_clouds(n=8, m=10, d=2)
    batch = ot.sinkhorn(ot.PointCloud(x.reshape(2, 4, 2), y.reshape(2, 5, 2), cost), tolerance=1e-10)
    one = ot.sinkhorn(ot.PointCloud(x[:4], y[:5], cost), tolerance=1e-10)
    whole = batch.jacobian(x.reshape(2, 4, 2))
    assert whole.shape == (2, 4, 2, 2)
    torch.testing.assert_close(whole[0], one.jacobian(x[:4]))
    monkeypatch.setattr("labkit.ot.plan.BLOCK_ENTRIES", {"cpu": 30})
    torch.testing.assert_close(batch.jacobian(x.reshape(2, 4, 2)), whole)
    assert torch.autograd.gradcheck(one.jacobian, (x[:3] + 0.1).requires_grad_())


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.8, 0.9), (1.0, 0.7), (0.7, 1.0)])
def test_dual_gap_bounds_the_error_of_the_value(make_clouds, taus):
    x, y, a, b = make_clouds()
    options = {"tau_a": taus[0], "tau_b": taus[1], "max_iterations": 100_000}
    best = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=1e-12, **options)
    gaps = []
    for tolerance in (3e-1, 1e-2, 1e-4, 1e-8):
        solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=tolerance, **options)
        error = best.regularized_cost - solution.regularized_cost
        assert -1e-12 <= error <= solution.dual_gap + 1e-12
        gaps.append(float(solution.dual_gap))
    assert 0 <= gaps[3] <= 1e-6 * gaps[0]
    assert gaps[2] <= 1e-2 * gaps[0]


def test_dual_gap_is_the_objective_of_the_rounded_plan_minus_the_dual_value(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=0.1)
    plan, product = ot.round_to_marginals(solution.plan, a, b), torch.outer(a, b)
    entropy = (plan * (plan / product).log() - plan + product).sum()
    primal = (plan * solution.geometry.matrix()).sum() + solution.epsilon_absolute * entropy
    torch.testing.assert_close(solution.dual_gap, primal - solution.regularized_cost)


def test_dual_gap_in_batches_in_single_precision_and_with_points_of_weight_zero(make_clouds, monkeypatch):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    a = torch.cat([torch.zeros_like(a[:, :1]), a[:, 1:]], 1)
    a = a / a.sum(1, keepdim=True)
    double = ot.sinkhorn(ot.PointCloud(x, y), a, b).dual_gap
    monkeypatch.setattr("labkit.ot.plan.BLOCK_ENTRIES", {"cpu": 90})
    for k in range(3):
        one = ot.sinkhorn(ot.PointCloud(x[k], y[k]), a[k], b[k], tolerance=1e-6)
        assert 0 <= one.dual_gap <= 1e-4
    single = ot.sinkhorn(ot.PointCloud(x.float(), y.float()), a.float(), b.float())
    assert double.shape == single.dual_gap.shape == (3,)
    assert ((double >= 0) & (single.dual_gap >= 0)).all()
    torch.testing.assert_close(single.dual_gap, double, rtol=0.5, atol=1e-3)


def test_dual_gap_with_forbidden_pairs(make_clouds):
    x, y, a, b = make_clouds(n=6, m=5)
    geometry = ot.Restricted(ot.PointCloud(x, y), forbidden=[(0, 0), (3, 2)])
    loose = ot.sinkhorn(geometry, a, b, epsilon=0.2, tolerance=0.1)
    assert loose.dual_gap == torch.inf or loose.dual_gap > 0
    relaxed = ot.sinkhorn(geometry, a, b, epsilon=0.2, tau_a=0.9, tau_b=0.9, tolerance=1e-9)
    assert 0 <= relaxed.dual_gap <= 1e-9


def test_plan_is_kept(make_clouds):
    x, y, _, _ = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y))
    assert solution.plan is solution.plan
    with torch.no_grad():
        assert solution.plan.data_ptr() == ot.Coupling.plan.fget(solution).data_ptr()


def test_barycenter_contracts_the_variance(make_clouds):
    x, y, _, _ = make_clouds(n=60, m=60)
    spread = [ot.sinkhorn(ot.PointCloud(x, y), epsilon=e).barycenter(y).var(0).sum() for e in (0.02, 0.2, 2.0)]
    assert y.var(0).sum() > spread[0] > spread[1] > spread[2]


def test_apply_takes_vectors_columns_and_batches(make_clouds):
    x, y, a, b = make_clouds(n=12, m=10)
    one = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    torch.testing.assert_close(one.apply(y[:, 0]), one.plan @ y[:, 0])
    torch.testing.assert_close(one.apply(y), one.plan @ y)
    batch = ot.sinkhorn(ot.PointCloud(x.reshape(2, 6, 3), y.reshape(2, 5, 3)))
    torch.testing.assert_close(batch.apply(y.reshape(2, 5, 3)), batch.plan @ y.reshape(2, 5, 3))
    torch.testing.assert_close(batch.apply(torch.ones(2, 5, dtype=y.dtype, device=y.device)), batch.plan.sum(-1))


def test_top_lists_the_largest_masses(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    top = solution.top(3)
    order = solution.plan.argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(top.index, order)
    assert torch.equal(top.mass, solution.plan.gather(1, order))


def test_coupling_refuses_what_does_not_fit(make_clouds):
    x, y, _, _ = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y))
    with pytest.raises(ValueError, match="k=26 must be between 1 and the number of target points, 25"):
        solution.top(26)
    with pytest.raises(ValueError, match="one row for each of the 25 targets"):
        solution.barycenter(x)
    with pytest.raises(ValueError, match="one row for each of the 25 targets"):
        solution.apply(x[:, 0])
    with pytest.raises(ValueError, match=r"expected \[..., points, 3\]"):
        solution.map(torch.ones_like(x[:, :2]))
    with pytest.raises(TypeError, match="made from a CostMatrix"):
        ot.sinkhorn(ot.CostMatrix(ot.PointCloud(x, y).matrix())).map(x)
