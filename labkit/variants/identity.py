"""No alignment: the floor that every method has to beat.

Each modality is reduced by its own principal component analysis (training samples only). Nothing relates the axes of
two modalities, so retrieval across them is at chance by construction.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm, principal_axes


class IdentityOptions(Options):
    """Hyper-parameters of the floor.

    Attributes:
        dim: principal components of each modality, and the dimension of the shared space.
    """

    dim: Annotated[int, Field(ge=2)] = 128


@VARIANTS.register("identity", aliases=("none",))
class Identity(ClosedForm):
    """PCA per modality, no alignment. Two or more modalities. Source: Pearson 1901."""

    Options: ClassVar[type[Options]] = IdentityOptions
    options: IdentityOptions

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Principal axes of each modality."""
        return {m: principal_axes(v[present[m]], self.options.dim) for m, v in z.items()}
