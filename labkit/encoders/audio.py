"""What the speech encoders share: which waveforms they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RATE = 16_000
SHORTEST = 400  # 25 ms, one window of a spectrogram


def checked(items: Sequence[Any]) -> Sequence[np.ndarray]:
    """The waveforms, if all are mono float32 of at least 25 ms; any loudness, silence included, is taken.

    Raises:
        TypeError: no float32 array.
        ValueError: more than one channel, too short, or not finite.
    """
    for i, wave in enumerate(items):
        if not isinstance(wave, np.ndarray) or wave.dtype != np.float32:
            found = f"{wave.dtype} array" if isinstance(wave, np.ndarray) else type(wave).__name__
            raise TypeError(
                f"clip {i} is a {found}, expected a float32 array at {RATE} Hz within -1..1; "
                "convert it, e.g. (x / 32768).astype('float32') for 16-bit integers"
            )
        if wave.ndim != 1:
            raise ValueError(f"clip {i} has shape {list(wave.shape)}, expected mono [n]; average its channels")
        if len(wave) < SHORTEST:
            raise ValueError(
                f"clip {i} has {len(wave)} samples ({1000 * len(wave) / RATE:g} ms at {RATE} Hz), "
                f"expected at least {SHORTEST} (25 ms); leave it out or pad it with silence"
            )
        if not np.isfinite(wave).all():
            raise ValueError(f"clip {i} has {int((~np.isfinite(wave)).sum())} samples that are not finite; repair it")
    return items
