"""Unbalanced, semi-relaxed and partial Gromov-Wasserstein: definitions, stationarity, limits, gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from labkit import ot

TAUS = {"tau_a": 0.8, "tau_b": 0.9}
UNBALANCED = partial(ot.unbalanced_gromov_wasserstein, **TAUS)
SEMIRELAXED = ot.semirelaxed_gromov_wasserstein
PARTIAL = partial(ot.partial_gromov_wasserstein, mass=0.6)
VARIANTS = pytest.mark.parametrize(
    "solve", [UNBALANCED, SEMIRELAXED, PARTIAL], ids=["unbalanced", "semirelaxed", "partial"]
)


def space(x, cost="euclidean"):
    return ot.PointCloud(x, x, cost)


def kl(p, q):
    return (torch.special.xlogy(p, p / q) - p + q).sum()


def quadratic_kl(p, q):
    """KL(p x p | q x q) by its definition."""
    p, q = p.flatten(), q.flatten()
    return kl(torch.outer(p, p), torch.outer(q, q))


def value(dx, dy, fused, alpha, plan):
    gap = dx[:, None, :, None] - dy[None, :, None, :]
    structure = torch.einsum("ijkl,ij,kl->", gap**2, plan, plan)
    return alpha * structure + (1 - alpha) * (fused * plan).sum()


def regularizer(solve, a, b, epsilon, plan):
    if solve is UNBALANCED:
        rho_a, rho_b = (epsilon * tau / (1 - tau) for tau in TAUS.values())
        divergence = epsilon * quadratic_kl(plan, torch.outer(a, b))
        divergence = divergence + rho_a * quadratic_kl(plan.sum(1), a) + rho_b * quadratic_kl(plan.sum(0), b)
        return divergence / 2
    entropy = kl(plan, torch.outer(a, b))
    if solve is PARTIAL:
        entropy = entropy + kl(a - plan.sum(1), 0.4 * a) + kl(b - plan.sum(0), 0.4 * b)
    return epsilon * entropy


@VARIANTS
def test_values_are_those_of_the_definition_and_stationary(make_clouds, solve):
    x, y, a, b = make_clouds(n=9, m=7)
    dx, dy, fused = space(x).matrix(), space(y).matrix(), ot.PointCloud(x, y).matrix()
    alpha, epsilon = 0.7, 0.3
    solution = solve(
        ot.CostMatrix(dx),
        ot.CostMatrix(dy),
        a,
        b,
        epsilon=epsilon,
        scale_cost=None,
        fused_cost=fused,
        alpha=alpha,
        tolerance=1e-9,
        max_iterations=2000,
    )
    plan = solution.plan.requires_grad_()
    cost = value(dx, dy, fused, alpha, plan)
    objective = cost + regularizer(solve, a, b, epsilon, plan)
    torch.testing.assert_close(solution.cost, cost.detach())
    torch.testing.assert_close(solution.regularized_cost, objective.detach(), rtol=1e-6, atol=1e-8)
    (gradient,) = torch.autograd.grad(objective, plan)
    if solve is UNBALANCED:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)
        return
    # At a stationary point inside the set, the gradient is constant along every feasible direction.
    if solve is SEMIRELAXED:
        torch.testing.assert_close(plan.sum(1).detach(), a)
        directions = torch.outer(a, b) - plan.detach()
    else:
        torch.testing.assert_close(plan.sum().item(), 0.6, rtol=0, atol=1e-8)
        assert ((plan.sum(1) <= a + 1e-9) & (plan.sum(0)[0] <= b[0] + 1e-9)).all()
        directions = 0.6 * torch.outer(a, b) - plan.detach()
    assert abs(float((gradient * directions).sum())) < 1e-6


@pytest.mark.parametrize("method", ["entropic", "proximal"])
def test_semirelaxed_never_rises_and_proximal_ends_lower(make_clouds, method):
    x, y, a, _ = make_clouds(n=20, m=15)
    product = ot.semirelaxed_gromov_wasserstein(space(x), space(y), a, epsilon=100.0)
    solution = ot.semirelaxed_gromov_wasserstein(
        space(x), space(y), a, epsilon=0.05, method=method, init_plan=product.plan, max_iterations=2000
    )
    assert solution.cost < product.cost
    if method == "proximal":
        assert (solution.plan.amax(1) > 0.98 * a).double().mean() > 0.8
        torch.testing.assert_close(solution.regularized_cost, solution.cost)


def test_fixed_marginals_give_the_balanced_problem(make_clouds):
    x, y, a, b = make_clouds(n=15, m=12)
    options = {"epsilon": 0.2, "tolerance": 1e-7, "fused_cost": ot.PointCloud(x, y).matrix()}
    balanced = ot.gromov_wasserstein(space(x), space(y), a, b, **options)
    unbalanced = ot.unbalanced_gromov_wasserstein(space(x), space(y), a, b, tau_a=1.0, tau_b=1.0, **options)
    whole = ot.partial_gromov_wasserstein(space(x), space(y), a, b, mass=1.0, **options)
    for solution in (unbalanced, whole):
        torch.testing.assert_close(solution.plan, balanced.plan, rtol=0, atol=1e-6)
        torch.testing.assert_close(solution.regularized_cost, balanced.regularized_cost, rtol=1e-6, atol=0)
    half = ot.unbalanced_gromov_wasserstein(space(x), space(y), a, b, tau_a=1.0, tau_b=0.5, **options)
    torch.testing.assert_close(half.plan.sum(1), a, rtol=0, atol=1e-6)
    assert (half.plan.sum(0) - b).abs().sum() > 0.01


@VARIANTS
def test_an_outlier_has_no_part(make_clouds, solve):
    x, _, _, _ = make_clouds(n=16)
    y = torch.cat([x.new_full((1, 3), 12.0), x.flip(0)])
    options = {"mass": 15 / 16} if solve is PARTIAL else {}
    solution = solve(space(x), space(y), epsilon=0.01, scale_cost=None, max_iterations=1000, **options)
    received = solution.plan.sum(0)
    assert received[0] < 0.02 * received.max()


@VARIANTS
def test_gradient_is_that_of_finite_differences(make_clouds, solve):
    x, y, a, b = make_clouds(n=5, m=4, d=2)
    inputs = [space(x).matrix(), space(y).matrix(), ot.PointCloud(x, y).matrix()]

    def found(dx, dy, fused):
        options = {"epsilon": 1.0, "scale_cost": None, "tolerance": 1e-9, "max_iterations": 1000}
        return solve(ot.CostMatrix(dx), ot.CostMatrix(dy), a, b, fused_cost=fused, **options).regularized_cost

    leaves = [t.clone().requires_grad_() for t in inputs]
    gradients = torch.autograd.grad(found(*leaves), leaves)
    for k, gradient in enumerate(gradients):
        direction = torch.cos(torch.arange(inputs[k].numel()).to(x) ** 2).reshape(inputs[k].shape)
        # Distances stay symmetric.
        direction = direction if k == 2 else direction + direction.mT
        steps = [inputs[:k] + [inputs[k] + t * direction] + inputs[k + 1 :] for t in (1e-4, -1e-4)]
        difference = (found(*steps[0]) - found(*steps[1])) / 2e-4
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-4, atol=1e-7)


@VARIANTS
def test_gradient_by_factors_is_the_dense_one(make_clouds, solve):
    x, y, a, b = make_clouds(n=16, m=14, d=2)
    gradients = []
    for dense in (False, True):
        points = [t.detach().requires_grad_() for t in (x, y)]
        geometries = [space(p, "sqeuclidean") for p in points]
        if dense:
            geometries = [ot.CostMatrix(g.matrix()) for g in geometries]
        options = {"scale_cost": None, "epsilon": 2.0, "tolerance": 1e-8, "max_iterations": 1000}
        solution = solve(*geometries, a, b, **options)
        gradients.append(torch.autograd.grad(solution.regularized_cost, points))
    for factorized, full in zip(*gradients, strict=True):
        torch.testing.assert_close(factorized, full, rtol=1e-4, atol=1e-6)


@VARIANTS
def test_batch_is_a_loop(make_clouds, solve):
    problems = [make_clouds(n=10, m=8, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    options = {"epsilon": 0.3, "tolerance": 1e-8, "max_iterations": 1000}
    batch = solve(space(x), space(y), a, b, **options)
    for k, (x, y, a, b) in enumerate(problems):
        one = solve(space(x), space(y), a, b, **options)
        torch.testing.assert_close(batch.plan[k], one.plan, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(batch.regularized_cost[k], one.regularized_cost, rtol=1e-6, atol=1e-9)


@VARIANTS
def test_points_of_weight_zero_count_as_absent(make_clouds, solve):
    x, y, a, b = make_clouds(n=12, m=10)
    options = {"epsilon": 0.3, "tolerance": 1e-8, "max_iterations": 1000}
    few = solve(space(x), space(y), a, b, **options)
    far, none = x.new_full((2, 3), 50.0), a.new_zeros(2)
    more = solve(
        space(torch.cat([far, x])), space(torch.cat([y, far])), torch.cat([none, a]), torch.cat([b, none]), **options
    )
    torch.testing.assert_close(more.plan[2:, :-2], few.plan, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(more.cost, few.cost, rtol=1e-6, atol=0)
    torch.testing.assert_close(more.regularized_cost, few.regularized_cost, rtol=1e-6, atol=0)


@VARIANTS
def test_single_precision_and_autocast(make_clouds, solve, device):
    x, y, a, b = make_clouds(n=12, m=10)
    exact = solve(space(x), space(y), a, b, epsilon=0.3, tolerance=1e-4)
    rough = solve(*(space(p.float()) for p in (x, y)), a.float(), b.float(), epsilon=0.3, tolerance=1e-4)
    assert rough.plan.dtype == torch.float32
    torch.testing.assert_close(rough.plan.double(), exact.plan, rtol=0, atol=1e-4)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = solve(*(space(p.float()) for p in (x, y)), a.float(), b.float(), epsilon=0.3, tolerance=1e-4)
    assert torch.equal(inside.plan, rough.plan)


@VARIANTS
def test_exhausted_steps_are_said_at_the_caller(make_clouds, solve):
    x, y, _, _ = make_clouds()
    with pytest.warns(ot.NotConvergedWarning, match="did not settle to tolerance=1e-06 in max_iterations=2") as caught:
        solution = solve(space(x), space(y), max_iterations=2, tolerance=1e-6)
    assert not solution.converged
    assert solution.n_iterations == 2
    assert torch.isfinite(solution.plan).all()
    assert caught[0].filename == __file__


@VARIANTS
def test_hostile_input(make_clouds, solve):
    x, y, a, b = make_clouds()
    with pytest.raises(ValueError, match="alpha=2 must be"):
        solve(space(x), space(y), alpha=2, fused_cost=ot.PointCloud(x, y).matrix())
    with pytest.raises(ValueError, match="epsilon=0 must be positive"):
        solve(space(x), space(y), epsilon=0)
    with pytest.raises(ValueError, match=r"fused_cost has shape \(25, 30\), expected \(30, 25\)"):
        solve(space(x), space(y), fused_cost=ot.PointCloud(y, x).matrix())
    with pytest.raises(ValueError, match="init_plan has no mass"):
        solve(space(x), space(y), init_plan=torch.zeros(30, 25).to(x))
    with pytest.raises(ValueError, match="not symmetric|one space with itself"):
        solve(space(x), ot.PointCloud(x, y))
    with pytest.raises(ValueError, match="NaN or infinite"):
        solve(space(x), space(y), a * float("inf"), b)
    with pytest.raises(ValueError, match="is empty"):
        solve(space(x), space(y[:0]))
    with pytest.raises(ValueError, match="max_iterations=0 must be"):
        solve(space(x), space(y), max_iterations=0)


@pytest.mark.parametrize("mass", [0.0, -1.0, 1.01, float("nan"), float("inf")])
def test_partial_refuses_an_impossible_mass(make_clouds, mass):
    x, y, a, b = make_clouds()
    with pytest.raises(ValueError, match=r"must be in \(0, 1\]: no more can move than either side has"):
        ot.partial_gromov_wasserstein(space(x), space(y), a, 2 * b, mass=mass)


@pytest.mark.parametrize("tau", [0.5, 0.95])
def test_a_plan_without_mass_is_said(make_clouds, tau):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="[Rr]aise epsilon"):
        ot.unbalanced_gromov_wasserstein(space(x), space(y), epsilon=1e-5, tau_a=tau, tau_b=tau)


@VARIANTS
def test_degenerate_spaces(make_clouds, solve):
    x, y, _, _ = make_clouds()
    for points in (x[:1], x[:1].expand(5, -1)):
        solution = solve(space(points.clone()), space(y), epsilon=0.3, max_iterations=1000)
        assert torch.isfinite(solution.plan).all()
        assert torch.isfinite(solution.cost)
    for scale in (1e-30, 1e30):
        solution = solve(space(scale * x), space(y), epsilon=0.3, max_iterations=1000)
        assert torch.isfinite(solution.plan).all()
        assert solution.converged
