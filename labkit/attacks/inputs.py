"""What an attacker changes, and the differentiable way from there to the shared space.

Pixels      of square pictures, in [0, 1]; an encoder with `features(pixels)` leads on. Budgets are in levels of 8 bits,
            1/255; L2: over all pixels and channels of a picture at its own size, before it is resized. They start at
            an eighth of a level, as one level is enough to break what was never made robust.
Features    of any modality, in units of each feature's standard deviation over the training samples; no raw items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from labkit.attacks.ball import Ball, Norm
from labkit.encoders.image import to_pixels
from labkit.types import Aligner, Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float, Int


LEVEL = 1 / 255


class PixelEncoder(Protocol):
    """An encoder of pictures with a gradient, e.g. `efficientnet_lite0`."""

    def features(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Features of square pictures in [0, 1]."""
        ...


class Inputs(Protocol):
    """Items of one modality that are attacked.

    Attributes:
        name: "pixels" or "features".
        unit: of a budget, as people read it.
        one: how much of `x` one such unit is.
        key: n ids of the samples.
        x: n rows, what is changed.
        budgets: norm -> radius at severity 0..5, on the scale of `x`.
        batch: rows that are attacked together.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    one: ClassVar[float]
    budgets: ClassVar[dict[Norm, tuple[float, ...]]]
    batch: ClassVar[int]

    @property
    def key(self) -> np.ndarray: ...  # noqa: D102

    @property
    def x(self) -> Tensor: ...  # noqa: D102

    def ball(self, norm: Norm, radius: float) -> Ball:
        """Changes up to a radius that leave an input."""
        ...

    def everything(self, norm: Norm) -> float:
        """A radius that limits nothing."""
        ...

    def features(self, x: Tensor) -> Float[Tensor, "n d"]:
        """Features of the items, changed to `x`."""
        ...

    def take(self, rows: Int[Tensor, " q"] | slice) -> Inputs:
        """Some of the items."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """Square pictures, attacked before they are encoded.

    Attributes:
        key: ids of the samples.
        x: pixels in [0, 1].
        encoder: of the modality.
    """

    key: np.ndarray
    x: Float[Tensor, "n 3 s s"]
    encoder: PixelEncoder

    name: ClassVar = "pixels"
    unit: ClassVar = "levels of a pixel, of 255"
    one: ClassVar = LEVEL
    budgets: ClassVar[dict[Norm, tuple[float, ...]]] = {
        "linf": (0, LEVEL / 8, LEVEL / 4, LEVEL / 2, LEVEL, 2 * LEVEL),
        "l2": (0, 8 * LEVEL, 16 * LEVEL, 32 * LEVEL, 64 * LEVEL, 128 * LEVEL),
    }
    batch: ClassVar = 8

    @classmethod
    def of(cls, encoder: Any, key: Sequence[str] | np.ndarray, pictures: Sequence[Any]) -> Pixels:
        """Pictures as `PIL.Image`.

        Raises:
            ValueError: the encoder has no gradient with respect to pixels, or pictures of different sizes.
        """
        if not hasattr(encoder, "features"):
            raise ValueError(
                f"encoder {getattr(encoder, 'name', encoder)!r} has no `features(pixels)`, so there is no gradient to "
                "its raw items; attack its features instead (`attacks.Features`)"
            )
        sizes = sorted({picture.size for picture in pictures})
        if len(sizes) != 1 or sizes[0][0] != sizes[0][1]:
            raise ValueError(f"pictures must be square and of one size; got {sizes[:3]}: pad and resize them first")
        return cls(np.asarray(key).astype(str), torch.stack([to_pixels(picture) for picture in pictures]), encoder)

    def ball(self, norm: Norm, radius: float) -> Ball:
        """Changes up to a radius with all pixels in [0, 1]."""
        return Ball(norm, radius, 0.0, 1.0)

    def everything(self, norm: Norm) -> float:
        """The farthest that any picture is from any other."""
        return 1.0 if norm == "linf" else math.sqrt(self.x[0].numel())

    def features(self, x: Tensor) -> Float[Tensor, "n d"]:
        """What the encoder makes of the pixels."""
        return self.encoder.features(x.clamp(0, 1))

    def take(self, rows: Int[Tensor, " q"] | slice) -> Pixels:
        """Some of the pictures."""
        return replace(self, key=self.key[_index(rows)], x=self.x[rows])


@dataclass(frozen=True, eq=False)
class Features:
    """Features of any modality, attacked before they are aligned.

    Attributes:
        key: ids of the samples.
        z: their features.
        scale: standard deviation of each feature over the training samples; where it is 0 nothing can be changed.
    """

    key: np.ndarray
    z: Float[Tensor, "n d"]
    scale: Float[Tensor, " d"]

    name: ClassVar = "features"
    unit: ClassVar = "standard deviations of a feature"
    one: ClassVar = 1.0
    budgets: ClassVar[dict[Norm, tuple[float, ...]]] = {
        "linf": (0, 0.01, 0.02, 0.05, 0.1, 0.2),
        "l2": (0, 0.25, 0.5, 1.0, 2.0, 4.0),
    }
    batch: ClassVar = 256

    @classmethod
    def of(
        cls, samples: Embeddings, modality: str, train: Embeddings, keys: Sequence[str] | np.ndarray | None = None
    ) -> Features:
        """Features of the samples that have the modality, of all keys or of some.

        Raises:
            ValueError: no such modality, a key that is not there or that lacks the modality.
        """
        z, present = samples.select([modality]).z[modality], samples.present[modality].cpu().numpy()
        row = {key: i for i, key in enumerate(samples.key.tolist()) if present[i]}
        chosen = list(row) if keys is None else [str(key) for key in keys]
        if unknown := [key for key in chosen if key not in row]:
            raise ValueError(f"no sample {unknown[0]!r} with an item of {modality!r}; there are {len(row)} others")
        scale = train.z[modality][train.present[modality]].std(dim=0)
        return cls(np.array(chosen), z[[row[key] for key in chosen]], scale.to(z))

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """Changes, in standard deviations: none yet."""
        return torch.zeros_like(self.z)

    def ball(self, norm: Norm, radius: float) -> Ball:
        """Changes up to a radius."""
        return Ball(norm, radius)

    def everything(self, norm: Norm) -> float:
        """A hundred standard deviations of every feature."""
        return 100.0 if norm == "linf" else 100 * math.sqrt(self.z.shape[1])

    def features(self, x: Tensor) -> Float[Tensor, "n d"]:
        """The changed features."""
        return self.z + self.scale * x

    def take(self, rows: Int[Tensor, " q"] | slice) -> Features:
        """Some of the samples."""
        return replace(self, key=self.key[_index(rows)], z=self.z[rows])


def differentiable(aligner: Aligner, modality: str) -> Callable[[Float[Tensor, "n d"]], Float[Tensor, "n e"]]:
    """The map of an aligner from features of a modality to the shared space, with a gradient.

    All variants of labkit have one: `embed` records gradients for features that require them.

    Returns:
        features -> embedded rows.

    Raises:
        ValueError: (from the map) features that require a gradient give rows that have none.
    """

    def embed(features: Tensor) -> Tensor:
        keys = np.arange(len(features)).astype(str)
        z = aligner.embed(Embeddings(key=keys, z={modality: features})).z[modality]
        if features.requires_grad and not z.requires_grad:
            raise ValueError(
                f"variant {_name(aligner)!r} has no gradient from features of {modality!r} to the shared space, so "
                "gradient attacks cannot be made on it: let its `embed` record gradients for features that require "
                "them, or attack another variant and transfer (`surrogate`)"
            )
        return z

    return embed


def _name(aligner: Aligner) -> str:
    name = getattr(aligner, "name", None)
    return str(name()) if callable(name) else type(aligner).__name__


def _index(rows: Tensor | slice) -> Any:
    return rows if isinstance(rows, slice) else rows.cpu().numpy()
