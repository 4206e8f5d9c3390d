"""Raw items that are in memory as HTML: pictures, sounds and sentences, escaped."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np

from dashboards.parts import text

RATE = 16_000  # samples per second of a waveform


def preview(item: Any, name: str) -> str:
    """A picture, a sentence or a mono waveform at 16 kHz.

    Args:
        item: `PIL.Image`, text or array.
        name: what it is, for who cannot see it.
    """
    if isinstance(item, str):
        return f'<div class="cap">{text(item)}</div>'
    if isinstance(item, np.ndarray):
        return (
            f'<audio controls preload="auto" aria-label="{text(name)}" src="{_data("audio/wav", _wav(item))}"></audio>'
        )
    content = io.BytesIO()
    item.save(content, "PNG")
    return f'<img alt="{text(name)}" src="{_data("image/png", content.getvalue())}">'


def _wav(samples: np.ndarray) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return content.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
