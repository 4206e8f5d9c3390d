"""Gromov-Wasserstein beside contrast: both clouds have the same inner distances, up to a matching.

    L = InfoNCE + w_gw GW_epsilon(x, y)

GW alone is blind to the pairing and to rotations, so it says nothing about which point is which.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce
from labkit.losses.gromov import gromov_wasserstein
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class GWOptions(TrainedOptions):
    """Hyper-parameters of GW.

    Attributes:
        w_contrastive: weight of InfoNCE; positive, or the map may collapse.
        w_gw: weight of Gromov-Wasserstein.
        epsilon: its regularization, in units of a squared mean distance.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_gw: Weight = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05


@VARIANTS.register("gw")
class GW(Trained):
    """InfoNCE and entropic Gromov-Wasserstein; two or more modalities. Source: Peyre, Cuturi, Solomon 2016 (ICML)."""

    Options: ClassVar[type[Options]] = GWOptions
    options: GWOptions
    search = Trained.search | {"w_gw": (0.3, 1.0, 3.0, 10.0)}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The distortion term."""
        return {"gw": self.options.w_gw * gromov_wasserstein(pair.cloud_x, pair.cloud_y, epsilon=self.options.epsilon)}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}
