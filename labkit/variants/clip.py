"""Contrastive alignment: symmetric InfoNCE with a learned temperature (Radford et al. 2021, arXiv:2103.00020)."""

from __future__ import annotations

from torch import Tensor

from labkit.losses import info_nce
from labkit.variants import VARIANTS
from labkit.variants._trained import Pair, Trained


@VARIANTS.register("clip", aliases=("contrastive",))
class Clip(Trained):
    """InfoNCE over every pair of modalities; two or more. Source: Radford et al. 2021."""

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        return {"contrastive": info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)}
