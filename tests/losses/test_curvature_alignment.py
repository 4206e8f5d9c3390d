"""Curvature alignment on surfaces of known curvature, against the metric, and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import ortho_group
from torch import Tensor
from torch.nn import functional as F

from labkit.geometry import curvature
from labkit.losses import curvature_alignment

ROWS = torch.arange(12)


def sphere(n: int = 800, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def dented(x: Tensor, depth: float) -> Tensor:
    return x * (1 + depth * x[:, 2:] ** 2)


def test_it_is_the_difference_of_curvatures_in_units_of_the_clouds():
    """On a sphere S = 2 / R^2 and the size is R; a plane has none."""
    ball = sphere(4000)
    plane = F.pad(ball[:, :2], (0, 1))
    assert curvature_alignment(3 * ball, plane, rows=ROWS, delta=100.0).item() == pytest.approx(2.0, rel=0.06)
    assert curvature_alignment(3 * ball, plane, rows=ROWS).item() == pytest.approx(1.5, rel=0.06)  # |r| - 1 / 2


def test_isometric_copies_of_any_size_have_none():
    x = dented(sphere(), 0.3)
    turned = 7 * F.pad(x, (0, 4)) @ torch.as_tensor(ortho_group.rvs(7, random_state=0)) + 5
    assert curvature_alignment(x, turned, rows=ROWS).item() == pytest.approx(0, abs=1e-12)
    assert curvature_alignment(x, dented(sphere(), -0.3), rows=ROWS) > 0.05


def test_the_values_are_near_those_of_the_metric():
    """Which takes terms of fourth order into account, too."""
    x, y = dented(sphere(3000), 0.3), sphere(3000)
    made = [curvature(z, dim=2, rows=ROWS) for z in (x, y)]
    gaps = made[0].scalar * made[0].size ** 2 - made[1].scalar * made[1].size ** 2
    expected = F.huber_loss(gaps, torch.zeros_like(gaps))
    assert curvature_alignment(x, y, rows=ROWS).item() == pytest.approx(expected.item(), rel=0.1)


def test_gradient_with_the_frames_held_and_that_holding_them_loses_little():
    x, y = dented(sphere(150), 0.4).requires_grad_(), sphere(150, seed=1).requires_grad_()
    rows = torch.arange(6)
    held = curvature(x.detach(), dim=2, rows=rows), curvature(y.detach(), dim=2, rows=rows)
    gradient = torch.autograd.grad(curvature_alignment(x, y, rows=rows), x)[0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        step = 1e-5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            fixed, free = (
                (
                    curvature_alignment(x + step, y, rows=rows, local=local)
                    - curvature_alignment(x - step, y, rows=rows, local=local)
                ).item()
                / 2
                for local in (held, None)
            )
        assert (gradient * step).sum().item() == pytest.approx(fixed, rel=1e-4)
        assert fixed == pytest.approx(free, rel=0.2, abs=0.1 * float(gradient.norm() * step.norm()) / 20)


def test_descent_flattens_a_bump_towards_its_partner():
    x = dented(sphere(300), 0.8).requires_grad_()
    partner, rows = sphere(300), torch.arange(40)
    optimizer = torch.optim.SGD([x], lr=0.05)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        value = curvature_alignment(x, partner, rows=rows)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[0]


def test_refused_points_take_no_part_and_a_circle_leaves_nothing():
    x, y = sphere(200), sphere(200, seed=1)
    lines = F.pad(torch.linspace(5, 6, 60, dtype=torch.float64)[:, None], (0, 2))
    mixed = torch.cat([x, lines])  # curvature along a line is not determined
    both = curvature_alignment(mixed, torch.cat([y, 5 + sphere(60, seed=2)]), rows=torch.tensor([0, 1, 230, 231]))
    first = curvature_alignment(mixed, torch.cat([y, 5 + sphere(60, seed=2)]), rows=torch.tensor([0, 1]))
    assert both.item() == pytest.approx(first.item())
    assert math.isfinite(both.item())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="needs at least 12 neighbors"):
        curvature_alignment(sphere(10), sphere(10))
    with pytest.raises(ValueError, match="row i of x and of y must be one sample"):
        curvature_alignment(sphere(40), sphere(41))
