"""The iteration: absorption, the symmetric form, warm starts, and honesty about convergence."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import ot as pot
import pytest
import torch

from labkit import ot
from labkit.ot.cost import CostMatrix
from labkit.ot.potentials import epsilon_schedule, solve_potentials
from labkit.ot.problem import Settings, make_problem

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-2, 1e-4])
def test_costs_that_overflow_the_kernel(device, dtype, epsilon):
    # exp(-C / epsilon) is 0 in most entries and rows here; potentials must be absorbed on the way.
    x = torch.linspace(0, 1, 20, dtype=dtype, device=device)[:, None]
    y = torch.cat([x[:19], torch.full_like(x[:1], 100)])
    solution = ot.sinkhorn(ot.PointCloud(x, y, "euclidean"), epsilon=epsilon, max_iterations=20_000)
    shift = (y.sort(0).values - x).abs().mean()
    torch.testing.assert_close(solution.cost, shift, rtol=2e-2, atol=0)


def test_one_cloud_with_itself_agrees_with_the_general_iteration(make_clouds):
    x, _, a, _ = make_clouds()
    for tau in (1.0, 0.8):
        options = {"epsilon": 0.5, "tau_a": tau, "tau_b": tau, **TIGHT}
        itself = ot.sinkhorn(ot.PointCloud(x, x), a, a, **options)
        general = ot.sinkhorn(ot.PointCloud(x, x.clone()), a, a, **options)
        torch.testing.assert_close(itself.plan, general.plan)
        torch.testing.assert_close(itself.plan, itself.plan.mT)
        assert itself.n_iterations <= general.n_iterations


def test_exhausted_iterations_are_said_once_at_the_caller(make_clouds):
    x, y, a, b = make_clouds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=1e-3, tolerance=1e-6, max_iterations=7)
    assert not solution.converged
    assert solution.n_iterations == 7
    assert solution.marginal_error > 1e-6
    rows = (solution.plan.sum(1) - a).abs().sum() + (solution.plan.sum(0) - b).abs().sum()
    torch.testing.assert_close(solution.marginal_error, rows, rtol=1e-6, atol=0)
    (warning,) = caught
    assert issubclass(warning.category, ot.NotConvergedWarning)
    assert warning.filename == __file__
    assert "raise epsilon" in str(warning.message)


def test_single_precision_floor_is_not_called_convergence(make_clouds):
    x, y, a, b = make_clouds(dtype=torch.float32)
    with pytest.warns(ot.NotConvergedWarning, match="float64"):
        solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, tolerance=1e-12, max_iterations=500)
    assert not solution.converged


def test_one_hard_problem_of_a_batch_is_enough_to_say_so(make_clouds):
    x, y, _, _ = make_clouds(n=20, m=20)
    easy = torch.zeros(20, 20, dtype=x.dtype, device=x.device)
    costs = torch.stack([easy, ot.PointCloud(x, y).matrix()])
    with pytest.warns(ot.NotConvergedWarning):
        solution = ot.sinkhorn(ot.CostMatrix(costs), epsilon=1e-3, scale_cost=1.0, max_iterations=10)
    assert not solution.converged
    assert (solution.marginal_error <= solution.tolerance).tolist() == [True, False]


def test_warm_start_saves_the_iterations(make_clouds):
    x, y, a, b = make_clouds()
    cold = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=0.02, tolerance=1e-6)
    near = ot.PointCloud(x + 1e-4, y)
    warm = ot.sinkhorn(near, a, b, epsilon=0.02, tolerance=1e-6, init=(cold.f, cold.g))
    again = ot.sinkhorn(near, a, b, epsilon=0.02, tolerance=1e-6)
    assert warm.n_iterations < again.n_iterations / 3
    torch.testing.assert_close(warm.cost, again.cost, rtol=1e-5, atol=0)


def test_a_bad_start_is_recovered_from(make_clouds):
    x, y, a, b = make_clouds(dtype=torch.float32)
    # Far outside of what the kernel can absorb: exp(f / epsilon) overflows.
    init = (100 * torch.linspace(-1, 1, 30).to(a), 100 * torch.linspace(1, -1, 25).to(b))
    wild = ot.sinkhorn(ot.PointCloud(x, y), a, b, init=init)
    torch.testing.assert_close(wild.cost, ot.sinkhorn(ot.PointCloud(x, y), a, b).cost, rtol=1e-2, atol=0)


def test_degenerate_problems(device):
    same = torch.ones(4, 2, device=device)
    solution = ot.sinkhorn(ot.PointCloud(same, same.clone()))
    torch.testing.assert_close(solution.plan, torch.full((4, 4), 1 / 16, device=device))
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0], device=device)
    solution = ot.sinkhorn(ot.PointCloud(torch.eye(4, device=device), same[:, :1].expand(4, 4)), weights)
    torch.testing.assert_close(solution.plan.sum(1), weights)


@pytest.mark.parametrize(("start", "epsilon"), [(1.0, 0.05), (3.0, 1e-4), (1.0, 0.25)])
def test_schedule_falls_geometrically_to_epsilon(start, epsilon):
    schedule = epsilon_schedule(start, epsilon)
    assert schedule[0] == pytest.approx(start)
    assert schedule[-1] == epsilon
    ratios = [high / low for high, low in zip(schedule, schedule[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert 1 < ratios[0] <= 4 + 1e-9


def test_schedule_of_a_large_epsilon_is_epsilon():
    assert epsilon_schedule(1.0, 2.0) == [2.0]


# ------------------------------------------------------------------------------------ hard problems, both inner loops


@pytest.fixture(params=["compiled", "torch"])
def loops(request, monkeypatch):
    """With the compiled inner loops, and with those in torch."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        for module in ("kernel", "newton"):
            monkeypatch.setattr(f"labkit.ot.{module}.fused_loops", lambda matrix: None)


def clusters(n, m, *, seed=0, weighted=False, device="cpu", dtype=torch.float64):
    """Costs between two samples of a mixture with clusters of different mass, and weights of total 1."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(8, 16, generator=generator, dtype=torch.float64)
    sides = []
    for size in (n, m):
        label = torch.randint(8, (size,), generator=generator)
        noise = torch.randn(size, 16, generator=generator, dtype=torch.float64)
        sides.append(torch.nn.functional.normalize(center[label] + 0.3 * noise, dim=-1))
    cost = torch.cdist(*sides).square()
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) ** 4 if weighted else torch.ones(k) for k in (n, m))
    return cost.to(device, dtype), *((w / w.sum()).to(device, dtype) for w in (a, b))


def problem_of(cost, a, b, *, epsilon, taus=(1.0, 1.0)):
    return make_problem(CostMatrix(cost), cost, a, b, Settings(epsilon, "mean", *taus, 1e-6, 1))


def true_error(problem, potentials):
    """L1 distance of the marginals to the prescribed ones, as a fraction of the mass, in float64 from the costs."""
    f, g, cost, a, b = (t.double() for t in (potentials.f, potentials.g, problem.cost, problem.a, problem.b))
    gap = (f[..., :, None] + g[..., None, :] - cost) / problem.epsilon
    plan = torch.exp(gap + a.log()[..., :, None] + b.log()[..., None, :])
    rows = a * torch.exp(-f.where(a > 0, 0) / problem.rho_a) - plan.sum(-1)
    columns = b * torch.exp(-g.where(b > 0, 0) / problem.rho_b) - plan.sum(-2)
    return (rows.abs().sum(-1) + columns.abs().sum(-1)) / ((a.sum(-1) + b.sum(-1)) / 2)


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(120, 120), (90, 150), (150, 70)])
def test_clustered_problems_converge_in_few_iterations(device, loops, epsilon, weighted, n, m):
    # Plain passes need 10^4 and more of them at the smaller epsilon.
    problem = problem_of(*clusters(n, m, weighted=weighted, device=device), epsilon=epsilon)
    potentials = solve_potentials(problem, tolerance=1e-6, max_iterations=2000)
    assert true_error(problem, potentials) <= 1e-6
    assert potentials.n_iterations < 1000


def test_newton_agrees_with_pot(device, loops):
    cost, a, b = clusters(40, 30, weighted=True, device=device)
    problem = problem_of(cost, a, b, epsilon=0.02)
    f, g, _ = solve_potentials(problem, tolerance=1e-12, max_iterations=2000)
    arrays = [t.cpu().numpy() for t in (problem.a, problem.b, problem.cost)]
    expected = pot.bregman.sinkhorn_log(*arrays, 0.02, 1_000_000, 1e-14)
    plan = a[:, None] * b * torch.exp((f[:, None] + g - problem.cost) / 0.02)
    torch.testing.assert_close(plan.cpu(), torch.from_numpy(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("taus", [(0.999, 1.0), (1.0, 0.999), (0.999, 0.999), (0.9, 0.5)])
def test_relaxed_marginals_on_either_side(device, loops, taus):
    problem = problem_of(*clusters(80, 100, weighted=True, device=device), epsilon=0.005, taus=taus)
    potentials = solve_potentials(problem, tolerance=1e-9, max_iterations=2000)
    assert true_error(problem, potentials) <= 1e-9


@pytest.mark.parametrize("epsilon", [0.05, 0.003])
def test_points_without_mass_and_forbidden_pairs(device, loops, epsilon):
    cost, a, b = clusters(60, 50, device=device)
    a[7] = b[11] = 0
    cost[:20, 40:] = math.inf
    cost[7] = cost[:, 11] = math.inf
    problem = replace(
        problem_of(torch.ones_like(cost), a / a.sum(), b / b.sum(), epsilon=epsilon), cost=cost, restricted=True
    )
    potentials = solve_potentials(problem, tolerance=1e-7, max_iterations=2000)
    assert true_error(problem, potentials) <= 1e-7


@pytest.mark.parametrize("epsilon", [0.05, 0.005])
def test_single_precision_reaches_its_gate(device, loops, epsilon):
    problem = problem_of(*clusters(150, 130, device=device, dtype=torch.float32), epsilon=epsilon)
    potentials = solve_potentials(problem, tolerance=1e-4, max_iterations=2000)
    assert potentials.f.dtype == torch.float32
    assert true_error(problem, potentials) <= 1.5e-4


@pytest.mark.parametrize("size", [12, 50])
@pytest.mark.parametrize("epsilon", [0.05, 0.002])
def test_batch_of_clustered_problems_is_a_loop(device, loops, size, epsilon):
    # Small problems run in lockstep, larger ones one by one on a CPU; their difficulty differs in any case.
    problems = [clusters(size, size + 3, seed=seed, device=device) for seed in range(4)]
    costs, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    costs[2] *= 0.01
    problem = problem_of(costs.unflatten(0, (2, 2)), a.unflatten(0, (2, 2)), b.unflatten(0, (2, 2)), epsilon=epsilon)
    batch = solve_potentials(problem, tolerance=1e-9, max_iterations=3000)
    assert (true_error(problem, batch) <= 1e-9).all()
    for k in range(4):
        one = problem_of(costs[k], a[k], b[k], epsilon=epsilon)
        alone, at = solve_potentials(one, tolerance=1e-9, max_iterations=3000), divmod(k, 2)
        plans = [
            torch.exp((f[:, None] + g - one.cost) / epsilon) / (size * (size + 3))
            for f, g in ((batch.f[at], batch.g[at]), (alone.f, alone.g))
        ]
        torch.testing.assert_close(*plans, rtol=0, atol=1e-8)


def test_potentials_of_a_similar_problem_save_the_iterations(device, loops):
    cost, a, b = clusters(100, 100, device=device)
    cold = solve_potentials(problem_of(cost, a, b, epsilon=0.01), tolerance=1e-6, max_iterations=2000)
    near = problem_of(cost * (1 + 1e-5 * torch.sin(cost)), a, b, epsilon=0.01)
    warm = solve_potentials(near, tolerance=1e-6, max_iterations=2000, init=(cold.f, cold.g))
    assert true_error(near, warm) <= 1e-6
    assert warm.n_iterations < cold.n_iterations / 2
    again = solve_potentials(near, tolerance=1e-6, max_iterations=2000, init=(warm.f, warm.g))
    assert again.n_iterations <= 2


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 20, 60])
def test_no_more_iterations_than_asked_for(device, loops, budget):
    problem = problem_of(*clusters(60, 60, device=device), epsilon=1e-3)
    potentials = solve_potentials(problem, tolerance=1e-12, max_iterations=budget)
    assert potentials.n_iterations <= budget
    assert torch.isfinite(true_error(problem, potentials))


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 1e-3])
def test_one_cloud_with_itself_takes_few_passes_for_any_epsilon(make_clouds, epsilon):
    x, _, a, _ = make_clouds(n=60)
    problem = make_problem(
        ot.PointCloud(x, x), torch.cdist(x, x).square(), a, None, Settings(epsilon, "mean", 1, 1, 1, 1)
    )
    problem = replace(problem, b=problem.a, symmetric=True)
    potentials = solve_potentials(problem, tolerance=1e-9, max_iterations=100)
    assert torch.equal(potentials.f, potentials.g)
    assert true_error(problem, potentials) <= 1e-9
    assert potentials.n_iterations <= 20


def test_an_indefinite_cost_of_one_cloud_is_left_to_the_general_iteration(device):
    # Everything goes to the other point: the normalized plan has the eigenvalue -1, where damped passes stall.
    cost = 1 - torch.eye(2, dtype=torch.float64, device=device).flip(0)
    one = torch.ones(2, dtype=torch.float64, device=device) / 2
    problem = replace(problem_of(cost, one, one, epsilon=0.02), symmetric=True)
    init = (torch.tensor([0.3, -0.1], dtype=torch.float64, device=device),) * 2
    potentials = solve_potentials(problem, tolerance=1e-9, max_iterations=500, init=init)
    assert true_error(problem, potentials) <= 1e-9
