"""Partial transport against POT's exact solver, the optimality conditions, and plain Sinkhorn."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch

from labkit import ot


def kl(p, q):
    return (torch.special.xlogy(p, p / q) - p + q).sum()


@pytest.mark.parametrize("mass", [0.3, 0.8])
def test_tends_to_exact_partial_transport(make_clouds, mass):
    x, y, a, b = make_clouds()
    cost = ot.PointCloud(x, y).matrix()
    exact = pot.partial.partial_wasserstein2(*(t.cpu().numpy() for t in (a, 1.5 * b, cost)), m=mass)
    found = [
        float(ot.partial_sinkhorn(ot.CostMatrix(cost), a, 1.5 * b, mass=mass, epsilon=epsilon, tolerance=1e-6).cost)
        for epsilon in (0.1, 0.01, 0.001)
    ]
    assert found[0] > found[1] > found[2] > (1 - 1e-5) * exact
    np.testing.assert_allclose(found[2], exact, rtol=0.01)


def test_is_the_optimum_of_its_definition(make_clouds):
    x, y, a, b = make_clouds(n=8, m=6)
    cost, mass = ot.PointCloud(x, y).matrix(), 0.5
    b = 2 * b
    solution = ot.partial_sinkhorn(ot.CostMatrix(cost), a, b, mass=mass, epsilon=0.7, scale_cost=None, tolerance=1e-10)
    plan = solution.plan.requires_grad_()
    entropy = kl(plan, torch.outer(a, b)) + kl(a - plan.sum(1), 0.5 * a) + kl(b - plan.sum(0), 1.5 * b)
    objective = (cost * plan).sum() + 0.7 * entropy
    torch.testing.assert_close(solution.regularized_cost, objective.detach())
    (gradient,) = torch.autograd.grad(objective, plan)
    # The problem is convex, the optimum inside: the gradient is the multiplier of the mass.
    torch.testing.assert_close(gradient, gradient[0, 0].expand_as(gradient), rtol=0, atol=1e-7)
    torch.testing.assert_close(plan.sum().item(), mass, rtol=0, atol=1e-9)
    assert ((plan.sum(1) <= a).all()) & ((plan.sum(0) <= b).all())


def test_all_of_the_mass_is_plain_transport(make_clouds):
    x, y, a, b = make_clouds()
    whole = ot.partial_sinkhorn(ot.PointCloud(x, y), a, b, mass=1.0, tolerance=1e-8)
    plain = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=1e-8)
    torch.testing.assert_close(whole.plan, plain.plan, rtol=0, atol=1e-8)
    torch.testing.assert_close(whole.regularized_cost, plain.regularized_cost, rtol=1e-7, atol=0)
    torch.testing.assert_close(whole.barycenter(y), plain.barycenter(y), rtol=0, atol=1e-5)


def test_leaves_outliers_behind(make_clouds):
    x, _, _, _ = make_clouds()
    shuffled = x.flip(0) + 0.01
    shuffled[:3] += 40
    solution = ot.partial_sinkhorn(ot.PointCloud(x, shuffled), mass=0.9, epsilon=1e-4)
    assert solution.plan[:, :3].sum() < 1e-6
    assert torch.equal(solution.top(1).index[:27, 0], torch.arange(29, 2, -1, device=x.device))


def test_gradient_is_that_of_finite_differences(make_clouds):
    x, y, a, b = make_clouds(n=4, m=3, d=2)

    def value(x, y):
        options = {"mass": 0.6, "epsilon": 0.5, "scale_cost": None, "tolerance": 1e-10}
        return ot.partial_sinkhorn(ot.PointCloud(x, y), a, b, **options).regularized_cost

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), y.requires_grad_()), eps=1e-5, rtol=1e-4, atol=1e-7)


def test_batch_is_a_loop_and_absent_points_do_not_count(make_clouds):
    problems = [make_clouds(n=10, m=8, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    batch = ot.partial_sinkhorn(ot.PointCloud(x, y), a, b, mass=0.7, tolerance=1e-8)
    for k, (x, y, a, b) in enumerate(problems):
        one = ot.partial_sinkhorn(ot.PointCloud(x, y), a, b, mass=0.7, tolerance=1e-8)
        torch.testing.assert_close(batch.plan[k], one.plan, rtol=0, atol=1e-8)
        torch.testing.assert_close(batch.regularized_cost[k], one.regularized_cost, rtol=1e-7, atol=0)
    far = torch.cat([x.new_full((2, 3), 50.0), x])
    more = ot.partial_sinkhorn(ot.PointCloud(far, y), torch.cat([a.new_zeros(2), a]), b, mass=0.7, tolerance=1e-8)
    torch.testing.assert_close(more.plan[2:], one.plan, rtol=0, atol=1e-8)
    torch.testing.assert_close(more.regularized_cost, one.regularized_cost, rtol=1e-7, atol=0)


@pytest.mark.parametrize("mass", [0.0, -1.0, 1.01, float("nan"), float("inf")])
def test_refuses_an_impossible_mass(make_clouds, mass):
    x, y, a, b = make_clouds()
    with pytest.raises(ValueError, match=r"must be in \(0, 1\]: no more can move than either side has"):
        ot.partial_sinkhorn(ot.PointCloud(x, y), a, 2 * b, mass=mass)


def test_says_what_is_wrong(make_clouds):
    x, y, a, _ = make_clouds()
    with pytest.warns(ot.NotConvergedWarning, match="did not reach tolerance") as caught:
        solution = ot.partial_sinkhorn(ot.PointCloud(x, y), mass=0.5, epsilon=1e-4, tolerance=1e-9, max_iterations=2)
    assert not solution.converged
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="weights b have shape"):
        ot.partial_sinkhorn(ot.PointCloud(x, y), a, a, mass=0.5)
    with pytest.raises(ValueError, match="negative"):
        ot.partial_sinkhorn(ot.PointCloud(x, y), -a, mass=0.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        ot.partial_sinkhorn(ot.PointCloud(x, y), a * float("nan"), mass=0.5)
