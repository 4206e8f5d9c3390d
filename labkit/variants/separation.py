"""Deep feature separation: beside the shared features z, each modality has features z^i of its own.

    L = L_Con + w_separation L_Sep
    L_Sep = mean over modalities of [1/n sum_j <z_j, z^i_j>^2 + InfoNCE(z^i, z^i')
            + log mean_{j != k} exp(-2 |z^i_j - z^i_k|^2)]

Exact alignment throws away what only one modality knows; features of its own, orthogonal to the shared ones, keep it.
L_Con and the views ' are those of `_augment`. Retrieval uses the shared features alone, so the others are left behind
when a fitted aligner is loaded. Jiang et al. 2023, arXiv:2303.05952.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from labkit.encoders.heads import linear_heads
from labkit.losses import deep_separation
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._augment import Augmented, AugmentedOptions, View, items
from labkit.variants._base import Options
from labkit.variants._trained import Weight


class SeparationOptions(AugmentedOptions):
    """Hyper-parameters of deep feature separation.

    Attributes:
        w_separation: weight of L_Sep.
    """

    w_separation: Weight = 0.3


@VARIANTS.register("separation")
class Separation(Augmented):
    """Contrast, and features of each modality's own; two or more modalities. Source: Jiang et al. 2023, L_Sep."""

    Options: ClassVar[type[Options]] = SeparationOptions
    options: SeparationOptions
    search = Augmented.search | {"w_separation": (0.1, 0.3, 1.0, 3.0)}

    def prepare(self, train: Embeddings) -> None:
        """Add a second head per modality.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        super().prepare(train)
        o = self.options
        self.network.extra["own"] = linear_heads(train, dim=o.dim, dropout=o.dropout)

    @property
    def looks(self) -> bool:
        """Whether a term looks at the views."""
        return super().looks or self.options.w_separation > 0

    def view_terms(self, z: dict[str, Tensor], batch: Embeddings, view: View) -> dict[str, Tensor]:
        """In-modal contrast and separation."""
        terms, here, weight = super().view_terms(z, batch, view), items(batch), self.options.w_separation
        if not weight or not here:
            return terms
        own = self.network.extra["own"].get_submodule
        value = deep_separation(
            [z[m][rows] for m, rows in here],
            *([own(m)(features[m][rows]).float() for m, rows in here] for features in (batch.z, view.features)),
            temperature=self.network.temperature,
        )
        return terms | {"separation": weight * value}
