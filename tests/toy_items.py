"""A small data set with pictures and words, its encoders and corruptions: what runs on raw items, in milliseconds.

`registered(monkeypatch)` adds them to the registries for one test; `tests/conftest.py` makes a fixture of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from labkit.corruptions.raw import RAW, Raw
from labkit.data import DATASETS
from labkit.encoders import ENCODERS, raw_features
from labkit.encoders.frozen import MissingWeightsError
from labkit.types import Embeddings

AXES, LEVELS, SIDE = 6, 4, 4


@dataclass
class Toy:
    """What the tests turn and count.

    Attributes:
        damaged: keys whose pictures cannot be read.
        empty: keys whose words are none.
        missing: encoders whose weights are not installed.
        encoded: encoder -> number of items it has encoded.
        gain: of the picture encoder, in place of its weights.
    """

    damaged: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    encoded: dict[str, int] = field(default_factory=dict)
    gain: float = 1.0


def registered(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()

    def check(name: str) -> None:
        if name in toy.missing:
            raise MissingWeightsError(f"the weights of {name} are not installed; run `pip install {name}`")

    class Pictures:
        name, dim, kind = "toy_pictures", SIDE * SIDE * 3, "image"

        def __init__(self, device: str = "cpu") -> None:
            check(self.name)

        def info(self) -> dict[str, Any]:
            return {"encoder": self.name, "gain": toy.gain}

        def encode(self, items: Sequence[Any], batch_size: int = 8) -> torch.Tensor:
            toy.encoded[self.name] = toy.encoded.get(self.name, 0) + len(items)
            pixels = np.stack([np.asarray(item, dtype=np.float32).ravel() / 255 for item in items])
            return torch.from_numpy(toy.gain * pixels)

        def features(self, pixels: torch.Tensor) -> torch.Tensor:
            return toy.gain * pixels.permute(0, 2, 3, 1).flatten(1)

    class Words:
        name, dim, kind = "toy_words", AXES * LEVELS, "text"

        def __init__(self, device: str = "cpu") -> None:
            check(self.name)

        def info(self) -> dict[str, Any]:
            return {"encoder": self.name}

        def encode(self, items: Sequence[str], batch_size: int = 8) -> torch.Tensor:
            toy.encoded[self.name] = toy.encoded.get(self.name, 0) + len(items)
            bags = torch.zeros(len(items), self.dim)
            for row, item in enumerate(items):
                for word in item.split():
                    bags[row, int(word[1:])] += 1
            return bags

    class Letters(Words):
        name, dim = "toy_letters", AXES * LEVELS

        def encode(self, items: Sequence[str], batch_size: int = 8) -> torch.Tensor:
            return super().encode(items).flip(1) + 0.5

    @dataclass(frozen=True)
    class Things:
        n: int = 90
        modalities = ("image", "text")

        def _latent(self) -> np.ndarray:
            return np.random.default_rng(5).normal(size=(self.n, AXES))

        def _keys(self) -> list[str]:
            return [f"thing{i}" for i in range(self.n)]

        def load(
            self, modalities: Sequence[str] | None = None, encoders: Mapping[str, str] | None = None
        ) -> Embeddings:
            made = {"toy_pictures": Pictures, "toy_words": Words, "toy_letters": Letters}
            z, before = {}, dict(toy.encoded)
            for m in modalities or self.modalities:
                name = (encoders or {}).get(m) or self.encoder_name(m)
                z[m] = made[name].encode(object.__new__(made[name]), self._items(m))
            toy.encoded = before
            return Embeddings(key=np.array(self._keys()), z=z)

        def table(self) -> pd.DataFrame:
            return pd.DataFrame({"key": self._keys(), "group": range(self.n), "label": "thing"})

        def _items(self, modality: str) -> list[Any]:
            latent = self._latent()
            if modality == "text":
                levels = (latent[:, :, None] > np.array([-0.67, 0.0, 0.67])).sum(axis=2)
                return [" ".join(f"w{LEVELS * axis + row[axis]}" for axis in range(AXES)) for row in levels]
            pixels = 128 + 30 * latent @ np.random.default_rng(6).normal(size=(AXES, SIDE * SIDE * 3))
            shaped = pixels.clip(0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 3)
            return [Image.fromarray(picture) for picture in shaped]

        def items(self, modality: str, keys: Sequence[str] | None = None) -> list[Any]:
            known = dict(zip(self._keys(), self._items(modality), strict=True))
            for key in keys or ():
                if modality == "image" and key in toy.damaged:
                    raise OSError(f"cannot identify image file {key}.png")
            blank = toy.empty if modality == "text" else set()
            return ["" if key in blank else known[key] for key in (keys if keys is not None else self._keys())]

        def encoder_name(self, modality: str) -> str:
            return {"image": "toy_pictures", "text": "toy_words"}[modality]

        def encoder_names(self, modality: str) -> tuple[str, ...]:
            return (self.encoder_name(modality), *(("toy_letters",) if modality == "text" else ()))

        def digest(self) -> str:
            return f"things of {self.n}"

    parts = {
        ENCODERS: {one.name: one for one in (Pictures, Words, Letters)},
        DATASETS: {"toy_things": Things},
        RAW: {"toy_noise": NOISE, "toy_lost_words": LOST},
    }
    for registry, components in parts.items():
        registry.names()  # whatever is discovered later would stay
        for name, component in components.items():
            monkeypatch.setitem(registry._entries, name, component)
    raw_features._loaded.cache_clear()
    raw_features.probe.cache_clear()
    return toy


def _noise(item: Any, level: float, generator: np.random.Generator) -> Any:
    pixels = np.asarray(item, dtype=np.float64)
    return Image.fromarray((pixels + level * generator.normal(size=pixels.shape)).clip(0, 255).astype(np.uint8))


def _lost(item: str, level: float, generator: np.random.Generator) -> str:
    words = item.split()
    return " ".join(word for word, draw in zip(words, generator.random(len(words)), strict=True) if draw >= level)


NOISE = Raw("toy_noise", "image", (0.0, 10.0, 20.0, 40.0, 80.0, 160.0), "standard deviation, of 255", _noise)
LOST = Raw("toy_lost_words", "text", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7), "share of words", _lost)
