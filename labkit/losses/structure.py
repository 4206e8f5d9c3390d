"""Neighborhoods as distributions: smooth stand-ins for the overlap of nearest neighbors, which has no gradient.

P = softmax(S / temperature) with S the cosines of a space and the diagonal left out is the chance to step from a point
to another; l hops are P^l. The Jensen-Shannon divergence of two such rows lies in [0, log 2].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.geometry import knn
from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float


@LOSSES.register("soft_neighborhood", aliases=("soft_np",))
@full_precision
def soft_neighborhood(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], *, temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Mean Jensen-Shannon divergence of the samples' neighbor distributions in two spaces; 0..log 2, 0 when equal.

    Formula: 1/n sum_i JS(P^x_i, P^y_i), P_ij proportional to exp(<z_i, z_j> / temperature), j != i, unit rows.

    Args:
        x: one space.
        y: the other; its dimension may differ.
        temperature: of the softmax: small ones look at the nearest neighbor only.

    Raises:
        ValueError: fewer than three samples, or numbers of rows that differ.

    Source:
        GOTMA proposal, L_NP, made smooth as in stochastic neighbor embedding (Hinton and Roweis 2002).
    """
    return structure(x, y, temperature=temperature, hops=1, centered=False)


def neighborhood_literal(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], *, k: int = 10) -> Float[Tensor, ""]:
    """Share of neighbors that two spaces do not have in common; 0..1, for reporting: it has no gradient.

    Formula: 1 - L_NP, L_NP = 1/n sum_i |N_k(x_i) & N_k(y_i)| / k, neighbors by cosine, the sample itself left out.
    L_NP as proposed is a score, 1 for equal neighborhoods and k / (n - 1) by chance; lists of neighbors change in
    jumps, so the difference cannot be trained. `soft_neighborhood` is the sound reading.

    Raises:
        ValueError: numbers of rows that differ, or k out of range.

    Source:
        GOTMA proposal, L_NP.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"needs two matrices of paired rows; got {list(x.shape)} and {list(y.shape)}")
    shared = (knn(x, k)[:, :, None] == knn(y, k)[:, None]).any(dim=2)
    return 1 - shared.to(x.dtype).mean()


@LOSSES.register("structure")
@full_precision
def structure(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *,
    temperature: float = 0.1,
    hops: int = 2,
    centered: bool = True,
) -> Float[Tensor, ""]:
    """Neighborhoods over several hops agree; 0 when equal. Keeps the geometry of frozen features when y is aligned x.

    Formula: 1/L sum_{l=1..L} 1/l mean_i JS((P^x)^l_i, (P^y)^l_i), P as in `soft_neighborhood`, of centered unit rows.

    Args:
        x: one space.
        y: the other; its dimension may differ.
        temperature: of the softmax.
        hops: L.
        centered: subtract the mean of the unit rows first.

    Raises:
        ValueError: fewer than three samples, numbers of rows that differ, or no hop.

    Source:
        Groger et al. 2025 (STRUCTURE), arXiv:2506.16895; self-transitions are left out.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 3:
        raise ValueError(f"needs matrices of at least 3 paired rows; got {list(x.shape)} and {list(y.shape)}")
    if hops < 1:
        raise ValueError(f"hops must be at least 1; got {hops}")
    first, second = (_transitions(z, temperature, centered) for z in (x, y))
    p, q, total = first, second, x.new_zeros(())
    for hop in range(1, hops + 1):
        total = total + _jensen_shannon(p, q) / hop
        if hop < hops:
            p, q = p @ first, q @ second
    return total / hops


@full_precision
def brownian_bridge(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], x_augmented: Float[Tensor, "n d"], *, t: float = 0.25
) -> Float[Tensor, ""]:
    """The augmented view lies near the arc between the sample's two modalities; 0..4, 0 on it.

    Formula: 1/n sum_j |x'_j - m_j|^2, m_j = (t x_j + (1 - t) y_j) normalized. Rows are normalized inside. The inner
    product form printed in the paper has the wrong sign and lacks a root.

    Raises:
        ValueError: not three matrices of one shape, or t outside [0, 1].

    Source:
        Jiang et al. 2023, arXiv:2303.05952, L_Br.
    """
    check_paired(x, y)
    check_paired(x, x_augmented)
    if not 0 <= t <= 1:
        raise ValueError(f"t must be between 0 (at y) and 1 (at x); got {t}")
    x, y, x_augmented = (F.normalize(z, dim=1) for z in (x, y, x_augmented))
    return (x_augmented - F.normalize(t * x + (1 - t) * y, dim=1)).square().sum(dim=1).mean()


def _transitions(z: Tensor, temperature: float, centered: bool) -> Float[Tensor, "n n"]:
    z = F.normalize(z, dim=1)
    if centered:
        z = z - z.mean(dim=0)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return (z @ z.T / temperature).masked_fill(itself, -torch.inf).softmax(dim=1)


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    middle = (p + q) / 2
    return (_entropy(middle) - (_entropy(p) + _entropy(q)) / 2).sum(dim=1).mean()


def _entropy(p: Tensor) -> Tensor:
    # entr has an infinite gradient at 0, where the softmax excluded the sample itself
    return torch.special.entr(p.clamp(min=torch.finfo(p.dtype).tiny))
