"""Closed forms that match the clouds of two modalities without looking at which items belong together.

That they cannot look is built in: each modality's training items are put into the order of their own values and then
shuffled by the seed, each modality by a draw of its own, before anything else sees them. So neither the order of the
samples nor their keys can tell, and training samples with wrong partners give the same result.

The modality with the most training items stays where it is, in its principal coordinates. Each other one is rotated
onto it, one after the other: maps are orthogonal in the principal coordinates of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm, principal_axes

if TYPE_CHECKING:
    from jaxtyping import Float


class UnpairedOptions(Options):
    """Hyper-parameters of variants that see no pairs.

    Attributes:
        dim: principal components of each modality, and the dimension of the shared space.
        samples: most training items of each modality that are matched; drawn by the seed.
    """

    dim: Annotated[int, Field(ge=2)] = 128
    samples: Annotated[int, Field(ge=2)] = 2000


class UnmatchedWarning(UserWarning):
    """Two modalities were matched without pairs, and the matching itself says that it is probably wrong."""


class Unpaired(ClosedForm):
    """Rotations from principal coordinates onto those of one modality; a subclass finds them from unpaired rows."""

    options: UnpairedOptions
    search: ClassVar[dict[str, tuple[object, ...]]] = {"dim": (32, 64, 128)}

    def match(
        self, x: Float[Tensor, "n k"], y: Float[Tensor, "m k"], modality: str, random: np.random.Generator
    ) -> Float[Tensor, "k k"]:
        """Orthogonal map of the rows `x` of a modality onto the rows `y` of another, given in no common order.

        Args:
            x: principal coordinates, mean squared length 1.
            y: the same of the modality that stays.
            modality: name of the one that moves, for messages.
            random: what is drawn from, a stream of its own for every modality.
        """
        raise NotImplementedError

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Principal axes at unit scale, times the rotation."""
        streams = {m: np.random.default_rng([self.seed, i]) for i, m in enumerate(z)}
        rows = {m: shuffled(v[present[m]], streams[m]) for m, v in z.items()}
        axes = {m: principal_axes(v, self.options.dim) for m, v in rows.items()}
        axes = {m: a * len(rows[m]) ** 0.5 / (rows[m] @ a).norm() for m, a in axes.items()}
        clouds = {m: rows[m][: self.options.samples] @ a for m, a in axes.items()}
        stays = max(z, key=lambda m: len(rows[m]))
        return {
            m: a if m == stays else a @ self.match(clouds[m], clouds[stays], m, streams[m]) for m, a in axes.items()
        }


def shuffled(rows: Float[Tensor, "n d"], random: np.random.Generator) -> Float[Tensor, "n d"]:
    """The rows in an order that depends on their values and on `random`, and not on the order they come in."""
    sorted_rows = np.lexsort(rows.cpu().numpy().T)
    return rows[torch.as_tensor(sorted_rows[random.permutation(len(rows))], device=rows.device)]


def rotation(x: Float[Tensor, "n k"], y: Float[Tensor, "n k"]) -> Float[Tensor, "k k"]:
    """Orthogonal Q that brings `x Q` nearest to `y`: U V^T of the singular vectors of x^T y (Schoenemann 1966)."""
    u, _, vh = torch.linalg.svd(x.T @ y)
    return u @ vh
