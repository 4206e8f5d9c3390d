"""VICReg against plain loops over the formula of the paper."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.losses import vicreg


def looped(x, y, invariance, variance, covariance) -> float:
    n, d = x.shape

    def hinge(z):
        total = 0.0
        for j in range(d):
            mean = sum(float(z[i, j]) for i in range(n)) / n
            var = sum((float(z[i, j]) - mean) ** 2 for i in range(n)) / (n - 1)
            total += max(0.0, 1 - math.sqrt(var + 1e-4))
        return total / d

    def off_diagonal(z):
        mean = z.mean(dim=0)
        total = 0.0
        for a in range(d):
            for b in range(d):
                if a != b:
                    c = sum(float((z[i, a] - mean[a]) * (z[i, b] - mean[b])) for i in range(n)) / (n - 1)
                    total += c * c
        return total / d

    distance = sum(float((x[i] - y[i]).square().sum()) for i in range(n)) / (n * d)
    return (
        invariance * distance + variance * (hinge(x) + hinge(y)) / 2 + covariance * (off_diagonal(x) + off_diagonal(y))
    )


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_it_equals_plain_loops(weights, generator):
    x, y = (scale * torch.randn(8, 4, generator=generator, dtype=torch.float64) for scale in (0.7, 1.2))
    names = ("invariance", "variance", "covariance")
    ours = vicreg(x, y, **dict(zip(names, weights, strict=True)))
    assert ours.item() == pytest.approx(looped(x, y, *weights), rel=1e-9)
    assert ours > 0


def test_the_defaults_are_those_of_the_paper(generator):
    x, y = (torch.randn(8, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    assert vicreg(x, y).item() == pytest.approx(looped(x, y, 25, 25, 1))


def test_collapse_costs_the_whole_variance_term():
    constant = torch.ones(8, 4)
    assert vicreg(constant, constant).item() == pytest.approx(25 * (1 - 0.01), rel=1e-5)


def test_equal_white_clouds_cost_nothing(generator):
    z = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    z = z - z.mean(dim=0)
    white = torch.linalg.qr(z).Q * math.sqrt(49)
    assert vicreg(white, white).item() == pytest.approx(0, abs=1e-9)


def test_broadcasting_is_refused():
    with pytest.raises(ValueError, match=r"got \[8, 4\] and \[1, 4\]"):
        vicreg(torch.randn(8, 4), torch.randn(1, 4))
