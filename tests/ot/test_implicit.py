"""Derivatives of potentials, plans, barycenters and maps, and second ones of the value, by finite differences."""

from __future__ import annotations

import pytest
import torch

from labkit import ot

TIGHT = {"tolerance": 1e-12, "max_iterations": 20_000, "epsilon": 0.3, "scale_cost": 2.0}
TAUS = [(1.0, 1.0), (0.8, 0.9), (1.0, 0.7), (0.6, 1.0)]


def solve(inputs, cost="sqeuclidean", taus=(1.0, 1.0), absent=False):
    """Sinkhorn as a function of two clouds and logarithms of weights, so that perturbed weights stay balanced."""
    x, y, log_a, log_b = inputs
    a, b = log_a.softmax(-1), log_b.softmax(-1)
    if absent:
        # The last source and the first target have no mass.
        a = torch.cat([a, torch.zeros_like(a[..., :1])], -1)
        b = torch.cat([torch.zeros_like(b[..., :1]), b], -1)
    if taus != (1.0, 1.0):
        a = 1.3 * a
    return ot.sinkhorn(ot.PointCloud(x, y, cost), a, b, tau_a=taus[0], tau_b=taus[1], **TIGHT)


@pytest.fixture
def inputs(make_clouds):
    x, y, a, b = make_clouds(n=6, m=4, d=2)
    return tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))


READINGS = {
    "potentials": lambda s, x, y: torch.cat([s.f, s.g], -1),
    "plan": lambda s, x, y: s.plan,
    "apply": lambda s, x, y: s.apply(y.square()),
    "barycenter": lambda s, x, y: s.barycenter(y),
    "map": lambda s, x, y: s.map(x[..., :2, :] + 0.3),
}


@pytest.mark.parametrize("taus", TAUS)
@pytest.mark.parametrize("reading", READINGS)
def test_everything_read_off_a_coupling_has_the_derivative_of_finite_differences(inputs, reading, taus):
    read = READINGS[reading]
    function = lambda *inputs: read(solve(inputs, taus=taus), *inputs[:2])
    assert torch.autograd.gradcheck(function, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cost", ["euclidean", "cosine", "geodesic"])
def test_other_costs(inputs, cost):
    function = lambda *inputs: solve(inputs, cost).plan
    assert torch.autograd.gradcheck(function, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("taus", TAUS[:2])
@pytest.mark.parametrize("reading", READINGS)
def test_points_of_weight_zero(make_clouds, reading, taus):
    x, y, a, b = make_clouds(n=6, m=4, d=2)
    inputs = tuple(t.requires_grad_() for t in (x, y, a[:-1].log(), b[1:].log()))
    read = READINGS[reading]
    function = lambda *inputs: read(solve(inputs, taus=taus, absent=True), *inputs[:2])
    assert torch.autograd.gradcheck(function, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("taus", TAUS[:3])
def test_cost_matrix(make_clouds, taus):
    x, y, a, b = make_clouds(n=5, m=6)
    matrix = ot.PointCloud(x, y).matrix().requires_grad_()

    def potentials_and_plan(matrix):
        solution = ot.sinkhorn(ot.CostMatrix(matrix), a, b, tau_a=taus[0], tau_b=taus[1], **TIGHT)
        return solution.f, solution.g, solution.plan

    assert torch.autograd.gradcheck(potentials_and_plan, matrix, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_forbidden_pairs(make_clouds):
    x, y, a, b = make_clouds(n=5, m=6)

    def plan(x):
        return ot.sinkhorn(ot.Restricted(ot.PointCloud(x, y), forbidden=[(0, 0), (2, 3)]), a, b, **TIGHT).plan

    assert torch.autograd.gradcheck(plan, x.requires_grad_(), eps=1e-5, rtol=1e-4, atol=1e-6)


def test_one_cloud_with_itself(make_clouds):
    x, _, a, _ = make_clouds(n=5, d=2)
    plan = lambda x: ot.sinkhorn(ot.PointCloud(x, x), a, a, **TIGHT).plan
    assert torch.autograd.gradcheck(plan, x.requires_grad_(), eps=1e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("taus", TAUS[:2])
def test_batches(make_clouds, taus):
    problems = [make_clouds(n=5, m=3, d=2, seed=seed) for seed in range(2)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    inputs = tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))
    function = lambda *inputs: solve(inputs, taus=taus).barycenter(inputs[1])
    assert torch.autograd.gradcheck(function, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_clouds_that_a_batch_shares(make_clouds):
    x, y, _, _ = make_clouds(n=5, m=4, d=2)
    x = torch.stack([x, x + 0.1])

    def value_and_plan(x, y):
        solution = ot.sinkhorn(ot.PointCloud(x, y), **TIGHT)
        return solution.regularized_cost, solution.plan

    assert torch.autograd.gradcheck(
        value_and_plan, (x.requires_grad_(), y.requires_grad_()), eps=1e-5, rtol=1e-4, atol=1e-6
    )


def test_weights_as_they_are_given(make_clouds):
    x, y, a, b = make_clouds(n=5, m=4)
    plan = lambda a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT).plan
    # b counts as rescaled to the mass of a, so that one entry alone may be moved by finite differences.
    assert torch.autograd.gradcheck(
        plan, (3 * a.requires_grad_(), 3 * b.requires_grad_()), eps=1e-5, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("taus", TAUS)
def test_forward_derivative_is_the_transpose_of_the_backward_one(make_clouds, taus, cost, absent):
    # torch makes it from the derivative of the backward pass with respect to its input.
    x, y, a, b = make_clouds(n=5, m=4, d=2)
    cut = slice(None, -1 if absent else None)
    inputs = (x, y, a[cut].log(), b[cut].log())
    generator = torch.Generator().manual_seed(1)
    directions = tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t) for t in inputs)

    def potentials(*inputs):
        solution = solve(inputs, cost, taus, absent)
        return torch.cat([solution.f, solution.g])

    _, forward = torch.autograd.functional.jvp(potentials, inputs, directions)
    jacobians = torch.autograd.functional.jacobian(potentials, inputs)
    expected = sum(j.flatten(1) @ d.flatten() for j, d in zip(jacobians, directions, strict=True))
    torch.testing.assert_close(forward, expected)


def test_single_precision_agrees_with_double(make_clouds):
    x, y, _, _ = make_clouds(n=80, m=70)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        points = x.to(dtype).requires_grad_()
        solution = ot.sinkhorn(ot.PointCloud(points, y.to(dtype)), tolerance=1e-5)
        loss = solution.barycenter(y.to(dtype)).square().sum()
        gradients.append(torch.autograd.grad(loss, points)[0].double())
    assert torch.linalg.norm(gradients[1] - gradients[0]) <= 1e-3 * torch.linalg.norm(gradients[0])


def test_half_precision_under_autocast(make_clouds, device):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    x, y = x.bfloat16().requires_grad_(), y.bfloat16()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss = ot.sinkhorn(ot.PointCloud(x, y)).plan.square().sum()
    loss.backward()
    full = x.detach().float().requires_grad_()
    ot.sinkhorn(ot.PointCloud(full, y.float())).plan.square().sum().backward()
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(x.grad, full.grad.bfloat16())


# ------------------------------------------------------------------------------------------------------- second order


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("taus", TAUS[:3])
def test_value_has_the_second_derivative_of_finite_differences(make_clouds, cost, taus):
    x, y, a, b = make_clouds(n=4, m=3, d=2)
    inputs = tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))
    value = lambda *inputs: solve(inputs, cost, taus).regularized_cost
    assert torch.autograd.gradgradcheck(value, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_value_has_a_second_derivative_with_points_of_weight_zero(make_clouds):
    x, y, a, b = make_clouds(n=4, m=3, d=2)
    inputs = tuple(t.requires_grad_() for t in (x, y, a[:-1].log(), b[1:].log()))
    value = lambda *inputs: solve(inputs, absent=True).regularized_cost
    assert torch.autograd.gradgradcheck(value, inputs, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_hessian_of_the_value_by_the_cost_matrix(make_clouds):
    x, y, a, b = make_clouds(n=4, m=3)
    matrix = ot.PointCloud(x, y).matrix().requires_grad_()
    value = lambda matrix: ot.sinkhorn(ot.CostMatrix(matrix), a, b, **TIGHT).regularized_cost
    assert torch.autograd.gradgradcheck(value, matrix, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_hessian_vector_product_of_the_divergence(make_clouds):
    x, y, a, b = make_clouds(n=5, m=4, d=2)
    options = {"cost": "sqeuclidean", "tolerance": 1e-11, "max_iterations": 20_000, "scale_cost": 2.0}
    value = lambda x: ot.sinkhorn_divergence(x, y, a, b, **options)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype).to(x)
    _, product = torch.autograd.functional.hvp(value, x, direction)
    step = 1e-4
    ends = [torch.autograd.functional.vjp(value, x + s * step * direction)[1] for s in (1, -1)]
    torch.testing.assert_close(product, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_third_derivatives_are_refused(inputs):
    value = solve(inputs).regularized_cost
    (first,) = torch.autograd.grad(value, inputs[0], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="too high an order"):
        second.sum().backward()
