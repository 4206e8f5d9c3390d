"""Deep feature separation: beside the shared features, each modality has features of its own, orthogonal to those.

    L_sep = L_ortho + L_own + L_uniform

keeps what the modalities do not share, which exact alignment throws away (Jiang et al. 2023, arXiv:2303.05952, theorem
3.1). L_own and L_uniform see to it that the features of its own say something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision
from labkit.losses.contrastive import info_nce

if TYPE_CHECKING:
    from jaxtyping import Float


def orthogonality(shared: Float[Tensor, "n d"], own: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Squared cosine of each sample's two vectors; 0 where they are orthogonal, 1 where they are parallel.

    Formula: 1/n sum_j <z_j, z^i_j>^2, unit rows (normalized inside).

    Raises:
        ValueError: not two matrices of one shape with two or more rows.

    Source:
        Jiang et al. 2023, arXiv:2303.05952, L_Ortho, of one modality.
    """
    check_paired(shared, own)
    return (F.normalize(shared, dim=1) * F.normalize(own, dim=1)).sum(dim=1).square().mean()


@full_precision
def uniformity(z: Float[Tensor, "n d"], *, t: float = 2.0) -> Float[Tensor, ""]:
    """How far rows are from spreading over the sphere; 0 for a constant, -2 t at the very best.

    Formula: log 1/(n (n - 1)) sum_{j != k} exp(-t |z_j - z_k|^2), unit rows (normalized inside).

    Raises:
        ValueError: fewer than two rows.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, eq. 5; in Jiang et al. 2023 (L^i_Uni) with the diagonal and 1/n.
    """
    check_paired(z, z)
    z = F.normalize(z, dim=1)
    n = len(z)
    exponent = -t * (2 - 2 * z @ z.T)
    apart = exponent[~torch.eye(n, dtype=torch.bool, device=z.device)]
    return apart.logsumexp(dim=0) - torch.tensor(float(n * (n - 1)), dtype=z.dtype, device=z.device).log()


def deep_separation(
    shared: Sequence[Float[Tensor, "n d"]],
    own: Sequence[Float[Tensor, "n d"]],
    own_augmented: Sequence[Float[Tensor, "n d"]],
    *,
    temperature: float | Float[Tensor, ""] = 0.07,
    t: float = 2.0,
) -> Float[Tensor, ""]:
    """Features of each modality's own: orthogonal to the shared ones, stable under augmentation, and spread out.

    Formula: mean over modalities of `orthogonality(z, z^i)` + `info_nce(z^i, z^i_augmented)` + `uniformity(z^i)`.

    Args:
        shared: z, aligned features, one matrix per modality.
        own: z^i, the features of its own, of the same samples and dimension.
        own_augmented: the same of the augmented input.
        temperature: of the contrast within a modality.
        t: of the uniformity.

    Raises:
        ValueError: numbers of modalities or shapes that differ.

    Source:
        Jiang et al. 2023, arXiv:2303.05952, L_Sep. There sums over two modalities and one logarithm for both; means
        here, so that the weight holds for any number of modalities.
    """
    if not len(shared) == len(own) == len(own_augmented) or not shared:
        raise ValueError(
            "needs shared features, own ones and augmented own ones of each modality; "
            f"got {len(shared)}, {len(own)} and {len(own_augmented)}"
        )
    terms = [
        orthogonality(z, z_own) + info_nce(z_own, z_augmented, temperature=temperature) + uniformity(z_own, t=t)
        for z, z_own, z_augmented in zip(shared, own, own_augmented, strict=True)
    ]
    return torch.stack(terms).mean()
