"""Sound: noise at a stated SNR, reverberation, low-pass, clipping, drop-outs, speed and gain; mono float32 at 16 kHz.

Signal-to-noise ratios are over the active part of a clip: the frames of 20 ms within 30 dB of the loudest, a simple
form of the active speech level of ITU-T P.56, so that silence around a word does not make its noise louder. A room
response is noise under an exponential decay (J.-D. Polack, La transmission de l'energie sonore dans les salles, 1988).
Where a result exceeds full scale, the whole clip is scaled to a peak of 1, which changes no ratio in it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from scipy import signal

from labkit.corruptions.raw import raw

if TYPE_CHECKING:
    from jaxtyping import Float

    Wave = Float[np.ndarray, " n"]

RATE = 16_000
FRAME = RATE // 50  # 20 ms
ACTIVE_DB = 30.0
DROPOUT = RATE // 20  # 50 ms, a lost packet
STEPS = 2**15  # of a 16-bit recorder, to full scale
SNR = (math.inf, 20.0, 15.0, 10.0, 5.0, 0.0)  # the series of ETSI's Aurora data


@raw("white_noise", kind="audio", levels=SNR, unit="dB of SNR in the active part")
def white_noise(wave: Wave, snr: float, generator: np.random.Generator) -> Wave:
    """The clip and Gaussian white noise; a silent clip stays silent."""
    return _noisy(wave, generator.standard_normal(len(wave)), snr)


@raw("pink_noise", kind="audio", levels=SNR, unit="dB of SNR in the active part")
def pink_noise(wave: Wave, snr: float, generator: np.random.Generator) -> Wave:
    """The clip and Gaussian noise of power 1/f above 20 Hz, most of it where speech is; a silent clip stays silent."""
    spectrum = np.fft.rfft(generator.standard_normal(len(wave)))
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    return _noisy(wave, np.fft.irfft(spectrum / np.sqrt(frequency.clip(min=20.0)), n=len(wave)), snr)


@raw("reverberation", kind="audio", levels=(0.0, 0.2, 0.4, 0.8, 1.5, 3.0), unit="s of RT60, the decay by 60 dB")
def reverberation(wave: Wave, rt60: float, generator: np.random.Generator) -> Wave:
    """The clip in a room, so far from the speaker that no direct sound stands out; length and energy stay.

    The response is h(t) = e(t) 10^(-3 t / RT60) with white noise e; what rings on after the clip's end is cut.
    """
    seconds = np.arange(len(wave)) / RATE
    response = generator.standard_normal(len(wave)) * 10.0 ** (-3.0 * seconds / rt60)
    heard = signal.fftconvolve(wave.astype(np.float64), response)[: len(wave)]
    energy = float(np.square(heard).sum())
    return _bounded(heard * math.sqrt(np.square(wave, dtype=np.float64).sum() / energy) if energy > 0 else heard)


@raw("band_limit", kind="audio", levels=(8000.0, 4000.0, 2500.0, 1500.0, 900.0, 500.0), unit="Hz of cut-off")
def band_limit(wave: Wave, cutoff: float, generator: np.random.Generator) -> Wave:
    """A Butterworth low-pass of tenth order: -3 dB at the cut-off, at least -60 dB from twice that."""
    del generator
    return _bounded(signal.sosfilt(signal.butter(10, cutoff, fs=RATE, output="sos"), wave.astype(np.float64)))


@raw("clipping", kind="audio", levels=(1.0, 0.4, 0.2, 0.1, 0.05, 0.02), unit="of the peak is left")
def clipping(wave: Wave, share: float, generator: np.random.Generator) -> Wave:
    """Hard limits at a share of the clip's peak."""
    del generator
    limit = share * np.abs(wave).max(initial=0.0)
    return _bounded(np.clip(wave, -limit, limit))


@raw("time_masking", kind="audio", levels=(0.0, 0.1, 0.2, 0.3, 0.45, 0.6), unit="of the clip is silent")
def time_masking(wave: Wave, share: float, generator: np.random.Generator) -> Wave:
    """Drop-outs of 50 ms at random places; those of a severity are also silent at higher ones."""
    order = generator.permutation(-(-len(wave) // DROPOUT))
    at = np.arange(len(wave))
    when = np.argsort(order)[at // DROPOUT] * DROPOUT + at % DROPOUT  # the later, the later this sample is lost
    lost = np.argsort(when)[: round(share * len(wave))]
    masked = wave.copy()
    masked[lost] = 0.0
    return _bounded(masked)


@raw("speed", kind="audio", levels=(1.0, 1.06, 1.12, 1.25, 1.4, 1.6), unit="times as fast")
def speed(wave: Wave, factor: float, generator: np.random.Generator) -> Wave:
    """Faster and higher, as a tape: the clip is resampled to 1/factor of its length."""
    del generator
    ratio = Fraction(factor).limit_denominator(100)
    return _bounded(signal.resample_poly(wave.astype(np.float64), ratio.denominator, ratio.numerator))


@raw("gain", kind="audio", levels=(0.0, -20.0, -30.0, -40.0, -50.0, -60.0), unit="dB of gain before 16-bit storage")
def gain(wave: Wave, decibel: float, generator: np.random.Generator) -> Wave:
    """Recorded too quietly: fainter, then rounded to 16 bits, without which an encoder could undo it."""
    del generator
    return _bounded(np.round(wave.astype(np.float64) * 10.0 ** (decibel / 20.0) * STEPS) / STEPS)


def active_power(wave: Wave) -> float:
    """Mean square over the frames of 20 ms whose own is within 30 dB of the largest."""
    frames = np.pad(wave.astype(np.float64), (0, -len(wave) % FRAME)).reshape(-1, FRAME)
    power = np.square(frames).mean(axis=1)
    return float(power[power >= power.max(initial=0.0) * 10.0 ** (-ACTIVE_DB / 10.0)].mean()) if len(power) else 0.0


def _noisy(wave: Wave, noise: Wave, snr: float) -> Wave:
    power = active_power(wave) * 10.0 ** (-snr / 10.0)
    return _bounded(wave + noise * math.sqrt(power / max(float(np.square(noise).mean()), np.finfo(np.float64).tiny)))


def _bounded(wave: Wave) -> Wave:
    """As float32 of the same shape, scaled to a peak of 1 where it is above."""
    return (wave / max(1.0, float(np.abs(wave).max(initial=0.0)))).astype(np.float32)
