"""GRAM, TRIANGLE, PMRL and Symile against naive loops of their formulas, and where their papers' forms break."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses.contrastive import info_nce
from labkit.losses.volume import (
    antipodal,
    gram,
    gram_volume,
    leading_directions,
    pmrl,
    symile,
    triangle,
    triangle_area,
)


def units(n: int = 6, d: int = 5, modalities: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1) for _ in range(modalities)]


@pytest.mark.parametrize("modalities", [2, 3, 4, 5])
def test_volumes_are_roots_of_gram_determinants(modalities):
    z = units(modalities=modalities)
    volume = gram_volume(*z)
    for i, j in itertools.product(range(6), repeat=2):
        stacked = torch.stack([z[0][i], *(v[j] for v in z[1:])])
        assert volume[i, j].item() == pytest.approx(torch.linalg.det(stacked @ stacked.T).sqrt().item(), abs=2e-6)


def test_the_volume_of_two_is_the_sine_so_antipodes_look_aligned():
    x = units()[0]
    assert gram_volume(x, -x).diagonal().max() < 1e-5
    flat = torch.tensor([[1.0, 0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]], dtype=torch.float64)
    assert gram_volume(*(v[None] for v in flat)).item() < 1e-5, "coplanar is not aligned, but has no volume"


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("loss", [gram, pmrl, symile])
def test_gradients_are_finite_at_perfect_alignment(loss, modalities):
    z = [units()[0].clone().requires_grad_() for _ in range(modalities)]
    loss(*z).backward()
    assert all(v.grad is not None and bool(torch.isfinite(v.grad).all()) for v in z)


def test_gram_is_the_smoothed_cross_entropy_of_both_directions():
    z = units()
    scores = -gram_volume(*z) / 0.07
    expected = 0.0
    for rows in (scores, scores.T):
        log_p = rows - rows.logsumexp(dim=1, keepdim=True)
        expected += -sum(0.9 * log_p[i, i] + 0.1 * log_p[i].mean() for i in range(6)).item() / 6 / 2  # type: ignore[union-attr]
    assert gram(*z).item() == pytest.approx(expected, rel=1e-9)


def test_triangle_areas_by_heron():
    x, y, z = units()
    scores = torch.zeros(6, 6, dtype=torch.float64)
    for i, j in itertools.product(range(6), repeat=2):
        a, b, c = (v.norm().item() for v in (x[i] - y[j], x[i] - z[j], y[j] - z[j]))
        s = (a + b + c) / 2
        scores[i, j] = -2 * s * (s - a) * (s - b) * (s - c) / 0.07  # twice the squared area
    target = torch.arange(6)
    expected = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    assert triangle(x, y, z).item() == pytest.approx(expected.item(), rel=1e-9)


def test_pmrl_by_singular_values():
    z = units()
    stacked = torch.stack(z, dim=1)
    leading, scores = [], []
    for sample in stacked:
        _, s, v = torch.linalg.svd(sample, full_matrices=False)
        leading.append(v[0])
        scores.append(s)
    within = F.cross_entropy(torch.stack(scores) / 0.1, torch.zeros(6, dtype=torch.long))
    u = torch.stack(leading)
    between = F.cross_entropy((u @ u.T).abs() / 0.1, torch.arange(6))
    assert pmrl(*z).item() == pytest.approx((within + between).item(), rel=1e-4)


def test_symile_by_its_sum_and_for_two_modalities_info_nce():
    z = units()
    total = 0.0
    for m, i in itertools.product(range(3), range(6)):
        a, b = (z[o] for o in range(3) if o != m)
        scores = torch.stack([(z[m][i] * a[j] * b[j]).sum() for j in range(6)]) / 0.07
        total += (scores.logsumexp(0) - scores[i]).item() / 18
    assert symile(*z).item() == pytest.approx(total, rel=1e-9)
    assert symile(*z[:2]).item() == pytest.approx(info_nce(*z[:2]).item(), rel=1e-9)


def test_an_uninformative_space_costs_log_n():
    same = torch.ones(6, 4, dtype=torch.float64)
    assert gram(same, same, same).item() == pytest.approx(math.log(6))
    assert symile(same, same, same).item() == pytest.approx(math.log(6))


@pytest.mark.parametrize("loss", [gram, triangle, pmrl])
def test_aligned_tuples_cost_less_than_shuffled_ones(loss):
    x = units(n=20, d=16)[0]
    near = [F.normalize(x + 0.1 * v, dim=1) for v in units(n=20, d=16, seed=1)]
    assert loss(*near) < loss(near[0], near[1].roll(1, 0), near[2].roll(3, 0)) - 0.2


@pytest.mark.parametrize("loss", [gram, triangle, pmrl, symile])
def test_gradcheck_with_three_modalities(loss):
    z = [v.requires_grad_() for v in units(n=4, d=4)]
    assert torch.autograd.gradcheck(loss, tuple(z), eps=1e-6, atol=1e-4)


@pytest.mark.parametrize("loss", [gram, triangle, pmrl, symile])
def test_samples_of_one_group_are_positives_of_each_other(loss):
    """The cross-entropy of each row with uniform targets, in a loop over the scores that the formula names."""
    z, group = units(), torch.tensor([0, 0, 1, 2, 2, 2])
    extra, options = 0.0, {"temperature": 0.07}
    if loss is gram:
        scores, options["label_smoothing"] = [-gram_volume(*z), -gram_volume(*z).T], 0.0
    elif loss is triangle:
        scores = [-triangle_area(*z), -triangle_area(*z).T]
    elif loss is pmrl:
        values, leading = leading_directions(*z)
        scores, options["temperature_between"] = [(leading @ leading.T).abs()], 0.07
        extra = -(values / 0.07).log_softmax(dim=1)[:, -1].mean().item()
    else:
        scores = [z[a] @ (z[b] * z[c]).T for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    expected = 0.0
    for one in scores:
        log_p = one / 0.07 - (one / 0.07).logsumexp(dim=1, keepdim=True)
        expected -= sum(log_p[i, group == group[i]].mean().item() for i in range(6)) / 6 / len(scores)
    assert loss(*z, **options, group=group).item() == pytest.approx(expected + extra, rel=1e-9)
    assert loss(*z, group=torch.arange(6)).item() == pytest.approx(loss(*z).item(), rel=1e-12)


def test_leading_directions_are_those_of_the_singular_value_decomposition():
    z = units(modalities=4)
    values, leading = leading_directions(*z)
    _, s, vh = torch.linalg.svd(torch.stack(z, dim=1), full_matrices=False)
    assert values.flip(1).allclose(s, atol=1e-4)
    assert (leading * vh[:, 0]).sum(dim=1).abs().allclose(torch.ones(6, dtype=torch.float64), atol=1e-6)


def test_antipodal_is_the_share_of_obtuse_partners_and_settles_what_volumes_leave_open():
    x, y, _ = units()
    expected = sum(max(0.0, -float(a @ b)) for a, b in zip(x, y, strict=True)) / 6
    assert expected > 0.01
    assert antipodal(x, y).item() == pytest.approx(expected, rel=1e-12)
    assert antipodal(x, x).item() == 0
    assert antipodal(x, -3 * x).item() == pytest.approx(1)
    for loss in (gram, pmrl):
        assert loss(x, y).item() == pytest.approx(loss(x, -y).item(), rel=1e-9), "which is why it is needed"


def test_rows_that_are_no_tuples_are_refused():
    x, y, _ = units()
    with pytest.raises(ValueError, match="row i of x and of y must be one sample"):
        gram(x, y, y[:3])
