"""The network of the small speech encoder against naive forms, and what its training learns."""

import numpy as np
import pytest
import torch
from scipy.fft import dct

from labkit.encoders import speech_net
from labkit.encoders.speech_net import ATOMS, FEATURES, SCALES, Cepstra, Dictionary, Scale, pieces
from tools.train_speech_encoder import learn

RATE = speech_net.RATE


@pytest.fixture(scope="module")
def cepstra():
    """Of 420 clips of .2 to .6 s: noise of random color, loudness rising and falling."""
    generator, front = np.random.default_rng(0), Cepstra()
    clips = []
    for _ in range(420):
        n = int(generator.uniform(0.2, 0.6) * RATE)
        spectrum = np.fft.rfft(generator.standard_normal(n))
        tilt = np.linspace(0.05, 1, len(spectrum)) ** generator.uniform(-1.5, 1.5)
        peaks = 1 + np.cos(np.linspace(0, generator.uniform(2, 40), len(spectrum)))
        wave = np.fft.irfft(spectrum * tilt * peaks, n=n) * np.sin(np.linspace(0, generator.uniform(3, 12), n))
        clips.append(front(torch.from_numpy((wave / np.abs(wave).max()).astype(np.float32))))
    return clips


def test_cepstra_are_a_cosine_transform_of_roots_of_band_powers():
    wave = 0.3 * np.random.default_rng(1).standard_normal(4000).astype(np.float32)
    front = Cepstra()
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), 400)[::160]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2 @ front.bank.numpy().T.astype(np.float64)
    expected = dct((power / power.max()) ** 0.25, norm="ortho")[:, :24]
    expected[:, 0] *= np.sqrt(2)
    np.testing.assert_allclose(front(torch.from_numpy(wave)).numpy(), expected, atol=1e-4)


def test_a_tone_is_in_the_band_of_its_pitch():
    front = Cepstra()
    centers = (front.bank * torch.linspace(0, RATE / 2, 201)).sum(dim=1)
    assert (centers.diff() > 0).all()
    torch.testing.assert_close(front.bank.sum(dim=1), torch.ones(64))
    for hertz in (500, 1000, 3000):
        tone = torch.sin(2 * torch.pi * hertz * torch.arange(RATE) / RATE)
        roots = front(tone) @ front.cosines.T
        assert int(roots.mean(dim=0).argmax()) == pytest.approx(int((centers - hertz).abs().argmin()), abs=2)


def test_silence_is_zero_and_very_faint_sound_is_not_raised():
    front = Cepstra()
    wave = torch.sin(torch.arange(8000) / 5.0)
    assert not front(torch.zeros(8000)).any()
    assert front(1e-7 * wave).abs().max() < 0.1 * front(wave).abs().max()
    torch.testing.assert_close(front(1e-3 * wave), front(wave), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 5, 6, 17])
def test_pieces_are_windows_and_silence_fills(frames):
    found = pieces(torch.randn(frames, 24, generator=torch.Generator().manual_seed(0)), Scale(5, 2, 8))
    clip = torch.randn(frames, 24, generator=torch.Generator().manual_seed(0))
    filled = torch.cat([clip, torch.zeros(max(0, 5 - frames), 24)])
    expected = torch.stack([filled[i : i + 5].T.flatten() for i in range(0, len(filled) - 4, 2)])
    assert torch.equal(found, expected)


def test_statistics_are_those_of_all_pieces():
    generator = torch.Generator().manual_seed(2)
    dictionary, clip = Dictionary(Scale(5, 2, 48)), torch.randn(30, 24, generator=generator)
    for tensor in dictionary.buffers():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    dictionary.atoms.copy_(torch.nn.functional.normalize(dictionary.atoms, dim=1))
    found = dictionary(clip).reshape(3, ATOMS)
    piece = [(row - dictionary.mean) @ dictionary.whiten for row in pieces(clip, dictionary.scale)]
    for atom in (0, 100, 511):
        cosine = [float(p @ dictionary.atoms[atom] / p.norm()) for p in piece]
        active = [max(c - 0.2, 0.0) for c in cosine]
        expected = [np.mean(active), np.sqrt(np.mean(np.square(active))), max(cosine)]
        np.testing.assert_allclose(found[:, atom], expected, atol=1e-5)


def test_learning_is_reproducible_and_gives_uncorrelated_features(cepstra):
    network = learn(cepstra, seed=0)
    again = learn(cepstra, seed=0)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(network.scales[0].atoms, learn(cepstra, seed=1).scales[0].atoms)
    for dictionary, scale in zip(network.scales, SCALES, strict=True):
        torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(ATOMS))
        assert dictionary.whiten.shape == (scale.frames * 24, scale.components)
    z = torch.stack([network(clip) for clip in cepstra]).double()
    assert z.shape == (420, FEATURES)
    assert z.mean(dim=0).abs().max() < 1e-2
    variance = z.var(dim=0)
    assert (variance[:50].diff() <= 1e-3 * variance[0]).all()
    correlation = torch.corrcoef(z[:, :50].T) - torch.eye(50, dtype=torch.float64)
    assert correlation.abs().max() < 0.02
