"""Corrupted raw items are encoded once per what determines them, and never compared with another encoder's features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import data, encoders
from labkit.config import DataConfig
from labkit.corruptions import raw
from labkit.corruptions.raw import RAW, Raw
from labkit.data.stamps import Stamps
from labkit.encoders import raw_features
from labkit.encoders.raw_features import RawFeatures
from tests.toy_items import LOST, NOISE, Toy

TOY = DataConfig(dataset="toy_things", modalities=("image", "text"))
KEYS = [f"thing{i}" for i in (3, 80, 41)]


def made(root: Path, config: DataConfig = TOY) -> RawFeatures:
    clean = data.load(config.dataset, modalities=config.modalities, encoders=config.encoders)
    return RawFeatures(config, clean, root=root)


def folders(root: Path) -> list[Path]:
    return [path.parent for path in root.rglob("about.json")]


def test_features_are_those_of_the_corrupted_items(toy: Toy, tmp_path: Path) -> None:
    z, failed = made(tmp_path).features("toy_noise", "image", KEYS, severity=2, seed=0)
    items = data.dataset("toy_things").items("image", KEYS)
    changed = [NOISE(item, severity=2, key=key, seed=0) for item, key in zip(items, KEYS, strict=True)]
    assert torch.equal(z, encoders.get("toy_pictures").encode(changed))
    assert failed == {}


def test_each_item_is_encoded_once_and_a_new_severity_alone(toy: Toy, tmp_path: Path) -> None:
    first = made(tmp_path)
    assert first.refusal("image") == ""
    toy.encoded.clear()
    z, _ = first.features("toy_noise", "image", KEYS, severity=2, seed=0)
    assert toy.encoded == {"toy_pictures": 3}
    again = made(tmp_path)
    assert again.refusal("image") == ""
    toy.encoded.clear()
    assert again.missing("toy_noise", "image", KEYS, severity=2, seed=0) == 0
    assert torch.equal(again.features("toy_noise", "image", KEYS, severity=2, seed=0)[0], z)
    assert toy.encoded == {}
    more, _ = again.features("toy_noise", "image", [*KEYS, "thing7"], severity=2, seed=0)
    assert toy.encoded == {"toy_pictures": 1}
    assert torch.equal(more[:3], z)
    harder, _ = again.features("toy_noise", "image", KEYS, severity=3, seed=0)
    assert toy.encoded == {"toy_pictures": 4}
    other, _ = again.features("toy_noise", "image", KEYS, severity=2, seed=1)
    assert toy.encoded == {"toy_pictures": 7}
    assert not torch.equal(other, z)
    assert not torch.equal(harder, z)
    assert len(folders(tmp_path)) == 3


def test_the_files_say_what_they_are(toy: Toy, tmp_path: Path) -> None:
    made(tmp_path).features("toy_lost_words", "text", KEYS, severity=4, seed=2)
    (folder,) = folders(tmp_path)
    assert folder.parent == tmp_path / "toy_things" / "text"
    about = json.loads((folder / "about.json").read_text())
    expected = {
        "dataset": "toy_things", "modality": "text", "encoder": {"encoder": "toy_words"}, "level": 0.5,
        "corruption": "toy_lost_words", "severity": 4, "seed": 2, "unit": "share of words", "n": 90, "dim": 24,
    }  # fmt: skip
    assert expected.items() <= about.items()
    assert np.load(folder / "features.npy", mmap_mode="r").shape == (90, 24)


def test_other_weights_other_levels_and_other_code_are_encoded_again(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode() -> None:
        raw_features._loaded.cache_clear()
        raw_features.probe.cache_clear()
        made(tmp_path).features("toy_noise", "image", KEYS, severity=2, seed=0)

    encode()
    encode()
    assert len(folders(tmp_path)) == 1
    toy.gain = 2.0
    encode()
    assert len(folders(tmp_path)) == 2
    monkeypatch.setitem(RAW._entries, "toy_noise", Raw("toy_noise", "image", (0, 10, 30, 40, 80, 160), "", NOISE.apply))
    encode()
    assert len(folders(tmp_path)) == 3
    twice = Raw(
        "toy_noise", "image", (0, 10, 30, 40, 80, 160), "", lambda item, level, g: NOISE.apply(item, 2 * level, g)
    )
    monkeypatch.setitem(RAW._entries, "toy_noise", twice)
    encode()
    assert len(folders(tmp_path)) == 4


def test_a_changed_level_elsewhere_leaves_a_severity_as_it_is(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path).features("toy_noise", "image", KEYS, severity=2, seed=0)
    levels = (*NOISE.levels[:5], 250.0)
    monkeypatch.setitem(RAW._entries, "toy_noise", Raw("toy_noise", "image", levels, NOISE.unit, NOISE.apply))
    assert made(tmp_path).missing("toy_noise", "image", KEYS, severity=2, seed=0) == 0
    assert made(tmp_path).missing("toy_noise", "image", KEYS, severity=5, seed=0) == 3


def test_items_that_cannot_be_read_are_named_and_the_others_go_on(toy: Toy, tmp_path: Path) -> None:
    toy.damaged = {"thing80"}
    z, failed = made(tmp_path).features("toy_noise", "image", KEYS, severity=1, seed=0)
    assert failed == {"thing80": "OSError: cannot identify image file thing80.png"}
    assert (z[1] == 0).all()
    toy.damaged = set()
    whole, failed = made(tmp_path).features("toy_noise", "image", KEYS, severity=1, seed=0)
    assert failed == {}
    assert torch.equal(whole[[0, 2]], z[[0, 2]])
    assert whole[1].any()


def test_severity_0_is_not_encoded(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="severity 0 is the clean item"):
        made(tmp_path).features("toy_noise", "image", KEYS, severity=0, seed=0)
    with pytest.raises(ValueError, match="severity must be one of"):
        made(tmp_path).features("toy_noise", "image", KEYS, severity=6, seed=0)
    assert folders(tmp_path) == []


def test_features_of_another_encoder_are_refused(toy: Toy, tmp_path: Path) -> None:
    fitted_on = data.load("toy_things", encoders={"text": "toy_letters"})
    mixed = RawFeatures(TOY, fitted_on, root=tmp_path)
    assert mixed.refusal("image") == ""
    assert "not made by the encoder 'toy_words' that is installed here (relative difference" in mixed.refusal("text")
    with pytest.raises(ValueError, match="corrupted ones cannot be compared"):
        mixed.features("toy_lost_words", "text", KEYS, severity=1, seed=0)
    longer = RawFeatures(TOY, fitted_on.with_z({**fitted_on.z, "text": torch.ones(90, 7)}), root=tmp_path)
    assert "7 features instead of 24" in longer.refusal("text")
    named = TOY.model_copy(update={"encoders": {"text": "toy_letters"}})
    sound = RawFeatures(named, fitted_on, root=tmp_path)
    assert sound.refusal("text") == ""
    assert sound.encoder_name("text") == "toy_letters"


def test_missing_weights_are_told_with_an_encoder_that_is_there(toy: Toy, tmp_path: Path) -> None:
    toy.missing = {"toy_words"}
    told = made(tmp_path).refusal("text")
    assert "the weights of toy_words are not installed; run `pip install toy_words`" in told
    assert "`data.encoders: {text: toy_letters}`" in told
    assert made(tmp_path).refusal("image") == ""
    assert made(tmp_path).kind("text") == "text", "what the items are is known without the weights"


def test_data_without_raw_items_is_refused(own_file: Path, tmp_path: Path) -> None:
    config = DataConfig(dataset=str(own_file), modalities=("a", "b"))
    raw_items = RawFeatures(config, data.load(own_file), root=tmp_path)
    assert "has no raw items to corrupt; corrupt its features instead" in raw_items.refusal("a")
    assert raw_items.kind("a") is None
    generated = DataConfig(dataset="redundancy", modalities=("first", "second"))
    clean = data.load("redundancy")
    assert "has no raw items" in RawFeatures(generated, clean, root=tmp_path).refusal("first")


@pytest.mark.parametrize("corruption", [NOISE, LOST])
def test_the_probe_tells_what_a_corruption_does_and_not_its_name(corruption: Raw) -> None:
    found = [raw_features.probe(corruption, severity) for severity in range(6)]
    assert len(set(found)) >= 5, "a word more or less is lost at nearly every severity"
    assert raw_features.probe(Raw("again", *list(vars(corruption).values())[1:]), 3) == found[3]


def test_the_real_encoder_on_real_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.names()
    monkeypatch.setitem(RAW._entries, "toy_noise", NOISE)
    clean = Stamps().load(("image",)).take(np.arange(5))
    raw_items = RawFeatures(DataConfig(), clean, root=tmp_path)
    assert raw_items.kind("image") == "image"
    assert raw_items.refusal("image") == "", "the clean features come out again"
    keys = clean.key.tolist()
    distances = []
    for severity in (1, 5):
        z, failed = raw_items.features("toy_noise", "image", keys, severity=severity, seed=0)
        assert failed == {}
        changed = [
            NOISE(item, severity=severity, key=key, seed=0)
            for item, key in zip(Stamps().items("image", keys), keys, strict=True)
        ]
        torch.testing.assert_close(z, raw_items.encoder("image").encode(changed), rtol=1e-4, atol=1e-4)
        distances.append(float((z - clean.z["image"]).norm(dim=1).mean()))
    assert 0 < distances[0] < distances[1]
