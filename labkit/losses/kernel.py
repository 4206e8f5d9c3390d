"""Distributions compared through kernels and moments: MMD, CORAL, CMD; blind to the pairing of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.losses import LOSSES
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the median squared distance


@LOSSES.register("mmd")
@full_precision
def mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy with a mixture of Gaussian kernels; 0 for equal clouds, at most 2.

    Formula: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), over all pairs (the V-statistic, which is never negative),
    k = mean_s exp(-|u - v|^2 / (s M)) for s = 1/4, 1/2, 1, 2, 4, M the median squared distance.

    Raises:
        ValueError: clouds that are empty or differ in dimension.

    Source:
        Gretton et al. 2012, JMLR 13, eq. 5.
    """
    _check_clouds(x, y)
    z = torch.cat([x, y])
    square = (z.square().sum(1)[:, None] + z.square().sum(1) - 2 * z @ z.T).clamp(min=0)
    apart = square[~torch.eye(len(z), dtype=torch.bool, device=z.device)]
    median = apart.median().clamp(min=torch.finfo(z.dtype).tiny ** 0.5)
    kernel = torch.stack([(-square / (s * median)).exp() for s in BANDWIDTHS]).mean(dim=0)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


@LOSSES.register("coral")
@full_precision
def coral(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared distance of the covariances; 0 when they agree, blind to the means.

    Formula: |cov(x) - cov(y)|_F^2 / (4 d^2).

    Raises:
        ValueError: clouds of fewer than two rows, or of different dimensions.

    Source:
        Sun and Saenko 2016, arXiv:1607.01719, eq. 1.
    """
    _check_clouds(x, y, least=2)
    return (torch.cov(x.T) - torch.cov(y.T)).square().sum() / (4 * x.shape[1] ** 2)


@LOSSES.register("cmd")
@full_precision
def cmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, moments: int = 5) -> Float[Tensor, ""]:
    """Central moment discrepancy; 0 when the means and all central moments of the coordinates agree.

    Formula: |E x - E y| + sum_{k=2..K} |c_k(x) - c_k(y)|, c_k the vector of central moments of order k.

    Raises:
        ValueError: clouds that are empty or differ in dimension.

    Source:
        Zellinger et al. 2017, arXiv:1702.08811, eq. 9 on the unit interval; MISA (Hazarika et al. 2020), L_sim.
    """
    _check_clouds(x, y)
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    total = _length(mean_x - mean_y)
    for k in range(2, moments + 1):
        total = total + _length((x - mean_x).pow(k).mean(dim=0) - (y - mean_y).pow(k).mean(dim=0))
    return total


@LOSSES.register("difference")
@full_precision
def difference(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    """Soft orthogonality of two representations of the same samples; 0 when no coordinate of one tells of the other.

    Formula: mean of (X'Y)^2 over all d e entries, X and Y centered, with rows scaled to length 1.

    Raises:
        ValueError: numbers of rows that differ.

    Source:
        Bousmalis et al. 2016, arXiv:1608.06019, eq. 5, normalized as in MISA (Hazarika et al. 2020), L_diff.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"needs matrices of at least 2 paired rows; got {list(x.shape)} and {list(y.shape)}")
    return (_scaled(x).T @ _scaled(y)).square().mean()


def _scaled(z: Tensor) -> Tensor:
    centered = z - z.mean(dim=0)
    return centered / (centered.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()


def _length(v: Tensor) -> Tensor:
    """Norm with a finite gradient at zero, where it is zero."""
    return (v.square().sum() + 1e-20).sqrt()


def _check_clouds(x: Tensor, y: Tensor, least: int = 1) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        raise ValueError(
            f"needs two clouds [n, d] of one dimension with at least {least} rows; got {list(x.shape)} and "
            f"{list(y.shape)}"
        )
