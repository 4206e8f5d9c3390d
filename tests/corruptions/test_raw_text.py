"""Sentences: the stated share is hit, what is hit stays hit, and nothing becomes empty."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from labkit import encoders
from labkit.corruptions import raw
from labkit.corruptions.raw.text import MASK, NEIGHBORS
from labkit.data import stamps

SEVERITIES = range(1, 6)
SENTENCE = "The quick brown fox and its 12 cousins jump over three lazy dogs before the sun goes down again"
WORDS = SENTENCE.split()
SHARES = ["character_drop", "keyboard_typos", "word_drop", "word_mask", "word_shuffle"]
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


def places(name: str, sentence: str) -> int:
    """How many characters or words a corruption may hit."""
    letters = {"character_drop": str.isalnum, "keyboard_typos": str.isalpha}
    return sum(map(letters[name], sentence)) if name in letters else len(sentence.split())


def hits(name: str, sentence: str, after: str) -> int:
    """How many of them it hit."""
    if name == "character_drop":
        return len(sentence) - len(after)
    if name == "word_drop":
        return len(sentence.split()) - len(after.split())
    apart = (sentence, after) if name == "keyboard_typos" else (sentence.split(), after.split())
    return sum(a != b for a, b in zip(*apart, strict=True))


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_stated_share_is_hit(name, severity):
    expected = share(name, severity) * places(name, SENTENCE)
    counts = [hits(name, SENTENCE, changed(name, severity, f"key {i}")) for i in range(200)]
    assert set(counts) <= {math.floor(expected), math.ceil(expected)}
    assert np.mean(counts) == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(200))


@pytest.mark.parametrize("name", SHARES)
def test_the_stated_share_of_short_captions_is_hit_on_average(name):
    """Of captions of three words in the middle, where a whole word each would be twice the .15 of severity 1."""
    captions = [c for c in stamps.items("text") if c.isascii() and len(set(c.split())) == len(c.split()) > 1]
    stays = 0 if name in ("keyboard_typos", "word_shuffle") else 1
    for severity in SEVERITIES:
        counts = [hits(name, c, changed(name, severity, f"{i}", c)) for i, c in enumerate(captions)]
        expected = [min(share(name, severity) * places(name, c), places(name, c) - stays) for c in captions]
        # two words change places together, so their number varies by one instead of a half
        assert np.mean(counts) == pytest.approx(np.mean(expected), abs=4 / math.sqrt(len(captions)))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_nothing_but_what_is_stated_changes(severity):
    lost = changed("character_drop", severity)
    assert lost.count(" ") == SENTENCE.count(" "), "only letters are lost"
    typed = [(a, b) for a, b in zip(SENTENCE, changed("keyboard_typos", severity), strict=True) if a != b]
    assert all(b.lower() in NEIGHBORS[a.lower()] and a.isupper() == b.isupper() for a, b in typed)
    masked = changed("word_mask", severity).split()
    assert all(m in (w, MASK) for m, w in zip(masked, WORDS, strict=True))
    assert Counter(changed("word_shuffle", severity).split()) == Counter(WORDS)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_swaps_are_of_neighbors_within_words(severity):
    swapped = changed("character_swap", severity)
    places = [i for i, (a, b) in enumerate(zip(SENTENCE, swapped, strict=True)) if a != b]
    firsts, seconds = places[::2], places[1::2]
    assert [i + 1 for i in firsts] == seconds
    assert all((swapped[i], swapped[i + 1]) == (SENTENCE[i + 1], SENTENCE[i]) for i in firsts)
    assert [len(w) for w in swapped.split()] == [len(w) for w in WORDS]
    pairs = len([i for i, (a, b) in enumerate(zip(changed("character_swap", 5), SENTENCE, strict=True)) if a != b]) // 2
    assert abs(len(firsts) - share("character_swap", severity) * pairs) < 1, "severity 5 is all of them"


@pytest.mark.parametrize("name", raw.names("text"))
def test_what_is_hit_stays_hit(name):
    for key in KEYS[:10]:
        texts = [changed(name, severity, key) for severity in SEVERITIES]
        for earlier, later in zip(texts[:-1], texts[1:], strict=True):
            if name.endswith("drop"):
                assert is_part(later, earlier)
            elif name == "word_shuffle":
                trio = zip(WORDS, earlier.split(), later.split(), strict=True)
                assert all(b != word for word, a, b in trio if a != word), "a moved word may move on, not back"
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


def test_the_mask_is_that_of_the_text_encoder():
    tokenizer = encoders.get("minilm_l6").tokenizer
    assert tokenizer.mask_token == MASK
    ids = tokenizer(f"A {MASK} dog.")["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 1
    assert len(ids) == len(tokenizer("A big dog.")["input_ids"])
