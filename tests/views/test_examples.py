"""Sheets and tables of corrupted items: every picture unchanged at its place, every level said."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from labkit import views
from labkit.views.examples import GAP, LABEL, TITLE, Strip


def flat(*values: int, height: int = 40, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), value, np.uint8) for value in values]


def strip(name: str = "shot_noise", values: tuple[int, ...] = (10, 60, 110), side: int = 40) -> Strip:
    return Strip(name, "photons of a white pixel", (float("inf"), 50, 6)[: len(values)], flat(*values, height=side))


def test_every_picture_is_at_its_place_pixel_by_pixel():
    checks = [np.indices((40, 64)).sum(axis=0)[..., None] % 2 * np.uint8([v, v, 255]) for v in (0, 80, 160)]
    sheet = views.example_sheet([strip(), Strip("blocks", "of something", (0, 1, 2), checks)])
    assert sheet.size == (LABEL + 3 * (64 + GAP), 2 * (40 + TITLE))
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    for row, pictures in enumerate([flat(10, 60, 110), checks]):
        for column, picture in enumerate(pictures):
            top, left = row * (40 + TITLE) + TITLE, LABEL + column * (64 + GAP)
            shown = pixels[top : top + 40, left : left + 64]
            assert np.abs(shown - picture).max() <= 4, "a palette may change a color by a little"


def test_every_picture_has_its_level_above_it():
    """Where there is text there is ink; the first of a row says "clean" in place of its level."""
    ink = np.asarray(views.example_sheet([strip()]).convert("L")) < 128
    above = [ink[:TITLE, LABEL + i * (64 + GAP) :][:, :64].sum() for i in range(3)]
    assert all(above)
    assert ink[:, :LABEL].any()
    other = Strip("shot_noise", "photons of a white pixel", (float("inf"), 50, 8), flat(10, 60, 110))
    changed = ink != (np.asarray(views.example_sheet([other]).convert("L")) < 128)
    assert changed[:TITLE, LABEL + 2 * (64 + GAP) :].any(), "another level is written differently"
    assert not changed[:, : LABEL + 2 * (64 + GAP)].any()


@pytest.mark.parametrize("strips", [[], [strip(), strip(side=50)], [strip(), strip(values=(1, 2))]])
def test_strips_that_do_not_fit_are_refused(strips):
    with pytest.raises(ValueError, match=r"pictures of one shape and strips of one length; got shapes"):
        views.example_sheet(strips)


@pytest.mark.parametrize(("levels", "items"), [((0, 1), ["a"]), ((), [])])
def test_a_strip_needs_an_item_at_each_level(levels, items):
    with pytest.raises(ValueError, match=rf"got {len(items)} items and {len(levels)} levels"):
        Strip("jpeg", "quality", levels, items)


def test_sentences_are_a_table():
    drops = Strip("word_drop", "of the words are lost", (0.0, 0.5), ["A duck.", "duck."])
    typos = Strip("keyboard_typos", "of the letters are mistyped", (0.0, 0.2), ["A duck.", "A duvk."])
    table = views.example_table([drops, typos])
    assert table.index.tolist() == [("word drop", 0), ("word drop", 1), ("keyboard typos", 0), ("keyboard typos", 1)]
    assert table.loc[("word drop", 1)].tolist() == [0.5, "of the words are lost", "duck."]
    some = Strip("word_drop", "of the words are lost", (0.3, 0.8), ["A duck.", "duck."], severities=(2, 5))
    assert views.example_table([some]).index.tolist() == [("word drop", 2), ("word drop", 5)]
    with pytest.raises(ValueError, match="at least one strip; got none"):
        views.example_table([])


def test_a_photograph_is_the_picture_with_words_for_it():
    page = views.photograph(Image.fromarray(flat(90)[0]), alt='a "gray" <field>')
    assert page._repr_html_() == page
    assert 'alt="a &quot;gray&quot; &lt;field&gt;"' in page
    content = base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", page)[1])
    assert np.abs(np.asarray(Image.open(io.BytesIO(content))).astype(int) - 90).max() <= 3


def test_sounds_play_and_show_their_spectrum():
    """The players hold what was given, up to the codec; a tone is bright at its own height alone."""
    rate, t = 16_000, np.arange(8_000) / 16_000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    page = views.sound_sheet([Strip("gain", "dB <of>", (0, -6), [tone, tone / 2])], rate=rate)
    assert "dB &lt;of&gt;" in page
    assert "<of>" not in page
    data = [base64.b64decode(part) for part in re.findall(r"data:[a-z/]+;base64,([^\"]+)", page)]
    pictures, sounds = data[::2], [soundfile.read(io.BytesIO(part)) for part in data[1::2]]
    for part, peak in zip(sounds, (0.5, 0.25), strict=True):
        decoded = part[0][: len(tone) * part[1] // rate]
        assert abs(len(part[0]) / part[1] - 0.5) < 0.1
        assert abs(np.abs(decoded[len(decoded) // 4 : -len(decoded) // 4]).max() - peak) < 0.15 * peak
    shown = np.asarray(Image.open(io.BytesIO(pictures[0])).convert("L")).astype(int)
    bright = shown[:, 30:-30].mean(axis=1)
    assert abs(bright.argmax() / len(bright) - (1 - 1000 / 8000)) < 0.05, "low frequencies are at the bottom"
    assert bright[: len(bright) // 2].max() < bright.max() / 3


@pytest.mark.parametrize("strips", [[], [strip(), strip(values=(1, 2))]])
def test_sheets_of_sounds_of_different_severities_are_refused(strips):
    with pytest.raises(ValueError, match="needs strips of the same severities"):
        views.sound_sheet(strips, rate=16_000)


def test_no_torch_is_loaded():
    code = "import sys, labkit.views.examples; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
