"""Forbidden and fixed pairs against linear programs, POT with prohibitive costs, and what fixing a pair means."""

from __future__ import annotations

import math

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from labkit import ot

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


def least_cost(cost, a, b, forbidden):
    """Value of the transport problem by a general linear program; None if there is no plan."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    bounds = [(0, 0) if f else (0, None) for f in forbidden.ravel()]
    solution = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), bounds=bounds)
    return solution.fun if solution.status == 0 else None


@pytest.fixture
def mask(generator, device):
    return (torch.rand(30, 25, generator=generator) < 0.4).to(device)


# --------------------------------------------------------------------------------------------------------------- peers


@pytest.mark.parametrize("epsilon", [0.5, 0.05])
def test_entropic_agrees_with_pot_under_prohibitive_costs(make_clouds, mask, epsilon):
    x, y, a, b = make_clouds()
    geometry = ot.Restricted(ot.PointCloud(x, y), forbidden=mask)
    solution = ot.sinkhorn(geometry, a, b, epsilon=epsilon, **TIGHT)
    cost = ot.PointCloud(x, y).matrix()
    product = torch.outer(a, b) * ~mask
    absolute = solution.epsilon_absolute.item()
    assert absolute == pytest.approx(epsilon * ((cost * product).sum() / product.sum()).item())
    high = torch.where(mask, 1e4, cost).cpu().numpy()
    expected = pot.bregman.sinkhorn_log(a.cpu().numpy(), b.cpu().numpy(), high, absolute, 1_000_000, 1e-13)
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-8)
    assert (solution.plan[mask] == 0).all()
    assert solution.cost.item() == pytest.approx((expected * cost.cpu().numpy()).sum(), rel=1e-7)
    assert math.isfinite(solution.regularized_cost.item())


@pytest.mark.parametrize("taus", [(0.9, 0.9), (1.0, 0.7)])
def test_relaxed_agrees_with_pot_under_prohibitive_costs(make_clouds, mask, taus):
    x, y, a, b = make_clouds()
    epsilon, cost = 0.5, ot.PointCloud(x, y).matrix()
    geometry = ot.Restricted(ot.CostMatrix(cost), forbidden=mask)
    solution = ot.sinkhorn(geometry, a, b, epsilon=epsilon, scale_cost=None, tau_a=taus[0], tau_b=taus[1], **TIGHT)
    rhos = tuple(math.inf if tau == 1 else epsilon * tau / (1 - tau) for tau in taus)
    high = torch.where(mask, 300.0, cost).cpu().numpy()
    a, b = a.cpu().numpy(), b.cpu().numpy()
    expected = pot.unbalanced.sinkhorn_unbalanced(
        a, b, high, epsilon, rhos, method="sinkhorn_stabilized", numItermax=1_000_000, stopThr=1e-14
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.floats(0.0, 0.7), st.integers(0, 10_000))
def test_exact_agrees_with_a_linear_program_also_about_whether_there_is_a_plan(n, m, share, seed):
    generator = np.random.default_rng(seed)
    cost, forbidden = generator.standard_normal((n, m)), generator.random((n, m)) < share
    # Weights of few digits: totals of subsets are then equal or clearly different.
    a, b = (
        np.bincount(generator.integers(0, n, 20), minlength=n),
        np.bincount(generator.integers(0, m, 20), minlength=m),
    )
    expected = least_cost(cost, a / 20, b / 20, forbidden)
    geometry = ot.Restricted(ot.CostMatrix(torch.from_numpy(cost)), forbidden=torch.from_numpy(forbidden))
    weights = torch.from_numpy(a / 20), torch.from_numpy(b / 20)
    if expected is None:
        with pytest.raises(ValueError, match="no allowed partner|can flow along allowed pairs"):
            ot.exact(geometry, *weights)
        return
    solution = ot.exact(geometry, *weights)
    assert solution.converged
    assert solution.cost.item() == pytest.approx(expected, abs=1e-9)
    assert (solution.plan.numpy()[forbidden] == 0).all()


# ------------------------------------------------------------------------------------------------------------ semantics


@pytest.mark.parametrize("solve", [ot.exact, lambda *args: ot.sinkhorn(*args, tolerance=1e-9, max_iterations=100_000)])
@pytest.mark.parametrize("heavier", [0.5, 1.0, 2.0])
def test_a_fixed_pair_carries_all_of_the_lighter_point(make_clouds, solve, heavier):
    x, y, _, _ = make_clouds(n=8, m=8)
    a = torch.ones(8, dtype=x.dtype, device=x.device)
    a[2] = heavier
    a = a / a.sum()
    b = torch.full_like(a, 1 / 8)
    plan = solve(ot.Restricted(ot.PointCloud(x, y), fixed=[(2, 5)]), a, b).plan
    least = min(a[2].item(), b[5].item())
    assert plan[2, 5].item() == pytest.approx(least, abs=1e-8)
    torch.testing.assert_close(plan.sum(1), a, atol=1e-8, rtol=0)
    if heavier == 1:
        assert plan[2].count_nonzero() == plan[:, 5].count_nonzero() == 1


def test_several_captions_of_one_picture_are_kept_together(make_clouds):
    x, y, _, _ = make_clouds(n=9, m=3)
    pairs = [(0, 0), (1, 0), (2, 0), (3, 1)]
    plan = ot.sinkhorn(ot.Restricted(ot.PointCloud(x, y), fixed=torch.tensor(pairs))).plan
    # Three sources weigh as much as the target: they share it with nobody. The single one leaves room at its target.
    assert plan[3:, 0].sum() == plan[:3, 1:].sum() == plan[3, [0, 2]].sum() == 0
    assert plan[4:, 1].sum().item() == pytest.approx(2 / 9, rel=1e-2)


def test_a_relaxed_fixed_pair_may_lose_mass_but_not_stray(make_clouds):
    x, y, a, b = make_clouds(n=6, m=6)
    solution = ot.sinkhorn(ot.Restricted(ot.PointCloud(x, y), fixed=[(0, 1)]), tau_a=0.8, tau_b=0.8)
    assert solution.plan[0, [0, 2, 3, 4, 5]].sum() == 0
    assert 0 < solution.plan[0, 1] < 1
    assert solution.converged


def test_few_pairs_help_the_others(device):
    # A noisy permutation of which exact transport recovers a part.
    found = {0: [], 5: []}
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(20, 3, generator=generator, dtype=torch.float64).to(device)
        y = x + 0.9 * torch.randn(20, 3, generator=generator, dtype=torch.float64).to(device)
        for known, recovered in found.items():
            pairs = [(k, k) for k in range(known)]
            target = ot.exact(ot.Restricted(ot.PointCloud(x, y), fixed=pairs)).plan.argmax(1)
            recovered.append((target[5:] == torch.arange(5, 20, device=device)).double().mean().item())
    assert np.mean(found[5]) > np.mean(found[0]) + 0.05


def test_restrictions_hold_in_every_problem_of_a_batch(make_clouds):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    generator = torch.Generator().manual_seed(0)
    forbidden = (torch.rand(3, 12, 10, generator=generator) < 0.3).to(x.device)
    forbidden[:, 4] = forbidden[:, :, 7] = False
    batch = ot.Restricted(ot.PointCloud(x, y), forbidden=forbidden, fixed=[(4, 7)])
    entropic, exact = ot.sinkhorn(batch, a, b, **TIGHT), ot.exact(batch, a, b)
    for k, (x, y, a, b) in enumerate(problems):
        one = ot.Restricted(ot.PointCloud(x, y), forbidden=forbidden[k], fixed=[(4, 7)])
        torch.testing.assert_close(entropic.plan[k], ot.sinkhorn(one, a, b, **TIGHT).plan)
        torch.testing.assert_close(exact.cost[k], ot.exact(one, a, b).cost)
        assert entropic.plan[k, 4, 7].item() == pytest.approx(min(a[4], b[7]).item())


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("tau", [1.0, 0.8])
def test_gradients_of_the_value_and_the_plan(make_clouds, tau):
    x, y, a, b = make_clouds(n=5, m=4)
    x.requires_grad_(), y.requires_grad_()
    forbidden = [(0, 1), (2, 3), (4, 0)]

    def solve(x, y):
        geometry = ot.Restricted(ot.PointCloud(x, y), forbidden=forbidden)
        solution = ot.sinkhorn(geometry, a, b, epsilon=0.3, scale_cost=1.0, tau_a=tau, tau_b=tau, **TIGHT)
        return solution.regularized_cost, solution.plan

    assert torch.autograd.gradcheck(lambda *clouds: solve(*clouds)[0], (x, y), atol=1e-7)
    assert torch.autograd.gradcheck(lambda *clouds: solve(*clouds)[1], (x, y), atol=1e-6)


def test_forbidden_costs_have_no_gradient_and_keep_their_values(generator, device):
    values = torch.rand(4, 4, generator=generator).to(device).requires_grad_()
    geometry = ot.Restricted(ot.CostMatrix(values), forbidden=[(0, 0), (1, 2)])
    assert torch.isfinite(values).all()
    assert torch.isinf(geometry.matrix()[[0, 1], [0, 2]]).all()
    ot.sinkhorn(geometry).regularized_cost.backward()
    assert values.grad[0, 0] == values.grad[1, 2] == 0
    assert torch.isfinite(values.grad).all()
    assert values.grad.sum().item() == pytest.approx(1, rel=1e-2)


def test_blocks_are_parts_of_the_matrix(make_clouds, mask):
    x, y, _, _ = make_clouds()
    geometry = ot.Restricted(
        ot.PointCloud(x, y, "geodesic"), forbidden=mask, fixed=[(int((~mask[:, 3]).nonzero()[0]), 3)]
    )
    assert geometry.shape == (30, 25)
    torch.testing.assert_close(geometry.block(slice(4, 9), slice(2, 20)), geometry.matrix()[4:9, 2:20])


# ------------------------------------------------------------------------------------------------- what is not possible


def test_a_point_without_partners_is_named(device):
    geometry = ot.Restricted(ot.CostMatrix(torch.ones(3, 2, device=device)), forbidden=[(1, 0), (1, 1)])
    with pytest.raises(ValueError, match="source point 1 has weight 0.333 but no allowed partner"):
        ot.sinkhorn(geometry)
    with pytest.raises(ValueError, match="source point 1 has weight"):
        ot.sinkhorn(geometry, tau_a=0.5)
    solution = ot.sinkhorn(geometry, torch.tensor([0.5, 0.0, 0.5], device=device))
    assert solution.plan[1].sum() == 0
    assert torch.isfinite(torch.cat([solution.f, solution.g])).all()
    assert torch.isfinite(solution.barycenter(torch.ones(2, 1, device=device))).all()


@pytest.mark.parametrize("solve", [ot.sinkhorn, ot.exact])
def test_mass_that_cannot_flow_is_counted(device, solve):
    # Two sources of weight 1/3 each may go to one target of weight 1/3 only.
    forbidden = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.bool, device=device)
    geometry = ot.Restricted(ot.CostMatrix(torch.ones(3, 3, device=device)), forbidden=forbidden)
    with pytest.raises(ValueError, match=r"only 66\.66.*% of the mass can flow"):
        solve(geometry)
    assert ot.sinkhorn(geometry, tau_a=0.5, tau_b=0.5).converged


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"forbidden": torch.zeros(3, 5, dtype=torch.bool)}, ValueError, r"forbidden has shape \(3, 5\)"),
        ({"forbidden": torch.zeros(3, 4)}, TypeError, "expected integer pairs"),
        ({"fixed": torch.ones(3, 4, dtype=torch.bool)}, TypeError, "fixed has type torch.bool"),
        ({"fixed": [(0, 1, 2)]}, ValueError, r"one row \(i, j\) for each pair"),
        ({"fixed": [(3, 0)]}, ValueError, "outside 0 <= i < 3, 0 <= j < 4"),
        ({"forbidden": [(-1, 0)]}, ValueError, "outside 0 <= i < 3"),
        ({"fixed": [(1, 1)], "forbidden": [(0, 0), (1, 1)]}, ValueError, "both fixed and forbidden"),
    ],
)
def test_restrictions_refuse(options, error, message):
    with pytest.raises(error, match=message):
        ot.Restricted(ot.CostMatrix(torch.ones(3, 4)), **options)


def test_restrictions_are_given_at_once():
    with pytest.raises(TypeError, match="Restricted already"):
        ot.Restricted(ot.Restricted(ot.CostMatrix(torch.ones(2, 2))), forbidden=[(0, 0)])
    with pytest.raises(TypeError, match="new points"):
        ot.sinkhorn(ot.Restricted(ot.PointCloud(torch.eye(3), torch.eye(3)), fixed=[(0, 0)])).map(torch.eye(3))


def test_what_takes_no_restrictions_says_so():
    points = torch.eye(3)
    within, across = (ot.Restricted(ot.PointCloud(points, y), fixed=[(0, 0)]) for y in (points, 2 * points))
    with pytest.raises(TypeError, match="between two spaces"):
        ot.gromov_wasserstein(within, ot.PointCloud(points, points))
    with pytest.raises(TypeError, match="no Restricted geometry"):
        ot.partial_sinkhorn(across, mass=0.5)


def test_no_restrictions_change_nothing(make_clouds):
    x, y, a, b = make_clouds()
    plain, empty = ot.PointCloud(x, y), ot.Restricted(ot.PointCloud(x, y), forbidden=[], fixed=[])
    torch.testing.assert_close(ot.sinkhorn(empty, a, b, **TIGHT).plan, ot.sinkhorn(plain, a, b, **TIGHT).plan)
