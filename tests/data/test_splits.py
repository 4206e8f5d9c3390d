"""Splits by group: no group straddles, shares hold, the seed decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit import data


@given(st.lists(st.integers(0, 30), min_size=3, max_size=200).filter(lambda g: len(set(g)) >= 3), st.integers(0, 99))
def test_groups_stay_together_and_no_split_is_empty(group, seed):
    group = np.array(group)
    names = data.split_groups(group, seed)
    assert set(names) == set(data.SPLITS)
    for value in np.unique(group):
        assert len(set(names[group == value])) == 1


@given(st.integers(0, 1000))
def test_shares_count_things_not_groups(seed):
    sizes = np.random.default_rng(7).integers(1, 8, size=300)
    names = data.split_groups(np.repeat(np.arange(300), sizes), seed)
    for name, share in data.SPLITS.items():
        assert np.mean(names == name) == pytest.approx(share, abs=0.02)


def test_a_seed_is_repeatable_and_another_differs():
    group = np.arange(100)
    assert (data.split_groups(group, 3) == data.split_groups(group, 3)).all()
    assert (data.split_groups(group, 3) != data.split_groups(group, 4)).any()


def test_only_membership_matters_not_the_numbers():
    group = np.random.default_rng(0).integers(0, 40, size=120)
    assert (data.split_groups(group, 1) == data.split_groups(group * 10 + 5, 1)).all()


def test_two_groups_cannot_be_split_in_three():
    with pytest.raises(ValueError, match="at least 3 groups; got 2"):
        data.split_groups(np.array([0, 0, 1]), 0)
