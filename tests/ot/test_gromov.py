"""Entropic Gromov-Wasserstein against brute force, POT and isometric copies."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch

from labkit import ot
from labkit.ot.gromov import descend


def space(x, cost="euclidean"):
    return ot.PointCloud(x, x, cost)


def brute_force(dx, dy, plan):
    """Sum over i, j, k, l of (D_x[i, k] - D_y[j, l])^2 P_ij P_kl, by its definition."""
    gap = dx[:, None, :, None] - dy[None, :, None, :]
    return torch.einsum("ijkl,ij,kl->", gap**2, plan, plan)


@pytest.fixture
def copies(device, generator):
    """A cloud and its rotated, shifted, shuffled copy; the order says where point i went."""
    x = torch.randn(15, 3, generator=generator, dtype=torch.float64).to(device)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q.to(device)
    order = torch.randperm(15, generator=generator).to(device)
    y = torch.empty_like(x)
    y[order] = x @ rotation.mT + 4
    return x, y, order


@pytest.mark.parametrize("scale_cost", ["mean", None])
def test_cost_is_the_brute_force_sum(make_clouds, scale_cost):
    x, y, a, b = make_clouds(n=9, m=7)
    solution = ot.gromov_wasserstein(space(x), space(y), a, b, scale_cost=scale_cost)
    dx, dy = space(x).matrix(), space(y).matrix()
    if scale_cost == "mean":
        dx, dy = dx / (a @ dx @ a), dy / (b @ dy @ b)
    torch.testing.assert_close(solution.cost, brute_force(dx, dy, solution.plan))
    entropy = torch.special.xlogy(solution.plan, solution.plan / torch.outer(a, b)).sum()
    torch.testing.assert_close(
        solution.regularized_cost, solution.cost + solution.epsilon_absolute * entropy, rtol=1e-4, atol=1e-6
    )
    unit = brute_force(dx, dy, torch.outer(a, b)) if scale_cost == "mean" else torch.ones_like(dx[0, 0])
    torch.testing.assert_close(solution.epsilon_absolute, 0.05 * unit)


@pytest.mark.parametrize("epsilon", [0.5, 0.1])
def test_agrees_with_pot(make_clouds, epsilon):
    x, y, a, b = make_clouds(n=20, m=15)
    dx, dy = (space(z).matrix() / space(z).matrix().mean() for z in (x, y))
    geometries = ot.CostMatrix(dx), ot.CostMatrix(dy)
    solution = ot.gromov_wasserstein(*geometries, a, b, epsilon=epsilon, scale_cost=None, tolerance=1e-9)
    expected = pot.gromov.entropic_gromov_wasserstein(
        *(t.cpu().numpy() for t in (dx, dy, a, b)), epsilon=epsilon, tol=1e-11, max_iter=2000, stopThr=1e-12
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-6)


def test_fused_agrees_with_pot(make_clouds):
    x, y, a, b = make_clouds(n=20, m=15)
    dx, dy, fused = space(x).matrix(), space(y).matrix(), ot.PointCloud(x, y).matrix()
    options = {"fused_cost": fused, "alpha": 0.3, "scale_cost": None, "tolerance": 1e-9}
    solution = ot.gromov_wasserstein(ot.CostMatrix(dx), ot.CostMatrix(dy), a, b, epsilon=0.2, **options)
    arrays = (t.cpu().numpy() for t in (fused, dx, dy, a, b))
    expected = pot.gromov.entropic_fused_gromov_wasserstein(
        *arrays, alpha=0.3, epsilon=0.2, tol=1e-11, max_iter=2000, stopThr=1e-12
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-6)
    value = 0.3 * brute_force(dx, dy, solution.plan) + 0.7 * (fused * solution.plan).sum()
    torch.testing.assert_close(solution.cost, value)


def test_isometric_copies_are_matched_where_transport_sees_nothing(copies):
    x, y, order = copies
    solution = ot.gromov_wasserstein(space(x), space(y), epsilon=0.005)
    assert torch.equal(solution.top(1).index[:, 0], order)
    assert solution.cost < 0.01
    transport = ot.sinkhorn(ot.PointCloud(x, y)).top(1).index[:, 0]
    assert (transport == order).double().mean() < 0.5


def test_start_at_the_truth_stays_there(copies):
    x, y, order = copies
    truth = torch.zeros(15, 15, dtype=x.dtype, device=x.device)
    truth[torch.arange(15), order] = 1 / 15
    solution = ot.gromov_wasserstein(space(x), space(y), epsilon=0.003, init_plan=truth)
    assert solution.converged
    assert solution.n_iterations <= 5
    torch.testing.assert_close(solution.plan, truth, atol=2e-3, rtol=0)


def test_units_of_the_spaces_do_not_matter(make_clouds):
    x, y, a, b = make_clouds(n=20, m=15)
    solution = ot.gromov_wasserstein(space(x), space(y), a, b)
    larger = ot.gromov_wasserstein(space(100 * x), space(y), a, b)
    torch.testing.assert_close(larger.plan, solution.plan, rtol=1e-4, atol=1e-7)


def test_batch_is_a_loop(make_clouds):
    problems = [make_clouds(n=10, m=8, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    batch = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.2, tolerance=1e-8)
    for k, (x, y, a, b) in enumerate(problems):
        one = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.2, tolerance=1e-8)
        torch.testing.assert_close(batch.plan[k], one.plan, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(batch.cost[k], one.cost, rtol=1e-5, atol=1e-7)


def test_gradient_is_that_of_finite_differences(make_clouds):
    x, y, a, b = make_clouds(n=5, m=4, d=2)
    dx, dy, fused = space(x).matrix(), space(y).matrix(), ot.PointCloud(x, y).matrix()

    def value(dx, dy, fused):
        # Finite differences move one entry: make both entries of a pair follow, as the solver wants symmetry.
        geometries = (ot.CostMatrix((d + d.mT) / 2) for d in (dx, dy))
        options = {"epsilon": 1.0, "fused_cost": fused, "scale_cost": None, "tolerance": 1e-8}
        return ot.gromov_wasserstein(*geometries, a, b, **options).regularized_cost

    inputs = tuple(t.detach().requires_grad_() for t in (dx, dy, fused))
    assert torch.autograd.gradcheck(value, inputs, eps=1e-4, rtol=1e-4, atol=1e-6)


def test_points_of_weight_zero_count_as_absent(make_clouds):
    x, y, a, b = make_clouds(n=12, m=10)
    far = torch.full((2, 3), 50.0, dtype=x.dtype, device=x.device)
    few = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.2, tolerance=1e-8)
    more = ot.gromov_wasserstein(
        space(torch.cat([far, x])), space(y), torch.cat([a.new_zeros(2), a]), b, epsilon=0.2, tolerance=1e-8
    )
    torch.testing.assert_close(more.plan[2:], few.plan, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(more.cost, few.cost)
    torch.testing.assert_close(more.regularized_cost, few.regularized_cost)


def test_autocast_changes_nothing(make_clouds, device):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    plain = ot.gromov_wasserstein(space(x), space(y), epsilon=0.2)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ot.gromov_wasserstein(space(x), space(y), epsilon=0.2)
    assert torch.equal(inside.plan, plain.plan)
    assert torch.equal(inside.cost, plain.cost)


def test_exhausted_steps_are_said_at_the_caller(make_clouds):
    x, y, _, _ = make_clouds()
    with pytest.warns(ot.NotConvergedWarning, match="did not settle") as caught:
        solution = ot.gromov_wasserstein(space(x), space(y), max_iterations=1)
    assert not solution.converged
    assert solution.n_iterations == 1
    assert caught[0].filename == __file__


def test_marginals_that_were_missed_are_not_called_convergence(make_clouds, monkeypatch):
    x, y, _, _ = make_clouds()
    monkeypatch.setattr(descend, "INNER_ITERATIONS", 1)
    with pytest.warns(ot.NotConvergedWarning):
        solution = ot.gromov_wasserstein(space(x), space(y), tolerance=1.9, epsilon=0.01, max_iterations=1)
    assert solution.marginal_error > solution.tolerance
    assert not solution.converged


def test_refuses_what_is_not_a_space(make_clouds):
    x, y, a, b = make_clouds()
    good = space(x)
    with pytest.raises(ValueError, match=r"geom_y has a matrix of shape \(30, 25\) that is not symmetric"):
        ot.gromov_wasserstein(good, ot.PointCloud(x, y))
    with pytest.raises(ValueError, match="alpha=0 must be"):
        ot.gromov_wasserstein(good, space(y), alpha=0)
    with pytest.raises(ValueError, match=r"fused_cost has shape \(25, 30\), expected \(30, 25\)"):
        ot.gromov_wasserstein(good, space(y), fused_cost=ot.PointCloud(y, x).matrix())
    with pytest.raises(ValueError, match="init_plan has shape"):
        ot.gromov_wasserstein(good, space(y), init_plan=torch.ones_like(good.matrix()))
    with pytest.raises(ValueError, match="scale_cost='max' is unknown"):
        ot.gromov_wasserstein(good, space(y), scale_cost="max")
    with pytest.raises(ValueError, match="differ in total mass"):
        ot.gromov_wasserstein(good, space(y), a, 3 * b)
    with pytest.raises(ValueError, match="epsilon=0 must be positive"):
        ot.gromov_wasserstein(good, space(y), epsilon=0)
