"""CyCLIP: contrast, with cosines that are symmetric across the modalities and agree within them.

    L = L_Con + w_consistency mean[(<x_j, y_k> - <x_k, y_j>)^2 + (<x_j, x_k> - <y_j, y_k>)^2]

L_Con contrasts items with augmented views too (see `_augment`), which the authors' code offers as `--inmodal`;
`w_in_modal` 0 leaves that out. The paper's weight is on a sum over the batch; here it is on the mean, so that it does
not depend on the batch.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from labkit.losses import geometric_consistency
from labkit.variants import VARIANTS
from labkit.variants._augment import Augmented, AugmentedOptions
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Weight


class CyCLIPOptions(AugmentedOptions):
    """Hyper-parameters of CyCLIP.

    Attributes:
        w_consistency: weight of the two consistency terms.
    """

    w_consistency: Weight = 10.0


@VARIANTS.register("cyclip")
class CyCLIP(Augmented):
    """InfoNCE and geometric consistency; two or more modalities. Source: Goel et al. 2022, arXiv:2205.14459."""

    Options: ClassVar[type[Options]] = CyCLIPOptions
    options: CyCLIPOptions
    search = Augmented.search | {"w_consistency": (1.0, 10.0, 30.0, 100.0)}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Contrastive and consistency terms."""
        consistency = geometric_consistency(pair.x, pair.y)
        return super().pair_terms(pair) | {"consistency": self.options.w_consistency * consistency}
