"""Items lost completely at random: the sample has the modality no more.

What stands in for a lost item is up to `labkit.imputation`.
"""

from __future__ import annotations

import torch

from labkit.corruptions import CORRUPTIONS, Context, level
from labkit.types import Embeddings

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


@CORRUPTIONS.register("missing_modality")
def missing_modality(data: Embeddings, modality: str, severity: int, context: Context) -> Embeddings:
    """Each sample loses its item with probability 0, .1, .2, .3, .4, .5 at severity 0..5."""
    has = data.select([modality]).present[modality]
    lost = torch.rand(len(data), generator=context.generator) < level(severity, LEVELS)
    return data.with_z(data.z, {**data.present, modality: has & ~lost.to(has.device)})
