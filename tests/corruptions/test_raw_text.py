"""Sentences: the stated share is hit, what is hit stays hit, and nothing becomes empty."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from labkit.corruptions import raw
from labkit.corruptions.raw.text import MASK, NEIGHBORS
from labkit.data import stamps

SEVERITIES = range(1, 6)
SENTENCE = "The quick brown fox and its 12 cousins jump over three lazy dogs before the sun goes down again"
WORDS = SENTENCE.split()
LETTERS = sum(c.isalnum() for c in SENTENCE)
KEYS = [f"key {i}" for i in range(40)]


def changed(name: str, severity: int, key: str = "duck", sentence: str = SENTENCE) -> str:
    return raw.get(name)(sentence, severity=severity, key=key)


def share(name: str, severity: int) -> float:
    return raw.get(name).levels[severity]


def levenshtein(first: str, second: str) -> int:
    """Insertions, deletions and substitutions from one to the other, by the table of Wagner and Fischer."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def test_all_kinds_are_there():
    assert set(raw.names("text")) == {
        "character_drop", "character_swap", "keyboard_typos", "word_drop", "word_mask", "word_shuffle"
    }  # fmt: skip


@pytest.mark.parametrize("name", raw.names("text"))
def test_the_distance_to_the_sentence_grows(name):
    means = [np.mean([levenshtein(SENTENCE, changed(name, s, key)) for key in KEYS]) for s in SEVERITIES]
    assert (np.diff(means) > 0.5).all(), f"{name}: {means}"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_stated_share_is_hit(severity):
    lost = changed("character_drop", severity)
    assert len(SENTENCE) - len(lost) == round(share("character_drop", severity) * LETTERS)
    assert lost.count(" ") == SENTENCE.count(" "), "only letters are lost"
    typed = changed("keyboard_typos", severity)
    wrong = [(a, b) for a, b in zip(SENTENCE, typed, strict=True) if a != b]
    assert len(wrong) == round(share("keyboard_typos", severity) * sum(c.isalpha() for c in SENTENCE))
    assert all(b.lower() in NEIGHBORS[a.lower()] and a.isupper() == b.isupper() for a, b in wrong)
    assert len(changed("word_drop", severity).split()) == len(WORDS) - round(share("word_drop", severity) * len(WORDS))
    masked = changed("word_mask", severity).split()
    assert masked.count(MASK) == round(share("word_mask", severity) * len(WORDS))
    assert all(m in (w, MASK) for m, w in zip(masked, WORDS, strict=True))
    shuffled = changed("word_shuffle", severity).split()
    assert Counter(shuffled) == Counter(WORDS)
    moved = sum(a != b for a, b in zip(shuffled, WORDS, strict=True))
    assert moved == round(share("word_shuffle", severity) * len(WORDS))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_swaps_are_of_neighbors_within_words(severity):
    swapped = changed("character_swap", severity)
    places = [i for i, (a, b) in enumerate(zip(SENTENCE, swapped, strict=True)) if a != b]
    firsts, seconds = places[::2], places[1::2]
    assert [i + 1 for i in firsts] == seconds
    assert all((swapped[i], swapped[i + 1]) == (SENTENCE[i + 1], SENTENCE[i]) for i in firsts)
    assert [len(w) for w in swapped.split()] == [len(w) for w in WORDS]
    pairs = len([i for i, (a, b) in enumerate(zip(changed("character_swap", 5), SENTENCE, strict=True)) if a != b]) // 2
    assert len(firsts) == round(share("character_swap", severity) * pairs), "severity 5 is all of them"


@pytest.mark.parametrize("name", ["character_drop", "keyboard_typos", "word_drop", "word_mask", "character_swap"])
def test_what_is_hit_stays_hit(name):
    for key in KEYS[:10]:
        texts = [changed(name, severity, key) for severity in SEVERITIES]
        for earlier, later in zip(texts[:-1], texts[1:], strict=True):
            if name.endswith("drop"):
                assert is_part(later, earlier)
            elif name == "word_mask":
                assert all(b == MASK for a, b in zip(earlier.split(), later.split(), strict=True) if a == MASK)
            else:
                assert all(b == a for o, a, b in zip(SENTENCE, earlier, later, strict=True) if a != o)


def is_part(short: str, long: str) -> bool:
    """Whether all of `short` is in `long`, in its order."""
    rest = iter(long)
    return all(c in rest for c in short)


@pytest.mark.parametrize("name", raw.names("text"))
def test_short_captions_never_become_empty(name):
    captions = ["A", "Cat", "zz", "42", "...", "Q.", *stamps.items("text")[:950:25]]
    for sentence in captions:
        for severity in SEVERITIES:
            assert changed(name, severity, sentence=sentence).strip()
    if name.startswith("word"):
        assert changed(name, 5, sentence="Cat") == "Cat", "a single word stays"


def test_neighbors_are_those_of_a_keyboard():
    assert {c: set(NEIGHBORS[c]) for c in "agqpm"} == {
        "a": set("qwsz"), "g": set("fhtyvb"), "q": set("wa"), "p": set("ol"), "m": set("njk")
    }  # fmt: skip
    assert all(c in NEIGHBORS[d] for c in NEIGHBORS for d in NEIGHBORS[c])
