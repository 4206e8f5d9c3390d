"""Stamps: 950 things, each with a picture, captions in twenty languages, and French and Spanish speech.

Made by `tools/build_stamps.py` from Tux Paint's stamps (GPL-2; see ATTRIBUTION.md in the bundle). Features come from
frozen encoders (EfficientNet-Lite0, all-MiniLM-L6-v2, Whisper base) that saw the bundled items, never the originals.
The French and Spanish captions have features of the English encoder, for the shift to a language it has not learned.
Every file is checked against the hashes in `manifest.json` or `points.parquet` when it is read.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from labkit.data import DATASETS
from labkit.types import Batch, Embeddings

BUNDLE = Path(__file__).parent / "bundles" / "stamps"
SCHEMA = 1
MODALITIES = ("image", "text", "speech_fr", "speech_es")
CAPTIONS = {"text": "caption_en", "text_fr": "caption_fr", "text_es": "caption_es"}
MORE_MODALITIES = tuple(m for m in CAPTIONS if m not in MODALITIES)
MIN_LABEL_COUNT = 20
REMEDY = "restore it with `git checkout -- {path}` or rebuild the bundle with tools/build_stamps.py"


class CorruptBundleError(ValueError):
    """A bundled file is missing, truncated or changed; the message names it and the remedy."""


@DATASETS.register("stamps")
@dataclass(frozen=True)
class Stamps:
    """The bundled stamps.

    Attributes:
        folder: of the bundle.
    """

    folder: Path = BUNDLE
    modalities = MODALITIES
    more_modalities = MORE_MODALITIES

    def manifest(self) -> dict[str, Any]:
        """Sources, encoders, counts and hashes.

        Raises:
            CorruptBundleError: missing or no JSON.
            ValueError: written in a schema that this version cannot read.
        """
        path = self.folder / "manifest.json"
        try:
            manifest = json.loads(self._read("manifest.json"))
            schema, _ = manifest["schema"], manifest["files"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CorruptBundleError(f"{path} is damaged ({error}); {REMEDY.format(path=path)}") from error
        if schema != SCHEMA:
            raise ValueError(f"{path} has schema {schema}, this labkit reads {SCHEMA}; update labkit or the bundle")
        return manifest

    def points(self) -> pd.DataFrame:
        """The full table: key, category, kind, group, captions, item paths, their hashes, seconds of speech."""
        return pd.read_parquet(io.BytesIO(self._checked("points.parquet")))

    def splits(self) -> pd.DataFrame:
        """Stored default splits: key and one column `seed_0` ... `seed_9` of train, validation, test."""
        return pd.read_parquet(io.BytesIO(self._checked("splits.parquet")))

    def load(self, modalities: Sequence[str] | None = None, encoders: Mapping[str, str] | None = None) -> Embeddings:
        """Frozen features of the given modalities (float32), the four of `MODALITIES` by default.

        Labels are the categories with at least 20 things; things of smaller ones have label -1.

        Args:
            modalities: which ones, in that order.
            encoders: modality -> encoder, one of `encoder_names`; where not named, the first of them.

        Raises:
            ValueError: no such modality, or no features of it by that encoder.
            CorruptBundleError: a table or the features are missing or damaged.
        """
        chosen = [self._known(modality) for modality in (MODALITIES if modalities is None else modalities)]
        points = self.points()
        features = safetensors.torch.load(self._checked("features.safetensors"))
        if set(chosen) & set(MORE_MODALITIES):
            features |= safetensors.torch.load(self._checked("features-captions.safetensors"))
        present = {m: features[f"present_{m}"] for m in chosen}
        for modality, encoder in (encoders or {}).items():
            file = self._features_file(modality, encoder)
            if file and modality in chosen:
                features[modality] = safetensors.torch.load(self._checked(file))[modality]
        counts = Counter(points["category"])
        names = sorted(name for name, count in counts.items() if count >= MIN_LABEL_COUNT)
        code = {name: i for i, name in enumerate(names)}
        return Embeddings(
            key=points["key"].to_numpy(dtype=str),
            z={m: features[m].float() for m in chosen},
            present=present,
            label=torch.tensor([code.get(category, -1) for category in points["category"]]),
            group=torch.as_tensor(points["group"].to_numpy(dtype=np.int64)),
            label_names=tuple(names),
        )

    def table(self) -> pd.DataFrame:
        """key, group, label (all 16 categories), kind, caption and the raw item of each modality.

        `text`, `text_fr` and `text_es` hold the captions; the others paths relative to `.attrs["data_root"]`.
        """
        points = self.points()
        frame = points.filter(["key", "group", "kind", "image", "speech_fr", "speech_es"])
        frame.insert(2, "label", points["category"])
        frame.insert(4, "caption", points["caption_en"])
        for place, (modality, column) in enumerate(CAPTIONS.items(), start=6):
            frame.insert(place, modality, points[column])
        frame.attrs["data_root"] = str(self.folder)
        return frame

    def items(self, modality: str, keys: Sequence[str] | None = None) -> list[Any]:
        """Raw items: RGB `PIL.Image` of 128 x 128, caption, or mono float32 waveform at 16 kHz.

        Args:
            modality: one of `MODALITIES` or `MORE_MODALITIES`.
            keys: which things, in that order; all by default.

        Returns:
            One item per key, None where the thing has none.

        Raises:
            ValueError: no such modality.
            KeyError: no such key; the message names the nearest.
            CorruptBundleError: an item is missing or is not the one that was bundled.
        """
        self._known(modality)
        rows = self._rows(self.points(), keys)
        if modality in CAPTIONS:
            return [None if pd.isna(caption) else caption for caption in rows[CAPTIONS[modality]]]
        decode = _picture if modality == "image" else _waveform
        return [
            None if pd.isna(name) else decode(self._checked(str(name), str(digest)))
            for name, digest in zip(rows[modality], rows[f"{modality}_sha256"], strict=True)
        ]

    def batch(self, keys: Sequence[str] | None = None, modalities: Sequence[str] | None = None) -> Batch:
        """Raw items of several modalities, for encoders and corruptions; errors as in `items`."""
        chosen = MODALITIES if modalities is None else tuple(modalities)
        inputs = {m: self.items(m, keys) for m in chosen}
        embeddings = self.load(("text",))
        order = pd.Index(embeddings.key)
        index = np.arange(len(order)) if keys is None else order.get_indexer(pd.Index(keys))
        return Batch(
            key=embeddings.key[index],
            inputs=inputs,
            present={m: torch.tensor([item is not None for item in items]) for m, items in inputs.items()},
            label=None if embeddings.label is None else embeddings.label[index],
        )

    def encoder_name(self, modality: str) -> str:
        """Name of the encoder that made the bundled features of a modality."""
        like = "text" if modality in CAPTIONS else self._known(modality)
        return str(self.manifest()["encoders"][like]["encoder"])

    def encoder_names(self, modality: str) -> tuple[str, ...]:
        """Encoders whose features of a modality are bundled."""
        more = self.manifest().get("more_encoders", {})
        return self.encoder_name(modality), *(name for name in sorted(more) if modality in more[name]["modalities"])

    def digest(self) -> str:
        """Hash of the table of things, which has the keys, the captions and the hashes of all other items."""
        return str(self.manifest()["files"]["points.parquet"])

    def _features_file(self, modality: str, encoder: str) -> str:
        """File with an encoder's features of a modality, empty where it is that of all default features."""
        known = self.encoder_names(modality)
        if encoder not in known:
            near = difflib.get_close_matches(encoder, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"stamps has no features of {modality!r} by the encoder {encoder!r}; {hint}it has {', '.join(known)}"
            )
        return "" if encoder == known[0] else str(self.manifest()["more_encoders"][encoder]["file"])

    def _rows(self, points: pd.DataFrame, keys: Sequence[str] | None) -> pd.DataFrame:
        if keys is None:
            return points
        position = pd.Index(points["key"]).get_indexer(pd.Index(keys, dtype=object))
        if (position < 0).any():
            unknown = str(np.asarray(keys)[position < 0][0])
            near = difflib.get_close_matches(unknown, points["key"].tolist(), n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see table()['key'] for all keys"
            raise KeyError(f"stamps has no key {unknown!r}; {hint}")
        return points.iloc[position]

    def _known(self, modality: str) -> str:
        known = (*MODALITIES, *MORE_MODALITIES)
        if modality not in known:
            raise ValueError(f"stamps has no modality {modality!r}; it has {', '.join(known)}")
        return modality

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise CorruptBundleError(f"{path} cannot be read ({error.strerror}); {REMEDY.format(path=path)}") from error

    def _checked(self, name: str, digest: str | None = None) -> bytes:
        expected = self.manifest()["files"].get(name, "none in the manifest") if digest is None else digest
        content = self._read(name)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            path = self.folder / name
            raise CorruptBundleError(
                f"{path} is damaged: {len(content)} bytes with sha256 {found[:12]}, expected {expected[:12]}; "
                f"{REMEDY.format(path=path)}"
            )
        return content


def items(modality: str, keys: Sequence[str] | None = None) -> list[Any]:
    """Raw items of the bundled stamps; see `Stamps.items`."""
    return Stamps().items(modality, keys)


def _picture(content: bytes) -> Any:
    from PIL import Image  # not needed for features

    return Image.open(io.BytesIO(content)).convert("RGB")


def _waveform(content: bytes) -> np.ndarray:
    import soundfile  # not needed for features

    return soundfile.read(io.BytesIO(content), dtype="float32")[0]
