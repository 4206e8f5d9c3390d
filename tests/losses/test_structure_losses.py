"""Consistency, neighborhood, kernel and moment losses against naive loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from torch.nn import functional as F

from labkit.losses.consistency import augmented_consistency, geometric_consistency
from labkit.losses.kernel import BANDWIDTHS, cmd, coral, difference, mmd
from labkit.losses.structure import brownian_bridge, neighborhood_literal, soft_neighborhood, structure


def clouds(*shapes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_geometric_consistency_by_its_sum():
    x, y = (F.normalize(z, dim=1) for z in clouds((7, 3), (7, 3)))
    total = 0.0
    for j in range(7):
        for k in range(7):
            total += ((x[j] @ y[k] - x[k] @ y[j]) ** 2 + (x[j] @ x[k] - y[j] @ y[k]) ** 2).item() / 49
    assert geometric_consistency(x, y).item() == pytest.approx(total)
    assert geometric_consistency(x, 3 * x).item() == pytest.approx(0, abs=1e-15)


def test_augmentation_that_changes_nothing_costs_nothing():
    x, y, noise = clouds((7, 3), (7, 3), (7, 3))
    assert augmented_consistency(x, y, x, y).item() == 0
    a, b, c, d = (F.normalize(z, dim=1) for z in (x, y, x + noise, y))
    expected = sum(((p @ p.T - q @ q.T) ** 2).mean() for p, q in ((a, c), (b, d)))
    expected += (torch.stack([a[j] @ b[j] - c[j] @ d[j] for j in range(7)]) ** 2).mean()
    assert augmented_consistency(x, y, x + noise, y).item() == pytest.approx(float(expected))


@pytest.mark.parametrize(("hops", "centered"), [(1, False), (1, True), (3, True)])
def test_hops_by_scipy(hops, centered):
    x, y = clouds((8, 3), (8, 5))
    steps = []
    for z in (x, y):
        z = F.normalize(z, dim=1).numpy()
        z = z - z.mean(axis=0) if centered else z
        weight = np.exp(z @ z.T / 0.3) * (1 - np.eye(8))
        steps.append(weight / weight.sum(axis=1, keepdims=True))
    expected = 0.0
    for hop in range(1, hops + 1):
        p, q = (np.linalg.matrix_power(step, hop) for step in steps)
        expected += np.mean([jensenshannon(p[i], q[i]) ** 2 for i in range(8)]) / hop / hops
    assert structure(x, y, temperature=0.3, hops=hops, centered=centered).item() == pytest.approx(expected)


def test_neighborhoods_survive_a_rotation_and_lie_below_log_two():
    x, y = clouds((30, 4), (30, 4))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert soft_neighborhood(x, 5 * x @ turn).item() == pytest.approx(0, abs=1e-12)
    assert 0 < soft_neighborhood(x, y, temperature=0.01) <= math.log(2) + 1e-9


def test_neighborhoods_as_proposed_by_sets():
    x, y = clouds((40, 4), (40, 3))
    near = []
    for z in (x, y):
        cosine = F.normalize(z, dim=1) @ F.normalize(z, dim=1).T - 9 * torch.eye(40)
        near.append([set(row.argsort(descending=True)[:5].tolist()) for row in cosine])
    shared = sum(len(a & b) for a, b in zip(*near, strict=True))
    assert neighborhood_literal(x, y, k=5).item() == pytest.approx(1 - shared / 200)
    assert neighborhood_literal(x, 3 * x, k=5).item() == 0
    assert not neighborhood_literal(x.requires_grad_(), y).requires_grad
    with pytest.raises(ValueError, match="paired rows"):
        neighborhood_literal(x, y[:9])


def test_the_bridge_by_its_corrected_inner_product_form():
    x, y, a = (F.normalize(z, dim=1) for z in clouds((9, 4), (9, 4), (9, 4)))
    t = 0.25
    root = (t**2 + (1 - t) ** 2 + 2 * t * (1 - t) * (x * y).sum(1)).sqrt()
    expected = (2 - 2 * (t * (x * a).sum(1) + (1 - t) * (y * a).sum(1)) / root).mean()
    assert brownian_bridge(x, y, a).item() == pytest.approx(expected.item())
    assert brownian_bridge(x, y, x, t=1.0).item() == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="t must be between 0"):
        brownian_bridge(x, y, a, t=2.0)


def test_mmd_by_its_sums():
    x, y = clouds((6, 3), (8, 3))
    z = torch.cat([x, y])
    square = torch.cdist(z, z).square()
    median = square[~torch.eye(14, dtype=torch.bool)].median()

    def kernel(u: Tensor, v: Tensor) -> float:
        return float(np.mean([math.exp(-float((u - v).square().sum()) / (s * float(median))) for s in BANDWIDTHS]))

    def mean(a: Tensor, b: Tensor) -> float:
        return float(np.mean([[kernel(u, v) for v in b] for u in a]))

    assert mmd(x, y).item() == pytest.approx(mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert mmd(x, x[torch.randperm(6, generator=torch.Generator().manual_seed(0))]).item() == pytest.approx(
        0, abs=1e-12
    )


def test_coral_by_numpy():
    x, y = clouds((20, 3), (30, 3))
    expected = np.square(np.cov(x.numpy().T) - np.cov(y.numpy().T)).sum() / 36
    assert coral(x, y).item() == pytest.approx(expected)
    assert coral(x, x + 7).item() == pytest.approx(0, abs=1e-20)


def test_moments_by_hand():
    x = torch.tensor([[0.0], [2.0]], dtype=torch.float64)  # central moments 1, 0, 1, 0
    y = torch.tensor([[0.0], [0.0], [3.0]], dtype=torch.float64)  # mean 1, central moments 2, 2, 6, 10
    assert cmd(x, y).item() == pytest.approx(0 + 1 + 2 + 5 + 10, abs=1e-6)
    assert cmd(x, x.flip(0)).item() == pytest.approx(0, abs=1e-8)


def test_difference_sees_linear_dependence():
    x, y = clouds((400, 3), (400, 2))
    centered = [z - z.mean(0) for z in (x, y)]
    rows = [z / z.norm(dim=1, keepdim=True) for z in centered]
    assert difference(x, y).item() == pytest.approx((rows[0].T @ rows[1]).square().mean().item(), rel=1e-6)
    assert difference(x, x[:, :2]) > 5 * difference(x, y)


@pytest.mark.parametrize("loss", [mmd, coral, cmd])
def test_clouds_of_different_dimensions_are_refused(loss):
    with pytest.raises(ValueError, match="two clouds"):
        loss(*clouds((5, 3), (5, 4)))
