"""Corruptions of raw items (pictures, sentences, sounds), before the encoder sees them.

    corrupted = raw.get("gaussian_noise")(picture, severity=3, key="frog", seed=0)

A raw corruption is a `Raw` registered in `RAW`: what it does to one item, and how strongly at each severity. What is
drawn depends on the seed and on the key of the item alone, never on its severity, its neighbors or their order, so that
a sample's curve is one story, every variant sees the same bits, and an interrupted computation goes on to the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from labkit.corruptions import level
from labkit.registry import Registry

RAW = Registry("raw corruption", __name__)

Kind = Literal["image", "text", "audio"]


@dataclass(frozen=True)
class Raw:
    """A corruption of items of one kind.

    Attributes:
        name: in `RAW`.
        kind: of the encoders whose items it takes: "image" (RGB `PIL.Image`), "text" (`str`), "audio" (mono float32
            waveform at 16 kHz).
        levels: strength at severity 0..5, in `unit`s; the first leaves items as they are.
        unit: what a level says, e.g. "standard deviation, of full scale".
        apply: (item, level, generator) -> the corrupted item, of the same type; the item given is not changed.
    """

    name: str
    kind: Kind
    levels: tuple[float, ...]
    unit: str
    apply: Callable[[Any, float, np.random.Generator], Any]

    @property
    def __wrapped__(self) -> Callable[[Any, float, np.random.Generator], Any]:
        """The function itself, to which `inspect.unwrap`, and so the registry's list, leads."""
        return self.apply

    def __call__(self, item: Any, *, severity: int, key: str, seed: int = 0) -> Any:
        """The item at a severity; at 0 the item itself.

        Raises:
            ValueError: a severity outside 0..5, or an item in which there is nothing to corrupt.
        """
        strength = level(severity, self.levels)
        if severity == 0:
            return item
        if found := _nothing(item, self.kind):
            raise ValueError(f"the item of {key!r} is {found}: there is nothing to corrupt")
        return self.apply(item, strength, _generator(key, seed))


def raw(name: str, *, kind: Kind, levels: tuple[float, ...], unit: str) -> Callable[[Callable[..., Any]], Raw]:
    """Register the decorated function of (item, level, generator) as a raw corruption."""

    def register(apply: Callable[[Any, float, np.random.Generator], Any]) -> Raw:
        return RAW.register(name)(Raw(name, kind, levels, unit, apply))

    return register


def get(name: str) -> Raw:
    """The raw corruption called `name`.

    Raises:
        UnknownNameError: none is called so; the message names the nearest.
    """
    return cast("Raw", RAW.get(name))


def names(kind: Kind | None = None) -> list[str]:
    """Names of all raw corruptions, or of those of one kind of items."""
    return [name for name in RAW.names() if kind in (None, get(name).kind)]


def _nothing(item: Any, kind: Kind) -> str:
    """Why an item cannot be corrupted, empty where it can."""
    if kind == "text":
        return "" if item.strip() else "an empty sentence"
    if kind == "image":
        return "" if all(item.size) else "a picture without pixels"
    if not len(item):
        return "a sound without samples"
    return "" if np.isfinite(item).all() else "a sound with samples that are not finite"


def _generator(key: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])
