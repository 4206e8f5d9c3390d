"""Gaussian noise on the features, in units of each feature's standard deviation over the training samples."""

from __future__ import annotations

import torch

from labkit.corruptions import CORRUPTIONS, Context, level
from labkit.types import Embeddings

LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


@CORRUPTIONS.register("feature_noise")
def feature_noise(data: Embeddings, modality: str, severity: int, context: Context) -> Embeddings:
    """Return z + sigma * scale * N(0, 1) with sigma = 0, 0.5, 1, 1.5, 2, 3 at severity 0..5."""
    sigma = level(severity, LEVELS)
    z = data.select([modality]).z[modality]
    noise = torch.randn(z.shape, generator=context.generator, dtype=z.dtype).to(z.device)
    return data.with_z({**data.z, modality: z + sigma * context.scale[modality] * noise})
