"""Deep feature separation against the double loops of its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from labkit.losses import deep_separation, info_nce, orthogonality, uniformity


@pytest.fixture
def rows(generator) -> list[Tensor]:
    return [torch.randn(7, 4, generator=generator, dtype=torch.float64) for _ in range(6)]


def unit(v: Tensor) -> Tensor:
    return v / v.norm()


def looped_uniformity(z: Tensor, t: float) -> float:
    terms = [
        math.exp(-t * float((unit(z[j]) - unit(z[k])).square().sum())) for j in range(7) for k in range(7) if j != k
    ]
    return math.log(sum(terms) / len(terms))


def test_it_is_the_mean_over_modalities_of_its_three_terms(rows):
    x, y, own_x, own_y, augmented_x, augmented_y = rows
    expected = 0.0
    for z, own, augmented in ((x, own_x, augmented_x), (y, own_y, augmented_y)):
        expected += sum(float(unit(z[j]) @ unit(own[j])) ** 2 for j in range(7)) / 7 / 2
        expected += (info_nce(own, augmented, temperature=0.2).item() + looped_uniformity(own, 2.0)) / 2
    value = deep_separation([x, y], [own_x, own_y], [augmented_x, augmented_y], temperature=0.2)
    assert value.item() == pytest.approx(expected)


def test_its_weight_holds_for_any_number_of_modalities(rows):
    x, own, augmented = rows[:3]
    once, thrice = (deep_separation([x] * m, [own] * m, [augmented] * m).item() for m in (1, 3))
    assert once == pytest.approx(thrice)


def test_known_values():
    eye = torch.eye(4, dtype=torch.float64)
    assert orthogonality(eye, 3 * eye).item() == pytest.approx(1)
    assert orthogonality(eye, eye.roll(1, dims=0)).item() == 0
    assert uniformity(eye, t=2.0).item() == pytest.approx(-4)  # all squared distances are 2
    assert uniformity(torch.ones(5, 3, dtype=torch.float64)).item() == pytest.approx(0)


def test_gradients(rows):
    leaves = [z.requires_grad_() for z in rows]
    assert torch.autograd.gradcheck(lambda a, b, c, d, e, f: deep_separation([a, b], [c, d], [e, f]), leaves, atol=1e-5)


def test_modalities_that_do_not_match_are_refused(rows):
    with pytest.raises(ValueError, match="got 2, 1 and 1"):
        deep_separation(rows[:2], rows[2:3], rows[3:4])
