"""VICReg between modalities: pairs agree, coordinates keep their variance and lose their correlation; no negatives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from labkit.losses import vicreg
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight


class VICRegOptions(CollapsibleOptions):
    """Hyper-parameters of VICReg (defaults of the paper, divided by 25).

    Attributes:
        w_invariance: weight of the pair distance.
        w_variance: weight of the variance hinge; without it the map may collapse.
        w_covariance: weight of the covariance penalty.
    """

    keeps_apart: ClassVar[tuple[str, ...]] = ("w_variance",)

    w_invariance: Weight = 1.0
    w_variance: Weight = 1.0
    w_covariance: Weight = 0.04


@VARIANTS.register("vicreg")
class VICReg(Trained):
    """Two or more modalities. Source: Bardes, Ponce, LeCun 2022, arXiv:2105.04906."""

    Options: ClassVar[type[Options]] = VICRegOptions
    options: VICRegOptions
    normalized = False
    search = {
        "dim": (128, 256),
        "dropout": (0.5, 0.6, 0.7, 0.8),
        "w_invariance": (0.3, 1.0, 3.0),
        "w_covariance": (0.04, 0.2, 1.0),
    }

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The three terms together."""
        o = self.options
        loss = vicreg(
            pair.x,
            pair.y,
            invariance=o.w_invariance,
            variance=o.w_variance,
            covariance=o.w_covariance,
        )
        return {"vicreg": loss}
