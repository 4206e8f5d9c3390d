"""MMD beside contrast: the modalities have one distribution, by kernels instead of transport.

    L = w_contrastive InfoNCE + w_mmd MMD^2(x, y)

Like the Sinkhorn divergence it is blind to the pairing and sees unpaired items.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce
from labkit.losses.kernel import mmd
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class MMDOptions(TrainedOptions):
    """Hyper-parameters of MMD.

    Attributes:
        w_contrastive: weight of InfoNCE; positive, or the map may collapse.
        w_mmd: weight of the squared MMD of the two clouds.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_mmd: Weight = 1.0


@VARIANTS.register("mmd")
class MMD(Trained):
    """InfoNCE and MMD; two or more modalities. Source: Gretton et al. 2012, JMLR 13."""

    Options: ClassVar[type[Options]] = MMDOptions
    options: MMDOptions
    search = Trained.search | {"w_mmd": (0.3, 1.0, 3.0, 10.0)}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The kernel term."""
        return {"mmd": self.options.w_mmd * mmd(pair.cloud_x, pair.cloud_y)}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}
