"""Fused Gromov-Wasserstein beside contrast: matched points are near each other, and so are their inner distances.

L = InfoNCE + w_fgw FGW_epsilon,alpha(x, y)
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce
from labkit.losses.gromov import fused_gromov_wasserstein
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class FGWOptions(TrainedOptions):
    """Hyper-parameters of FGW.

    Attributes:
        w_contrastive: weight of InfoNCE; positive, or the map may collapse.
        w_fgw: weight of fused Gromov-Wasserstein.
        epsilon: its regularization, in units of a squared mean distance.
        alpha: weight of the inner distances against those between the clouds.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_fgw: Weight = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5


@VARIANTS.register("fgw")
class FGW(Trained):
    """InfoNCE and fused Gromov-Wasserstein; two or more modalities. Source: Vayer et al. 2020, arXiv:1811.02834."""

    Options: ClassVar[type[Options]] = FGWOptions
    options: FGWOptions
    search = Trained.search | {"w_fgw": (0.3, 1.0, 3.0, 10.0), "alpha": (0.2, 0.5, 0.8)}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The fused term."""
        o = self.options
        value = fused_gromov_wasserstein(pair.cloud_x, pair.cloud_y, epsilon=o.epsilon, alpha=o.alpha)
        return {"fgw": o.w_fgw * value}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}
