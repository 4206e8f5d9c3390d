"""Items lost at a rate that depends on the class of the sample: some classes lack the modality more often."""

from __future__ import annotations

import torch

from labkit.corruptions import CORRUPTIONS, Context, level
from labkit.data.missing import weights_by_label
from labkit.types import Embeddings

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


@CORRUPTIONS.register("missing_by_label")
def missing_by_label(data: Embeddings, modality: str, severity: int, context: Context) -> Embeddings:
    """A share 0, .1, .2, .3, .4, .5 of the items is lost on average at severity 0..5, from none to twice that by class.

    The rates are share * `labkit.data.missing.weights_by_label`, as where training items are missing by label.

    Raises:
        ValueError: the samples have no labels, or one class only.
    """
    has = data.select([modality]).present[modality]
    rate = level(severity, LEVELS) * weights_by_label(data, modality).cpu()
    lost = torch.rand(len(data), generator=context.generator) < rate
    return data.with_z(data.z, {**data.present, modality: has & ~lost.to(has.device)})
