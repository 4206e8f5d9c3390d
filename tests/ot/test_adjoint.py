"""The adjoint system against a dense least-squares solve."""

from __future__ import annotations

import pytest
import torch

from labkit import ot
from labkit.ot import adjoint


def dense_solution(plan, p, q, tau_a, tau_b):
    rows, columns = plan.sum(1), plan.sum(0)
    top = torch.cat([torch.diag(rows / tau_a), plan], 1)
    bottom = torch.cat([plan.mT, torch.diag(columns / tau_b)], 1)
    return torch.linalg.lstsq(torch.cat([top, bottom]), torch.cat([p, q]), driver="gelsd").solution.split(plan.shape)


def right_sides(plan, generator):
    p, q = (torch.randn(n, generator=generator, dtype=plan.dtype).to(plan) for n in plan.shape)
    return p - p.mean(), q - q.mean()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("shape", [(30, 25), (20, 35)])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.8, 0.9), (1.0, 0.7), (0.7, 1.0)])
def test_agrees_with_least_squares(make_clouds, generator, monkeypatch, direct, shape, taus):
    x, y, a, b = make_clouds(*shape)
    plan = ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=taus[0], tau_b=taus[1]).plan
    p, q = right_sides(plan, generator)
    monkeypatch.setattr(adjoint, "DIRECT_SIZE", 1000 if direct else 0)
    u, v = adjoint.solve_adjoint(plan, p, q, tau_a=taus[0], tau_b=taus[1])
    expected = dense_solution(plan.cpu(), p.cpu(), q.cpu(), *taus)
    # Only what does not feel the gauge is determined.
    torch.testing.assert_close((u[:, None] + v).cpu(), expected[0][:, None] + expected[1], rtol=1e-7, atol=1e-8)


def test_batches_are_loops(make_clouds, generator):
    plans = torch.stack([ot.sinkhorn(ot.PointCloud(*make_clouds(seed=s)[:2])).plan for s in range(3)])
    sides = [right_sides(plan, generator) for plan in plans]
    p, q = (torch.stack(side) for side in zip(*sides, strict=True))
    u, v = adjoint.solve_adjoint(plans, p, q)
    for k in range(3):
        one = adjoint.solve_adjoint(plans[k], p[k], q[k])
        torch.testing.assert_close(u[k, :, None] + v[k], one[0][:, None] + one[1])


def test_points_of_weight_zero_are_left_out(make_clouds, generator):
    x, y, a, b = make_clouds()
    plan = ot.sinkhorn(ot.PointCloud(x, y), a, b).plan
    p, q = right_sides(plan, generator)
    padded = torch.nn.functional.pad(plan, (0, 2, 0, 1))
    few = adjoint.solve_adjoint(plan, p, q)
    more = adjoint.solve_adjoint(padded, torch.cat([p, p[:1]]), torch.cat([q, q[:2]]))
    torch.testing.assert_close(more[0][:-1, None] + more[1][:-2], few[0][:, None] + few[1])
    assert more[0][-1] == more[1][-1] == 0


def test_a_system_that_is_not_solved_is_said(make_clouds, generator, monkeypatch):
    x, y, _, _ = make_clouds()
    plan = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.01).plan
    monkeypatch.setattr(adjoint, "DIRECT_SIZE", 0)
    monkeypatch.setattr(adjoint, "MAX_ITERATIONS", 1)
    with pytest.warns(RuntimeWarning, match="derivative of a plan is inaccurate"):
        adjoint.solve_adjoint(plan, *right_sides(plan, generator))
