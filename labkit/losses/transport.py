"""Optimal-transport losses: two clouds as distributions, blind to which row belongs to which.

The Sinkhorn divergence S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2 (Feydy et al. 2019, arXiv:1810.08278, eq. 3) is
zero for equal clouds. Plain entropic OT is not, and shrinks what it moves. Neither sees the pairing of the rows
(W(y, permuted y) = 0), so a variant adds a loss that does.

All compare directions: rows are normalized inside, and with the cosine cost 1 - cos = |x - y|^2 / 2 the exact and the
sliced value, the divergence and the low-rank one have the same units.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import ot
from labkit.losses import LOSSES
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float

Cost = Literal["cosine", "euclidean", "geodesic"]


@LOSSES.register("sinkhorn_divergence", aliases=("ot",))
@full_precision
def sinkhorn_divergence(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    epsilon: float = 0.05,
    tau: float = 1.0,
    cost: Cost = "cosine",
) -> Float[Tensor, ""]:
    """Sinkhorn divergence of two clouds on the unit sphere; 0 at best. Rows are normalized inside.

    Formula: S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2.

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        epsilon: entropic regularization, relative to the mean cost between the clouds.
        tau: 1 matches all mass; below 1 the marginals are relaxed, so outliers may stay unmatched.
        cost: "cosine" (1 - cos), "euclidean" (the chord) or "geodesic" (the angle, in radians).

    Raises:
        ValueError: the clouds differ in dimension, or epsilon or tau is out of range.

    Source:
        Feydy et al. 2019, arXiv:1810.08278, eq. 3; Sejourne et al. 2019, arXiv:1910.12958, for tau < 1.
    """
    return ot.sinkhorn_divergence(
        F.normalize(x, dim=1),
        F.normalize(y, dim=1),
        cost=cost,
        epsilon=epsilon,
        tau_a=tau,
        tau_b=tau,
    )


@LOSSES.register("unbalanced_divergence", aliases=("unbalanced",))
@full_precision
def unbalanced_divergence(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, epsilon: float = 0.05, tau: float = 0.9, cost: Cost = "cosine"
) -> Float[Tensor, ""]:
    """Sinkhorn divergence that may leave outliers and missing counterparts unmatched; 0 at best.

    Formula: S(x, y) with OT = min_P <C, P> + epsilon KL(P | a b') + rho [KL(P 1 | a) + KL(P' 1 | b)],
    tau = rho / (rho + epsilon).

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        epsilon: entropic regularization, in units of the cost.
        tau: in (0, 1): mass is destroyed rather than moved where that costs more than about epsilon tau / (1 - tau).
        cost: as in `sinkhorn_divergence`.

    Raises:
        ValueError: the clouds differ in dimension, or epsilon or tau is out of range.

    Source:
        Sejourne et al. 2019, arXiv:1910.12958, eq. 4.
    """
    made = _clouds(x, y, cost)
    return ot.sinkhorn_divergence(made.x, made.y, cost=cost, epsilon=epsilon, scale_cost=None, tau_a=tau, tau_b=tau)


@LOSSES.register("entropic_ot")
@full_precision
def entropic_ot(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, epsilon: float = 0.05, cost: Cost = "cosine"
) -> Float[Tensor, ""]:
    """Entropic transport without its debiasing: positive for equal clouds, smallest where the target has shrunk.

    Formula: OT_epsilon = min_P <C, P> + epsilon KL(P | a b').

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        epsilon: entropic regularization, in units of the cost.
        cost: as in `sinkhorn_divergence`.

    Raises:
        ValueError: the clouds differ in dimension, or epsilon is out of range.

    Source:
        Cuturi 2013, arXiv:1306.0895; GOTMA proposal, D_OT, up to a constant: see `entropic_ot_literal`.
    """
    return ot.sinkhorn(_clouds(x, y, cost), epsilon=epsilon, scale_cost=None).regularized_cost


@full_precision
def entropic_ot_literal(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, epsilon: float = 0.05, cost: Cost = "cosine"
) -> Float[Tensor, ""]:
    """D_OT as proposed, with Shannon's entropy; unsound as a loss: not 0 for equal clouds, and often below 0.

    Formula: min_P <C, P> - epsilon H(P), H(P) = -sum P log P. It is `entropic_ot` - epsilon (log n + log m), so it has
    the same plan and gradient, and the same bias: descent draws the clouds together instead of matching them. Nor does
    it approximate Gromov-Wasserstein, as proposed: it is no isometry's invariant. `sinkhorn_divergence` and
    `gromov_wasserstein` are the sound readings.

    Raises:
        ValueError: the clouds differ in dimension, or epsilon is out of range.

    Source:
        GOTMA proposal, section 2.2.2.
    """
    value = entropic_ot(x, y, epsilon=epsilon, cost=cost)
    return value - epsilon * math.log(len(x) * len(y))


@LOSSES.register("exact_ot", aliases=("emd",))
@full_precision
def exact_ot(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, cost: Cost = "cosine") -> Float[Tensor, ""]:
    """Unregularized transport; 0 for equal clouds. O(n^3), on the CPU.

    Formula: min_P <C, P>, rows and columns of P with uniform sums. The gradient is that at the optimal P.

    Raises:
        ValueError: the clouds differ in dimension.

    Source:
        Geometric alignment proposal, L_OT; Bonneel et al. 2011 for the solver.
    """
    return ot.exact(_clouds(x, y, cost)).cost


@full_precision
def low_rank_divergence(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, rank: int = 8, max_iterations: int = 50
) -> Float[Tensor, ""]:
    """Debiased transport over plans of low rank: mass goes through a few clusters; about 0 for equal clouds.

    Formula: LOT(x, y) - LOT(x, x)/2 - LOT(y, y)/2, LOT = min <C, P> over plans of nonnegative rank at most r, cosine
    cost. Optima are local, so values may fall below 0. Linear in time and memory: of use for many thousand rows; for a
    batch of 256 it takes fifty times as long as the full divergence.

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        rank: r, at most the number of rows.
        max_iterations: of mirror descent; 50 leave the gradient within .93 (cosine) of the converged one.

    Raises:
        ValueError: the clouds differ in dimension, or rank is out of range.

    Source:
        Scetbon and Cuturi 2022, arXiv:2205.12365, eq. 10.
    """
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ot.NotConvergedWarning)  # as the number of steps says
        values = [
            ot.sinkhorn_low_rank(
                ot.PointCloud(a, b, "cosine"), rank=min(rank, len(a), len(b)), max_iterations=max_iterations
            ).regularized_cost
            for a, b in ((x, y), (x, x), (y, y))
        ]
    return values[0] - (values[1] + values[2]) / 2


@LOSSES.register("sliced_wasserstein", aliases=("sliced",))
@full_precision
def sliced_wasserstein(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    n_projections: int = 256,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Transport on random lines, in the units of the cosine cost and at most `exact_ot`; 0 for equal clouds.

    Formula: d/2 mean_l W_2^2(<x, u_l>, <y, u_l>), u_l uniform on the sphere. O(n log n) a line.

    Args:
        x: cloud of one modality.
        y: cloud of the other; it may have another number of rows.
        n_projections: lines, drawn anew at each call.
        generator: that draws them; by default the global one.

    Raises:
        ValueError: the clouds differ in dimension, or fewer than two lines.

    Source:
        Bonneel et al. 2015, J. Math. Imaging Vis. 51.
    """
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    found = ot.sliced_wasserstein(x, y, n_projections=n_projections, generator=generator)
    return x.shape[1] / 2 * found.value


def _clouds(x: Tensor, y: Tensor, cost: Cost) -> ot.PointCloud:
    return ot.PointCloud(F.normalize(x, dim=1), F.normalize(y, dim=1), cost)
