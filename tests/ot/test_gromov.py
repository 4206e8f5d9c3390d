"""Entropic Gromov-Wasserstein against brute force, POT and isometric copies."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings, strategies

from labkit import ot
from labkit.ot.gromov import descend

COSTS = ["euclidean", "sqeuclidean"]


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
    with pytest.raises(ValueError, match="method='exact' is unknown"):
        ot.gromov_wasserstein(good, space(y), method="exact")
    with pytest.raises(ValueError, match="tolerance=0 must be positive"):
        ot.gromov_wasserstein(good, space(y), tolerance=0)
    with pytest.raises(ValueError, match="max_iterations=0 must be at least 1"):
        ot.gromov_wasserstein(good, space(y), max_iterations=0)


@pytest.mark.parametrize("steps", [1, 4, 15])
def test_proximal_steps_are_those_of_pot(make_clouds, steps):
    x, y, a, b = make_clouds(n=20, m=15)
    dx, dy = (space(z).matrix() / space(z).matrix().mean() for z in (x, y))
    start = torch.outer(a, b)  # From here there is no annealing, as in POT.
    with pytest.warns(ot.NotConvergedWarning):
        solution = ot.gromov_wasserstein(
            *(ot.CostMatrix(d) for d in (dx, dy)),
            *(a, b),
            epsilon=0.5,
            scale_cost=None,
            method="proximal",
            init_plan=start,
            tolerance=1e-9,
            max_iterations=steps,
        )
    arrays = (t.cpu().numpy() for t in (dx, dy, a, b))
    expected = pot.gromov.entropic_gromov_wasserstein(
        *arrays, epsilon=0.5, solver="PPA", tol=0, max_iter=steps, stopThr=1e-12
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-4)  # Inner problems are solved to 1e-3 at first.
    assert torch.equal(solution.regularized_cost, solution.cost)


def test_proximal_plan_has_no_entropy(copies):
    x, y, order = copies
    solution = ot.gromov_wasserstein(space(x), space(y), epsilon=0.05, method="proximal")
    truth = torch.zeros(15, 15, dtype=x.dtype, device=x.device)
    truth[torch.arange(15), order] = 1 / 15
    torch.testing.assert_close(solution.plan, truth, atol=1e-3, rtol=0)
    assert solution.cost < 1e-3


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("epsilon", [0.1, 0.02])
def test_objective_is_not_above_that_of_pot(make_clouds, cost, epsilon):
    x, y, _, _ = make_clouds(n=40, m=40, d=5)
    dx, dy = (space(z, cost).matrix() / space(z, cost).matrix().mean() for z in (x, y))
    ours = ot.gromov_wasserstein(space(x, cost), space(y, cost), epsilon=epsilon, tolerance=1e-6, max_iterations=2000)
    absolute = float(ours.epsilon_absolute)
    theirs = torch.as_tensor(
        pot.gromov.entropic_gromov_wasserstein(
            dx.cpu().numpy(), dy.cpu().numpy(), epsilon=absolute, max_iter=300, warn=False
        )
    ).to(dx)
    uniform = torch.full((40,), 1 / 40, dtype=x.dtype, device=x.device)
    value = brute_force(dx, dy, theirs)
    value = value + absolute * torch.special.xlogy(theirs, theirs / torch.outer(uniform, uniform)).sum()
    assert ours.regularized_cost <= value + 1e-4


def test_factorized_is_dense(make_clouds):
    x, y, a, b = make_clouds(n=40, m=30)
    fused = torch.rand(40, 30, dtype=x.dtype, device=x.device)
    for cost in ("sqeuclidean", "cosine"):
        factorized = space(x, cost), space(y, cost)
        dense = [ot.CostMatrix(geometry.matrix()) for geometry in factorized]
        mixed = factorized[0], dense[1]
        options = {"epsilon": 0.1, "fused_cost": fused, "alpha": 0.8, "tolerance": 1e-7, "max_iterations": 2000}
        first, *others = (ot.gromov_wasserstein(*pair, a, b, **options) for pair in (factorized, dense, mixed))
        assert first.spaces.x.factor is not None
        for other in others:
            torch.testing.assert_close(other.plan, first.plan, rtol=1e-3, atol=1e-8)
            torch.testing.assert_close(other.regularized_cost, first.regularized_cost, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", [lambda z: space(z, "sqeuclidean"), lambda z: space(z, "cosine"), ot.InnerProduct])
def test_gradient_in_the_coordinates_is_that_of_finite_differences(make_clouds, make):
    x, y, a, b = make_clouds(n=10, m=9, d=2)

    def value(x, y):
        options = {"epsilon": 3.0, "scale_cost": None, "tolerance": 1e-8, "max_iterations": 2000}
        solution = ot.gromov_wasserstein(make(x), make(y), a, b, **options)
        assert solution.spaces.x.factor is not None
        return solution.regularized_cost

    inputs = tuple(t.detach().requires_grad_() for t in (x, y))
    assert torch.autograd.gradcheck(value, inputs, eps=1e-4, rtol=1e-4, atol=1e-6)


def test_truncated_distances_say_how_far_off_they_are(make_clouds):
    x, y, a, b = make_clouds(n=60, m=50, d=5)
    geometries = space(x), space(y)
    exact = [z.matrix() / (w @ z.matrix() @ w) for z, w in zip(geometries, (a, b), strict=True)]
    for rank in (3, 20):
        solution = ot.gromov_wasserstein(*geometries, a, b, epsilon=0.02, rank=rank)
        assert solution.spaces.x.core.shape == (rank, rank)
        truth = brute_force(*exact, solution.plan)
        assert 0 < (truth.sqrt() - solution.cost.sqrt()).abs() <= 1.01 * solution.approximation_error
    # With nearly all of the distances kept, nearly the same is found.
    full = ot.gromov_wasserstein(*geometries, a, b, epsilon=0.02)
    assert full.approximation_error == 0
    assert solution.approximation_error < 0.1
    torch.testing.assert_close(solution.cost, full.cost, rtol=0.05, atol=0)


def test_gradient_with_truncated_distances_is_nearly_that_with_all(make_clouds):
    x, y, a, b = make_clouds(n=50, m=40)
    gradients = []
    for rank in (None, 30):
        points = x.clone().requires_grad_()
        solution = ot.gromov_wasserstein(space(points), space(y), a, b, epsilon=0.1, rank=rank, tolerance=1e-6)
        gradients.append(torch.autograd.grad(solution.regularized_cost, points)[0])
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


def test_second_derivatives_are_refused(make_clouds):
    x, y, a, b = make_clouds(n=20, m=15)
    points = x.clone().requires_grad_()
    value = ot.gromov_wasserstein(space(points, "sqeuclidean"), space(y), a, b, epsilon=0.2).regularized_cost
    gradient = torch.autograd.grad(value, points, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()


@pytest.mark.parametrize("method", ["entropic", "proximal"])
def test_gaussians_have_the_known_optimum(device, generator, method):
    # For centered Gaussians with inner products the optimum is sum (lambda_i - mu_i)^2 over the sorted eigenvalues of
    # the covariances (Delon, Desolneux, Salmona 2022, J. Appl. Prob. 59). A linear image of a sample attains it.
    n, dtype = 100, torch.float64
    z = torch.randn(n, 3, generator=generator, dtype=dtype)
    z = z - z.mean(0)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T @ z / n), z.T, upper=False).T
    first, second = torch.tensor([3.0, 1.5, 0.5], dtype=dtype), torch.tensor([2.0, 1.0, 0.0], dtype=dtype)
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=dtype)).Q
    x, y = z * first.sqrt(), (z * second.sqrt())[torch.randperm(n, generator=generator), :2] @ rotation
    solution = ot.gromov_wasserstein(
        ot.InnerProduct(x.to(device)),
        ot.InnerProduct(y.to(device)),
        epsilon=0.02,
        scale_cost=None,
        method=method,
        n_starts=3,
        max_iterations=1000,
    )
    optimum = (first - second).square().sum()
    assert solution.converged
    assert optimum - 1e-3 <= solution.cost.cpu() <= optimum + 0.01
    assert solution.lower_bound <= optimum + 1e-6


@settings(max_examples=8, deadline=None)
@given(seed=strategies.integers(0, 1000), factor=strategies.floats(1e-3, 1e3), cost=strategies.sampled_from(COSTS))
def test_laws(seed, factor, cost):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (16, 14))
    options = {"epsilon": 0.3, "tolerance": 1e-7, "max_iterations": 3000}
    solution = ot.gromov_wasserstein(space(x, cost), space(y, cost), **options)
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(16, generator=generator)
    moved = ot.gromov_wasserstein(space((x @ rotation + 3)[order], cost), space(factor * y, cost), **options)
    torch.testing.assert_close(moved.regularized_cost, solution.regularized_cost, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(moved.plan, solution.plan[order], rtol=1e-3, atol=1e-7)
    swapped = ot.gromov_wasserstein(space(y, cost), space(x, cost), **options)
    torch.testing.assert_close(swapped.regularized_cost, solution.regularized_cost, rtol=1e-6, atol=1e-8)


def test_single_precision_reaches_its_gate(make_clouds):
    x, y, _, _ = make_clouds(n=60, m=60, dtype=torch.float32)
    solution = ot.gromov_wasserstein(space(x, "sqeuclidean"), space(y, "sqeuclidean"), epsilon=0.02, tolerance=5e-4)
    assert solution.converged
    assert solution.plan.dtype == torch.float32
    assert (solution.plan.sum(1) - 1 / 60).abs().sum() + (solution.plan.sum(0) - 1 / 60).abs().sum() < 1e-4


def test_objective_that_bends_upwards_settles(device):
    # Random symmetric matrices are no distances: G is convex along some directions, and going all the way to the
    # solution of each linearized problem runs in cycles.
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(20, 20, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    geometries = ot.CostMatrix((x + x.T).abs()), ot.CostMatrix((y + y.T).abs())
    solution = ot.gromov_wasserstein(*geometries, epsilon=0.02, max_iterations=1000, tolerance=1e-5)
    assert solution.converged
    assert (solution.marginal_error <= 1e-6).all()
