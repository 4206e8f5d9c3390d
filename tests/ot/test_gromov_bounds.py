"""Lower bounds of Gromov-Wasserstein against brute force, scipy's one-dimensional transport, and POT."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import ot
from labkit.ot.gromov import bounds
from labkit.ot.gromov.spaces import make_spaces


def space(x, cost="euclidean"):
    return ot.PointCloud(x, x, cost)


def pot_line(x, y, a, b):
    """W_2^2 on the line."""
    return pot.emd2_1d(*(t.cpu().numpy() for t in (x, y, a, b)), metric="sqeuclidean")


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cost=st.sampled_from(["euclidean", "sqeuclidean", "cosine"]),
    alpha=st.sampled_from([1.0, 0.4]),
)
def test_no_permutation_is_below_a_bound(seed, cost, alpha):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(5, d, generator=generator, dtype=torch.float64) for d in (2, 3))
    fused = None if alpha == 1 else torch.randn(5, 5, generator=generator, dtype=torch.float64)
    options = {"scale_cost": None, "fused_cost": fused, "alpha": alpha}
    found = ot.gromov_lower_bounds(space(x, cost), space(y, cost), **options)
    spaces = make_spaces((space(x, cost), space(y, cost)), (None, None), None, (fused, alpha))
    eye = torch.eye(5, dtype=torch.float64) / 5
    least = min(float(spaces.objective(eye[list(order)])) for order in permutations(range(5)))
    size = 1e-9 * (1 + abs(least))
    assert float(found.best) <= least + size
    assert float(found.flb) <= float(found.tlb) + size
    assert float(found.slb) <= float(found.tlb) + size


@pytest.mark.parametrize("with_pot", [True, False])
@pytest.mark.parametrize("mass", [1.0, 3.0])
def test_weighted_bounds_by_their_definition(make_clouds, monkeypatch, with_pot, mass):
    if not with_pot:
        monkeypatch.setattr(bounds, "find_spec", lambda name: None)
    x, y, a, b = make_clouds(n=9, m=7)
    dx, dy = space(x).matrix(), space(y).matrix()
    found = ot.gromov_lower_bounds(space(x), space(y), mass * a, mass * b, scale_cost=None)
    flb = pot_line((dx**2 @ a).sqrt(), (dy**2 @ b).sqrt(), a, b)
    slb = pot_line(dx.flatten(), dy.flatten(), torch.outer(a, a).flatten(), torch.outer(b, b).flatten())
    table = np.array([[pot_line(row, column, a, b) for column in dy] for row in dx])
    tlb = pot.emd2(a.cpu().numpy(), b.cpu().numpy(), table)
    np.testing.assert_allclose(float(found.flb), mass**2 * flb, rtol=1e-9)
    np.testing.assert_allclose(float(found.slb), mass**2 * slb, rtol=1e-9)
    assert float(found.tlb) <= mass**2 * tlb * (1 + 1e-9)
    np.testing.assert_allclose(float(found.tlb), mass**2 * tlb, rtol=1e-9 if with_pot else 0.02)


@pytest.mark.parametrize("sizes", [(6, 6), (6, 4), (7, 5)])
def test_uniform_table_is_the_weighted_one(make_clouds, sizes):
    x, y, _, _ = make_clouds(n=sizes[0], m=sizes[1])
    dx, dy = space(x).matrix(), space(y).matrix()
    a, b = (d.new_full((len(d),), 1 / len(d)) for d in (dx, dy))
    nearly = a.clone()
    nearly[0] += 1e-14
    table = bounds._local_costs(dx, dy, a, b)
    torch.testing.assert_close(table, bounds._local_costs(dx, dy, nearly, b), rtol=1e-8, atol=1e-10)
    expected = np.array([[pot_line(row, column, a, b) for column in dy] for row in dx])
    np.testing.assert_allclose(table.cpu(), expected, atol=1e-10)


def test_zero_for_copies_and_bounds_the_solver(make_clouds, generator):
    x, y, a, b = make_clouds()
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=x.dtype)).Q.to(x.device)
    order = torch.randperm(len(x), generator=generator).to(x.device)
    copies = ot.gromov_lower_bounds(space(x), space((x @ rotation + 2)[order]), a, a[order])
    assert float(copies.best) < 1e-9
    fused = ot.PointCloud(x, y).matrix()
    for options in ({}, {"fused_cost": fused, "alpha": 0.3}):
        found = ot.gromov_lower_bounds(space(x), space(y), a, b, **options)
        solution = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.01, **options)
        assert 0 < found.slb <= found.best <= solution.cost


def test_plans_couple_the_weights(make_clouds):
    x, y, a, b = make_clouds(n=12, m=9)
    for weights in ((2 * a, 2 * b), (None, None)):
        for fused in (None, ot.PointCloud(x, y).matrix()):
            spaces = make_spaces((space(x), space(y)), weights, "mean", (fused, 0.5))
            plans = bounds.lower_bound_plans(spaces)
            assert len(plans) == 2
            for plan in plans:
                torch.testing.assert_close(plan.sum(-1), spaces.a)
                torch.testing.assert_close(plan.sum(-2), spaces.b)
                assert (plan >= 0).all()


def test_plan_on_the_line_is_monotone(make_clouds):
    x, y, a, b = make_clouds(n=12, m=9)
    plan = bounds._line_plan((x[:, 0], a), (y[:, 0], b))
    expected = pot.emd_1d(*(t.cpu().numpy() for t in (x[:, 0], y[:, 0], a, b)))
    np.testing.assert_allclose(plan.cpu(), expected, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_is_a_loop_and_absent_points_do_not_count(make_clouds, weighted):
    problems = [make_clouds(n=8, m=8, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    weights = (a, b) if weighted else (None, None)
    batch = ot.gromov_lower_bounds(space(x), space(y), *weights)
    for k, (x, y, a, b) in enumerate(problems):
        one = ot.gromov_lower_bounds(space(x), space(y), *((a, b) if weighted else (None, None)))
        for name in ("flb", "slb", "tlb"):
            torch.testing.assert_close(getattr(batch, name)[k], getattr(one, name))
    far = torch.cat([x.new_full((2, 3), 50.0), x])
    more = ot.gromov_lower_bounds(space(far), space(y), torch.cat([a.new_zeros(2), a]), b)
    few = ot.gromov_lower_bounds(space(x), space(y), a, b)
    torch.testing.assert_close(more.best, few.best)


def test_single_precision_and_hostile_input(make_clouds):
    x, y, a, b = make_clouds()
    exact = ot.gromov_lower_bounds(space(x), space(y), a, b)
    rough = ot.gromov_lower_bounds(space(x.float()), space(y.float()), a.float(), b.float())
    assert rough.best.dtype == torch.float32
    torch.testing.assert_close(rough.best.double(), exact.best, rtol=1e-4, atol=0)
    one = ot.gromov_lower_bounds(space(x[:1]), space(y[:1]))
    assert float(one.best) == 0
    with pytest.raises(ValueError, match="differ in total mass"):
        ot.gromov_lower_bounds(space(x), space(y), a, 2 * b)
    with pytest.raises(ValueError, match="NaN or infinite"):
        ot.gromov_lower_bounds(space(x), space(y), a * float("nan"), b)
    with pytest.raises(ValueError, match="is unknown"):
        ot.gromov_lower_bounds(space(x), space(y), scale_cost="max")
