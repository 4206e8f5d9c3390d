"""STRUCTURE: contrast that keeps the neighborhoods of the frozen features, over several hops.

    L = InfoNCE + w_structure/2 [R(raw_x, x) + R(raw_y, y)]

R is the divergence of neighbor distributions before and after alignment: what pretraining knew is not given up for
a few pairs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce
from labkit.losses.structure import structure
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class StructureOptions(TrainedOptions):
    """Hyper-parameters of Structure.

    Attributes:
        w_contrastive: weight of InfoNCE; positive, or the map may collapse.
        w_structure: weight of the neighborhoods.
        hops: steps over which neighborhoods are compared.
        softness: temperature of the neighbor distributions.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_structure: Weight = 1.0
    hops: Annotated[int, Field(ge=1, le=5)] = 2
    softness: Annotated[float, Field(gt=0)] = 0.1


@VARIANTS.register("structure")
class Structure(Trained):
    """InfoNCE and kept neighborhoods; two or more modalities. Source: Groger et al. 2025, arXiv:2506.16895."""

    Options: ClassVar[type[Options]] = StructureOptions
    options: StructureOptions
    search = Trained.search | {"w_structure": (1.0, 3.0, 10.0, 30.0), "softness": (0.05, 0.1, 0.3)}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The neighborhood term."""
        kept = self._kept(pair.cloud_raw_x, pair.cloud_x) + self._kept(pair.cloud_raw_y, pair.cloud_y)
        return {"structure": self.options.w_structure * kept / 2}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}

    def _kept(self, raw: Tensor, z: Tensor) -> Tensor:
        if len(z) < 3:  # two points are each other's only neighbor
            return z.new_zeros(())
        return structure(raw, z, temperature=self.options.softness, hops=self.options.hops)
