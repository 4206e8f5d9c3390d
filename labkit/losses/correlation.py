"""Correlation losses: deep CCA of two modalities, generalized CCA of more.

T = (C_xx + r I)^-1/2 C_xy (C_yy + r I)^-1/2 has the canonical correlations as singular values. Whitening makes both
losses blind to linear maps of either modality, so nothing collapses, and needs batches larger than the dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.losses import LOSSES
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float


@LOSSES.register("dcca")
@full_precision
def dcca(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], *, ridge: float = 1e-3) -> Float[Tensor, ""]:
    """One minus the mean canonical correlation; 0 when each modality is a linear map of the other, 1 at worst.

    Formula: 1 - |T|_* / min(d, e), |.|_* the sum of singular values. C_xx and C_yy are divided by their mean
    variance before the ridge is added, so that it does not depend on scale.

    Args:
        x: one modality.
        y: the other; its dimension may differ.
        ridge: r.

    Raises:
        ValueError: numbers of rows that differ, or fewer than three.

    Source:
        Andrew et al. 2013 (ICML), eq. 10.
    """
    whitened = _whitened((x, y), ridge)
    return 1 - _nuclear(whitened[0].T @ whitened[1]) / min(x.shape[1], y.shape[1])


@full_precision
def gcca(*modalities: Float[Tensor, "n d"], ridge: float = 1e-3) -> Float[Tensor, ""]:
    """MAXVAR generalized CCA: how much of its best common representation the modalities leave unexplained; 0..1.

    Formula: 1 - (1/k) sum of the k largest eigenvalues of 1/M sum_m P_m, P_m = X_m (C_m + r I)^-1 X_m' / (n - 1) the
    (regularized) projection on modality m and k the smallest dimension.

    Raises:
        ValueError: fewer than two modalities, numbers of rows that differ, or fewer than three rows.

    Source:
        Benton et al. 2017 (DGCCA), arXiv:1702.02519, eq. 2; Kettenring 1971 (MAXVAR).
    """
    whitened = _whitened(modalities, ridge)
    k = min(z.shape[1] for z in modalities)
    # the eigenvalues of sum_m W_m W_m' [n n] are those of the Gram matrix of all columns, which is smaller
    columns = torch.cat(whitened, dim=1) / len(modalities) ** 0.5
    return 1 - torch.linalg.eigvalsh(columns.T @ columns)[-k:].sum() / k


def _whitened(modalities: tuple[Tensor, ...], ridge: float) -> list[Float[Tensor, "n d"]]:
    n = len(modalities[0]) if modalities else 0
    if len(modalities) < 2 or any(z.ndim != 2 or len(z) != n for z in modalities) or n < 3:
        raise ValueError(
            f"needs two or more matrices of at least 3 paired rows; got {[list(z.shape) for z in modalities]}"
        )
    return [_white(z, ridge) for z in modalities]


def _white(z: Tensor, ridge: float) -> Tensor:
    """Centered z times (C + r I)^-1/2 / sqrt(n - 1), up to a rotation; a triangular factor always has a gradient."""
    centered = z - z.mean(dim=0)
    scale = centered.square().mean().clamp(min=torch.finfo(z.dtype).tiny).sqrt()
    centered = centered / scale / (len(z) - 1) ** 0.5
    covariance = centered.T @ centered + ridge * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centered.T, upper=False).T


def _nuclear(matrix: Tensor) -> Tensor:
    """Sum of singular values; the floor keeps the gradient finite where one is zero."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return (torch.linalg.eigvalsh(gram).clamp(min=0) + 1e-10).sqrt().sum()
