"""Sentences: lost, exchanged and mistyped characters, lost, masked and shuffled words.

A severity says which share of the characters or words is hit; what is hit at a severity is hit at higher ones, too. A
share that is no whole number is rounded up or down by chance (.15 of three words are .45 on average), so that short
captions are hit as hard as stated, and some not at all. No sentence ever becomes empty. Kinds follow Y. Belinkov and
Y. Bisk, Synthetic and Natural Noise Both Break Neural Machine Translation, ICLR 2018 (arXiv:1711.02173); none of them
needs a dictionary.
"""

from __future__ import annotations

import numpy as np

from labkit.corruptions.raw import raw

CHARACTERS = (0.0, 0.06, 0.12, 0.2, 0.3, 0.45)
PAIRS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0)
WORDS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8)
MASK = "[MASK]"  # what BERT's word pieces were trained to fill in; other encoders read it as a strange word
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a US keyboard, each half a key to the right of the one above


@raw("character_drop", kind="text", levels=CHARACTERS, unit="of the letters are lost")
def character_drop(sentence: str, share: float, generator: np.random.Generator) -> str:
    """Letters and digits that are not there; one stays."""
    hit = _hit([i for i, c in enumerate(sentence) if c.isalnum()], share, generator, keep=1)
    return "".join(c for i, c in enumerate(sentence) if i not in hit)


@raw("character_swap", kind="text", levels=PAIRS, unit="of every other pair of neighbors changes places")
def character_swap(sentence: str, share: float, generator: np.random.Generator) -> str:
    """Two neighbors of a word in the wrong order; a sentence without two different neighbors stays as it is."""
    start = int(generator.integers(2))
    pairs = [i for i in range(start, len(sentence) - 1, 2) if _exchangeable(sentence, i)]
    # short words may have pairs at the other places alone
    pairs = pairs or [i for i in range(1 - start, len(sentence) - 1, 2) if _exchangeable(sentence, i)]
    letters = list(sentence)
    for i in _hit(pairs, share, generator):
        letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


@raw("keyboard_typos", kind="text", levels=CHARACTERS, unit="of the letters are mistyped")
def keyboard_typos(sentence: str, share: float, generator: np.random.Generator) -> str:
    """The key beside the right one, on a US keyboard; letters that it does not have stay."""
    letters = list(sentence)
    places = [i for i, c in enumerate(sentence) if c.lower() in NEIGHBORS]
    typed = {i: str(generator.choice(list(NEIGHBORS[sentence[i].lower()]))) for i in places}
    for i in _hit(places, share, generator):
        letters[i] = typed[i].upper() if sentence[i].isupper() else typed[i]
    return "".join(letters)


@raw("word_drop", kind="text", levels=WORDS, unit="of the words are lost")
def word_drop(sentence: str, share: float, generator: np.random.Generator) -> str:
    """Words that are not there; one stays, so a single word stays as it is."""
    words = sentence.split()
    hit = _hit(list(range(len(words))), share, generator, keep=1)
    return " ".join(word for i, word in enumerate(words) if i not in hit)


@raw("word_mask", kind="text", levels=WORDS, unit="of the words are masked")
def word_mask(sentence: str, share: float, generator: np.random.Generator) -> str:
    """Words that are hidden, but counted; one stays, so a single word stays as it is."""
    words = sentence.split()
    hit = _hit(list(range(len(words))), share, generator, keep=1)
    return " ".join(MASK if i in hit else word for i, word in enumerate(words))


@raw("word_shuffle", kind="text", levels=WORDS, unit="of the words change places")
def word_shuffle(sentence: str, share: float, generator: np.random.Generator) -> str:
    """No words or at least two, each at the place of the next one that was hit; a single word stays as it is."""
    words = sentence.split()
    count = _count(share * len(words), generator, least=2)
    hit = generator.permutation(len(words)).tolist()[:count]
    moved = dict(zip(hit, [words[i] for i in (*hit[1:], *hit[:1])], strict=True))
    return " ".join(moved.get(i, word) for i, word in enumerate(words))


def _neighbors() -> dict[str, str]:
    """Letter -> the letters whose keys touch its key."""
    at = {c: (column + 0.5 * row, row) for row, keys in enumerate(ROWS) for column, c in enumerate(keys)}
    return {
        c: "".join(d for d, (u, v) in at.items() if d != c and abs(u - x) <= 1 and abs(v - y) <= 1)
        for c, (x, y) in at.items()
    }


NEIGHBORS = _neighbors()


def _hit(places: list[int], share: float, generator: np.random.Generator, *, keep: int = 0) -> set[int]:
    """The share of the places that is hit; `keep` at least are not."""
    count = min(_count(share * len(places), generator), max(0, len(places) - keep))
    return {places[i] for i in generator.permutation(len(places))[:count]}


def _count(expected: float, generator: np.random.Generator, *, least: int = 1) -> int:
    """A whole number, 0 or at least `least`, with the expected mean; one draw, so it never falls as the mean grows."""
    chance = generator.random()
    if expected < least:
        return least if chance >= 1.0 - expected / least else 0
    return int(expected + chance)


def _exchangeable(sentence: str, i: int) -> bool:
    first, second = sentence[i], sentence[i + 1]
    return first.isalnum() and second.isalnum() and first != second
