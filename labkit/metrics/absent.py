"""What stands in for items that are absent, so that methods are asked about the same samples whatever is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def neutral(trained: Embeddings) -> dict[str, Float[Tensor, " d"]]:
    """Mean embedding of the training items of each modality: it says nothing about a sample."""
    return {m: trained.z[m][trained.present[m]].mean(dim=0) for m in trained.modalities}


def substitute(shared: Embeddings, asked: Sequence[str], uninformed: Mapping[str, Float[Tensor, " d"]]) -> Embeddings:
    """Modalities made complete: an absent item is stood in for by the sample's other modalities.

    The stand-in is the normalized mean of the sample's present embeddings outside `asked` (in retrieval the other side
    of the question would give the answer away); where there is none, the mean training embedding.

    Args:
        shared: embedded samples, some with absent items.
        asked: the modalities that the result has, e.g. the one that asks and the one that is searched.
        uninformed: modality -> mean embedding of the training samples, as from `neutral`.
    """
    total = torch.zeros_like(shared.z[asked[0]])
    for m in shared.modalities:
        if m not in asked:
            total = total + shared.z[m] * shared.present[m][:, None]
    known = total.norm(dim=1, keepdim=True) > 0
    z = {}
    for m in asked:
        stand_in = torch.where(known, F.normalize(total, dim=1), uninformed[m].expand_as(total))
        z[m] = torch.where(shared.present[m][:, None], shared.z[m], stand_in)
    complete = {m: torch.ones_like(shared.present[m]) for m in asked}
    return shared.select(asked).with_z(z, complete)
