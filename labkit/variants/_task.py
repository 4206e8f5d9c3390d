"""The task beside alignment: classes of the training samples, what a sample's items say together, the loss of both.

    L_task = cross-entropy of the logits over the samples that have a label and an item

What maps features to logits is the variant's own; an absent item must not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from labkit.losses import classification
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def classes(train: Embeddings) -> int:
    """Number of classes that a classifier of the training samples needs; 0 where no sample has a label."""
    return 0 if train.label is None else max(0, int(train.label.max()) + 1)


def mean_present(
    z: Mapping[str, Float[Tensor, "n d"]], present: Mapping[str, Bool[Tensor, " n"]]
) -> Float[Tensor, "n d"]:
    """Mean of the items that each sample has; zero where it has none."""
    masks = torch.stack([present[m] for m in z])[..., None]
    return (torch.stack(list(z.values())) * masks).sum(dim=0) / masks.sum(dim=0).clamp(min=1)


def task_terms(logits: Float[Tensor, "n c"], batch: Embeddings, *, weight: float) -> dict[str, Tensor]:
    """The weighted task loss as a loss term; none where no sample of the batch has both a label and an item."""
    if batch.label is None:
        return {}
    anything = torch.stack(list(batch.present.values())).any(dim=0)
    label = torch.where(anything, batch.label, -1)
    return {"task": weight * classification(logits, label)} if bool((label >= 0).any()) else {}
