"""Features lost at random: each is replaced by its mean over the training samples."""

from __future__ import annotations

import torch

from labkit.corruptions import CORRUPTIONS, Context, level
from labkit.types import Embeddings

LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)


@CORRUPTIONS.register("feature_masking")
def feature_masking(data: Embeddings, modality: str, severity: int, context: Context) -> Embeddings:
    """A share 0, .2, .4, .6, .8, .9 of the entries, drawn anew for each sample, at severity 0..5."""
    share = level(severity, LEVELS)
    z = data.select([modality]).z[modality]
    lost = torch.rand(z.shape, generator=context.generator, dtype=z.dtype).to(z.device) < share
    return data.with_z({**data.z, modality: torch.where(lost, context.mean[modality], z)})
