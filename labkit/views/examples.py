"""Examples of corruptions: one item at severity 0..5, as a sheet of pictures, a table of sentences, or of sounds.

    strips = [views.Strip(c.name, c.unit, c.levels, [c(picture, severity=s, key="frog") for s in range(6)])
              for c in map(raw.get, raw.names("image"))]
    views.example_sheet(strips)

A view loads no torch, so it gets corrupted items and what to write beside them, not the corruptions themselves.
"""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._style import words

if TYPE_CHECKING:
    from PIL.Image import Image

COLORS = 256  # a palette halves the file; fewer would show as noise of their own
LABEL, GAP, TITLE = 150, 8, 20  # pixels left of a row, between pictures, above each


@dataclass(frozen=True)
class Strip:
    """One item under one corruption.

    Attributes:
        name: of the corruption.
        unit: of its levels.
        levels: strength at each severity, the first of which is clean.
        items: the item at each severity: pictures (`PIL.Image`, or uint8 `[h, w, 3]`), sentences, or sounds (float
            `[samples]`, full scale 1).
        severities: of the levels and items; 0, 1, 2, ... by default.

    Raises:
        ValueError: not as many items and severities as levels, or none.
    """

    name: str
    unit: str
    levels: Sequence[float]
    items: Sequence[Any]
    severities: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.severities:
            object.__setattr__(self, "severities", range(len(self.levels)))
        if not len(self.items) or len({len(self.items), len(self.levels), len(self.severities)}) > 1:
            raise ValueError(
                f"the example of {self.name!r} needs one item at each of its levels; got {len(self.items)} items and "
                f"{len(self.levels)} levels of {len(self.severities)} severities"
            )


class Html(str):
    """Markup that a notebook shows as it is; text of the data in it is escaped already."""

    def __repr__(self) -> str:  # notebooks keep the plain text of an output, too
        return f"<{len(self)} characters of HTML>"

    def _repr_html_(self) -> str:
        return str(self)


def example_sheet(strips: Sequence[Strip]) -> Image:
    """A row for each corruption, a column for each severity, the level above each picture.

    Pictures are drawn pixel by pixel, since any resizing would blur noise and blocks, and invent others.

    Args:
        strips: of pictures, all of one size and with equally many severities.

    Raises:
        ValueError: no strips, or pictures or strips that do not fit together.
    """
    rows = [[np.asarray(picture) for picture in strip.items] for strip in strips]
    labels = ["\n".join([words(strip.name), *textwrap.wrap(strip.unit, 22)]) for strip in strips]
    titles = [["clean", *(f"{i}: {level:g}" for i, level in enumerate(s.levels[1:], start=1))] for s in strips]
    return sheet(rows, labels, titles)


def sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str], titles: Sequence[Sequence[str]]) -> Image:
    """Rows of pictures, uint8 `[h, w, 3]`, pixel by pixel; a label left of each row and a title above each picture.

    Raises:
        ValueError: no rows, or pictures or rows that do not fit together.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    shapes = {picture.shape for row in rows for picture in row}
    lengths = {len(row) for row in rows}
    if len(shapes) != 1 or len(lengths) != 1:
        raise ValueError(
            f"a sheet needs pictures of one shape and strips of one length; got shapes {sorted(shapes)} and lengths "
            f"{sorted(lengths)}"
        )
    (height, width), columns = shapes.pop()[:2], lengths.pop()
    size = (LABEL + columns * (width + GAP), len(rows) * (height + TITLE))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    for i, (row, label, above) in enumerate(zip(rows, labels, titles, strict=True)):
        bottom = size[1] - (i + 1) * (height + TITLE)
        figure.text(GAP / size[0], (bottom + height / 2) / size[1], label, va="center", fontsize=8)
        for column, (picture, title) in enumerate(zip(row, above, strict=True)):
            left = LABEL + column * (width + GAP)
            figure.figimage(picture, left, bottom, origin="upper")
            figure.text((left + width / 2) / size[0], (bottom + height + 4) / size[1], title, ha="center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB").quantize(COLORS)


def photograph(picture: Image, *, alt: str, quality: int = 70) -> Html:
    """A picture as JPEG for a notebook: half the size of a palette where there is much noise in it.

    Args:
        picture: e.g. of `example_sheet`.
        alt: what it shows, for those who cannot see it.
        quality: of the JPEG, 1..95.
    """
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="jpeg", quality=quality)
    return Html(f'<img src="{_data("image/jpeg", buffer.getvalue())}" alt="{html.escape(alt)}">')


def example_table(strips: Sequence[Strip]) -> pd.DataFrame:
    """A row for each corruption and severity: level, unit and sentence.

    Args:
        strips: of sentences.

    Returns:
        Columns level, unit and text, indexed by corruption and severity.

    Raises:
        ValueError: no strips.
    """
    if not strips:
        raise ValueError("a table of examples needs at least one strip; got none")
    rows = [
        {"corruption": words(strip.name), "severity": severity, "level": level, "unit": strip.unit, "text": text}
        for strip in strips
        for severity, level, text in zip(strip.severities, strip.levels, strip.items, strict=True)
    ]
    return pd.DataFrame(rows).set_index(["corruption", "severity"])


def sound_sheet(strips: Sequence[Strip], *, rate: int) -> Html:
    """A row for each corruption: a player and a spectrogram at each severity, as HTML that needs no other file.

    Spectrograms share their axes and colors, 80 dB down from the loudest of the first sound.

    Args:
        strips: of sounds, all of the same severities.
        rate: samples per second.

    Raises:
        ValueError: no strips, or strips of different severities.
    """
    columns = {tuple(strip.severities) for strip in strips}
    if len(columns) != 1:
        raise ValueError(f"a sheet of sounds needs strips of the same severities; got {sorted(columns) or 'no strips'}")
    head = "".join(f"<th>{'clean' if s == 0 else f'severity {s}'}</th>" for s in columns.pop())
    loudest = float(_decibels(np.asarray(strips[0].items[0]), rate).max())
    longest = max(len(sound) for strip in strips for sound in strip.items) / rate
    rows = []
    for strip in strips:
        label = f"{html.escape(words(strip.name))}<br><small>{html.escape(strip.unit)}</small>"
        cells = []
        for severity, level, item in zip(strip.severities, strip.levels, strip.items, strict=True):
            sound = np.asarray(item, dtype=np.float32)
            picture = _data("image/png", _spectrogram(sound, rate, loudest, longest))
            alt = html.escape(f"spectrogram: {words(strip.name)}, severity {severity}")
            player = (
                f'<audio controls preload="none" style="width: 160px" src="{_data("audio/ogg", _ogg(sound, rate))}">'
            )
            cells.append(f'<td>{level:g}<br><img src="{picture}" alt="{alt}"><br>{player}</audio></td>')
        rows.append(f"<tr><th>{label}</th>{''.join(cells)}</tr>")
    return Html(f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>")


def _decibels(sound: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import spectrogram

    power = spectrogram(sound, fs=rate, nperseg=rate // 50, noverlap=rate // 100)[2]
    return 10 * np.log10(np.maximum(power, 1e-14))


def _spectrogram(sound: np.ndarray, rate: int, loudest: float, longest: float) -> bytes:
    from matplotlib import colormaps
    from PIL import Image

    level = _decibels(sound, rate)[::-1]
    width, height = 160, 60
    color = colormaps["magma"](np.clip((level - loudest) / 80 + 1, 0, 1), bytes=True)[..., :3]
    drawn = Image.fromarray(np.ascontiguousarray(color)).resize(
        (max(1, round(width * len(sound) / rate / longest)), height)
    )
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(drawn)
    buffer = io.BytesIO()
    sheet.quantize(16).save(buffer, format="png")
    return buffer.getvalue()


def _ogg(sound: np.ndarray, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="OGG", subtype="OPUS")
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
