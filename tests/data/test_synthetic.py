"""Synthetic clouds have the answers that they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from labkit.data import synthetic


def test_crescents_are_two_arms_and_the_start_is_between_them():
    x, y = synthetic.crescents(300, seed=0)
    assert x.shape == y.shape == (300, 2)
    assert float(y.norm(dim=1).mean()) > float(x.norm(dim=1).mean())
    assert float(x.mean(0).norm()) < 0.2
    assert not torch.equal(x, synthetic.crescents(300, seed=1)[0])


@pytest.mark.parametrize("dim", [2, 16])
def test_convex_pairs_are_matched_at_the_least_cost(dim):
    pairs = synthetic.convex_pairs(200, dim, seed=1)
    cost = cdist(pairs.x, pairs.y, "sqeuclidean")
    row, column = linear_sum_assignment(cost)
    np.testing.assert_array_equal(column, pairs.match)
    assert pairs.cost == pytest.approx(cost[row, column].mean())


def test_another_draw_has_other_points_of_the_same_function():
    first, second = (synthetic.convex_pairs(400, 3, seed=0, draw=draw) for draw in (0, 1))
    assert not torch.equal(first.x, second.x)
    # the function is smooth: near points have near images, whichever draw they come from
    nearest = torch.cdist(second.x, first.x).min(1)
    close = nearest.values < 0.15
    apart = (second.y[second.match] - first.y[first.match][nearest.indices]).norm(dim=1)
    assert close.any()
    assert apart[close].max() < 2


def test_a_rotated_copy_keeps_inner_distances():
    x = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    copy = synthetic.rotated_copy(x, seed=0)
    turned = copy.y[copy.match]
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(x, x), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.mean(0), x.mean(0))
    assert not torch.allclose(turned, x)
    assert not torch.equal(copy.match, torch.arange(50))
