"""Laws of transport that every solver has to obey, and solutions that are known in closed form.

`VALUES` are functions (x, y, a, b) -> value; what changes their arguments in a known way changes the value in a known
way. The closed forms are those of Gaussian measures and of maps that are gradients of convex functions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import ot

TIGHT = {"tolerance": 1e-9, "max_iterations": 50_000}


def sliced(x, y, a, b):
    return ot.sliced_wasserstein(x, y, a, b, generator=torch.Generator().manual_seed(1), n_projections=11).value


VALUES = {
    "sinkhorn": lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT).regularized_cost,
    "relaxed": lambda x, y, a, b: (
        ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=0.8, tau_b=0.8, **TIGHT).regularized_cost
    ),
    "divergence": lambda x, y, a, b: ot.sinkhorn_divergence(x, y, a, b, **TIGHT),
    "exact": lambda x, y, a, b: ot.exact(ot.PointCloud(x, y), a, b).cost,
    "sliced": sliced,
}
PLANS = {
    "sinkhorn": lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT).plan,
    "relaxed": lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=0.8, tau_b=0.8, **TIGHT).plan,
    "exact": lambda x, y, a, b: ot.exact(ot.PointCloud(x, y), a, b).plan,
}
over_values = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
over_plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
problems = given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10_000))
few = settings(max_examples=8, deadline=None)


def drawn(n, m, d, seed):
    """Two clouds with random weights of total 1, and the generator for whatever else the law needs."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.05 for k in (n, m))
    return (x, 0.8 * y + 0.3, a / a.sum(), b / b.sum()), generator


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


# --------------------------------------------------------------------------------------------------------- invariances


@over_values
@few
@problems
def test_both_sides_may_be_exchanged(value, n, m, d, seed):
    (x, y, a, b), _ = drawn(n, m, d, seed)
    close(value(y, x, b, a), value(x, y, a, b))


@over_values
@few
@problems
def test_a_common_shift_changes_nothing_and_a_scale_squares(value, n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    shift = 10 * torch.randn(d, generator=generator, dtype=torch.float64)
    close(value(3 * x + shift, 3 * y + shift, a, b), 9 * value(x, y, a, b))


@pytest.mark.parametrize("name", ["sinkhorn", "relaxed", "divergence", "exact"])
@few
@problems
def test_a_common_rotation_changes_nothing(name, n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    value = VALUES[name]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    close(value(x @ rotation, y @ rotation, a, b), value(x, y, a, b))


@over_values
@few
@problems
def test_the_order_of_points_does_not_matter(value, n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    close(value(x[rows], y[columns], a[rows], b[columns]), value(x, y, a, b))


@over_values
@few
@problems
def test_a_point_may_be_split_into_copies(value, n, m, d, seed):
    (x, y, a, b), _ = drawn(n, m, d, seed)
    split = torch.cat([0.3 * a[:1], 0.7 * a[:1], a[1:]])
    close(value(torch.cat([x[:1], x]), y, split, b), value(x, y, a, b))


@over_values
@few
@problems
def test_points_without_weight_are_not_there(value, n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    more = torch.cat([y, 100 * torch.randn(2, d, generator=generator, dtype=torch.float64)])
    close(value(x, more, a, torch.cat([b, b.new_zeros(2)])), value(x, y, a, b))


@over_plans
@few
@problems
def test_plans_follow_their_points(plan, n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    rows, columns = torch.randperm(n, generator=generator), torch.randperm(m, generator=generator)
    shuffled = plan(x[rows], y[columns], a[rows], b[columns])
    torch.testing.assert_close(shuffled, plan(x, y, a, b)[rows][:, columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize("plan", [PLANS["sinkhorn"], PLANS["exact"]], ids=["sinkhorn", "exact"])
@few
@problems
def test_mass_multiplies_the_plan_and_marginals_are_met(plan, n, m, d, seed):
    (x, y, a, b), _ = drawn(n, m, d, seed)
    heavy = plan(x, y, 7 * a, 7 * b)
    torch.testing.assert_close(heavy, 7 * plan(x, y, a, b), rtol=0, atol=1e-6)
    torch.testing.assert_close(heavy.sum(1), 7 * a, rtol=0, atol=1e-7)
    torch.testing.assert_close(heavy.sum(0), 7 * b, rtol=0, atol=1e-7)


# -------------------------------------------------------------------------------------------------------- inequalities


@few
@problems
def test_exact_transport_lies_below_all_plans_and_above_its_shadows(n, m, d, seed):
    (x, y, a, b), _ = drawn(n, m, d, seed)
    exact = VALUES["exact"](x, y, a, b)
    assert VALUES["sliced"](x, y, a, b) <= exact + 1e-12
    assert exact <= ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT).cost + 1e-8
    assert (x.mT @ a - y.mT @ b).square().sum() <= exact + 1e-12


@few
@problems
def test_the_root_of_exact_transport_is_a_metric(n, m, d, seed):
    (x, y, a, b), generator = drawn(n, m, d, seed)
    z = torch.randn(5, d, generator=generator, dtype=torch.float64)
    distance = lambda *args: VALUES["exact"](*args).clamp_min(0).sqrt()
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    assert distance(x, y, a, b) <= distance(x, z, a, uniform) + distance(z, y, uniform, b) + 1e-9
    assert distance(x, x, a, a) < 1e-7


@pytest.mark.parametrize("value", [VALUES["divergence"], VALUES["sliced"]], ids=["divergence", "sliced"])
@few
@problems
def test_divergences_are_positive_and_vanish_for_equal_clouds(value, n, m, d, seed):
    (x, y, a, b), _ = drawn(n, m, d, seed)
    assert value(x, y, a, b) >= -1e-8
    assert value(x, x, a, a).abs() < 1e-8


@pytest.mark.parametrize("epsilon", [1e-1, 1e-2, 1e-3])
def test_entropic_transport_tends_to_the_exact_one(make_clouds, epsilon):
    x, y, a, b = make_clouds()
    exact = ot.exact(ot.PointCloud(x, y), a, b)
    entropic = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=epsilon, **TIGHT)
    # The plan of least cost pays at most log(1 / min a) more entropy than the product.
    bias = entropic.epsilon_absolute * math.log(1 / min(a.min().item(), b.min().item()))
    assert exact.cost <= entropic.cost <= entropic.regularized_cost + 1e-12
    assert entropic.regularized_cost <= exact.cost + bias


# -------------------------------------------------------------------------------------------------------- closed forms


def relaxed_gaussians(masses, means, variances, epsilon, taus):
    """Value and mass of the plan for Gaussians with diagonal covariances, from quadratic potentials.

    f(x) / epsilon = sum over axes of -F x^2 / 2 + f1 x, plus f0, solves the Sinkhorn equation together with g: the
    fixed point of Janati et al. 2020 (NeurIPS), theorem 3, whose value follows from the mass of the plan.
    """
    quadratic, linear, constant = [np.zeros(len(means[0]))] * 2, [np.zeros(len(means[0]))] * 2, [0.0, 0.0]
    for step in range(4000):
        mine, other = step % 2, 1 - step % 2
        mean, variance = means[other], variances[other]
        precision = quadratic[other] + 2 / epsilon + 1 / variance
        pull = linear[other] + mean / variance
        integral = -np.log(variance * precision) / 2 - mean**2 / (2 * variance) + pull**2 / (2 * precision)
        quadratic[mine] = 2 * taus[mine] * (2 / (epsilon**2 * precision) - 1 / epsilon)
        linear[mine] = -2 * taus[mine] * pull / (epsilon * precision)
        constant[mine] = -taus[mine] * (constant[other] + math.log(masses[other]) + integral.sum())
    ratio = (1 - taus[0]) / taus[0]
    precision = 1 / variances[0] - ratio * quadratic[0]
    pull = means[0] / variances[0] - ratio * linear[0]
    exponent = -np.log(variances[0] * precision) / 2 + pull**2 / (2 * precision) - means[0] ** 2 / (2 * variances[0])
    mass = masses[0] * math.exp(exponent.sum() - ratio * constant[0])
    rhos = [epsilon * tau / (1 - tau) for tau in taus]
    value = sum(rho * (m - mass) for rho, m in zip(rhos, masses, strict=True))
    return value - epsilon * (mass - masses[0] * masses[1]), mass


def gaussian_weights(grid, mass, mean, variance):
    """Weights of a Gaussian with diagonal covariance on a uniform grid: quadrature to rounding."""
    scaled = (grid - grid.new_tensor(mean)).square() / (2 * grid.new_tensor(variance))
    return mass * torch.softmax(-scaled.sum(-1), 0)


@pytest.mark.parametrize("taus", [(0.8, 0.8), (0.95, 0.6)])
@pytest.mark.parametrize("dimension", [1, 2])
def test_relaxed_gaussians_on_a_grid(device, taus, dimension):
    masses, epsilon = (1.3, 0.6), 0.7
    means = np.array([0.0, 0.2])[:dimension], np.array([1.0, -0.3])[:dimension]
    variances = np.array([1.0, 0.5])[:dimension], np.array([0.6, 0.8])[:dimension]
    axis = torch.linspace(-6, 7, 200 if dimension == 1 else 24, dtype=torch.float64, device=device)
    grid = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
    a, b = (gaussian_weights(grid, *measure) for measure in zip(masses, means, variances, strict=True))
    options = {"epsilon": epsilon, "scale_cost": None, "tau_a": taus[0], "tau_b": taus[1]}
    solution = ot.sinkhorn(ot.PointCloud(grid, grid), a, b, tolerance=1e-9, max_iterations=50_000, **options)
    value, mass = relaxed_gaussians(masses, means, variances, epsilon, taus)
    assert solution.plan.sum().item() == pytest.approx(mass, rel=1e-7)
    assert solution.regularized_cost.item() == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("epsilon", [0.7, 3.0])
def test_gaussians_in_the_plane_on_a_grid(device, epsilon):
    # Janati et al. 2020 (NeurIPS), theorem 1, for commuting covariances: the axes add up, but for the entropy's 1.
    variances = np.array([1.0, 0.5]), np.array([0.6, 0.8])
    means = np.array([0.0, 0.2]), np.array([1.0, -0.3])
    axis = torch.linspace(-6, 7, 24, dtype=torch.float64, device=device)
    grid = torch.cartesian_prod(axis, axis)
    a, b = (gaussian_weights(grid, 1.0, *measure) for measure in zip(means, variances, strict=True))
    solution = ot.sinkhorn(ot.PointCloud(grid, grid), a, b, epsilon=epsilon, scale_cost=None, **TIGHT)
    sigma2 = epsilon / 2
    spread = np.sqrt(4 * variances[0] * variances[1] + sigma2**2)
    expected = (means[0] - means[1]) ** 2 + variances[0] + variances[1] - spread
    expected += sigma2 * (1 - math.log(2 * sigma2)) + sigma2 * np.log(spread + sigma2)
    assert solution.regularized_cost.item() == pytest.approx(expected.sum(), rel=1e-6)


def test_affine_images_are_at_bures_distance(generator, device):
    # A symmetric positive definite map is optimal, and the cost then depends on means and covariances only.
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64).to(device)
    root = torch.randn(3, 3, generator=generator, dtype=torch.float64).to(device)
    y = x @ (root @ root.mT + torch.eye(3).to(x)) + 2

    def power(matrix, exponent):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values.clamp_min(0) ** exponent) @ vectors.mT

    source, target = (torch.cov(z.mT, correction=0) for z in (x, y))
    half = power(source, 0.5)
    bures = torch.trace(source + target - 2 * power(half @ target @ half, 0.5))
    solution = ot.exact(ot.PointCloud(x, y[torch.randperm(40, generator=generator)]))
    torch.testing.assert_close(solution.cost, bures + (x.mean(0) - y.mean(0)).square().sum())


@pytest.mark.parametrize("solve", ["exact", "sinkhorn"])
def test_gradients_of_convex_functions_pair_each_point_with_its_image(generator, device, solve):
    # y = grad(|x|^2 / 2 + sum log cosh W x): Brenier's theorem makes the identity pairing optimal.
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64).to(device)
    w = torch.randn(6, 4, generator=generator, dtype=torch.float64).to(device)
    order = torch.randperm(60, generator=generator).to(device)
    image = x + torch.tanh(x @ w.mT) @ w
    geometry = ot.PointCloud(x, image[order])
    coupling = ot.exact(geometry) if solve == "exact" else ot.sinkhorn(geometry, epsilon=1e-3, **TIGHT)
    assert torch.equal(coupling.round(), order.argsort())
    expected = (x - image).square().sum(-1).mean()
    torch.testing.assert_close(coupling.cost, expected, rtol=1e-12 if solve == "exact" else 1e-2, atol=0)
