"""Generalized orthogonal Procrustes: rotate every modality onto a common consensus.

    min over orthogonal Q_m and consensus G of  sum_m |A_m Q_m - G|_F^2        (Gower 1975, Psychometrika 40)

A_m are the leading principal components of modality m at unit scale. Alternates G = mean over the modalities that a
sample has, Q_m = U V^T with A_m^T G = U S V^T (Schoenemann 1966). With two modalities the first step is already the
orthogonal Procrustes solution.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm, check_pairs, principal_axes


class ProcrustesOptions(Options):
    """Hyper-parameters of Procrustes.

    Attributes:
        dim: principal components of each modality, and the dimension of the shared space.
        iterations: limit of the alternation.
    """

    dim: Annotated[int, Field(ge=2)] = 64
    iterations: Annotated[int, Field(ge=1)] = 50


@VARIANTS.register("procrustes", aliases=("generalized_procrustes",))
class Procrustes(ClosedForm):
    """Rotations onto a consensus; two or more modalities. Source: Gower 1975; Schoenemann 1966."""

    Options: ClassVar[type[Options]] = ProcrustesOptions
    options: ProcrustesOptions

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Principal axes times rotation, at unit scale."""
        check_pairs(present)
        axes = {m: principal_axes(v[present[m]], self.options.dim) for m, v in z.items()}
        axes = {m: a / (z[m] @ a).norm() for m, a in axes.items()}
        scores = {m: z[m] @ a for m, a in axes.items()}
        rotations = generalized_procrustes(scores, present, iterations=self.options.iterations)
        return {m: axes[m] @ rotations[m] for m in z}


def generalized_procrustes(
    scores: dict[str, Tensor], present: dict[str, Tensor], *, iterations: int
) -> dict[str, Tensor]:
    """Orthogonal `Q_m [k, k]` that bring paired clouds `scores[m] [n, k]` together, up to a rotation of them all.

    Rows of absent items must be zero. The residual never rises; stops when it falls by less than 1e-10 of itself.
    """
    count = torch.stack(list(present.values())).sum(dim=0).clamp(min=1)[:, None]
    first = next(iter(scores))
    rotated = {first: scores[first]}
    rotations: dict[str, Tensor] = {}
    # start: one modality after the other onto the mean of those already placed
    for m, a in scores.items():
        placed = torch.stack(list(rotated.values())).sum(dim=0)
        rotations[m] = _rotation(a, placed) if m != first else torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
        rotated[m] = a @ rotations[m]
    previous = torch.inf
    for _ in range(iterations):
        consensus = torch.stack(list(rotated.values())).sum(dim=0) / count
        rotations = {m: _rotation(a, consensus) for m, a in scores.items()}
        rotated = {m: a @ rotations[m] for m, a in scores.items()}
        residual = sum(float(((r - consensus) * present[m][:, None]).square().sum()) for m, r in rotated.items())
        if previous - residual <= 1e-10 * max(residual, 1e-300):
            break
        previous = residual
    return rotations


def _rotation(a: Tensor, target: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(a.T @ target)
    return u @ vh
