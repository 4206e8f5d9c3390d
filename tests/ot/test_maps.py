"""Out-of-sample maps: Gaussian closed forms, gradients of convex functions, and what debiasing and steps gain."""

from __future__ import annotations

import pytest
import torch

from labkit import ot


def convex_gradient(x):
    """Gradient of the convex function x'Ax / 2 + sum log cosh(Wx) + 4 sum(x)."""
    d = x.shape[-1]
    w = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x) / d**0.5
    matrix = 0.5 * w @ w.mT + 0.3 * torch.eye(d, dtype=x.dtype, device=x.device)
    return x @ matrix + 2 * torch.tanh(x @ w.mT) @ w + 4


@pytest.fixture
def problem(device):
    """Samples x, y of a source and of its image under an optimal map, new points and where they go."""
    generator = torch.Generator().manual_seed(0)
    x, other, new = (torch.randn(n, 2, generator=generator, dtype=torch.float64).to(device) for n in (300, 300, 200))
    return x, convex_gradient(other), new, convex_gradient(new)


def error(image, target):
    """Mean squared error as a fraction of the target's variance."""
    return float((image - target).square().sum(1).mean() / target.var(0).sum())


def grid_gaussian(mean, variance, points):
    return torch.softmax(-((points - mean) ** 2) / (2 * variance), 0)


def test_maps_between_gaussians_are_linear(device):
    # Janati et al. 2020, prop. 1, in one dimension with cost |x - y|^2 and epsilon = 2 sigma^2: the plan is Gaussian
    # with covariance k = sqrt(v w + sigma^4 / 4) - sigma^2 / 2, so T(x) = mean_y + (k / v) (x - mean_x).
    v, w, mean, epsilon = 1.0, 0.5, 1.0, 0.8
    grid = torch.linspace(-9, 9, 500, dtype=torch.float64, device=device)
    a, b = grid_gaussian(0.0, v, grid), grid_gaussian(mean, w, grid)

    def slope(v, w):
        return ((v * w + epsilon**2 / 16) ** 0.5 - epsilon / 4) / v

    options = {"epsilon": epsilon, "scale_cost": None, "tolerance": 1e-10, "max_iterations": 50_000}
    new = torch.tensor([[-2.0], [0.0], [1.5]], dtype=torch.float64, device=device)
    plain = ot.sinkhorn(ot.PointCloud(grid[:, None], grid[:, None].clone()), a, b, **options)
    torch.testing.assert_close(plain.map(new), mean + slope(v, w) * new, rtol=0, atol=1e-7)
    torch.testing.assert_close(plain.jacobian(new), torch.full_like(new, slope(v, w))[..., None], rtol=0, atol=1e-7)
    debiased = ot.debiased_map(grid[:, None], grid[:, None], a, b, **options)
    total = 1 + slope(v, w) - slope(v, v)
    torch.testing.assert_close(debiased(new), mean + total * new, rtol=0, atol=1e-7)
    torch.testing.assert_close(debiased.jacobian(new), torch.full_like(new, total)[..., None], rtol=0, atol=1e-7)
    # It is nearer to the optimal map x -> mean + sqrt(w / v) x.
    assert abs(total - (w / v) ** 0.5) < abs(slope(v, w) - (w / v) ** 0.5) / 3


def test_debiasing_helps_where_epsilon_is_large(problem):
    x, y, new, target = problem
    for epsilon in (0.05, 0.2, 0.5):
        plain = ot.sinkhorn(ot.PointCloud(x, y), epsilon=epsilon).map(new)
        debiased = ot.debiased_map(x, y, epsilon=epsilon)
        assert debiased.converged
        assert error(debiased(new), target) < error(plain, target) / 3


def test_debiased_map_of_a_cloud_to_itself_is_the_identity(make_clouds):
    x, _, a, _ = make_clouds()
    itself = ot.debiased_map(x, x, a, a)
    torch.testing.assert_close(itself(x + 0.1), x + 0.1)


def test_steps_help_at_the_same_relative_epsilon(problem):
    x, y, new, target = problem
    errors = [error(ot.progressive_map(x, y, n_steps=k)(new), target) for k in (1, 2, 4)]
    assert errors[0] == pytest.approx(error(ot.sinkhorn(ot.PointCloud(x, y)).map(new), target))
    assert errors[0] > 2 * errors[1]
    assert errors[1] > errors[2]


def test_progressive_map_takes_the_old_points_where_its_steps_did(problem):
    x, y, _, _ = problem
    progressive = ot.progressive_map(x, y, n_steps=3)
    assert progressive.converged
    assert progressive.marginal_error <= 1e-3
    assert progressive.strides == pytest.approx((1 / 3, 1 / 2, 1))
    torch.testing.assert_close(progressive(x), progressive.coupling.barycenter(y))
    halfway = x.lerp(progressive.steps[0].barycenter(y), 1 / 3)
    torch.testing.assert_close(progressive.steps[1].geometry.x, halfway)


def test_maps_take_batches_weights_and_gradients(make_clouds):
    problems = [make_clouds(n=9, m=7, d=2, seed=seed) for seed in range(2)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    options = {"tolerance": 1e-11, "max_iterations": 50_000, "epsilon": 0.3}
    for make in (ot.debiased_map, ot.progressive_map):
        batch = make(x, y, a, b, **options)(x + 0.2)
        for k, one in enumerate(problems):
            torch.testing.assert_close(batch[k], make(*one, **options)(one[0] + 0.2))

        def image(x, y, make=make):
            return make(x, y, a[0], b[0], scale_cost=2.0, **options)(x[:2].detach() * 0 + 0.3)

        inputs = (x[0].clone().requires_grad_(), y[0].clone().requires_grad_())
        assert torch.autograd.gradcheck(image, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_half_precision_is_lifted(make_clouds):
    x, y, _, _ = make_clouds(dtype=torch.float16)
    for make in (ot.debiased_map, ot.progressive_map):
        result = make(x, y)(x)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, make(x.float(), y.float())(x.float()))


def test_maps_say_that_they_did_not_converge(make_clouds):
    x, y, _, _ = make_clouds()
    for make in (ot.debiased_map, ot.progressive_map):
        with pytest.warns(ot.NotConvergedWarning):
            result = make(x, y, epsilon=1e-3, max_iterations=3, tolerance=1e-6)
        assert not result.converged
        assert result.marginal_error > 1e-6


def test_progressive_map_refuses_no_steps(make_clouds):
    x, y, _, _ = make_clouds()
    with pytest.raises(ValueError, match="n_steps=0 must be at least 1"):
        ot.progressive_map(x, y, n_steps=0)
