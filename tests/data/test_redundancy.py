"""The data set `redundancy`: its parameters reach the generator, and its groups are what cannot be told apart."""

from __future__ import annotations

import pytest
import torch

from labkit import data
from labkit.config import ConfigError
from labkit.data.synthetic.tjandrasuwita import redundancy_uniqueness


def test_options_reach_the_generator():
    samples = data.load("redundancy", options={"n": 300, "redundancy": 3, "depth": 2, "rule": 5, "temperature": 0.1})
    made = redundancy_uniqueness(300, redundancy=3, depth=2, temperature=0.1, seed=5)
    torch.testing.assert_close(samples.z["first"], made.x1.float())
    torch.testing.assert_close(samples.z["second"], made.x2.float())
    assert torch.equal(samples.label, made.label)
    assert data.load("redundancy", modalities=("second", "first")).modalities == ("second", "first")


def test_a_group_is_what_has_the_same_shared_features():
    samples = data.load("redundancy", options={"n": 400})
    shared = samples.z["first"][:, :8]
    same = (shared[:, None] == shared).all(dim=2)
    assert torch.equal(samples.groups[:, None] == samples.groups, same)


def test_the_table_says_the_same():
    samples, table = data.load("redundancy"), data.table("redundancy", {"n": 2000})
    assert table["key"].tolist() == samples.key.tolist()
    assert table["group"].tolist() == samples.groups.tolist()
    assert table["label"].tolist() == [samples.label_names[i] for i in samples.label.tolist()]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("redundancy", {"redundacy": 2}, "data set 'redundancy': unknown field 'redundacy'; did you mean 'redundancy'"),
        ("redundancy", {"redundancy": 9}, "field 'redundancy' is 9: Input should be less than or equal to 8"),
        ("stamps", {"n": 9}, r"data set 'stamps': unknown field 'n'; fields are \(none\)"),
        ("mine.npz", {"n": 9}, "data set 'mine.npz': unknown field 'n'"),
    ],
)
def test_wrong_options_are_named(name, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.load(name, options=options)


def test_there_are_no_raw_items():
    assert data.dataset("redundancy", {"n": 100}).items("first") == [None] * 100
    with pytest.raises(ValueError, match="redundancy has no modality 'third'; it has first, second"):
        data.dataset("redundancy").items("third")
