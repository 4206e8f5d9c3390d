"""Items that are missing: how many, and whether chance alone or the class of a sample decides.

    weight(sample, modality) = 1                    by chance (missing completely at random)
    weight(sample, modality) = 2 (W_before + w / 2)  by label: w the share of the sample's class among the items of
                                                     the modality, W_before that of the classes before it

Either way the mean weight of a modality's items is 1 exactly, so an item that is lost with probability share * weight
makes `share` missing on average. By label the rates lie between 0 and 2 * share and differ between classes as much as
a uniform order of classes allows. The order is a hash of the names of modality and class: in every split, seed and
variant the same classes lack the same modality, as where a sensor fails for one kind of thing (Rubin 1976, Biometrika
63: missing at random, given the label).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch

from labkit.config import MissingBy
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def weights_by_label(data: Embeddings, modality: str) -> Float[Tensor, " n"]:
    """How much more likely than on average a sample lacks the modality, by its class; in (0, 2).

    The mean over the samples that have the item is 1. Samples without a label are a class of their own.

    Raises:
        ValueError: no labels, or one class only.
    """
    label = data.label
    if label is None or len(label.unique()) < 2:
        found = "no labels" if label is None else "one class only"
        raise ValueError(
            f"items cannot be missing by label: the samples have {found}; let them be missing by chance "
            "(data.missing_by: chance, corruption missing_modality), or give labels of two or more classes"
        )
    codes = sorted(label.unique().tolist(), key=lambda code: _place(modality, _name(data, code)))
    of_class = label[:, None] == torch.tensor(codes, device=label.device)
    counts = (of_class & data.present[modality][:, None]).sum(dim=0).double()
    share = counts / counts.sum().clamp(min=1)
    weight = 2 * (share.cumsum(dim=0) - share / 2)
    return (of_class.double() @ weight).float()


def drop_items(data: Embeddings, share: float, generator: torch.Generator, *, by: MissingBy = "chance") -> Embeddings:
    """Drop a share of all items; every sample keeps at least one of those it has.

    Exactly round(share * items) are dropped, those with the smallest draw / weight that are not the last of their
    sample. By label the rates of the classes are those of the weights as far as that lets them. Smaller shares drop a
    subset of what larger ones do.

    Args:
        data: samples, some of whose items may be absent already.
        share: of the items that are there, from 0 to 1 / 2 for two complete modalities, 2 / 3 for three, and so on.
        generator: of the draws.
        by: "chance", or "label" for rates that depend on the class.

    Raises:
        ValueError: more than can be missing where every sample keeps an item; by label where there are no labels, or
            one class only.
    """
    if share == 0:
        return data
    present = torch.stack(list(data.present.values()), dim=1)
    order = torch.rand(present.shape, generator=generator).to(present.device)
    if by == "label":
        order = order / torch.stack([weights_by_label(data, m) for m in data.modalities], dim=1)
    # the present item with the highest draw is the one that stays
    keeper = torch.where(present, order, -1.0).argmax(dim=1, keepdim=True)
    free = present.scatter(1, keeper, False)
    items, most = int(present.sum()), int(free.sum())
    number = round(share * items)
    if number > most:
        raise ValueError(
            f"data.missing is {share:g}: {number} of {items} items were to be missing, but every sample keeps one, so "
            f"that {most} can be; give a share up to {math.floor(1000 * most / items) / 1000:g}, or more modalities"
        )
    lost = torch.zeros(present.numel(), dtype=torch.bool, device=present.device)
    lost[torch.where(free, order, torch.inf).flatten().argsort(stable=True)[:number]] = True
    kept = present & ~lost.view_as(present)
    return data.with_z(data.z, {m: kept[:, i] for i, m in enumerate(data.modalities)})


def _name(data: Embeddings, code: int) -> str:
    return data.label_names[code] if data.label_names and code >= 0 else str(code)


def _place(modality: str, name: str) -> str:
    return hashlib.sha256(f"{modality}/{name}".encode()).hexdigest()
