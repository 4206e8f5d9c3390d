"""ASIF against a loop over items and anchors; which samples become anchors."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.variants import get
from labkit.variants._anchored import choose_anchors
from labkit.variants.asif import sparse_powers


def naive(x: torch.Tensor, anchors: torch.Tensor, kept: int, power: float) -> list[float]:
    """The formula, for one item and float64 lists."""
    similar = []
    for anchor in anchors.tolist():
        dot = sum(a * b for a, b in zip(x.tolist(), anchor, strict=True))
        length = math.sqrt(sum(a * a for a in x.tolist())) * math.sqrt(sum(b * b for b in anchor))
        similar.append(dot / length)
    largest = sorted(similar, reverse=True)[:kept]
    powers = [s**power if s in largest and s > 0 else 0.0 for s in similar]
    norm = math.sqrt(sum(p * p for p in powers))
    return [p / norm for p in powers]


def test_it_is_the_formula(shared_latent):
    train, test = shared_latent(40), shared_latent(5, seed=1)
    shared = get("asif")({"kept": 7, "power": 3}).fit(train, train).embed(test)
    for m in train.modalities:
        mean = train.z[m].double().mean(dim=0)
        for i in range(5):
            expected = naive(test.z[m][i].double() - mean, train.z[m].double() - mean, 7, 3)
            assert shared.z[m][i].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_anchor_is_most_like_itself_in_every_modality(shared_latent):
    train = shared_latent(50, 3)
    shared = get("asif")().fit(train, train).embed(train)
    for z in shared.z.values():
        assert (z.argmax(dim=1) == torch.arange(50)).all()


def test_an_anchor_that_lacks_a_modality_is_like_none_of_its_items(shared_latent):
    train = shared_latent(60, 3, missing=0.3)
    aligner = get("asif")().fit(train, train)
    count = torch.stack(list(train.present.values())).sum(dim=0)
    rows = (count > 1).nonzero().flatten()
    shared = aligner.embed(shared_latent(20, 3, seed=1))
    for m, z in shared.z.items():
        assert z.shape[1] == len(rows)
        assert (z[:, ~train.present[m][rows]] == 0).all()


def test_ties_are_kept_and_nothing_negative_is():
    row = torch.tensor([[0.5, 0.2, 0.5, 0.9, -0.8]])
    assert (0.81 * sparse_powers(row, 2, 2.0)[0]).tolist() == pytest.approx([0.25, 0, 0.25, 0.81, 0])
    assert (0.9 * sparse_powers(row, 9, 1.0)[0]).tolist() == pytest.approx([0.5, 0.2, 0.5, 0.9, 0])


def test_what_is_like_no_anchor_is_taken_for_the_one_it_is_least_unlike():
    unlike = torch.tensor([[-0.5, -torch.inf, -0.2], [1e-9, 0.0, 2e-9]], dtype=torch.float64)
    assert sparse_powers(unlike, 1, 8.0).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_anchors_are_the_most_complete_samples_and_spread_over_the_others():
    present = {
        "a": torch.tensor([True] * 9 + [False]),
        "b": torch.tensor([True] * 8 + [False, False]),
        "c": torch.tensor([False, True, False, True] + [False] * 5 + [True]),
    }
    assert choose_anchors(present, 99).tolist() == list(range(8))
    assert choose_anchors(present, 4).tolist() == [0, 1, 3, 5]
    assert choose_anchors(present, 1).tolist() == [1]


def test_too_few_anchors_for_a_modality_are_refused(shared_latent):
    data, few = shared_latent(60, 3), (torch.arange(60) - 6).abs() <= 1
    rare = data.with_z(data.z, {**data.present, "speech_fr": few, "text": ~few})
    with pytest.raises(ValueError, match=r"none of the 2 anchors has \['speech_fr'\]; raise the option anchors, 2"):
        get("asif")({"anchors": 2}).fit(rare, rare)


def test_its_alias():
    assert get("relative") is get("asif")
