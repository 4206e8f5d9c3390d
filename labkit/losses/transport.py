"""Optimal-transport losses: two clouds as distributions, blind to which row belongs to which.

The Sinkhorn divergence S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2 (Feydy et al. 2019, arXiv:1810.08278, eq. 3) is
zero for equal clouds. Plain entropic OT is not, and shrinks what it moves. Neither sees the pairing of the rows
(W(y, permuted y) = 0), so a variant adds a loss that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from labkit import ot
from labkit.losses import LOSSES

if TYPE_CHECKING:
    from jaxtyping import Float


@LOSSES.register("sinkhorn_divergence", aliases=("ot",))
def sinkhorn_divergence(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    epsilon: float = 0.05,
    tau: float = 1.0,
) -> Float[Tensor, ""]:
    """Sinkhorn divergence of two clouds on the unit sphere, cosine cost; 0 at best. Rows are normalized inside.

    Formula: S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2.

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        epsilon: entropic regularization, relative to the mean cost between the clouds.
        tau: 1 matches all mass; below 1 the marginals are relaxed, so outliers may stay unmatched.

    Raises:
        ValueError: the clouds differ in dimension, or epsilon or tau is out of range.

    Source:
        Feydy et al. 2019, arXiv:1810.08278, eq. 3; Sejourne et al. 2019, arXiv:1910.12958, for tau < 1.
    """
    return ot.sinkhorn_divergence(
        F.normalize(x, dim=1),
        F.normalize(y, dim=1),
        cost="cosine",
        epsilon=epsilon,
        tau_a=tau,
        tau_b=tau,
    )
