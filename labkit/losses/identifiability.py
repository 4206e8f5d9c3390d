"""Identifiability of a matching: the plan is a permutation, and the map it induces is invertible.

A plan with uniform weights is never orthogonal (|P'P - I|^2 is about n whatever P is), so it is normalized first.
A permutation of the samples is no proof that the map is identified: symmetric clouds have several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit import ot
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float


@full_precision
def permutation_defect(plan: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """How far a square plan of uniform weights is from a permutation; 0 for one, (n - 1) / n for the product plan.

    Formula: L_inv = 1/n |(nP)'(nP) - I|_F^2.

    Raises:
        ValueError: the plan is not square.

    Source:
        Model merging proposal, identifiability constraint, with P scaled to doubly stochastic rows.
    """
    if plan.ndim != 2 or plan.shape[0] != plan.shape[1]:
        raise ValueError(f"a permutation has as many rows as columns; got {list(plan.shape)}: use cycle_defect")
    scaled = len(plan) * plan
    return _distance_to_identity(scaled.T @ scaled)


@full_precision
def permutation_defect_literal(plan: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """L_inv as proposed; useless: a plan of n points is no orthogonal matrix, and is about n away from one.

    Formula: |P'P - I|_F^2. With uniform weights it is n (1 - 1/n^2)^2 for a permutation and n - 2/n^2 + 1/n^4 for
    the product plan, its opposite: 7.75 and 7.97 for n = 8. `permutation_defect` and `cycle_defect` are the sound
    readings.

    Raises:
        ValueError: the plan is no matrix.

    Source:
        Model merging proposal, L_inv.
    """
    if plan.ndim != 2:
        raise ValueError(f"a plan must be a matrix; got {list(plan.shape)}")
    gram = plan.T @ plan
    return (gram - torch.eye(len(gram), dtype=plan.dtype, device=plan.device)).square().sum()


@full_precision
def cycle_defect(plan: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """How far from its start a point ends that is carried over and back; 0 when every row has columns of its own.

    Formula: 1/n |D_a^-1 P D_b^-1 P' - I|_F^2, a and b the marginals of P.

    Raises:
        ValueError: the plan is no matrix.

    Source:
        Model merging proposal, identifiability constraint, for sizes or weights that differ.
    """
    if plan.ndim != 2:
        raise ValueError(f"a plan must be a matrix; got {list(plan.shape)}")
    tiny = torch.finfo(plan.dtype).tiny
    forth = plan / plan.sum(dim=1, keepdim=True).clamp(min=tiny)
    back = plan / plan.sum(dim=0, keepdim=True).clamp(min=tiny)
    return _distance_to_identity(forth @ back.T)


@full_precision
def map_jacobian(
    coupling: ot.Coupling, x: Float[Tensor, "k d"], *, rank: int, floor: float = 1e-4
) -> Float[Tensor, ""]:
    """How far the entropic map is from keeping volume in its leading directions; 0 where it keeps it.

    Formula: mean_i (1/r sum_{j <= r} log(lambda_j(J_i) + floor))^2, lambda_j the r largest eigenvalues of the map's
    Jacobian J = (2 / epsilon) Cov(y | x), which is symmetric and at least 0 for squared distances.

    Args:
        coupling: of point clouds with squared Euclidean cost.
        x: where to look.
        rank: r, at most d and below the number of targets.
        floor: added to the eigenvalues, since all go to 0 with epsilon.

    Raises:
        TypeError: the coupling is not one of point clouds.
        ValueError: rank outside 1..d.

    Source:
        Model merging proposal, Jacobian determinant; Pooladian and Niles-Weed 2021, arXiv:2109.12004, for the map.
    """
    jacobian = coupling.jacobian(x)
    if not 1 <= rank <= jacobian.shape[-1]:
        raise ValueError(f"rank must be between 1 and {jacobian.shape[-1]}; got {rank}")
    leading = torch.linalg.eigvalsh(jacobian)[..., -rank:].clamp(min=0)
    return (leading + floor).log().mean(dim=-1).square().mean()


def _distance_to_identity(matrix: Tensor) -> Tensor:
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return (matrix - identity).square().sum() / len(matrix)
