"""KLOT against the divergence of converged plans and its closed gradient; distilled InfoNCE against plain loops."""

from __future__ import annotations

import math

import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses import distilled_info_nce, info_nce, klot


def similarities(n: int = 8, m: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plan(similarity: Tensor, epsilon: float) -> np.ndarray:
    n, m = similarity.shape
    return pot.sinkhorn(
        pot.unif(n), pot.unif(m), -similarity.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=50000
    )


@pytest.mark.parametrize("m", [8, 5])
def test_klot_and_its_gradient_by_the_plans_of_pot(m):
    student, teacher = similarities(m=m).requires_grad_(), similarities(m=m, seed=1)
    value = klot(student, teacher, epsilon=0.2, target_epsilon=0.1, tolerance=1e-9)
    p, wanted = plan(student.detach(), 0.2), plan(teacher, 0.1)
    assert value.item() == pytest.approx((wanted * np.log(wanted / p)).sum(), rel=1e-6)
    value.backward()
    assert student.grad is not None
    assert np.allclose(student.grad.numpy(), (p - wanted) / 0.2, atol=1e-8)


def test_the_closed_gradient_is_that_of_finite_differences():
    """No derivative of the potentials goes in, and none is missing."""
    student = similarities(5, 5).requires_grad_()
    teacher = similarities(5, 5, seed=1)
    assert torch.autograd.gradcheck(
        lambda k: 3 * klot(k, teacher, epsilon=0.3, target_epsilon=0.1, tolerance=1e-12), (student,), atol=1e-6
    )


def test_klot_is_zero_only_for_equal_plans():
    teacher = similarities()
    same = {"epsilon": 0.1, "target_epsilon": 0.1, "tolerance": 1e-9}
    assert klot(teacher, teacher, **same).item() == pytest.approx(0, abs=1e-8)
    # what is added to rows and columns leaves the plan as it is
    shifted = teacher + similarities(8, 1, seed=2) + similarities(1, 8, seed=3)
    assert klot(shifted, teacher, **same).item() == pytest.approx(0, abs=1e-8)
    assert klot(2 * teacher, teacher, epsilon=0.2, target_epsilon=0.1, tolerance=1e-9).item() < 1e-8
    assert klot(teacher.T.contiguous(), teacher, **same).item() > 0.1


def test_descent_on_klot_reaches_the_teachers_plan():
    student, teacher = similarities(6, 6).requires_grad_(), similarities(6, 6, seed=1)
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        klot(student, teacher, epsilon=0.1, target_epsilon=0.1).backward()
        optimizer.step()
    assert np.allclose(plan(student.detach(), 0.1), plan(teacher, 0.1), atol=5e-3)


def test_a_plan_that_underflows_still_has_a_finite_divergence():
    student = torch.eye(6) * 30
    value = klot(student.requires_grad_(), torch.eye(6).flip(0) * 2, epsilon=0.05, target_epsilon=0.05)
    value.backward()
    assert value.item() == pytest.approx(30 / 0.05, rel=1e-3)  # all its mass lies where the teacher has none
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_klot_of_other_samples_is_refused():
    with pytest.raises(ValueError, match="two similarity matrices of the same samples"):
        klot(similarities(), similarities(7))


def looped(x: Tensor, y: Tensor, keys: tuple[Tensor, Tensor], alpha: float, temperature: float) -> float:
    n, total = len(x), 0.0
    for queries, own, others in ((x, keys[0], keys[1]), (y, keys[1], keys[0])):
        for i in range(n):

            def probability(a: Tensor, others: Tensor = others) -> np.ndarray:
                scores = np.array([float(a @ k / a.norm() / k.norm()) / temperature for k in others])
                return np.exp(scores) / np.exp(scores).sum()

            target = alpha * probability(own[i]) + (1 - alpha) * (np.arange(len(others)) == i)
            total -= float((target * np.log(probability(queries[i]))).sum())
    return total / (2 * n)


@pytest.fixture
def batch(generator) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    x, y, kx, ky = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (6, 6, 15, 15))
    return x, y, (kx, ky)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_distillation_by_plain_loops(batch, alpha):
    x, y, keys = batch
    value = distilled_info_nce(x, y, *keys, alpha=alpha, temperature=0.2)
    assert value.item() == pytest.approx(looped(x, y, keys, alpha, 0.2))


def test_without_queue_and_softness_it_is_info_nce(batch):
    x, y, _ = batch
    assert distilled_info_nce(x, y, x, y, alpha=0).item() == pytest.approx(info_nce(x, y).item())
    group = torch.tensor([0, 0, 1, 2, 2, 2])
    grouped = distilled_info_nce(x, y, x, y, alpha=0, group=group).item()
    assert grouped == pytest.approx(info_nce(x, y, group=group).item())


def test_equal_logits_score_the_log_of_the_number_of_keys():
    x, keys = torch.ones(4, 3), torch.ones(10, 3)
    assert distilled_info_nce(x, x, keys, keys).item() == pytest.approx(math.log(10), rel=1e-6)


def test_keys_and_soft_targets_carry_no_gradient(batch):
    x, y, keys = batch
    leaves = [x.requires_grad_(), keys[0].requires_grad_(), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)]
    value = distilled_info_nce(leaves[0], y, leaves[1], keys[1], temperature=leaves[2])
    assert torch.autograd.grad(value, leaves[1], allow_unused=True, retain_graph=True) == (None,)
    with torch.no_grad():
        soft = (F.normalize(keys[0][:6], dim=1) @ F.normalize(keys[1], dim=1).T / 0.2).softmax(dim=1)
    logits = F.normalize(x, dim=1) @ F.normalize(keys[1], dim=1).T / 0.2
    half = F.cross_entropy(logits, 0.4 * soft + 0.6 * torch.eye(6, 15, dtype=torch.float64)) / 2
    expected = torch.autograd.grad(half, leaves[0])[0]
    assert torch.autograd.grad(value, leaves[0], retain_graph=True)[0].allclose(expected)
    assert torch.autograd.grad(value, leaves[2])[0] != 0


def test_bad_keys_are_refused(batch):
    x, y, (kx, ky) = batch
    with pytest.raises(ValueError, match=r"keys must begin with those of the batch \[6 5\]; got \[3, 5\]"):
        distilled_info_nce(x, y, kx[:3], ky[:3])
    with pytest.raises(ValueError, match="alpha must be between 0"):
        distilled_info_nce(x, y, kx, ky, alpha=1.5)
