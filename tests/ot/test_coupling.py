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


def test_jacobian_of_the_map_is_the_conditional_covariance(make_clouds):
    # For the squared distance J(x) = (2 / epsilon) Cov(y | x), symmetric and positive semi-definite.
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    new = torch.tensor([0.3, -0.2, 0.1], dtype=x.dtype, device=x.device)
    jacobian = torch.autograd.functional.jacobian(lambda p: solution.map(p[None])[0], new)
    score = (solution.g - (new - y).square().sum(1)) / solution.epsilon_absolute + b.log()
    p = score.softmax(0)
    centered = y - p @ y
    torch.testing.assert_close(jacobian, 2 / solution.epsilon_absolute * (centered.mT * p) @ centered)


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
