"""Gradients of the value: finite differences, the plan, and what is refused."""

from __future__ import annotations

import pytest
import torch

from labkit import ot

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.8, 0.9)])
def test_value_has_the_gradient_of_finite_differences(make_clouds, cost, taus):
    x, y, a, b = make_clouds(n=6, m=5, d=2)

    def value(x, y, log_a, log_b):
        geometry, weights = ot.PointCloud(x, y, cost), (log_a.softmax(0), log_b.softmax(0))
        # A numeric scale: the derivative of "mean" is left out on purpose, so finite differences must not see it.
        options = {"epsilon": 0.3, "scale_cost": 2.0, "tau_a": taus[0], "tau_b": taus[1]}
        return ot.sinkhorn(geometry, *weights, **options, **TIGHT).regularized_cost

    inputs = tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))
    assert torch.autograd.gradcheck(value, inputs, rtol=1e-4, atol=1e-7)


def test_gradient_of_a_cost_matrix_is_the_plan(make_clouds):
    x, y, a, b = make_clouds()
    matrix = ot.PointCloud(x, y).matrix().requires_grad_()
    solution = ot.sinkhorn(ot.CostMatrix(matrix), a, b)
    solution.regularized_cost.backward()
    torch.testing.assert_close(matrix.grad, solution.plan)


def test_unnormalized_weights_have_the_gradient_of_finite_differences(make_clouds):
    x, y, a, b = make_clouds(n=5, m=4)
    geometry = ot.PointCloud(x, y)

    def value(a, b):
        return ot.sinkhorn(geometry, a, b, epsilon=0.3, tau_a=0.7, tau_b=0.8, scale_cost=1.0, **TIGHT).regularized_cost

    assert torch.autograd.gradcheck(value, (3 * a.requires_grad_(), b.requires_grad_()), rtol=1e-4, atol=1e-7)


def test_second_derivative_is_refused_rather_than_wrong(make_clouds):
    x, y, _, _ = make_clouds(n=6, m=5)
    value = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y)).regularized_cost
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.square().sum().backward()


def test_only_the_regularized_cost_is_differentiated(make_clouds):
    x, y, _, _ = make_clouds()
    solution = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y))
    assert solution.regularized_cost.requires_grad
    for tensor in (solution.cost, solution.plan, solution.f, solution.barycenter(y), solution.marginal_error):
        assert not tensor.requires_grad
