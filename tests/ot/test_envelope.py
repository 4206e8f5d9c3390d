"""Gradients of the value: finite differences, the plan, and what is refused."""

from __future__ import annotations

import pytest
import torch

from labkit import ot
from labkit.ot import implicit
from labkit.ot.envelope import with_envelope_gradient

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


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "geodesic"])
def test_gradient_by_the_points_is_the_plan_pulled_back(make_clouds, cost):
    x, y, a, b = make_clouds()
    x.requires_grad_(), y.requires_grad_()
    solution = ot.sinkhorn(ot.PointCloud(x, y, cost), a, b)
    found = torch.autograd.grad(solution.regularized_cost, (x, y))
    pulled = (ot.PointCloud(x, y, cost).matrix() * solution.plan.detach()).sum()
    torch.testing.assert_close(found, torch.autograd.grad(pulled, (x, y)))


def test_gradient_by_one_cloud_only(make_clouds):
    x, y, a, b = make_clouds()
    both = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y.requires_grad_()), a, b).regularized_cost
    expected = torch.autograd.grad(both, (x, y))
    for k, (p, q) in enumerate([(x, y.detach()), (x.detach(), y)]):
        value = ot.sinkhorn(ot.PointCloud(p, q), a, b).regularized_cost
        torch.testing.assert_close(torch.autograd.grad(value, (p, q)[k])[0], expected[k])


def test_gradient_of_a_zero_vector_under_cosine_is_finite(make_clouds):
    x, y, _, _ = make_clouds()
    x[0] = 0
    value = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y, "cosine")).regularized_cost
    assert torch.isfinite(torch.autograd.grad(value, x)[0]).all()


def test_blocks_of_rows_change_nothing(make_clouds, monkeypatch):
    x, y, a, b = make_clouds()
    problems = [ot.PointCloud(x.requires_grad_(), y, cost) for cost in ("sqeuclidean", "euclidean")]
    problems.append(ot.PointCloud(torch.stack([x, x + 1]), y, "cosine"))

    def results():
        solutions = [ot.sinkhorn(problem, a, b) for problem in problems]
        gradients = [torch.autograd.grad(s.regularized_cost.sum() + s.barycenter(y).sum(), x)[0] for s in solutions]
        return [*gradients, *(s.cost for s in solutions)]

    whole = results()
    monkeypatch.setattr("labkit.ot.plan.BLOCK_ENTRIES", {"cpu": 60})
    torch.testing.assert_close(results(), whole)


def test_a_value_without_a_differentiable_plan_refuses_second_derivatives(device):
    argument = torch.tensor(2.0, device=device, requires_grad=True)
    value = with_envelope_gradient(argument.detach() ** 2, (argument, 2 * argument.detach()))
    (gradient,) = torch.autograd.grad(value, argument, create_graph=True)
    assert gradient == 4
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.backward()


def test_backward_of_the_value_solves_no_linear_system(make_clouds, monkeypatch):
    x, y, a, b = make_clouds()
    calls = []
    solve_adjoint = implicit.solve_adjoint
    monkeypatch.setattr(implicit, "solve_adjoint", lambda *p, **k: calls.append(1) or solve_adjoint(*p, **k))
    solution = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y), a, b)
    solution.regularized_cost.backward()
    assert not calls
    (solution.plan.square().sum() + solution.f.sum()).backward()
    assert len(calls) == 1


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_derivative_by_a_weight_of_zero_is_that_of_a_vanishing_mass(make_clouds, tau):
    x, y, a, b = make_clouds(n=6, m=5)
    options = {"epsilon": 0.3, "scale_cost": 2.0, "tau_a": tau, "tau_b": tau, **TIGHT}
    a = torch.cat([a[:1] * 0, a[1:]])
    a = (a / a.sum()).requires_grad_()
    # Mass moves from the second point to the first, which has none.
    direction = torch.zeros_like(a)
    direction[0], direction[1] = 1, -1
    value = ot.sinkhorn(ot.PointCloud(x, y), a, b, **options).regularized_cost
    (gradient,) = torch.autograd.grad(value, a)
    step = 1e-6
    moved = ot.sinkhorn(ot.PointCloud(x, y), a.detach() + step * direction, b, **options).regularized_cost
    assert float((moved - value.detach()) / step) == pytest.approx(float(gradient @ direction), rel=1e-3)


def test_nothing_is_differentiated_unless_asked_for(make_clouds):
    x, y, a, b = make_clouds()
    with torch.no_grad():
        solution = ot.sinkhorn(ot.PointCloud(x.requires_grad_(), y), a.requires_grad_(), b)
    for tensor in (solution.regularized_cost, solution.f, solution.plan, solution.barycenter(y), solution.map(y)):
        assert not tensor.requires_grad
    solution = ot.sinkhorn(ot.PointCloud(x, y), a, b)
    assert solution.regularized_cost.requires_grad
    assert solution.plan.requires_grad
    with torch.no_grad():
        assert not solution.plan.requires_grad
    for tensor in (solution.cost, solution.marginal_error, solution.epsilon_absolute, solution.dual_gap):
        assert not tensor.requires_grad


def peak_matrices(step, entries):
    """The most memory that was allocated at once during a step, in float32 matrices of so many entries."""
    step()
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / (4 * entries)


@pytest.mark.parametrize("loss", ["transport", "divergence"])
def test_forward_and_backward_hold_three_matrices_at_most(generator, loss):
    n, d = 2048, 32
    x, y = (torch.randn(n, d, generator=generator).requires_grad_() for _ in range(2))

    def step():
        value = (
            ot.sinkhorn(ot.PointCloud(x, y)).regularized_cost if loss == "transport" else ot.sinkhorn_divergence(x, y)
        )
        value.backward()

    assert 1 < peak_matrices(step, n * n) <= 3
