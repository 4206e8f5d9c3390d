"""Gromov-Wasserstein, correlation and identifiability losses against other libraries and known values."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labkit import ot
from labkit.losses.correlation import dcca, gcca
from labkit.losses.gromov import (
    distance_distribution,
    eccentricity,
    fused_gromov_wasserstein,
    gromov_wasserstein,
    third_lower_bound,
)
from labkit.losses.identifiability import cycle_defect, map_jacobian, permutation_defect, permutation_defect_literal


def cloud(n: int = 30, d: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x: Tensor) -> Tensor:
    q = torch.linalg.qr(cloud(x.shape[1], x.shape[1], seed=5))[0]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    return 4 * x[order] @ q + 2


def test_gromov_wasserstein_of_the_plan_by_pot():
    x, y = cloud(), cloud(seed=1)
    value = gromov_wasserstein(x, y, epsilon=0.02)
    first, second = (torch.cdist(z, z).square() for z in (x, y))
    first, second = first / first.mean(), second / second.mean()
    made = ot.gromov_wasserstein(ot.CostMatrix(first), ot.CostMatrix(second), epsilon=0.02, scale_cost=None)
    constant, hx, hy = pot.gromov.init_matrix(first, second, *[torch.full((30,), 1 / 30).double()] * 2)
    distortion = pot.gromov.gwloss(constant, hx, hy, made.plan.detach()).item()
    kl = torch.special.xlogy(made.plan, made.plan * 900).sum().item()
    assert value.item() == pytest.approx(distortion + 0.02 * kl, rel=2e-3)


@pytest.mark.parametrize("loss", [distance_distribution, eccentricity, third_lower_bound])
def test_bounds_are_zero_for_copies_and_below_the_distortion(loss):
    x, y = cloud(), cloud(seed=1) ** 3
    assert loss(x, turned(x)).item() == pytest.approx(0, abs=1e-9)
    distances = [torch.cdist(z, z) for z in (x, y)]
    # the losses leave the diagonal out, which lowers the means by a factor (n - 1) / n
    spaces = [ot.CostMatrix(d / d.mean() * 29 / 30) for d in distances]
    bounds = ot.gromov_lower_bounds(spaces[0], spaces[1], scale_cost=None)
    bound = {distance_distribution: bounds.slb, eccentricity: bounds.flb, third_lower_bound: bounds.tlb}[loss]
    assert loss(x, y).item() * 29 / 30 == pytest.approx(bound.item(), rel=2e-2)
    assert loss(x, y) > 1e-3


def test_the_third_bound_by_assignment_of_sorted_distances_and_above_the_others():
    x, y = cloud(), cloud(seed=1) ** 3
    rows = []
    for z in (x, y):
        apart = torch.cdist(z, z)[~torch.eye(30, dtype=torch.bool)].view(30, 29)
        rows.append((apart / apart.mean()).sort().values.numpy())
    table = np.square(rows[0][:, None] - rows[1]).mean(axis=2)
    matched = linear_sum_assignment(table)
    assert third_lower_bound(x, y).item() == pytest.approx(table[matched].mean(), rel=1e-4)
    assert third_lower_bound(x, y) >= max(distance_distribution(x, y), eccentricity(x, y))


@pytest.mark.parametrize("loss", [distance_distribution, eccentricity, third_lower_bound])
def test_bounds_of_clouds_of_different_sizes_by_repetition(loss):
    """Quantiles of 4 and 6 values step together with those of 12: matched there, equal sizes must give the same."""
    x, y = cloud(12, 2), cloud(18, 2, seed=1)
    a, b = (torch.cdist(z, z) for z in (x, y))
    apart = [d[~torch.eye(len(d), dtype=torch.bool)].view(len(d), -1) for d in (a, b)]
    apart = [(d / d.mean()).sort().values.numpy() for d in apart]
    if loss is third_lower_bound:
        quantiles = [np.repeat(d, 187 // d.shape[1], axis=1) for d in apart]  # 187 = 11 x 17
        expected = pot.emd2([], [], np.square(quantiles[0][:, None] - quantiles[1]).mean(axis=2))
    else:
        flat = [np.sqrt(np.square(d).mean(1)) if loss is eccentricity else d.ravel() for d in apart]
        expected = pot.wasserstein_1d(np.sort(flat[0]), np.sort(flat[1]), p=2)
    assert loss(x, y).item() == pytest.approx(float(expected), rel=1e-3)
    assert torch.autograd.gradcheck(lambda u, v: loss(u, v), (x.requires_grad_(), y.requires_grad_()), atol=1e-4)


def test_fused_sees_the_place_that_the_pure_loss_does_not():
    x = cloud()
    pure, fused = (f(x, turned(x)) - f(x, x) for f in (gromov_wasserstein, fused_gromov_wasserstein))
    assert abs(pure.item()) < 1e-3
    assert fused.item() > 0.05


def test_canonical_correlations_by_their_definition():
    x, y = cloud(200, 4), cloud(200, 3, seed=1)
    y = y + x[:, :3] @ cloud(3, 3, seed=2)
    a, b = (z.numpy() - z.numpy().mean(0) for z in (x, y))
    roots = [fractional_matrix_power(np.cov(z.T), -0.5) for z in (a, b)]
    correlations = np.linalg.svd(roots[0] @ (a.T @ b / 199) @ roots[1], compute_uv=False)
    assert dcca(x, y, ridge=1e-12).item() == pytest.approx(1 - correlations.mean(), abs=1e-6)
    assert dcca(x, x @ cloud(4, 4, seed=3), ridge=1e-9).item() == pytest.approx(0, abs=1e-6)
    # of two modalities the common representation explains (1 + correlation) / 2
    assert gcca(x, y, ridge=1e-12).item() == pytest.approx(1 - (1 + correlations).mean() / 2, abs=1e-6)


def test_generalized_cca_of_three_linear_views_explains_all():
    x = cloud(100, 3)
    assert gcca(x, x @ cloud(3, 3, seed=1), x @ cloud(3, 5, seed=2) + 1, ridge=1e-9).item() == pytest.approx(
        0, abs=1e-5
    )
    assert gcca(x, cloud(100, 3, seed=3), cloud(100, 3, seed=4)) > 0.4


def test_only_permutations_have_no_defect():
    n = 8
    permutation = torch.eye(n, dtype=torch.float64)[torch.randperm(n)] / n
    product = torch.full((n, n), 1 / n**2, dtype=torch.float64)
    for defect in (permutation_defect, cycle_defect):
        assert defect(permutation).item() == pytest.approx(0, abs=1e-12)
        assert defect(product).item() == pytest.approx((n - 1) / n)
        assert defect((permutation + product) / 2) > 0.05
    with pytest.raises(ValueError, match="use cycle_defect"):
        permutation_defect(product[:4])


def test_what_is_useless_about_the_identifiability_term_as_proposed():
    n = 8
    permutation = torch.eye(n, dtype=torch.float64)[torch.randperm(n)] / n
    product = torch.full((n, n), 1 / n**2, dtype=torch.float64)
    values = [permutation_defect_literal(plan).item() for plan in (permutation, product)]
    assert values == pytest.approx([7.752, 7.969], abs=1e-3)  # it hardly tells the best plan from the worst
    assert values[0] == pytest.approx(n * (1 - 1 / n**2) ** 2)


def test_the_defect_falls_with_epsilon():
    x = cloud(8, 2)
    y = x + 0.3 * cloud(8, 2, seed=1)
    defects = [permutation_defect(ot.sinkhorn(ot.PointCloud(x, y), epsilon=e).plan).item() for e in (1.0, 0.1, 0.003)]
    assert defects[0] > 0.5 > defects[1] > defects[2]
    assert defects[2] < 0.05


def test_volume_of_the_map_by_its_covariance():
    x, y = cloud(12, 3), cloud(40, 3, seed=1)
    made = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.3, tolerance=1e-8)
    share = made.plan / made.plan.sum(1, keepdim=True)
    total = 0.0
    for row in share:
        center = row @ y
        covariance = (y - center).T @ (row[:, None] * (y - center))
        total += float((torch.linalg.eigvalsh(2 / made.epsilon_absolute * covariance)[-2:] + 1e-4).log().mean() ** 2)
    assert map_jacobian(made, x, rank=2).item() == pytest.approx(total / 12, rel=1e-4)
    with pytest.raises(ValueError, match="rank must be between 1 and 3"):
        map_jacobian(made, x, rank=4)


@pytest.mark.parametrize("defect", [permutation_defect, cycle_defect, permutation_defect_literal])
def test_gradients_of_the_defects(defect):
    plan = (cloud(5, 5).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(defect, (plan / plan.sum(),))
