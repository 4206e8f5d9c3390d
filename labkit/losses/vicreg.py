"""VICReg: invariance of pairs with variance and covariance terms against collapse; no negatives.

    L = s mean_i |x_i - y_i|^2 / d + v [h(x) + h(y)] / 2 + c [o(x) + o(y)]
    h = mean_j relu(1 - sd_j),   o = sum_{i != j} C_ij^2 / d

Bardes, Ponce, LeCun 2022 (arXiv:2105.04906), eq. 6, scaled as in the authors' code: the pair distance is a mean over
coordinates too, and the two hinges are halved. The default weights are theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float


@LOSSES.register("vicreg")
@full_precision
def vicreg(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """VICReg of two paired, unnormalized clouds; 0 at best, in the limit.

    Formula: s mean_i |x_i - y_i|^2 / d + v [h(x) + h(y)] / 2 + c [o(x) + o(y)], h = mean_j relu(1 - sd_j),
    o = sum_{i != j} C_ij^2 / d, with unbiased variances and covariances.

    Args:
        x: one modality, at least two rows.
        y: the other.
        invariance: weight of the mean squared pair distance.
        variance: weight of the hinge on each coordinate's standard deviation (with 1e-4 added to the variance).
        covariance: weight of the squared off-diagonal covariances.

    Raises:
        ValueError: x and y are not two matrices of one shape with two or more rows.

    Source:
        Bardes et al. 2022, arXiv:2105.04906, eq. 1-6.
    """
    check_paired(x, y)
    return (
        invariance * F.mse_loss(x, y)
        + variance * (_variance(x) + _variance(y)) / 2
        + covariance * (_covariance(x) + _covariance(y))
    )


def _variance(z: Tensor) -> Tensor:
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    centered = z - z.mean(dim=0)
    covariance = centered.T @ centered / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
