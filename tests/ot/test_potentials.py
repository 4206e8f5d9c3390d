"""The iteration: absorption, the symmetric form, warm starts, and honesty about convergence."""

from __future__ import annotations

import warnings

import pytest
import torch

from labkit import ot
from labkit.ot.potentials import epsilon_schedule

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-2, 1e-4])
def test_costs_that_overflow_the_kernel(device, dtype, epsilon):
    # exp(-C / epsilon) is 0 in most entries and rows here; potentials must be absorbed on the way.
    x = torch.linspace(0, 1, 20, dtype=dtype, device=device)[:, None]
    y = torch.cat([x[:19], torch.full_like(x[:1], 100)])
    solution = ot.sinkhorn(ot.PointCloud(x, y, "euclidean"), epsilon=epsilon, max_iterations=20_000)
    shift = (y.sort(0).values - x).abs().mean()
    torch.testing.assert_close(solution.cost, shift, rtol=2e-2, atol=0)


def test_one_cloud_with_itself_agrees_with_the_general_iteration(make_clouds):
    x, _, a, _ = make_clouds()
    for tau in (1.0, 0.8):
        options = {"epsilon": 0.5, "tau_a": tau, "tau_b": tau, **TIGHT}
        itself = ot.sinkhorn(ot.PointCloud(x, x), a, a, **options)
        general = ot.sinkhorn(ot.PointCloud(x, x.clone()), a, a, **options)
        torch.testing.assert_close(itself.plan, general.plan)
        torch.testing.assert_close(itself.plan, itself.plan.mT)
        assert itself.n_iterations <= general.n_iterations


def test_exhausted_iterations_are_said_once_at_the_caller(make_clouds):
    x, y, a, b = make_clouds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=1e-3, tolerance=1e-6, max_iterations=7)
    assert not solution.converged
    assert solution.n_iterations == 7
    assert solution.marginal_error > 1e-6
    rows = (solution.plan.sum(1) - a).abs().sum() + (solution.plan.sum(0) - b).abs().sum()
    torch.testing.assert_close(solution.marginal_error, rows, rtol=1e-6, atol=0)
    (warning,) = caught
    assert issubclass(warning.category, ot.NotConvergedWarning)
    assert warning.filename == __file__
    assert "raise epsilon" in str(warning.message)


def test_single_precision_floor_is_not_called_convergence(make_clouds):
    x, y, a, b = make_clouds(dtype=torch.float32)
    with pytest.warns(ot.NotConvergedWarning, match="float64"):
        solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=1e-12, max_iterations=500)
    assert not solution.converged


def test_one_hard_problem_of_a_batch_is_enough_to_say_so(make_clouds):
    x, y, _, _ = make_clouds(n=20, m=20)
    easy = torch.zeros(20, 20, dtype=x.dtype, device=x.device)
    costs = torch.stack([easy, ot.PointCloud(x, y).matrix()])
    with pytest.warns(ot.NotConvergedWarning):
        solution = ot.sinkhorn(ot.CostMatrix(costs), epsilon=1e-3, scale_cost=1.0, max_iterations=10)
    assert not solution.converged
    assert (solution.marginal_error <= solution.tolerance).tolist() == [True, False]


def test_warm_start_saves_the_iterations(make_clouds):
    x, y, a, b = make_clouds()
    cold = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=0.02, tolerance=1e-6)
    near = ot.PointCloud(x + 1e-4, y)
    warm = ot.sinkhorn(near, a, b, epsilon=0.02, tolerance=1e-6, init=(cold.f, cold.g))
    again = ot.sinkhorn(near, a, b, epsilon=0.02, tolerance=1e-6)
    assert warm.n_iterations < again.n_iterations / 3
    torch.testing.assert_close(warm.cost, again.cost, rtol=1e-5, atol=0)


def test_a_bad_start_is_recovered_from(make_clouds):
    x, y, a, b = make_clouds(dtype=torch.float32)
    # Far outside of what the kernel can absorb: exp(f / epsilon) overflows.
    init = (100 * torch.linspace(-1, 1, 30).to(a), 100 * torch.linspace(1, -1, 25).to(b))
    wild = ot.sinkhorn(ot.PointCloud(x, y), a, b, init=init)
    torch.testing.assert_close(wild.cost, ot.sinkhorn(ot.PointCloud(x, y), a, b).cost, rtol=1e-2, atol=0)


def test_degenerate_problems(device):
    same = torch.ones(4, 2, device=device)
    solution = ot.sinkhorn(ot.PointCloud(same, same.clone()))
    torch.testing.assert_close(solution.plan, torch.full((4, 4), 1 / 16, device=device))
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0], device=device)
    solution = ot.sinkhorn(ot.PointCloud(torch.eye(4, device=device), same[:, :1].expand(4, 4)), weights)
    torch.testing.assert_close(solution.plan.sum(1), weights)


@pytest.mark.parametrize(("start", "epsilon"), [(1.0, 0.05), (3.0, 1e-4), (1.0, 0.25)])
def test_schedule_falls_geometrically_to_epsilon(start, epsilon):
    schedule = epsilon_schedule(start, epsilon)
    assert schedule[0] == pytest.approx(start)
    assert schedule[-1] == epsilon
    ratios = [high / low for high, low in zip(schedule, schedule[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert 1 < ratios[0] <= 4 + 1e-9


def test_schedule_of_a_large_epsilon_is_epsilon():
    assert epsilon_schedule(1.0, 2.0) == [2.0]
