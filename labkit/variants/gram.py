"""GRAM: the vectors of a sample in all modalities span less volume than those of exchanged tuples.

    L = L_con + w_matching L_DAM + w_antipodal L_antipodal,   L_con = 1/2 [CE(-V / t, T) + CE(-V' / t, T)]
    V_ij = sqrt(det G(a_i, b_j, c_j, ...))

The other terms and samples with missing items: see `_tuples`. The paper's anchor is text; here each modality is the
anchor in turn and the losses are averaged, as retrieval is measured in all directions and two collinear modalities have
no volume whatever the third does: the first alone as anchor loses 8 points of R@10 on *stamps*. For two modalities the
volume is the sine of the angle, so ranking by -V, as the authors do, is ranking by |cosine|; here it is by the cosine.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from labkit.losses import gram, gram_volume
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._tuples import Matched, Unsigned, UnsignedOptions

Anchor = Literal["each", "first"]


class GramOptions(UnsignedOptions):
    """Hyper-parameters of GRAM.

    Attributes:
        anchor: modality that is exchanged against the others: "each" in turn, or the "first" that a sample has.
    """

    anchor: Anchor = "each"


@VARIANTS.register("gram")
class Gram(Unsigned):
    """Volumes and matching; two or more modalities. Source: Cicchetti et al. 2025, arXiv:2412.11959."""

    Options: ClassVar[type[Options]] = GramOptions
    options: GramOptions
    search = Matched.search | {"temperature": (0.03, 0.07, 0.15), "w_antipodal": (1.0, 5.0, 20.0)}

    def contrast(self, z: list[Tensor], group: Tensor) -> Tensor:
        """Contrast of volumes, mean over anchors."""
        anchors = len(z) if self.options.anchor == "each" and len(z) > 2 else 1  # the sine is symmetric
        values = [gram(*z[a:], *z[:a], temperature=self.network.temperature, group=group) for a in range(anchors)]
        return torch.stack(values).mean()

    def scores(self, z: list[Tensor]) -> Tensor:
        """Negative volumes."""
        return -gram_volume(*z) / self.network.temperature
