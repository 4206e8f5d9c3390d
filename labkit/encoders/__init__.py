"""Frozen encoders: raw items in, vectors out, with weights that come as ordinary packages (no hub, no network).

    encoder = labkit.encoders.get("efficientnet_lite0", device="cpu")
    x = encoder.encode(pictures)                      # [n, 1280]

An encoder is a class registered in `ENCODERS` that follows the protocol `Encoder`; one new file adds one. Heavy
libraries load when an encoder is made, not when this package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from labkit.registry import Registry

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

__all__ = ["ENCODERS", "Encoder", "get"]

ENCODERS = Registry("encoder", __name__)


class Encoder(Protocol):
    """A frozen map from raw items to vectors.

    Attributes:
        name: in `ENCODERS`.
        dim: length of a vector.
        kind: what it takes: "image" (`PIL.Image`), "text" (`str`) or "audio" (mono float32 waveform at 16 kHz).
    """

    name: str
    dim: int
    kind: str

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Load the weights onto `device`; `MissingWeightsError` where they are not installed."""
        ...

    def info(self) -> dict[str, Any]:
        """Package, version, file name and sha256 of the weights, dimension and preprocessing."""
        ...

    def encode(self, items: Sequence[Any], batch_size: int = ...) -> Float[Tensor, "n d"]:
        """One float32 vector per item, on the CPU, in the order of `items`; a progress bar when it takes long."""
        ...


def get(name: str, device: str | torch.device = "cpu") -> Encoder:
    """The encoder called `name`, its weights loaded.

    Raises:
        UnknownNameError: no such encoder; the message names the nearest ones.
        MissingWeightsError: its weights are not installed.
    """
    return cast("type[Encoder]", ENCODERS.get(name))(device)
