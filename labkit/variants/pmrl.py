"""PMRL: a sample's vectors in all modalities have one large singular value, whose direction tells samples apart.

    L = mean_i CE(s_i / temperature_within, first) + CE(|U U'| / t, T) + w_matching L_IM + w_antipodal L_antipodal

s_i are the singular values of sample i's stacked unit vectors and u_i is the direction of the largest: all modalities
agree when the others vanish. No modality is an anchor. Directions have no sign, hence the antipodal term; that one, the
matching loss, and samples with missing items: see `_tuples`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import leading_directions, pmrl
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._tuples import Matched, Unsigned, UnsignedOptions


class PMRLOptions(UnsignedOptions):
    """Hyper-parameters of PMRL.

    Attributes:
        temperature_within: divides the singular values; fixed, while the temperature between samples is learned.
    """

    temperature_within: Annotated[float, Field(gt=0)] = 0.1


@VARIANTS.register("pmrl")
class PMRL(Unsigned):
    """Singular values and matching; two or more modalities. Source: Liu et al. 2025, arXiv:2507.17343."""

    Options: ClassVar[type[Options]] = PMRLOptions
    options: PMRLOptions
    search = Matched.search | {
        "temperature": (0.07, 0.15, 0.3),
        "temperature_within": (0.1, 0.3, 1.0),
        "w_antipodal": (1.0, 5.0, 20.0),
    }

    def contrast(self, z: list[Tensor], group: Tensor) -> Tensor:
        """One large singular value, and directions that differ."""
        within, between = self.options.temperature_within, self.network.temperature
        return pmrl(*z, temperature=within, temperature_between=between, group=group)

    def scores(self, z: list[Tensor]) -> Tensor:
        """Absolute cosines of the leading directions."""
        _, leading = leading_directions(*z)
        return (leading @ leading.T).abs() / self.network.temperature
