"""Balls of perturbations: projections against plain loops, directions against the best of many, reproducible starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit.attacks import Ball
from labkit.attacks.ball import NORMS


def length(row: Tensor, norm: str) -> float:
    values = row.flatten().double()
    return float(values.abs().max() if norm == "linf" else values.square().sum().sqrt())


def projected(delta: float, x: float, radius: float) -> float:
    """The nearest of 20001 points of an interval: |delta| <= radius and 0 <= x + delta <= 1."""
    allowed = np.linspace(max(-radius, -x), min(radius, 1 - x), 20001)
    return float(allowed[np.abs(allowed - delta).argmin()])


def test_linf_with_a_box_is_the_nearest_point_of_each_coordinate(generator):
    ball = Ball("linf", 0.3, 0.0, 1.0)
    x, delta = torch.rand(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    expected = [
        [projected(float(d), float(v), 0.3) for d, v in zip(*rows, strict=True)] for rows in zip(delta, x, strict=True)
    ]
    assert ball.project(delta, x).allclose(torch.tensor(expected), atol=1e-4)


def test_l2_without_a_box_is_the_nearest_point(generator):
    """Nothing of 50 000 points of the ball is nearer than the projection."""
    ball, delta = Ball("l2", 0.7), 2 * torch.randn(6, 3, generator=generator)
    found = ball.project(delta, torch.zeros(6, 3))
    directions = torch.randn(50_000, 3, generator=generator)
    shell = directions / directions.norm(dim=1, keepdim=True) * 0.7 * torch.rand(50_000, 1, generator=generator) ** 0.1
    for row, point in zip(delta, found, strict=True):
        nearest = float((shell - row).norm(dim=1).min())
        assert float((point - row).norm()) <= nearest + 1e-6
        assert float((point - row).norm()) > nearest - 0.02


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(7,), (3, 4, 4)])
def test_projections_are_allowed_and_leave_what_is_allowed(norm, shape, generator):
    ball = Ball(norm, 0.25, 0.0, 1.0)
    x, delta = torch.rand(20, *shape, generator=generator), torch.randn(20, *shape, generator=generator)
    found = ball.project(delta, x)
    assert all(length(row, norm) <= 0.25 for row in found)
    assert 0 <= float((x + found).min()) <= float((x + found).max()) <= 1
    assert ball.project(found, x).allclose(found, atol=1e-6)
    assert (ball.project(0 * delta, x) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_no_direction_of_unit_norm_climbs_more(norm, generator):
    slope = torch.randn(1, 5, generator=generator)
    step = Ball(norm, 1.0).steepest(slope, torch.zeros(1, 5))
    others = torch.randn(20_000, 5, generator=generator)
    others = others / (others.abs().amax(dim=1) if norm == "linf" else others.norm(dim=1))[:, None]
    assert length(step[0], norm) == pytest.approx(1, abs=1e-6)
    assert float((step * slope).sum()) >= float((others @ slope[0]).max())


def test_directions_do_not_lead_out_of_the_range_of_inputs():
    ball = Ball("l2", 1.0, 0.0, 1.0)
    x, slope = torch.tensor([[1.0, 1.0, 0.0, 0.5]]), torch.tensor([[3.0, -2.0, -5.0, 2.0]])
    step = ball.steepest(slope, x)
    assert step[0].tolist() == pytest.approx([0, -(0.5**0.5), 0, 0.5**0.5], abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_tiny_and_vanishing_gradients(norm):
    slope = torch.tensor([[1e-30, -2e-30], [0.0, 0.0]])
    step = Ball(norm, 1.0).steepest(slope, torch.zeros(2, 2))
    assert length(step[0], norm) == pytest.approx(1, abs=1e-5)
    assert step[0].sign().tolist() == [1, -1]
    assert (step[1] == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_starts_depend_on_seed_and_key_alone(norm):
    ball, x = Ball(norm, 0.1, 0.0, 1.0), torch.full((3, 2, 5, 5), 0.5)
    first = ball.starts(x, ["a", "b", "c"], seed=4, count=2)
    again = ball.starts(x[:2], ["c", "a"], seed=4, count=3)
    assert again[0].equal(first[0][[2, 0]])
    assert again[1].equal(first[1][[2, 0]])
    assert not again[0].equal(again[1])
    assert not ball.starts(x, ["a", "b", "c"], seed=5, count=1)[0].equal(first[0])
    assert all(length(row, norm) <= 0.1 for start in first for row in start)


def test_starts_fill_the_ball():
    """Uniform: half of the points of a ball in d dimensions lie beyond 2^(-1/d) of its radius."""
    keys = [f"{i}" for i in range(400)]
    for norm, d in (("l2", 3), ("linf", 1)):
        (start,) = Ball(norm, 2.0).starts(torch.zeros(400, d), keys, seed=0, count=1)
        beyond = start.flatten(1).norm(dim=1) > 2 * 0.5 ** (1 / d)
        assert abs(float(beyond.double().mean()) - 0.5) < 0.1


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_is_positive_and_finite(radius):
    with pytest.raises(ValueError, match="radius must be a positive finite number; got"):
        Ball("l2", radius)


def test_norms_that_there_are_not():
    with pytest.raises(ValueError, match="norm must be one of linf, l2; got 'l1'"):
        Ball("l1", 1.0)  # type: ignore[arg-type]
