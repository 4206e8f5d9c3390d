"""Cutting pairs: what stays, what is lost, and that nothing says what belonged together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.data.pairing import unpair
from labkit.types import Embeddings


@pytest.fixture
def samples(shared_latent) -> Embeddings:
    """200 samples of three modalities in groups of two; 30 % of the items are missing."""
    return shared_latent(200, 3, missing=0.3, group_size=2)


def items(data: Embeddings, modality: str) -> dict[bytes, int]:
    """Vector of every present item -> label, so that items can be followed through the cutting."""
    there = data.present[modality]
    return {v.tobytes(): int(c) for v, c in zip(data.z[modality][there].numpy(), data.label[there], strict=True)}


def number_of_items(data: Embeddings) -> torch.Tensor:
    return torch.stack([data.present[m] for m in data.modalities]).sum(dim=0)


@pytest.mark.parametrize("pairs", [0, 0.1, 0.5, 7, 1.0])
def test_every_item_stays_with_its_label_and_the_asked_number_stays_paired(samples, pairs):
    cut = unpair(samples, pairs, seed=3)
    paired = int((number_of_items(samples) > 1).sum())
    assert int((number_of_items(cut) > 1).sum()) == (round(pairs * paired) if pairs <= 1 else pairs)
    for m in samples.modalities:
        assert items(cut, m) == items(samples, m)
    assert cut.label_names == samples.label_names
    assert (number_of_items(cut) > 0).all()


def test_pairs_that_stay_are_the_original_ones(samples):
    cut = unpair(samples, 0.4, seed=3)
    where = {key: i for i, key in enumerate(samples.key)}
    for i in (number_of_items(cut) > 1).nonzero().flatten().tolist():
        j = where[cut.key[i]]
        for m in samples.modalities:
            assert bool(cut.present[m][i]) == bool(samples.present[m][j])
            assert torch.equal(cut.z[m][i], samples.z[m][j])
        assert cut.groups[i] == samples.groups[j]


def test_pieces_have_a_key_and_a_group_of_their_own(samples):
    cut = unpair(samples, 0.4, seed=3)
    fresh = np.array([key not in set(samples.key) for key in cut.key])
    assert fresh.any()
    assert (number_of_items(cut)[fresh] == 1).all()
    groups = cut.groups.numpy()
    assert len(set(groups[fresh])) == fresh.sum()
    assert not set(groups[fresh]) & set(samples.groups.tolist())


def test_neither_order_nor_key_nor_group_leaks_the_pairing(shared_latent):
    """Over many seeds the place of a piece tells nothing about the place of its partner."""
    samples = shared_latent(60, 2)
    index = {m: {v.tobytes(): i for i, v in enumerate(samples.z[m].numpy())} for m in samples.modalities}
    correlation = {"row": [], "key": [], "group": []}
    for seed in range(40):
        cut = unpair(samples, 0.0, seed=seed)
        place = {name: np.zeros((2, 60)) for name in correlation}
        for j, m in enumerate(samples.modalities):
            for row in cut.present[m].nonzero().flatten().tolist():
                i = index[m][cut.z[m][row].numpy().tobytes()]
                place["row"][j, i] = row
                place["key"][j, i] = int(cut.key[row].removeprefix("cut"))
                place["group"][j, i] = cut.groups[row]
        for name, (first, second) in place.items():
            correlation[name].append(np.corrcoef(first, second)[0, 1])
    for name, values in correlation.items():
        # 40 draws with standard deviation 1 / sqrt(59): the mean of independent places lies within 0.08, four sigma
        assert abs(np.mean(values)) < 0.08, name


def test_the_choice_depends_on_the_seed_and_fewer_pairs_are_a_subset_of_more(samples):
    kept = lambda pairs, seed: set(unpair(samples, pairs, seed=seed, keep_unpaired=False).key)
    assert kept(0.5, 1) == kept(0.5, 1)
    assert kept(0.5, 1) != kept(0.5, 2)
    assert kept(10, 1) < kept(0.25, 1) < kept(0.5, 1) < kept(1.0, 1)


def test_dropped_leaves_the_pairs_alone(samples):
    alone = unpair(samples, 0.5, seed=1, keep_unpaired=False)
    cut = unpair(samples, 0.5, seed=1)
    assert (number_of_items(alone) > 1).all()
    assert set(alone.key) == set(cut.key[(number_of_items(cut) > 1).numpy()])


def test_all_pairs_change_nothing(samples):
    assert unpair(samples, 1.0, seed=0) is samples
    assert unpair(samples, int((number_of_items(samples) > 1).sum()), seed=0) is samples


def test_keys_that_look_like_those_of_pieces_do_not_clash(shared_latent):
    plain = shared_latent(10, 2)
    named = Embeddings(key=np.array([f"cut{i}" for i in range(10)]), z=plain.z)
    assert len(set(unpair(named, 0.5, seed=0).key)) == 15


def test_what_cannot_be_done_is_said(samples):
    with pytest.raises(ValueError, match=r"data.pairs asks for 900 paired training samples but there are \d+; lower"):
        unpair(samples, 900, seed=0)
    with pytest.raises(ValueError, match="data.pairs is 0 and data.unpaired is 'dropped'"):
        unpair(samples, 0, seed=0, keep_unpaired=False)
