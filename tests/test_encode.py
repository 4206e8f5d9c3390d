"""Bundled features come out again from the bundled items; batches with absent items keep their rows."""

import pytest
import torch
from safetensors.torch import load_file

from labkit import data, encoders
from labkit.data.stamps import Stamps
from labkit.encode import difference_to_bundled, encode_batch, encode_dataset


def test_text_of_the_whole_data_set_is_recreated_and_written(tmp_path):
    out = tmp_path / "features.safetensors"
    features = encode_dataset("stamps", ("text",), out=out)
    assert difference_to_bundled(features)["text"] < 2e-4
    written = load_file(out)
    assert torch.equal(written["text"], features["text"])
    assert written["present_text"].all()
    assert [p.name for p in tmp_path.iterdir()] == ["features.safetensors"]


def test_a_difference_is_seen():
    z = data.load("stamps", modalities=("image", "text")).z
    z["text"] = z["text"].clone()
    z["text"][5, 7] += 0.25
    found = difference_to_bundled(z)
    assert found["image"] == 0
    assert found["text"] == pytest.approx(0.25)


def test_absent_items_give_zero_rows():
    batch = Stamps().batch(["animals/birds/duck", "animals/birds/owl"], ("text",))
    batch.inputs["text"][0] = None
    batch.present["text"][0] = False
    z = encode_batch(batch, {"text": encoders.get("minilm_l6")})
    assert (z.z["text"][0] == 0).all()
    bundled = data.load("stamps", modalities=("text",))
    owl = bundled.key.tolist().index("animals/birds/owl")
    torch.testing.assert_close(z.z["text"][1], bundled.z["text"][owl], atol=2e-4, rtol=1e-3)


def test_an_encoder_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(Stamps, "encoder_name", lambda self, modality: "hubert")
    with pytest.raises(ValueError, match=r"'speech_fr'.*'hubert'.*not part of labkit"):
        encode_dataset("stamps", ("speech_fr",))


def test_wrong_modalities_are_named():
    with pytest.raises(ValueError, match="no modality 'video'"):
        encode_dataset("stamps", ("video",))
    batch = Stamps().batch(["animals/birds/duck"], ("text",))
    with pytest.raises(ValueError, match=r"no modality \['image'\]"):
        encode_batch(batch, {"image": encoders.get("efficientnet_lite0")})
