"""Features of corrupted raw items, encoded once and then read from the cache.

    raw = RawFeatures(config.data, everything, root=cache_root())
    z, failed = raw.features("gaussian_noise", "image", keys, severity=3, seed=0)

One set of vectors belongs to one data set (its digest and keys), modality, encoder (`info()`: its weights), corruption
(its level and what it does to a probe), severity and seed: nothing of another version is ever read. Raw items of a
modality are refused where they or the encoder are not there, and where the encoder does not reproduce the clean
features: vectors of different encoders would be compared.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from labkit import data, encoders
from labkit.config import DataConfig
from labkit.corruptions import level, raw
from labkit.corruptions.raw import Kind, Raw
from labkit.encoders import ENCODERS, Encoder
from labkit.encoders.cache import Features
from labkit.types import Embeddings

SCHEMA = 1
COMPARED = 4  # clean items that are encoded anew, to see whether the encoder is the one that made the features
TOLERANCE = 1e-2  # relative difference; storage in float16 leaves 1e-3
UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, ArithmeticError)  # what one damaged item may raise


class RawFeatures:
    """Corrupted items of a data set, encoded.

    Args:
        config: names the data set and, where they are not its own, the encoders.
        clean: every sample of it, with its clean features.
        root: folder of the cache.
        device: where the encoders run.
    """

    def __init__(
        self, config: DataConfig, clean: Embeddings, *, root: Path, device: str | torch.device = "cpu"
    ) -> None:
        self._config, self._clean, self._root, self._device = config, clean, root, device
        self._source = None if config.dataset.endswith(".npz") else data.dataset(config.dataset, config.options)
        self._row = {key: i for i, key in enumerate(clean.key.tolist())}
        self._refusals: dict[str, str] = {}

    def encoder_name(self, modality: str) -> str:
        """The encoder whose features of a modality are aligned; empty for a file of features."""
        if self._source is None:
            return ""
        return self._config.encoders.get(modality) or self._source.encoder_name(modality)

    def kind(self, modality: str) -> Kind | None:
        """What the modality's items are, None where labkit cannot encode them."""
        name = self.encoder_name(modality)
        return cast("Kind", cast("type[Encoder]", ENCODERS.get(name)).kind) if name in ENCODERS else None

    def encoder(self, modality: str) -> Encoder:
        """The encoder of a modality; a process loads it once.

        Raises:
            UnknownNameError: it is not part of labkit.
            MissingWeightsError: its weights are not installed.
        """
        return _loaded(self.encoder_name(modality), str(self._device))[0]

    def refusal(self, modality: str) -> str:
        """Why corrupted items of a modality cannot be encoded, and the remedy; empty where they can."""
        if modality not in self._refusals:
            self._refusals[modality] = self._why_not(modality)
        return self._refusals[modality]

    def items(self, modality: str, keys: Sequence[str]) -> tuple[list[Any], dict[str, str]]:
        """Clean raw items, and why by key for those that cannot be read.

        Raises:
            ValueError: the modality is refused.
        """
        if refusal := self.refusal(modality):
            raise ValueError(refusal)
        items, failed = [], {}
        for key in keys:
            try:
                items.append(self._items(modality, [key])[0])
            except UNREADABLE as error:
                failed[key] = f"{type(error).__name__}: {error}"
        return items, failed

    def missing(self, name: str, modality: str, keys: Sequence[str], *, severity: int, seed: int) -> int:
        """How many of the items are not in the cache."""
        index = np.array([self._row[key] for key in keys], dtype=np.int64)
        return len(self._stored(raw.get(name), modality, severity, seed).missing(index))

    def features(
        self,
        name: str,
        modality: str,
        keys: Sequence[str],
        *,
        severity: int,
        seed: int,
        advance: Callable[[int], object] = lambda _: None,
    ) -> tuple[Tensor, dict[str, str]]:
        """Vectors of the corrupted items, computed where they are not in the cache.

        Args:
            name: of the corruption, in `labkit.corruptions.raw.RAW`.
            modality: whose items.
            keys: which samples; all must have the item.
            severity: 1..5; clean features are stored with the data set.
            seed: of the corruption.
            advance: called with the number of items as they are done.

        Returns:
            float32 vectors [n d], and why by key for those that could not be read or encoded: their vectors are zero.

        Raises:
            ValueError: a severity outside 1..5, or the modality is refused.
            StoreError: the cache cannot be written.
        """
        corruption = raw.get(name)
        if severity == 0:
            raise ValueError("severity 0 is the clean item, whose features are stored; ask for 1..5")
        if refusal := self.refusal(modality):
            raise ValueError(refusal)
        index = np.array([self._row[key] for key in keys], dtype=np.int64)

        def corrupt(item: Any, key: str) -> Any:
            return corruption(item, severity=severity, key=key, seed=seed)

        stored = self._stored(corruption, modality, severity, seed)
        z, failed = stored.rows(index, lambda rows: self._encode(modality, rows, corrupt), advance)
        return torch.from_numpy(z), {str(self._clean.key[i]): why for i, why in failed.items()}

    def _stored(self, corruption: Raw, modality: str, severity: int, seed: int) -> Features:
        encoder, info = _loaded(self.encoder_name(modality), str(self._device))
        assert self._source is not None
        about = {
            "schema": SCHEMA,
            "dataset": self._config.dataset,
            "dataset_digest": self._source.digest(),
            "keys": _hash("\n".join(self._clean.key.tolist())),
            "modality": modality,
            "encoder": info,
            "corruption": corruption.name,
            "severity": severity,
            "level": level(severity, corruption.levels),
            "unit": corruption.unit,
            "probe": probe(corruption, severity),
            "seed": seed,
        }
        digest = _hash(json.dumps(about, sort_keys=True))[:16]
        folder = self._root / self._config.dataset / modality / f"{corruption.name}-{severity}-{seed}-{digest}"
        return Features(folder, about, n=len(self._clean), dim=encoder.dim)

    def _encode(
        self, modality: str, rows: np.ndarray, change: Callable[[Any, str], Any]
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Vectors of changed items; where one of them cannot be read, the others one by one."""
        keys = self._clean.key[rows].tolist()
        try:
            return self._encoded(modality, keys, change), {}
        except UNREADABLE:
            pass
        z, failed = np.zeros((len(rows), self.encoder(modality).dim), dtype=np.float32), {}
        for at, (row, key) in enumerate(zip(rows.tolist(), keys, strict=True)):
            try:
                z[at] = self._encoded(modality, [key], change)[0]
            except UNREADABLE as error:
                failed[row] = f"{type(error).__name__}: {error}"
        return z, failed

    def _encoded(self, modality: str, keys: list[str], change: Callable[[Any, str], Any]) -> np.ndarray:
        changed = [change(item, key) for item, key in zip(self._items(modality, keys), keys, strict=True)]
        return self.encoder(modality).encode(changed).numpy()

    def _items(self, modality: str, keys: Sequence[str]) -> list[Any]:
        assert self._source is not None
        items = self._source.items(modality, keys)
        if absent := [key for key, item in zip(keys, items, strict=True) if item is None]:
            raise ValueError(f"{absent[0]!r} has no item of {modality!r}")
        return items

    def _why_not(self, modality: str) -> str:
        where = f"{modality!r} of {self._config.dataset}"
        if other := self._config.domain.test_items.get(modality):
            return (
                f"test samples have items of {other!r} for {modality!r} here; corrupt them in a run that aligns "
                f"{other!r}"
            )
        if self._source is None or not self._source.digest():
            return f"{where} has no raw items to corrupt; corrupt its features instead, e.g. feature_noise"
        name = self.encoder_name(modality)
        if name not in ENCODERS:
            return f"{where} was encoded by {name!r}, which is not part of labkit{self._remedy(modality)}"
        try:
            return self._difference(modality)
        except ImportError as error:  # weights, or what reads the items
            return f"corrupted items of {where} cannot be encoded: {error}{self._remedy(modality)}"

    def _difference(self, modality: str) -> str:
        """Whether the encoder gives other vectors than the clean features have."""
        asked = self._clean.present[modality].nonzero().flatten()[: 4 * COMPARED].numpy()
        z, failed = np.zeros((0, self.encoder(modality).dim), dtype=np.float32), {}
        for start in range(0, len(asked), COMPARED):  # some items may be damaged
            rows = asked[start : start + COMPARED]
            z, failed = self._encode(modality, rows, lambda item, _: item)
            kept = np.array([int(row) not in failed for row in rows])
            if kept.any():
                stored = self._clean.z[modality][torch.from_numpy(rows[kept])].cpu().numpy()
                return self._compared(modality, z[kept], stored)
        return f"none of the first {len(asked)} items of {modality!r} can be read: {next(iter(failed.values()), '')}"

    def _compared(self, modality: str, again: np.ndarray, stored: np.ndarray) -> str:
        name = self.encoder_name(modality)
        if again.shape != stored.shape:
            found = f"{stored.shape[1]} features instead of {again.shape[1]}"
        else:
            difference = np.linalg.norm(again - stored, axis=1) / np.linalg.norm(stored, axis=1).clip(min=1e-12)
            if difference.max() <= TOLERANCE:
                return ""
            found = f"relative difference {difference.max():.2g}"
        return (
            f"the clean features of {modality!r} of {self._config.dataset} were not made by the encoder {name!r} that "
            f"is installed here ({found}), so corrupted ones cannot be compared with them: install the version that "
            f"made them, or encode the data set anew{self._remedy(modality)}"
        )

    def _remedy(self, modality: str) -> str:
        assert self._source is not None
        others = [e for e in self._source.encoder_names(modality) if e != self.encoder_name(modality) and e in ENCODERS]
        if not others:
            return ""
        return (
            f"; or align features of another encoder, with a new run and `data.encoders: {{{modality}: {others[0]}}}`"
        )


@functools.lru_cache(maxsize=4)
def _loaded(name: str, device: str) -> tuple[Encoder, dict[str, Any]]:
    """An encoder and its `info`, which hashes the weights: several runs of one process share it."""
    encoder = encoders.get(name, device)
    return encoder, encoder.info()


@functools.cache
def probe(corruption: Raw, severity: int) -> str:
    """Hash of what a corruption does to a fixed item: another one where its code, or a library below it, does another.

    Sound is rounded to a hundredth of full scale first, as the last bits of its arithmetic are not the same everywhere.
    """
    item = _PROBES[corruption.kind]()
    changed = corruption(item, severity=severity, key="probe", seed=0)
    if isinstance(changed, str):
        return _hash(changed)
    values = np.asarray(changed)
    rounded = np.round(values * 100).astype(np.int16) if values.dtype.kind == "f" else values
    return _hash(f"{rounded.shape}".encode() + np.ascontiguousarray(rounded).tobytes())


def _picture() -> Any:
    from PIL import Image  # not needed for features

    x, y = np.meshgrid(np.arange(64), np.arange(64))
    channels = (4 * x, 4 * y, 255 * ((x // 8 + y // 8) % 2))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def _sentence() -> str:
    return "A small boat with two white sails drifts past the old lighthouse while seven gulls watch."


def _sound() -> np.ndarray:
    t = np.arange(16_000) / 16_000
    return (0.5 * np.sin(2 * np.pi * (200 + 1500 * t) * t) * np.hanning(len(t))).astype(np.float32)


_PROBES: dict[Kind, Callable[[], Any]] = {"image": _picture, "text": _sentence, "audio": _sound}


def _hash(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()
