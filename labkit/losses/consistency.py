"""Geometric consistency: inner products agree across and within modalities (CyCLIP, and its generalization).

With X and Y of unit rows, both are zero when X = Y and blind to a common rotation, and both are minimal for constant
maps, so a variant adds a contrastive term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@LOSSES.register("geometric_consistency", aliases=("cyclip",))
@full_precision
def geometric_consistency(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Cross-modal symmetry and in-modal agreement of cosines; 0 when both modalities agree.

    Formula: 1/n^2 sum_jk [(<x_j, y_k> - <x_k, y_j>)^2 + (<x_j, x_k> - <y_j, y_k>)^2]. Rows are normalized inside.
    The papers divide by n, so that the weight there depends on the batch.

    Raises:
        ValueError: x and y are not two matrices of one shape with two or more rows.

    Source:
        Goel et al. 2022 (CyCLIP), arXiv:2205.14459, eq. 2 and 3; Jiang et al. 2023, arXiv:2303.05952, L_GC.
    """
    check_paired(x, y)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    across = x @ y.T
    return (across - across.T).square().mean() + (x @ x.T - y @ y.T).square().mean()


@full_precision
def augmented_consistency(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    x_augmented: Float[Tensor, "n d"],
    y_augmented: Float[Tensor, "n d"],
) -> Float[Tensor, ""]:
    """Cosines within and between the modalities stay when the input is augmented; 0 when they do.

    Formula: 1/n^2 sum_jk [(<x_j, x_k> - <x'_j, x'_k>)^2 + (<y_j, y_k> - <y'_j, y'_k>)^2]
    + 1/n sum_j (<x_j, y_j> - <x'_j, y'_j>)^2, with ' for augmented. Rows are normalized inside.

    Raises:
        ValueError: not four matrices of one shape with two or more rows.

    Source:
        Jiang et al. 2023, arXiv:2303.05952, L^a_GC.
    """
    for z in (y, x_augmented, y_augmented):
        check_paired(x, z)
    x, y, x_augmented, y_augmented = (F.normalize(z, dim=1) for z in (x, y, x_augmented, y_augmented))
    within = sum((a @ a.T - b @ b.T).square().mean() for a, b in ((x, x_augmented), (y, y_augmented)))
    return within + ((x * y).sum(dim=1) - (x_augmented * y_augmented).sum(dim=1)).square().mean()
