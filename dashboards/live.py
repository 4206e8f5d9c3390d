"""New vectors of a run: a corrupted item, or a query, through the run's own encoder and aligner.

The only file of the dashboard that loads torch, and only when somebody asks; what it loads is shared by all sessions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dashboards.content import Content, at
from dashboards.maps import Frame
from labkit.store import StoreError

SEVERITIES = (0, 1, 2, 3, 4, 5)
_LOADING = threading.RLock()  # two threads that import the same large package at once may both fail
_DRAW = 0  # of the corruption: the first, which is also what curves are made of


@dataclass(frozen=True, eq=False)
class Seen:
    """An item, and where it lies.

    Attributes:
        item: picture, sentence or waveform.
        vector: unit vector in the shared space.
    """

    item: Any
    vector: np.ndarray


class Model:
    """Encoders and aligner of a run.

    Args:
        content: the run.

    Raises:
        StoreError: they cannot be loaded; the message says why and what helps.
    """

    def __init__(self, content: Content) -> None:
        import torch

        from labkit import variants
        from labkit.encoders.cache import cache_root
        from labkit.encoders.raw_features import RawFeatures
        from labkit.robustness import content_of

        torch.set_num_threads(1)  # single items: waiting for busy cores takes forty times as long as the work
        run = content.run
        try:
            config, samples = content_of(run)
            self._raw = RawFeatures(config.data, samples.all, root=cache_root(run.folder.parent))
            self._aligner = variants.load(run.folder / "checkpoints" / "aligner")
        except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise StoreError(f"the weights of run {run.id} cannot be used: {error}") from error
        self._all = samples.all
        self.modalities: Sequence[str] = samples.all.modalities

    def kind(self, modality: str) -> str:
        """What its items are: image, text or audio; empty where labkit cannot encode them."""
        return self._raw.kind(modality) or ""

    def width(self, modality: str) -> int:
        """Features that the aligner takes of a modality."""
        return int(self._all.z[modality].shape[1])

    def refusal(self, modality: str) -> str:
        """Why new items of a modality cannot be encoded, and the remedy; empty where they can. Loads the encoder."""
        try:
            with _LOADING:
                return self._raw.refusal(modality)
        except (OSError, ValueError, RuntimeError) as error:
            return f"items of {modality} cannot be encoded: {error}"

    def corruptions(self, modality: str) -> list[str]:
        """Corruptions of raw items that fit a modality."""
        from labkit.corruptions import raw

        kind = self._raw.kind(modality)
        return [] if kind is None else raw.names(kind)

    def level(self, corruption: str, severity: int) -> str:
        """How strong a severity is, in the corruption's own unit."""
        from labkit.corruptions import raw

        known = raw.get(corruption)
        return f"{known.levels[severity]:g} ({known.unit})"

    def corrupted(self, key: str, modality: str, corruption: str, severity: int) -> Seen:
        """A sample's item at a severity: the same bits that curves are made of.

        Raises:
            StoreError: the item cannot be read or corrupted.
        """
        from labkit.corruptions import raw

        items, failed = self._raw.items(modality, [key])
        if failed:
            raise StoreError(f"the {modality} of {key} cannot be read: {failed[key]}")
        try:
            item = raw.get(corruption)(items[0], severity=severity, key=key, seed=_DRAW)
        except ValueError as error:
            raise StoreError(str(error)) from error
        return self.seen(modality, item)

    def seen(self, modality: str, item: Any) -> Seen:
        """An item, encoded and aligned.

        Raises:
            StoreError: the encoder does not take it.
        """
        try:
            with _LOADING:
                encoder = self._raw.encoder(modality)
            features = encoder.encode([item]).numpy()
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"the encoder of {modality} does not take this: {error}") from error
        return Seen(item, self.aligned(modality, features[0]))

    def aligned(self, modality: str, features: np.ndarray) -> np.ndarray:
        """Features of the encoder as a unit vector of the shared space.

        Raises:
            StoreError: other features than the aligner takes.
        """
        import torch

        from labkit.types import Embeddings

        z = torch.from_numpy(np.array(features, dtype=np.float32)[None])
        try:
            with torch.inference_mode():
                shared = self._aligner.embed(Embeddings(key=np.array(["query"]), z={modality: z})).z[modality]
        except (ValueError, RuntimeError, KeyError) as error:
            raise StoreError(f"the aligner does not take this: {error}") from error
        return torch.nn.functional.normalize(shared.cpu().float(), dim=1)[0].numpy()


def load(content: Content) -> Model:
    """Encoders and aligner of a run, from the cache unless its files have changed.

    Raises:
        StoreError: see `Model`.
    """
    with _LOADING:
        return _load(str(content.run.folder), content.stamp)


def opened(content: Content) -> Model | str:
    """As `load`; the sentence that says why where it cannot be loaded."""
    try:
        return load(content)
    except StoreError as error:
        return str(error)


@lru_cache(maxsize=4)
def _load(folder: str, stamp: int) -> Model:
    return Model(at(folder, stamp))


def place(content: Content, frame: Frame, vector: np.ndarray) -> tuple[float, float]:
    """Where a vector of the final space is in a stored frame, see `labkit.project.placed`.

    Raises:
        StoreError: the vectors of the final space are not stored.
    """
    import torch

    from labkit.project import NEIGHBORS, interpolated

    near = [
        (similarity, frame.place(int(row), m))
        for m in frame.modalities
        for row, similarity in zip(*content.most_similar(vector, m, step="final", k=NEIGHBORS), strict=True)
    ]
    near = sorted(((s, p) for s, p in near if p is not None), reverse=True)[:NEIGHBORS]
    similarity = torch.tensor([[s for s, _ in near]])
    x, y = interpolated(similarity, torch.tensor([[p for _, p in near]], dtype=torch.float64))[0].tolist()
    return x, y
