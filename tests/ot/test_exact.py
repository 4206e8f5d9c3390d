"""Exact transport against scipy, POT and brute force: value, certificate, gradients, and what it says of new points."""

from __future__ import annotations

import subprocess
import sys

import ot as pot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from labkit import ot


def test_uniform_squares_are_assignments(make_clouds):
    x, y, _, _ = make_clouds(n=40, m=40)
    solution = ot.exact(ot.PointCloud(x, y))
    cost = ot.PointCloud(x, y).matrix()
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    assert solution.cost.item() == pytest.approx(cost[rows, columns].mean().item())
    assert solution.round().tolist() == columns.tolist()
    torch.testing.assert_close(solution.barycenter(y), y[torch.from_numpy(columns).to(y.device)])
    torch.testing.assert_close(solution.apply(y) * 40, solution.barycenter(y))
    assert torch.equal(solution.top(1).index[:, 0], solution.round())


def test_one_dimension_agrees_with_scipy(make_clouds):
    x, y, a, b = make_clouds(d=1)
    value = ot.exact(ot.PointCloud(x, y, "euclidean"), a, b).cost.item()
    x, y, a, b = (t.flatten().cpu().numpy() for t in (x, y, a, b))
    assert value == pytest.approx(wasserstein_distance(x, y, a, b))


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("mass", [1.0, 50.0])
def test_potentials_certify_the_plan_in_any_units(make_clouds, factor, mass):
    x, y, a, b = make_clouds()
    a, b = torch.cat([a[:2] * 0, a[2:]]), torch.cat([b[:1] * 0, b[1:]])
    a, b = mass * a / a.sum(), mass * b / b.sum()
    cost = ot.PointCloud(x, y).matrix()
    solution = ot.exact(ot.CostMatrix(factor * cost), a, b)
    expected = pot.emd2(a.cpu().numpy() / mass, b.cpu().numpy() / mass, cost.cpu().numpy())
    assert solution.converged
    assert (solution.cost / factor / mass).item() == pytest.approx(expected)
    slack = cost - (solution.f[:, None] + solution.g) / factor
    assert (slack[a > 0][:, b > 0] >= -1e-12).all()
    assert (slack[solution.plan > 0].abs() < 1e-9).all()
    halves = (a * solution.f).sum() / factor, (b * solution.g).sum() / factor
    torch.testing.assert_close(halves[0], halves[1])
    assert (sum(halves) / mass).item() == pytest.approx(expected)
    torch.testing.assert_close(solution.plan.sum(1), a)
    torch.testing.assert_close(solution.plan.sum(0), b)


def test_costs_may_be_negative(make_clouds):
    x, y, a, b = make_clouds()
    cost = ot.PointCloud(x, y).matrix()
    shifted = ot.exact(ot.CostMatrix(cost - 7), a, b)
    assert shifted.cost.item() == pytest.approx(ot.exact(ot.CostMatrix(cost), a, b).cost.item() - 7)


def test_batch_is_a_loop(make_clouds):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(4)]
    x, y, a, b = (torch.stack(tensors).unflatten(0, (2, 2)) for tensors in zip(*problems, strict=True))
    batch = ot.exact(ot.PointCloud(x, y), a, b)
    assert batch.plan.shape == (2, 2, 12, 10)
    for k, problem in enumerate(problems):
        one = ot.exact(ot.PointCloud(*problem[:2]), *problem[2:])
        torch.testing.assert_close(batch.plan[divmod(k, 2)], one.plan)
        torch.testing.assert_close(batch.cost[divmod(k, 2)], one.cost)
        torch.testing.assert_close(batch.barycenter(y)[divmod(k, 2)], one.barycenter(problem[1]))


def test_value_has_the_right_gradients(make_clouds):
    x, y, a, b = make_clouds(n=6, m=5)
    for tensor in (x, y, a, b):
        tensor.requires_grad_()
    # Weights may be moved with their total only: softmax keeps it.
    value = lambda x, y, a, b: ot.exact(ot.PointCloud(x, y), a.softmax(0), b.softmax(0)).cost
    assert torch.autograd.gradcheck(value, (x, y, a, b))
    matrix = ot.PointCloud(x, y).matrix().detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: ot.exact(ot.CostMatrix(c)).regularized_cost, (matrix,))


def test_derivative_at_a_weight_of_zero_is_that_of_a_vanishing_mass(make_clouds):
    x, y, a, b = make_clouds(n=8, m=7)
    base, new = torch.cat([a[:1] * 0, a[1:] / a[1:].sum()]), torch.eye(8, dtype=a.dtype, device=a.device)[0]
    base.requires_grad_()
    solution = ot.exact(ot.PointCloud(x, y), base, b)
    solution.cost.backward()
    step = 1e-7
    moved = ot.exact(ot.PointCloud(x, y), (1 - step) * base.detach() + step * new, b).cost
    expected = (base.grad * (new - base.detach())).sum()
    assert ((moved - solution.cost) / step).item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(
        solution.barycenter(y)[0],
        ot.exact(ot.PointCloud(x, y), (1 - step) * base.detach() + step * new, b).barycenter(y)[0],
    )


def test_second_derivatives_and_maps_are_refused(make_clouds):
    x, y, a, b = make_clouds(n=5, m=4)
    solution = ot.exact(ot.PointCloud(x.requires_grad_(), y), a, b)
    (gradient,) = torch.autograd.grad(solution.cost, x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()
    with pytest.raises(TypeError, match="ot.sinkhorn with a small epsilon"):
        solution.map(x)


def test_unequal_masses_are_refused():
    with pytest.raises(ValueError, match="differ in total mass"):
        ot.exact(ot.CostMatrix(torch.ones(3, 3)), torch.ones(3), torch.ones(3) / 3)


def test_says_what_is_missing_without_pot():
    code = (
        "import sys; sys.modules['ot'] = None; import torch; from labkit import ot\n"
        "try: ot.exact(ot.CostMatrix(torch.ones(2, 2)))\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install pot" in done.stdout, done.stderr
