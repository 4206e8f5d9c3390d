"""From a plan that is nearly right to one that is: exact marginals, or one partner for each point.

`round_to_marginals` scales down rows and columns that carry too much and spreads what is then missing as a product,
    P' = min(a / P 1, 1) P min(b / P'^T 1, 1),   P'' = P' + (a - P' 1) (b - P'^T 1)^T / |a - P' 1|_1,
which moves at most 2 (|P 1 - a|_1 + |P^T 1 - b|_1) of mass: Altschuler, Weed, Rigollet 2017 (NeurIPS, algorithm 2,
lemma 7). `round_to_permutation` picks the assignment that carries the most mass (linear assignment, scipy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labkit.ot.cost import lift, require_finite

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def round_to_marginals(
    plan: Float[Tensor, "*batch n m"], a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch n m"]:
    """A plan near `plan` with exactly the marginals a and b (to rounding), so that its cost bounds the optimum above.

    The mass that is put back is spread over all pairs: under forbidden pairs the result may use them.

    Args:
        plan: Masses >= 0.
        a: Source weights.
        b: Target weights, with the total of `a`.
    """
    plan = plan * _at_most(a, plan.sum(-1))[..., :, None]
    plan *= _at_most(b, plan.sum(-2))[..., None, :]
    rows = (a - plan.sum(-1)).clamp_min(0)
    columns = (b - plan.sum(-2)).clamp_min(0)
    missing = columns.sum(-1, keepdim=True)
    share = columns / torch.where(missing > 0, missing, 1.0)
    return plan.addcmul_(rows[..., :, None], share[..., None, :])


def _at_most(wanted: Tensor, carried: Tensor) -> Tensor:
    """Factors <= 1 that bring what a row carries down to what is wanted."""
    return torch.where(carried > wanted, wanted / torch.where(carried > 0, carried, 1.0), 1.0)


def round_to_permutation(plan: Float[Tensor, "*batch n m"]) -> Int[Tensor, "*batch n"]:
    """The target of each source point under the one-to-one assignment that carries the most mass of the plan.

    A rectangular plan matches min(n, m) pairs; the source points that are left over get -1. Not differentiable.

    Args:
        plan: Masses, or any finite scores of which larger is better.

    Raises:
        TypeError: `plan` is not a floating-point tensor.
        ValueError: `plan` is empty, has NaN or infinite entries or fewer than two dimensions.
    """
    require_finite(plan, "the plan")
    if plan.ndim < 2:
        raise ValueError(f"the plan has shape {tuple(plan.shape)}, expected [..., n, m].")
    target = torch.full(plan.shape[:-1], -1, dtype=torch.long)
    scores = lift(plan.detach()).cpu().reshape(-1, *plan.shape[-2:])
    for row, score in zip(target.reshape(-1, plan.shape[-2]), scores.numpy(), strict=True):
        sources, targets = linear_sum_assignment(score, maximize=True)
        row[torch.from_numpy(sources)] = torch.from_numpy(targets)
    return target.to(plan.device)
