"""Sinkhorn against closed forms, POT and exact transport, and the laws that its solutions obey."""

from __future__ import annotations

import math

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import ot

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


def kl(p, q):
    """Sum of p log(p / q) - p + q, by numpy."""
    p, q = np.asarray(p), np.asarray(q)
    return float(np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0) - p + q))


def objective(plan, cost, a, b, epsilon, rho_a=None, rho_b=None):
    value = float((plan * cost).sum()) + epsilon * kl(plan, np.outer(a, b))
    value += 0 if rho_a is None else rho_a * kl(plan.sum(1), a)
    return value + (0 if rho_b is None else rho_b * kl(plan.sum(0), b))


# -------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("epsilon", [1.0, 0.2, 0.05])
def test_two_points_each(device, epsilon):
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64, device=device)
    solution = ot.sinkhorn(ot.CostMatrix(cost), epsilon=epsilon, scale_cost=None, **TIGHT)
    stay = 0.5 / (1 + math.exp(-1 / epsilon))
    expected = torch.tensor([[stay, 0.5 - stay], [0.5 - stay, stay]]).to(cost)
    torch.testing.assert_close(solution.plan, expected)
    assert solution.cost.item() == pytest.approx(1 - 2 * stay)
    assert solution.regularized_cost.item() == pytest.approx(-epsilon * math.log((1 + math.exp(-1 / epsilon)) / 2))


def test_two_diracs(device):
    x, y = torch.tensor([[0.0, 0.0]], device=device), torch.tensor([[3.0, 4.0]], device=device)
    solution = ot.sinkhorn(ot.PointCloud(x, y))
    assert solution.cost.item() == pytest.approx(25)
    assert solution.regularized_cost.item() == pytest.approx(25)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_gaussians_on_a_grid(device, epsilon):
    # Janati et al. 2020 (NeurIPS), thm. 1, in one dimension with epsilon = 2 sigma^2. The quadrature of a Gaussian
    # on a uniform grid is exact to rounding, so there is no sampling error.
    grid = torch.linspace(-9, 9, 400, dtype=torch.float64, device=device)
    mean, variance = (0.0, 1.0), (1.0, 0.5)
    a, b = (torch.softmax(-((grid - m) ** 2) / (2 * v), 0) for m, v in zip(mean, variance, strict=True))
    geometry = ot.PointCloud(grid[:, None], grid[:, None])
    solution = ot.sinkhorn(geometry, a, b, epsilon=epsilon, scale_cost=None, tolerance=1e-9, max_iterations=50_000)
    sigma2 = epsilon / 2
    spread = math.sqrt(4 * variance[0] * variance[1] + sigma2**2)
    expected = (mean[0] - mean[1]) ** 2 + sum(variance) - spread
    expected += sigma2 * (1 - math.log(2 * sigma2)) + sigma2 * math.log(spread + sigma2)
    assert solution.regularized_cost.item() == pytest.approx(expected, rel=1e-7)


def test_one_dimension_is_sorting_when_epsilon_is_small(make_clouds):
    x, y, _, _ = make_clouds(n=20, m=20, d=1)
    solution = ot.sinkhorn(ot.PointCloud(x, y), epsilon=1e-4, max_iterations=50_000)
    expected = (x.sort(0).values - y.sort(0).values).square().mean()
    torch.testing.assert_close(solution.cost, expected, rtol=1e-3, atol=0)
    assert torch.equal(solution.top(1).index[x[:, 0].argsort(), 0], y[:, 0].argsort())


def test_large_epsilon_gives_the_product(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=1e6)
    torch.testing.assert_close(solution.plan, torch.outer(a, b), rtol=1e-4, atol=0)


# --------------------------------------------------------------------------------------------------------------- peers


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02])
def test_balanced_agrees_with_pot(make_clouds, cost, epsilon):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y, cost), a, b, epsilon=epsilon, **TIGHT)
    matrix = ot.PointCloud(x, y, cost).matrix().cpu().numpy()
    absolute = solution.epsilon_absolute.item()
    assert absolute == pytest.approx(epsilon * a.cpu().numpy() @ matrix @ b.cpu().numpy())
    expected = pot.bregman.sinkhorn_log(a.cpu().numpy(), b.cpu().numpy(), matrix, absolute, 1_000_000, 1e-13)
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-8)
    assert solution.cost.item() == pytest.approx((expected * matrix).sum(), rel=1e-7)
    value = objective(expected, matrix, a.cpu().numpy(), b.cpu().numpy(), absolute)
    assert solution.regularized_cost.item() == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("taus", [(0.9, 0.9), (0.5, 0.95), (1.0, 0.7), (0.99, 1.0)])
@pytest.mark.parametrize("masses", [(1.0, 1.0), (2.0, 0.5)])
def test_unbalanced_agrees_with_pot(make_clouds, taus, masses):
    x, y, a, b = make_clouds()
    a, b, epsilon = masses[0] * a, masses[1] * b, 0.1
    matrix = ot.PointCloud(x, y).matrix()
    matrix = (matrix / matrix.mean()).cpu().numpy()
    geometry = ot.CostMatrix(torch.from_numpy(matrix).to(a))
    solution = ot.sinkhorn(geometry, a, b, epsilon=epsilon, scale_cost=None, tau_a=taus[0], tau_b=taus[1], **TIGHT)
    rhos = tuple(math.inf if tau == 1 else epsilon * tau / (1 - tau) for tau in taus)
    a, b = a.cpu().numpy(), b.cpu().numpy()
    expected = pot.unbalanced.sinkhorn_unbalanced(
        a, b, matrix, epsilon, rhos, method="sinkhorn_stabilized", numItermax=1_000_000, stopThr=1e-14
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-7)
    value = objective(expected, matrix, a, b, epsilon, *(None if math.isinf(r) else r for r in rhos))
    assert solution.regularized_cost.item() == pytest.approx(value, rel=1e-6)


def test_small_epsilon_approaches_exact_transport(make_clouds):
    x, y, a, b = make_clouds()
    exact = pot.emd2(a.cpu().numpy(), b.cpu().numpy(), ot.PointCloud(x, y).matrix().cpu().numpy())
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=1e-3, tolerance=1e-6, max_iterations=200_000)
    assert solution.cost.item() == pytest.approx(exact, rel=2e-3)
    assert solution.regularized_cost.item() >= exact


# ---------------------------------------------------------------------------------------------------------- properties


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.02, 0.2, 1.0]), st.integers(0, 10_000))
def test_marginals_lower_bound_and_permutation(n, m, epsilon, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, 2, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.05 for k in (n, m))
    a, b = a / a.sum(), b / b.sum()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=epsilon, tolerance=1e-8, max_iterations=100_000)
    error = (solution.plan.sum(1) - a).abs().sum() + (solution.plan.sum(0) - b).abs().sum()
    torch.testing.assert_close(error, solution.marginal_error, rtol=1e-5, atol=1e-13)
    assert error <= 1e-8
    assert solution.regularized_cost >= solution.cost - 1e-9
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    shuffled = ot.sinkhorn(
        ot.PointCloud(x[rows], y[columns]), a[rows], b[columns], epsilon=epsilon, tolerance=1e-8, max_iterations=100_000
    )
    torch.testing.assert_close(shuffled.plan, solution.plan[rows][:, columns], rtol=0, atol=1e-6)


def test_translation_and_scale(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT)
    moved = ot.sinkhorn(ot.PointCloud(10 * x + 7, 10 * y + 7), a, b, **TIGHT)
    torch.testing.assert_close(moved.plan, solution.plan)
    torch.testing.assert_close(moved.cost, 100 * solution.cost)
    torch.testing.assert_close(moved.regularized_cost, 100 * solution.regularized_cost)


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_duplicating_a_point_splits_its_mass(make_clouds, tau):
    x, y, a, b = make_clouds()
    split = torch.cat([a[:1] / 2, a[:1] / 2, a[1:]])
    once = ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=tau, tau_b=tau, **TIGHT)
    twice = ot.sinkhorn(ot.PointCloud(torch.cat([x[:1], x]), y), split, b, tau_a=tau, tau_b=tau, **TIGHT)
    torch.testing.assert_close(twice.plan[:2].sum(0), once.plan[0])
    torch.testing.assert_close(twice.regularized_cost, once.regularized_cost)


@pytest.mark.parametrize("tau", [1.0, 0.8])
@pytest.mark.parametrize("scale_cost", ["mean", "max"])
def test_points_of_weight_zero_count_as_absent(make_clouds, tau, scale_cost):
    x, y, a, b = make_clouds()
    far = torch.full((2, 3), 1e3, device=x.device, dtype=x.dtype)
    x_more, y_more = torch.cat([far, x]).requires_grad_(), torch.cat([y, far])
    a_more, b_more = torch.cat([a.new_zeros(2), a]), torch.cat([b, b.new_zeros(2)])
    options = {"tau_a": tau, "tau_b": tau, "scale_cost": scale_cost, **TIGHT}
    few = ot.sinkhorn(ot.PointCloud(x, y), a, b, **options)
    more = ot.sinkhorn(ot.PointCloud(x_more, y_more), a_more, b_more, **options)
    torch.testing.assert_close(more.plan[2:, :-2], few.plan)
    # They do not disturb the iteration either (but for one look at the error more or less).
    assert abs(more.n_iterations - few.n_iterations) <= 5
    assert more.plan[:2].abs().sum() == more.plan[:, -2:].abs().sum() == 0
    torch.testing.assert_close(more.regularized_cost, few.regularized_cost)
    assert torch.isfinite(more.barycenter(y_more)).all()
    more.regularized_cost.backward()
    assert (x_more.grad[:2] == 0).all()
    assert torch.isfinite(x_more.grad).all()


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_potential_of_an_absent_point_is_that_of_a_vanishing_mass(make_clouds, tau):
    x, y, a, b = make_clouds()
    options = {"scale_cost": 1.0, "epsilon": 0.5, "tau_a": tau, "tau_b": tau, **TIGHT}
    absent = ot.sinkhorn(ot.PointCloud(x, y), torch.cat([0 * a[:1], a[1:] / a[1:].sum()]), b, **options)
    weights = torch.cat([0 * a[:1] + 1e-9, a[1:] / a[1:].sum() * (1 - 1e-9)])
    vanishing = ot.sinkhorn(ot.PointCloud(x, y), weights, b, **options)
    gap = vanishing.f - absent.f
    torch.testing.assert_close(gap, gap[1].expand_as(gap), rtol=0, atol=1e-6)
    torch.testing.assert_close(absent.barycenter(y), vanishing.barycenter(y), rtol=1e-6, atol=1e-7)


def test_masses_that_differ_by_rounding_are_matched(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, (1 + 5e-5) * b, tolerance=1e-8, max_iterations=20_000)
    torch.testing.assert_close(solution.b, b)
    assert solution.converged


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_batch_is_a_loop(make_clouds, tau):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(4)]
    x, y, a, b = (torch.stack(tensors).unflatten(0, (2, 2)) for tensors in zip(*problems, strict=True))
    batch = ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=tau, tau_b=tau, **TIGHT)
    assert batch.converged
    for k, (x, y, a, b) in enumerate(problems):
        one, at = ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=tau, tau_b=tau, **TIGHT), divmod(k, 2)
        torch.testing.assert_close(batch.plan[at], one.plan)
        torch.testing.assert_close(batch.cost[at], one.cost)
        torch.testing.assert_close(batch.regularized_cost[at], one.regularized_cost)
        torch.testing.assert_close(batch.epsilon_absolute[at], one.epsilon_absolute)
        assert batch.marginal_error[at] <= batch.tolerance


def test_single_precision_agrees_with_double(make_clouds):
    x, y, a, b = make_clouds(n=80, m=70)
    double = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=0.02, tolerance=1e-5)
    single = ot.sinkhorn(ot.PointCloud(x.float(), y.float()), a.float(), b.float(), epsilon=0.02, tolerance=1e-5)
    assert single.plan.dtype == torch.float32
    torch.testing.assert_close(single.cost.double(), double.cost, rtol=1e-4, atol=0)
    torch.testing.assert_close(single.regularized_cost.double(), double.regularized_cost, rtol=1e-5, atol=0)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_units_of_the_cost_do_not_matter(make_clouds, factor):
    x, y, a, b = make_clouds(dtype=torch.float32)
    matrix = ot.PointCloud(x, y).matrix()
    solution, scaled = (ot.sinkhorn(ot.CostMatrix(c), a, b) for c in (matrix, factor * matrix))
    torch.testing.assert_close(scaled.plan, solution.plan, rtol=1e-3, atol=1e-6)


def test_autocast_changes_nothing(make_clouds, device):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    plain = ot.sinkhorn(ot.PointCloud(x, y))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ot.sinkhorn(ot.PointCloud(x, y))
        assert torch.equal(inside.plan, plain.plan)
        assert torch.equal(inside.barycenter(y), plain.barycenter(y))
        assert torch.equal(inside.map(x), plain.map(x))
        assert torch.equal(inside.apply(y), plain.apply(y))
    assert torch.equal(inside.regularized_cost, plain.regularized_cost)


def test_an_earlier_coupling_is_a_start(make_clouds):
    x, y, a, b = make_clouds()
    options = {"epsilon": 0.02, "tolerance": 1e-6, "max_iterations": 20_000}
    cold = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y), a, b, **options)
    near = ot.PointCloud(x + 1e-4, y)
    warm = ot.sinkhorn(near, a, b, init=cold, **options)
    pair = ot.sinkhorn(near, a, b, init=(cold.f, cold.g), **options)
    assert warm.n_iterations == pair.n_iterations < cold.n_iterations / 2
    torch.testing.assert_close(warm.cost, cold.cost, rtol=1e-2, atol=0)


def test_potentials_share_the_dual_value_equally(make_clouds):
    x, y, a, b = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT)
    torch.testing.assert_close(a @ solution.f, b @ solution.g)
    torch.testing.assert_close(a @ solution.f + b @ solution.g, solution.regularized_cost)
