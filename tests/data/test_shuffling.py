"""Shuffled pairs: as many as asked, wrong all of them, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.data.shuffling import shuffle_pairs
from labkit.types import Embeddings


def made(n: int = 120, modalities: int = 3, *, missing: float = 0.2, group_size: int = 3, seed: int = 0) -> Embeddings:
    """Every vector says which sample it comes from."""
    random = np.random.default_rng(seed)
    names = "abcd"[:modalities]
    present = random.random((n, modalities)) >= missing
    present[np.arange(n), random.integers(modalities, size=n)] = True
    return Embeddings(
        key=np.array([f"thing{i}" for i in range(n)]),
        z={m: torch.arange(1.0, n + 1)[:, None] for m in names},
        present={m: torch.from_numpy(present[:, i]) for i, m in enumerate(names)},
        label=torch.arange(n) % 4,
        group=torch.from_numpy(random.permutation(n) // group_size),
    )


def origins(data: Embeddings) -> np.ndarray:
    """From which row each item comes, -1 for none."""
    return np.stack([data.z[m][:, 0].numpy().astype(int) - 1 for m in data.modalities], axis=1)


def wrong_pairs(before: Embeddings, after: Embeddings) -> np.ndarray:
    """Which samples have two items of different groups."""
    group = before.groups.numpy()
    return np.array([len({group[j] for j in row if j >= 0}) > 1 for row in origins(after)])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_the_asked_share_is_wrong_in_all_its_pairs(share: float, modalities: int) -> None:
    before = made(modalities=modalities)
    after = shuffle_pairs(before, share, seed=1)
    paired = int((torch.stack(list(before.present.values())).sum(dim=0) > 1).sum())
    wrong = wrong_pairs(before, after)
    assert wrong.sum() == round(share * paired)
    group = before.groups.numpy()
    for row in origins(after)[wrong]:
        groups = [group[j] for j in row if j >= 0]
        assert len(set(groups)) == len(groups), "no two items of a chosen sample belong together"


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.1, 1), seed=st.integers(0, 50), missing=st.floats(0, 0.5), modalities=st.integers(2, 4))
def test_items_masks_and_names_stay_what_they_were(share: float, seed: int, missing: float, modalities: int) -> None:
    before = made(90, modalities, missing=missing, seed=seed)
    after = shuffle_pairs(before, share, seed=seed)
    assert (after.key == before.key).all()
    assert torch.equal(after.label, before.label)
    assert torch.equal(after.groups, before.groups)
    for m in before.modalities:
        assert torch.equal(after.present[m], before.present[m])
        assert sorted(after.z[m][:, 0].tolist()) == sorted(before.z[m][:, 0].tolist())
    first = torch.stack(list(before.present.values())).int().argmax(dim=0).numpy()
    assert (origins(after)[np.arange(90), first] == np.arange(90)).all(), "the first item stays"


def test_shares_are_nested_and_seeds_differ() -> None:
    before = made()
    shuffled = (shuffle_pairs(before, share, seed=2) for share in (0.1, 0.3, 0.5))
    chosen = [set(np.flatnonzero(wrong_pairs(before, after))) for after in shuffled]
    assert chosen[0] < chosen[1] < chosen[2]
    assert chosen[1] != set(np.flatnonzero(wrong_pairs(before, shuffle_pairs(before, 0.3, seed=3))))
    assert torch.equal(shuffle_pairs(before, 0.3, seed=2).z["b"], shuffle_pairs(before, 0.3, seed=2).z["b"])


def test_single_items_and_no_share_change_nothing() -> None:
    before = made()
    assert shuffle_pairs(before, 0.0, seed=0) is before
    after = shuffle_pairs(before, 1.0, seed=0)
    single = (torch.stack(list(before.present.values())).sum(dim=0) == 1).numpy()
    assert single.any()
    assert (origins(after)[single].max(axis=1) == np.flatnonzero(single)).all()


def test_what_cannot_be_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.shuffled is 0.01: 1 of 100 paired training samples were to get an it"):
        shuffle_pairs(made(100, missing=0.0), 0.01, seed=0)
    with pytest.raises(ValueError, match="of another group than their other items, which cannot be done"):
        shuffle_pairs(made(20, missing=0.0, group_size=20), 0.5, seed=0)
