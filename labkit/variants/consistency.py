"""Geometric consistency: cosines agree across the modalities, within them, and with those of augmented views.

    L = L_Con + w_consistency L_GC + w_augmented L^a_GC

L_GC is that of CyCLIP; L^a_GC holds the cosines of a modality, and those of the pairs, in place when the input is
augmented. L_Con: see `_augment`. All consistency terms are 0 for a constant map, which the contrast prevents. Jiang et
al. 2023, arXiv:2303.05952; the sums over the batch are means here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from labkit.losses import augmented_consistency, geometric_consistency
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._augment import Augmented, AugmentedOptions, View, partners
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Weight


class ConsistencyOptions(AugmentedOptions):
    """Hyper-parameters of geometric consistency.

    Attributes:
        w_consistency: weight of L_GC, between the modalities.
        w_augmented: weight of L^a_GC, between items and views.
    """

    w_consistency: Weight = 30.0
    w_augmented: Weight = 30.0


@VARIANTS.register("consistency")
class Consistency(Augmented):
    """Contrast and geometric consistency with views; two or more modalities. Source: Jiang et al. 2023, L_GC."""

    Options: ClassVar[type[Options]] = ConsistencyOptions
    options: ConsistencyOptions
    search = Augmented.search | {"w_consistency": (3.0, 10.0, 30.0, 100.0), "w_augmented": (3.0, 10.0, 30.0)}

    @property
    def looks(self) -> bool:
        """Whether a term looks at the views."""
        return super().looks or self.options.w_augmented > 0

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Contrast and consistency between the modalities."""
        terms, weight = super().pair_terms(pair), self.options.w_consistency
        return terms | ({"consistency": weight * geometric_consistency(pair.x, pair.y)} if weight else {})

    def view_terms(self, z: dict[str, Tensor], batch: Embeddings, view: View) -> dict[str, Tensor]:
        """In-modal contrast, and consistency of pairs with their views."""
        terms, pairs, weight = super().view_terms(z, batch, view), partners(batch), self.options.w_augmented
        if not weight or not pairs:
            return terms
        values = [augmented_consistency(z[a][r], z[b][r], view.z[a][r], view.z[b][r]) for a, b, r in pairs]
        return terms | {"augmented": weight * torch.stack(values).mean()}
