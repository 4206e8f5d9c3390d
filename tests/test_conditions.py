"""Conditions: which corruption acts on what, the same bits for everybody, and what is left out is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labkit import corruptions, data
from labkit.conditions import Condition, Conditions, canonical, is_raw
from labkit.config import ConfigError, DataConfig
from labkit.corruptions import CORRUPTIONS
from labkit.corruptions.raw import RAW
from labkit.encoders.raw_features import RawFeatures
from labkit.registry import UnknownNameError
from labkit.types import Embeddings
from tests.toy_items import Toy

TOY = DataConfig(dataset="toy_things", modalities=("image", "text"))


def parts() -> tuple[Embeddings, Embeddings, Embeddings]:
    everything = data.load("toy_things")
    return everything, everything.take(range(60)), everything.take(range(60, 90))


@pytest.fixture
def conditions(toy: Toy, tmp_path: Path) -> Conditions:
    everything, train, test = parts()
    return Conditions(train, test, seed=4, raw=RawFeatures(TOY, everything, root=tmp_path))


def test_names_of_both_kinds_are_known_and_none_is_taken_twice(toy: Toy) -> None:
    assert canonical("feature_noise") == "feature_noise"
    assert canonical("toy_noise") == "toy_noise"
    assert (is_raw("toy_noise"), is_raw("feature_noise")) == (True, False)
    with pytest.raises(UnknownNameError, match="unknown corruption 'toy_noisy'; did you mean 'toy_noise'"):
        canonical("toy_noisy")
    with pytest.raises(UnknownNameError, match="'feature_noise'"):
        canonical("feature_noize")
    assert not set(CORRUPTIONS.names()) & set(RAW.names())


def test_raw_corruptions_act_on_items_of_their_kind_and_others_on_every_modality(conditions: Conditions) -> None:
    grid = conditions.grid(["toy_noise", "feature_noise", "toy_lost_words"], severities=(1, 4), draws=2)
    found = {(c.corruption, c.modality) for c in grid}
    assert found == {
        ("toy_noise", "image"),
        ("feature_noise", "image"),
        ("feature_noise", "text"),
        ("toy_lost_words", "text"),
    }
    assert len(grid) == 4 * 2 * 2
    assert conditions.skipped == []
    assert conditions.grid(["feature_noise"], modalities=["text"], severities=(2,)) == [
        Condition("feature_noise", "text", 2, 0)
    ]


def test_wrong_severities_and_modalities_are_refused(conditions: Conditions) -> None:
    for wrong in (0, 6):
        with pytest.raises(ValueError, match=rf"severity must be one of \(1, 2, 3, 4, 5\); got {wrong}"):
            conditions.grid(["toy_noise"], severities=(1, wrong))
    with pytest.raises(ValueError, match=r"no modality \['sound'\]"):
        conditions.grid(["toy_noise"], modalities=["sound"])


def test_a_corruption_of_items_that_nobody_has_is_told(conditions: Conditions) -> None:
    assert conditions.grid(["toy_noise"], modalities=["text"]) == []
    (skipped,) = conditions.skipped
    assert str(skipped) == "toy_noise: no modality of text has image items"


def test_samples_under_a_corruption_of_raw_items(conditions: Conditions, toy: Toy, tmp_path: Path) -> None:
    everything, _, test = parts()
    found = conditions(Condition("toy_noise", "image", 3, 1))
    keys = test.key.tolist()
    z, _ = RawFeatures(TOY, everything, root=tmp_path).features("toy_noise", "image", keys, severity=3, seed=1)
    assert torch.equal(found.samples.z["image"], z)
    assert torch.equal(found.samples.z["text"], test.z["text"])
    assert all(bool(mask.all()) for mask in found.asked.values())


def test_samples_under_a_corruption_of_features_are_drawn_for_the_run(conditions: Conditions) -> None:
    _, train, test = parts()
    context = corruptions.context(train).seeded(4 * 1000 + 1)
    expected = CORRUPTIONS.get("feature_noise")(test, "text", 2, context)
    found = conditions(Condition("feature_noise", "text", 2, 1))
    assert torch.equal(found.samples.z["text"], expected.z["text"])


def test_every_seed_and_variant_sees_the_same_bits(conditions: Conditions, toy: Toy, tmp_path: Path) -> None:
    everything, train, test = parts()
    other = Conditions(train, test.take([5, 2]), seed=9, raw=RawFeatures(TOY, everything, root=tmp_path / "new"))
    condition = Condition("toy_lost_words", "text", 3)
    assert torch.equal(other(condition).samples.z["text"], conditions(condition).samples.z["text"][[5, 2]])


def test_absent_items_stay_absent(toy: Toy, tmp_path: Path) -> None:
    everything, train, test = parts()
    there = torch.arange(len(test)) % 3 > 0
    partly = test.with_z(test.z, {**test.present, "image": there})
    conditions = Conditions(train, partly, seed=0, raw=RawFeatures(TOY, everything, root=tmp_path))
    found = conditions(Condition("toy_noise", "image", 2))
    assert torch.equal(found.samples.present["image"], there)
    assert torch.equal(found.asked["image"], there)
    assert (found.samples.z["image"][~there] == 0).all()
    assert toy.encoded["toy_pictures"] == 4 + int(there.sum()), "4 to see that the encoder is the right one"


def test_unreadable_items_are_absent_not_asked_and_counted(conditions: Conditions, toy: Toy) -> None:
    toy.damaged = {"thing61", "thing70"}
    for severity in (1, 2):
        found = conditions(Condition("toy_noise", "image", severity))
        for mask in (found.samples.present["image"], found.asked["image"]):
            assert (~mask).nonzero().flatten().tolist() == [1, 10]
        assert bool(found.asked["text"].all())
    (skipped,) = conditions.skipped
    assert (skipped.corruption, skipped.modality, skipped.items) == ("toy_noise", "image", 2)
    assert "thing61, thing70 (OSError: cannot identify image file thing61.png)" in str(skipped)


def test_empty_sentences_are_left_out_and_counted(conditions: Conditions, toy: Toy) -> None:
    toy.empty = {"thing62", "thing64", "thing65"}
    found = conditions(Condition("toy_lost_words", "text", 2))
    assert (~found.asked["text"]).nonzero().flatten().tolist() == [2, 4, 5]
    (skipped,) = conditions.skipped
    assert str(skipped) == (
        "toy_lost_words of text: 3 item(s) left out: thing62, thing64, thing65 (ValueError: the item of 'thing62' is "
        "an empty sentence: there is nothing to corrupt)"
    )


def test_missing_weights_leave_out_one_modality(conditions: Conditions, toy: Toy) -> None:
    toy.missing = {"toy_words"}
    grid = conditions.grid(["toy_noise", "toy_lost_words", "feature_noise"], severities=(1,))
    assert {(c.corruption, c.modality) for c in grid if is_raw(c.corruption)} == {("toy_noise", "image")}
    assert {c.modality for c in grid if c.corruption == "feature_noise"} == {"image", "text"}
    (skipped,) = conditions.skipped
    assert (skipped.corruption, skipped.modality, skipped.items) == ("", "text", 0)
    assert "data.encoders: {text: toy_letters}" in skipped.reason


def test_fill_encodes_what_is_missing_before_it_is_needed(conditions: Conditions, toy: Toy) -> None:
    grid = conditions.grid(["toy_noise", "feature_noise"], severities=(1, 2))
    conditions.fill(grid)
    assert toy.encoded["toy_pictures"] == 4 + 2 * 30
    toy.encoded.clear()
    conditions.fill(grid)
    for condition in grid:
        conditions(condition)
    assert toy.encoded == {}


def test_what_stands_in_for_lost_items_is_part_of_a_condition(conditions: Conditions) -> None:
    assert canonical("missing_modality+nearest") == "missing_modality+nearest"
    assert canonical("missing_by_label+others") == "missing_by_label"
    with pytest.raises(UnknownNameError, match="unknown imputation 'nearst'; did you mean 'nearest'"):
        canonical("missing_modality+nearst")
    with pytest.raises(UnknownNameError, match="unknown corruption 'missing_modalty'; did you mean 'missing_modality'"):
        canonical("missing_modalty+mean")
    for name in ("feature_noise+mean", "toy_noise+mean"):
        with pytest.raises(
            ConfigError, match=r"but \w+ loses no items; imputations follow missing_modality, missing_by_"
        ):
            canonical(name)
    plain, nearest = (conditions.grid([f"missing_modality{how}"], modalities=["text"]) for how in ("", "+nearest"))
    assert [c.imputation for c in plain + nearest] == ["others"] * 5 + ["nearest"] * 5
    for one, other in zip(plain, nearest, strict=True):
        assert one.curve != other.curve
        assert conditions(one).samples.present["text"].equal(conditions(other).samples.present["text"])
        assert bool(conditions(other).asked["text"].all())


def test_dropped_samples_do_not_count(conditions: Conditions) -> None:
    found = conditions(Condition("missing_modality+drop", "text", 4))
    assert not bool(found.samples.present["text"].all())
    for mask in found.asked.values():
        assert mask.equal(found.samples.present["text"])


def test_dropping_leaves_samples_in_that_never_had_the_item(toy: Toy) -> None:
    _, train, test = parts()
    partly = test.with_z(test.z, {**test.present, "text": torch.arange(30) >= 8})
    found = Conditions(train, partly, seed=0)(Condition("missing_modality+drop", "text", 5))
    assert bool(found.asked["image"][:8].all())
    assert not bool(found.asked["image"].all())
    assert found.asked["text"].equal(found.samples.present["text"])


def test_missing_by_label_is_left_out_where_there_are_no_labels(toy: Toy) -> None:
    _, train, test = parts()
    plain = Embeddings(key=test.key, z=test.z)
    conditions = Conditions(train, plain, seed=0)
    grid = conditions.grid(["missing_by_label+mean", "missing_modality"], severities=(1,))
    assert {c.corruption for c in grid} == {"missing_modality"}
    (skipped,) = conditions.skipped
    assert str(skipped).startswith("missing_by_label+mean: items cannot be missing by label: the samples have no label")


def test_raw_corruptions_need_raw_items(toy: Toy) -> None:
    _, train, test = parts()
    with pytest.raises(ValueError, match="need `raw`"):
        Conditions(train, test, seed=0).grid(["toy_noise"])
