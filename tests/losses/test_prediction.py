"""Task losses: unknown targets take no part, and what remains is the cross-entropy or squared error of torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses import classification, multi_label, reconstruction, regression


@pytest.fixture
def logits(generator) -> Tensor:
    return torch.randn(6, 3, generator=generator, dtype=torch.float64)


def test_unlabeled_samples_take_no_part(logits):
    label = torch.tensor([2, -1, 0, 1, -1, 2])
    expected = -sum(
        float(logits[i, c]) - math.log(sum(math.exp(float(v)) for v in logits[i]))
        for i, c in ((0, 2), (2, 0), (3, 1), (5, 2))
    )
    assert classification(logits, label).item() == pytest.approx(expected / 4)
    assert classification(0 * logits, label).item() == pytest.approx(math.log(3))


def test_unknown_numbers_take_no_part(logits):
    target = torch.tensor([[1.0, math.nan, 2.0]]).repeat(6, 1)
    expected = ((logits[:, 0] - 1) ** 2 + (logits[:, 2] - 2) ** 2).sum() / 12
    assert regression(logits, target).item() == pytest.approx(expected.item())
    labels = torch.tensor([[1.0, math.nan, 0.0]]).repeat(6, 1)
    expected = -(F.logsigmoid(logits[:, 0]) + F.logsigmoid(-logits[:, 2])).sum() / 12
    assert multi_label(logits, labels).item() == pytest.approx(expected.item())
    assert multi_label(0 * logits, labels).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (classification, torch.full((6,), -1)),
        (regression, torch.full((6, 3), math.nan)),
        (multi_label, torch.full((6, 3), math.nan)),
    ],
)
def test_without_any_target_there_is_nothing_to_learn(loss, target, logits):
    value = loss(logits.requires_grad_(), target)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_unknown_targets_leave_no_trace_in_the_gradient(logits):
    target = torch.tensor([[1.0, math.nan, 2.0]]).repeat(6, 1)
    assert torch.autograd.gradcheck(lambda p: regression(p, target), (logits.requires_grad_(),))
    regression(logits, target).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] == 0).all()


def test_reconstruction_is_a_mean_over_all_entries(logits):
    assert reconstruction(logits, torch.zeros_like(logits)).item() == pytest.approx(
        float(sum(v**2 for v in logits.flatten())) / 18
    )


def test_bad_input_is_refused(logits):
    with pytest.raises(ValueError, match="logits are of 3 classes; got label 3"):
        classification(logits, torch.tensor([0, 1, 2, 3, 0, 0]))
    with pytest.raises(ValueError, match="one label each"):
        classification(logits, torch.tensor([0]))
    for loss in (regression, multi_label):
        with pytest.raises(ValueError, match="one target per prediction"):
            loss(logits, torch.zeros(6))
    with pytest.raises(ValueError, match="two matrices of one shape"):
        reconstruction(logits, logits[:, :2])
