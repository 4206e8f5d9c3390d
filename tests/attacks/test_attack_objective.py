"""The attacker's margin and loss: signs, limits and gradients against plain loops, with several relevant items."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.attacks import Retrieval


@pytest.fixture
def goal(generator) -> Retrieval:
    """12 queries, 9 items of 4 dimensions, one to three of them relevant, k = 2."""
    gallery = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    relevant = torch.zeros(12, 9, dtype=torch.bool)
    for i in range(12):
        relevant[i, [i % 9, *((i + 3) % 9,) * (i % 2), *((i + 5) % 9,) * (i % 3 == 0)]] = True
    return Retrieval(gallery, relevant, 2)


def similarities(goal: Retrieval, z: torch.Tensor) -> list[tuple[list[float], list[float]]]:
    """Similarities of the relevant and of the other items of each query, descending."""
    rows = []
    for query, relevant in zip(z, goal.relevant, strict=True):
        found: tuple[list[float], list[float]] = ([], [])
        for item, wanted in zip(goal.gallery, relevant, strict=True):
            cosine = float(query @ item) / math.sqrt(float(query @ query) * float(item @ item))
            found[0 if wanted else 1].append(cosine)
        rows.append((sorted(found[0], reverse=True), sorted(found[1], reverse=True)))
    return rows


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_margin_and_loss_are_those_of_the_module(goal, targeted, k, generator):
    z, t = torch.randn(12, 4, dtype=torch.float64, generator=generator), 0.1
    goal = Retrieval(goal.gallery, goal.relevant, k, targeted=targeted, temperature=t)
    sign = -1 if targeted else 1
    for i, (best, others) in enumerate(similarities(goal, z)):
        assert float(goal.margin(z)[i]) == pytest.approx(best[0] - others[k - 1])
        smooth = t * math.log(sum(math.exp(s / t) for s in best))
        terms = [t * math.log1p(math.exp(sign * (smooth - other) / t)) for other in others[:k]]
        assert float(goal.loss(z)[i]) == pytest.approx(-sum(terms) / k)


def test_a_query_alone_has_the_same_values(goal, generator):
    z = torch.randn(12, 4, dtype=torch.float64, generator=generator)
    for i in range(12):
        assert goal.take([i]).loss(z[[i]]).allclose(goal.loss(z)[i])


def test_the_gradient_is_that_of_the_loss(goal, generator):
    z = torch.randn(12, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: Retrieval(goal.gallery, goal.relevant, 2, temperature=0.1).loss(v), z)


def test_what_there_is_not_is_refused(goal):
    with pytest.raises(ValueError, match=r"relevant must be booleans \[queries, 9\]; got shape \(12, 8\)"):
        Retrieval(goal.gallery, goal.relevant[:, 1:], 1)
    with pytest.raises(ValueError, match="1 queries have nothing relevant in the gallery"):
        Retrieval(goal.gallery, goal.relevant & (torch.arange(12) > 0)[:, None], 1)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.6, the other items of the gallery; got 7"):
        Retrieval(goal.gallery, goal.relevant, 7)
