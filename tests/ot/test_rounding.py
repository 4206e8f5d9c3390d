"""Rounded plans have exactly the marginals that were asked for, or are the best assignment there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import ot


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.floats(0.0, 0.5), st.integers(0, 10_000))
def test_rounding_meets_the_marginals_and_moves_no_more_than_it_must(n, m, share, seed):
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)
    plan, a, b = rand(2, n, m) * (rand(2, n, m) > share), rand(2, n) * (rand(2, n) > share), rand(2, m)
    a[:, 0] += 0.1
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    rounded = ot.round_to_marginals(plan, a, b)
    assert (rounded >= 0).all()
    torch.testing.assert_close(rounded.sum(-1), a)
    torch.testing.assert_close(rounded.sum(-2), b)
    # Altschuler, Weed, Rigollet 2017, lemma 7.
    error = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
    assert ((rounded - plan).abs().sum((-2, -1)) <= 2 * error + 1e-12).all()


def test_a_plan_with_the_right_marginals_stays(make_clouds):
    _, _, a, b = make_clouds()
    product = torch.outer(a, b)
    torch.testing.assert_close(ot.round_to_marginals(product, a, b), product)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 3)])
def test_assignment_carries_the_most_mass(device, generator, shape):
    plan = torch.rand(*shape, generator=generator, dtype=torch.float64).to(device)
    target = ot.round_to_permutation(plan)
    matched = (target >= 0).nonzero()[:, 0]
    assert len(matched) == min(shape)
    assert len(set(target[matched].tolist())) == min(shape)
    least, most = sorted(shape)
    tall = plan if shape[0] <= shape[1] else plan.mT
    rows = torch.arange(least, device=device)
    best = max(tall[rows, list(columns)].sum().item() for columns in itertools.permutations(range(most), least))
    assert plan[matched, target[matched]].sum().item() == pytest.approx(best)


def test_a_coupling_rounds_to_the_permutation_it_came_from(make_clouds, generator):
    x, _, _, _ = make_clouds(n=24)
    orders = torch.stack([torch.randperm(24, generator=generator).to(x.device) for _ in range(2)])
    y = x[orders] + 0.01
    coupling = ot.sinkhorn(ot.PointCloud(x.expand(2, 24, 3), y), epsilon=0.05)
    assert torch.equal(coupling.round(), orders.argsort(-1))
    assert torch.equal(ot.exact(ot.PointCloud(x, y[0])).round(), orders[0].argsort())


@pytest.mark.parametrize("plan", [torch.full((2, 2), torch.nan), torch.ones(0, 2), torch.ones(3)])
def test_assignments_refuse(plan):
    with pytest.raises(ValueError, match="the plan"):
        ot.round_to_permutation(plan)
