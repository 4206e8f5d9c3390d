"""ASIF: an item is what it resembles among paired training samples.

    r(x)_k = <x, a_k> / (|x| |a_k|) over the anchors a_k, centered;    keep the largest, raise to a power, unit length

and the similarity of two items of different modalities is the cosine of their r, as anchor k is the same thing in
both. Nothing is fitted. Moschella et al. 2023 (ICLR), "Relative representations enable zero-shot latent space
communication"; sparse and raised to a power: Norelli et al. 2023 (NeurIPS), "ASIF: coupled data turns unimodal models
to multimodal without training", section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.variants import VARIANTS
from labkit.variants._anchored import Anchored, AnchoredOptions
from labkit.variants._base import Options

if TYPE_CHECKING:
    from jaxtyping import Float


class ASIFOptions(AnchoredOptions):
    """Hyper-parameters of ASIF.

    Attributes:
        kept: similarities that are kept of each item, the largest; the others are set to zero, and so are negative ones
            unless all are.
        power: that similarities are raised to: higher lets the nearest anchors decide.
    """

    kept: Annotated[int, Field(ge=1)] = 100
    power: Annotated[float, Field(gt=0)] = 4.0


@VARIANTS.register("asif", aliases=("relative",))
class ASIF(Anchored):
    """Sparse relative representations; two or more modalities. Source: Norelli et al. 2023; Moschella et al. 2023.

    The dimension of the space is the number of anchors: samples with two modalities or more. An anchor that lacks a
    modality is similar to none of its items.
    """

    Options: ClassVar[type[Options]] = ASIFOptions
    options: ASIFOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "kept": (25, 50, 100, 200, 400),
        "power": (1.0, 2.0, 4.0, 8.0),
    }

    def place(self, modality: str, rows: Tensor) -> Tensor:
        """Similarities to the anchors, the largest raised to the power."""
        anchors = F.normalize(self.anchors[modality].to(rows.dtype), dim=1)
        similarity = F.normalize(rows, dim=1) @ anchors.T
        similarity[:, ~anchors.any(dim=1)] = -torch.inf
        return sparse_powers(similarity, self.options.kept, self.options.power)


def sparse_powers(similarity: Float[Tensor, "n a"], kept: int, power: float) -> Float[Tensor, "n a"]:
    """The `kept` largest positive entries of each row, raised to `power`, and zeros; all of a tie are kept.

    In units of the largest power. A row without positive entries gets a 1 for its largest.
    """
    largest = similarity.amax(dim=1, keepdim=True)
    shares = torch.where(largest > 0, similarity.clamp(min=0) / largest, (similarity == largest).to(similarity.dtype))
    if kept < shares.shape[1]:
        shares = shares * (shares >= shares.topk(kept, dim=1).values[:, -1:])
    return shares**power
