"""A small speech encoder that comes with labkit: a dictionary of sounds, learned without a teacher and without pairs.

Atoms and principal components are those of the 1,813 bundled French and Spanish clips
(`tools/train_speech_encoder.py train`). A student of Whisper's features was tried and left out: with the test clips
among its lessons it comes closer to their Whisper features than to those of new clips, which flatters every score;
without them it is within a standard error of this encoder, learned from the same clips. Here nothing is fitted to a
target, and whether the test clips were heard makes no such difference. R@10 by CCA, mean of clip to and from caption
and picture on test groups, with the standard error over the ten stored splits (`... score`; by chance .07):

    features of            French clips   Spanish clips
    whisper_base           .352 (.008)    .360 (.008)
    speech_small           .337 (.007)    .332 (.013)    learned from all clips, as it comes
    speech_small           .344 (.007)    .335 (.008)    learned without the split's test clips
    student of Whisper     .374 (.008)    .367 (.010)    learned from all clips
    student of Whisper     .351 (.006)    .341 (.009)    learned without the split's test clips

A linear map from these features to Whisper's, learned on 1,433 clips, has a cosine of .75 to the standardized vectors
of these clips and of .42 to those of 380 clips of other caption groups, and finds 82 % of the latter among the ten
nearest of all 380. Words and short phrases are all it knows: it is no encoder for speech at large.
"""

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
                f"the weights {WEIGHTS} are not there; restore them with `git checkout -- {WEIGHTS}` or install "
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
            "preprocessing": "16 kHz mono, 24 root cepstra of 64 mel bands every 10 ms",
        }

    def encode(self, items: Sequence[np.ndarray], batch_size: int = 32) -> Float[Tensor, "n d"]:
        """Features of the clips, each of which goes through by itself.

        Raises:
            TypeError, ValueError: no mono float32 waveform of at least 25 ms; see `labkit.encoders.audio.checked`.
        """
        return in_batches(checked(items), self._forward, dim=self.dim, batch_size=batch_size, label="encoding speech")

    def _forward(self, waves: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([self.network(self.front(torch.from_numpy(wave).to(self.device))) for wave in waves])
