"""placeholder docstring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from labkit.encoders import ENCODERS
from labkit.encoders.audio import checked
from labkit.encoders.frozen import MissingWeightsError, in_batches, sha256
from labkit.encoders.speech_net import FEATURES, Cepstra, SpeechNet

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights" / "speech_small.safetensors"


@ENCODERS.register("speech_small")
class SpeechSmall:
    """Waveforms to 384 features; the weights come with labkit.

    Args:
        device: where the network runs.

    Raises:
        MissingWeightsError: the file of weights is not there.
    """

    name = "speech_small"
    dim = FEATURES
    kind = "audio"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        if not WEIGHTS.exists():
            raise MissingWeightsError(
                f"the weights {WEIGHTS} are not there; restore them with `git checkout -- {WEIGHTS.name}` or install "
                "labkit again"
            )
        self.device = torch.device(device)
        self.network = SpeechNet()
        self.network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
        self.network.eval().to(self.device)
        self.front = Cepstra().to(self.device)

    def info(self) -> dict[str, Any]:
        """Package, weights and preprocessing."""
        return {
            "encoder": self.name,
            "package": "labkit",
            "weights": WEIGHTS.name,
            "weights_sha256": sha256(WEIGHTS),
            "dim": self.dim,
            "preprocessing": "16 kHz mono, 24 cepstra of 64 log-mel bands every 10 ms, 60 dB range",
        }

    def encode(self, items: Sequence[np.ndarray], batch_size: int = 32) -> Float[Tensor, "n d"]:
        """Features of the clips, each of which goes through by itself.

        Raises:
            TypeError, ValueError: no mono float32 waveform of at least 25 ms; see `labkit.encoders.audio.checked`.
        """
        return in_batches(checked(items), self._forward, dim=self.dim, batch_size=batch_size, label="encoding speech")

    def _forward(self, waves: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([self.network(self.front(torch.from_numpy(wave).to(self.device))) for wave in waves])
