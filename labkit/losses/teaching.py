"""Losses that take their targets from a teacher: a coupling (KLOT), or the softmax of momentum features (ALBEF).

KLOT couples a batch by entropic transport of the similarities K, with uniform weights, and compares with the coupling
of the teacher's similarities K*. Since P = exp((K + f + g) / epsilon) and <P*, f + g> is the dual value of the
student's problem, whose derivative is -P,

    KL(P* | P),    d KL / d K = (P - P*) / epsilon,

exactly, without a derivative of the potentials.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit import ot
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@full_precision
def klot(
    similarity: Float[Tensor, "n m"],
    target: Float[Tensor, "n m"],
    *,
    epsilon: float = 0.05,
    target_epsilon: float = 0.005,
    tolerance: float = 1e-3,
) -> Float[Tensor, ""]:
    """Divergence of the coupling that similarities make from the one that a teacher's make; 0 where they are equal.

    Formula: KL(P* | P) = sum_ij P*_ij log(P*_ij / P_ij), P the entropic plan of the cost -K, P* of -K*. The gradient
    in K is (P - P*) / epsilon; the teacher has none.

    Args:
        similarity: K, the student's.
        target: K*, the teacher's, of the same samples.
        epsilon: of the student's plan, in the units of K.
        target_epsilon: of the teacher's, in the units of K*; smaller, so that the target is decided.
        tolerance: marginal error of the plans; the closed gradient is that of equal marginals, and errs likewise.

    Raises:
        ValueError: matrices of different shapes.

    Source:
        SOTAlign 2026 (ICML), KLOT with its explicit gradient.
    """
    if similarity.shape != target.shape or similarity.ndim != 2:
        raise ValueError(
            f"needs two similarity matrices of the same samples; got {list(similarity.shape)} and {list(target.shape)}"
        )
    return _Klot.apply(similarity, target, (epsilon, target_epsilon), tolerance)


class _Klot(torch.autograd.Function):
    """KL(P* | P) with its closed gradient."""

    @staticmethod
    def forward(
        ctx: Any, similarity: Tensor, target: Tensor, epsilons: tuple[float, float], tolerance: float
    ) -> Tensor:
        student, teacher = (
            ot.sinkhorn(ot.CostMatrix(-k), epsilon=e, scale_cost=None, tolerance=tolerance)
            for k, e in zip((similarity, target), epsilons, strict=True)
        )
        plan, wanted = student.plan, teacher.plan
        ctx.save_for_backward((plan - wanted) / epsilons[0])
        # of the potentials, as entries of the student's plan may be 0 in floating point
        log_plan = (similarity + student.f[:, None] + student.g) / epsilons[0] - math.log(similarity.numel())
        return (torch.special.xlogy(wanted, wanted) - wanted * log_plan).sum().clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (closed,) = ctx.saved_tensors
        return grads[0] * closed, None, None, None


def distilled_info_nce(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    keys_x: Float[Tensor, "q d"],
    keys_y: Float[Tensor, "q d"],
    *,
    alpha: float = 0.4,
    temperature: float | Float[Tensor, ""] = 0.07,
    group: Int[Tensor, " q"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE against the keys of a slow copy, whose similarities soften the targets.

    Formula: 1/2 [CE(X K_y' / t, T_x) + CE(Y K_x' / t, T_y)], T_x = alpha softmax(K_x[:n] K_y' / t) + (1 - alpha) I, the
    other likewise; unit rows (normalized inside). At alpha = 0 and without a queue, with the batch itself as keys,
    this is `info_nce`.

    Args:
        x: one modality of the batch.
        y: the other.
        keys_x: momentum features: of the batch in the first n rows, then of the queue; without gradient.
        keys_y: the same of the other modality.
        alpha: share of the soft targets, 0..1.
        temperature: of the similarities and of the soft targets; a number or a learnable scalar.
        group: of the keys: samples with the same value are positives of each other; by default every sample for itself.

    Raises:
        ValueError: shapes that do not fit, or alpha out of range.

    Source:
        Li et al. 2021 (ALBEF), arXiv:2107.07651, eq. 6; uniform hard targets within a group added.
    """
    check_paired(x, y)
    check_paired(keys_x, keys_y)
    n, q = len(x), len(keys_x)
    if x.shape[1] != keys_x.shape[1] or q < n:
        raise ValueError(f"the keys must begin with those of the batch [{n} {x.shape[1]}]; got {list(keys_x.shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 (hard targets) and 1 (soft ones); got {alpha}")
    group = torch.arange(q, device=x.device) if group is None else group
    positive = (group[:n, None] == group).to(x.dtype)
    hard = positive / positive.sum(dim=1, keepdim=True)
    keys_x, keys_y = (F.normalize(k.detach(), dim=1) for k in (keys_x, keys_y))

    def one_way(queries: Tensor, own: Tensor, keys: Tensor) -> Tensor:
        with torch.no_grad():
            soft = (own[:n] @ keys.T / temperature).softmax(dim=1)
        return F.cross_entropy(F.normalize(queries, dim=1) @ keys.T / temperature, alpha * soft + (1 - alpha) * hard)

    return (one_way(x, keys_x, keys_y) + one_way(y, keys_y, keys_x)) / 2
