"""Sound: what a level says is what is measured, it grows with severity, and draws are nested."""

import math

import numpy as np
import pytest
from scipy import signal

from labkit.corruptions import raw
from labkit.data import stamps

RATE = 16_000
SEVERITIES = range(1, 6)
SEEDED = ("white_noise", "pink_noise", "reverberation", "time_masking")


def tone(hertz=440.0, seconds=1.0, amplitude=0.05):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds, amplitude=0.05):
    return (amplitude * np.random.default_rng(3).standard_normal(int(seconds * RATE))).astype(np.float32)


def changed(name, wave, severity, key="duck", seed=0):
    return raw.get(name)(wave, severity=severity, key=key, seed=seed).astype(np.float64)


def strictly(order, values):
    steps = np.diff(values)
    return bool((steps < 0).all() if order == "falling" else (steps > 0).all())


def test_all_sound_is_there():
    assert set(raw.names("audio")) == {*SEEDED, "band_limit", "clipping", "speed", "gain"}


@pytest.fixture(scope="module")
def clips():
    """Two real ones, the second with a peak above full scale, silence, 10 ms, and one sample."""
    french, spanish = (stamps.items(m, ["animals/birds/duck"])[0] for m in ("speech_fr", "speech_es"))
    loud = (1.6 * spanish / np.abs(spanish).max()).astype(np.float32)
    return [french, loud, np.zeros(8000, np.float32), tone(seconds=0.01), np.ones(1, np.float32)]


@pytest.mark.parametrize("name", raw.names("audio"))
def test_results_are_playable_and_depend_on_seed_and_key_alone(name, clips):
    for clip in clips:
        before = clip.copy()
        for severity in SEVERITIES:
            result = raw.get(name)(clip, severity=severity, key="a", seed=1)
            assert result.dtype == np.float32
            assert result.ndim == 1
            assert np.isfinite(result).all()
            assert np.abs(result).max() <= 1
            assert np.array_equal(result, raw.get(name)(clip, severity=severity, key="a", seed=1))
        assert np.array_equal(clip, before)
        assert raw.get(name)(clip, severity=0, key="a") is clip
    first = changed(name, clips[0], 3)
    for other in (changed(name, clips[0], 3, key="owl"), changed(name, clips[0], 3, seed=1)):
        assert np.array_equal(first, other) == (name not in SEEDED)


@pytest.mark.parametrize("name", raw.names("audio"))
def test_silence_stays_silent(name):
    assert not changed(name, np.zeros(8000, np.float32), 5).any()


@pytest.mark.parametrize("name", ["white_noise", "pink_noise"])
def test_noise_has_the_stated_ratio_to_the_active_part(name):
    voiced = tone()
    wave = np.concatenate([np.zeros(RATE, np.float32), voiced, np.zeros(2 * RATE, np.float32)])
    added = {s: changed(name, wave, s) - wave for s in SEVERITIES}
    ratios = [10 * math.log10(0.05**2 / 2 / np.square(added[s]).mean()) for s in SEVERITIES]
    assert ratios == pytest.approx(raw.get(name).levels[1:], abs=0.05)
    assert strictly("falling", ratios)
    shape = added[5] / np.abs(added[5]).max()
    for weaker in added.values():
        np.testing.assert_allclose(weaker / np.abs(weaker).max(), shape, atol=1e-4)


@pytest.mark.parametrize(("name", "slope"), [("white_noise", 0.0), ("pink_noise", -1.0)])
def test_noise_has_its_color(name, slope):
    wave = tone(seconds=20)
    frequency, power = signal.welch(changed(name, wave, 3) - wave, fs=RATE, nperseg=2048)
    band = (frequency > 40) & (frequency < 7500)
    found = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1, w=np.sqrt(1 / frequency[band]))[0]
    assert found == pytest.approx(slope, abs=0.1)


def test_rooms_decay_in_the_stated_time():
    """Schroeder's backward integral of the response to a click falls by 60 dB in RT60, read from -5 to -25 dB."""
    click = np.zeros(8 * RATE, np.float32)
    click[0] = 0.5
    times = []
    for severity in SEVERITIES:
        response = changed("reverberation", click, severity)
        decay = 10 * np.log10(np.cumsum(np.square(response)[::-1])[::-1] / np.square(response).sum() + 1e-30)
        rows = np.flatnonzero((decay < -5) & (decay > -25))
        times.append(-60 / np.polyfit(rows / RATE, decay[rows], 1)[0])
    assert times == pytest.approx(raw.get("reverberation").levels[1:], rel=0.08)
    assert strictly("rising", times)


def test_rooms_keep_length_and_energy_and_smear():
    word = np.concatenate([tone(seconds=0.3), np.zeros(2 * RATE, np.float32)])
    tails = []
    for severity in SEVERITIES:
        heard = changed("reverberation", word, severity)
        assert len(heard) == len(word)
        assert np.square(heard).sum() == pytest.approx(np.square(word, dtype=np.float64).sum(), rel=1e-5)
        tails.append(np.square(heard[RATE // 2 :]).sum())
    assert strictly("rising", tails)


def test_band_limit_cuts_what_is_above_and_leaves_what_is_below():
    wave = noise(4)
    frequency, before = signal.welch(wave, fs=RATE, nperseg=1024)
    widths = []
    for severity in SEVERITIES:
        cutoff = raw.get("band_limit").levels[severity]
        after = signal.welch(changed("band_limit", wave, severity), fs=RATE, nperseg=1024)[1]
        lost = 10 * np.log10(after / before)
        assert np.abs(lost[(frequency > 50) & (frequency < 0.8 * cutoff)]).max() < 0.6
        assert lost[np.abs(frequency - cutoff).argmin()] == pytest.approx(-3, abs=1)
        assert lost[frequency >= min(2 * cutoff, 7900)].max() < -50
        widths.append(int((lost > -3).sum()))
    assert strictly("falling", widths)


def test_clipping_limits_to_the_stated_share_of_the_peak():
    wave = noise(1)
    peak, shares = float(np.abs(wave).max()), []
    for severity in SEVERITIES:
        limit = raw.get("clipping").levels[severity] * peak
        result = changed("clipping", wave, severity)
        assert np.abs(result).max() == pytest.approx(limit, rel=1e-6)
        at_limit = np.abs(result) >= limit * (1 - 1e-6)
        assert at_limit.mean() == pytest.approx((np.abs(wave) >= limit).mean(), abs=1e-3)
        np.testing.assert_allclose(result[~at_limit], wave[~at_limit], rtol=1e-6)
        shares.append(at_limit.mean())
    assert strictly("rising", shares)


@pytest.mark.parametrize("samples", [100, 5280, 12_345])
def test_masking_silences_the_stated_share_and_nothing_else(samples):
    wave = np.full(samples, 0.5, np.float32)
    lost_before = np.zeros(samples, bool)
    for severity in SEVERITIES:
        result = changed("time_masking", wave, severity)
        lost = result == 0
        assert lost.sum() == round(raw.get("time_masking").levels[severity] * samples)
        assert (result[~lost] == 0.5).all()
        assert not (lost_before & ~lost).any()
        assert np.abs(np.diff(lost.astype(int))).sum() <= 2 * math.ceil(lost.sum() / 800) + 2  # runs of 50 ms
        lost_before = lost


def test_speed_shortens_and_raises_by_the_stated_factor():
    lengths = []
    for severity in SEVERITIES:
        factor = raw.get("speed").levels[severity]
        result = changed("speed", tone(seconds=2), severity)
        assert len(result) == math.ceil(2 * RATE / factor)
        spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
        assert spectrum.argmax() * RATE / len(result) == pytest.approx(440 * factor, abs=1)
        lengths.append(len(result))
    assert strictly("falling", lengths)


def test_speed_does_not_fold_what_no_longer_fits():
    high = changed("speed", tone(hertz=6000), 5)  # 12 kHz at twice the speed, above half the sampling rate
    assert np.square(high[500:-500]).mean() < 1e-5 * 0.05**2


def test_gain_is_what_it_says_and_ends_on_16_bits():
    wave, found = noise(1, amplitude=0.2), []
    for severity in SEVERITIES:
        result = changed("gain", wave, severity)
        found.append(20 * math.log10(result.std() / np.clip(wave, -1, 1).std()))
        steps = result * 2**15
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert found == pytest.approx(raw.get("gain").levels[1:], abs=0.05)
    assert strictly("falling", found)


def test_what_exceeds_full_scale_is_scaled_as_a_whole(clips):
    loud = clips[1]
    result = changed("time_masking", loud, 2)
    kept = result != 0
    assert np.abs(result).max() == pytest.approx(1.0)
    ratio = result[kept] / loud[kept]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_severity_out_of_range_is_refused():
    with pytest.raises(ValueError, match="severity"):
        raw.get("gain")(tone(), severity=6, key="a")
