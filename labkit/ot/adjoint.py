"""The linear system behind every derivative of an entropic plan.

    [ r / tau_a    P       ] [u]   [p]
    [ P^T         c / tau_b] [v] = [q],      r = P 1,  c = P^T 1,

is the negative Hessian of the dual problem times epsilon. Eliminating u leaves the Schur complement, in normalized
coordinates w = sqrt(c) v the operator I / tau_b - tau_a K^T K with K = r^(-1/2) P c^(-1/2), whose spectrum lies in
[0, 1]. With both marginals fixed it has the null vector sqrt(c), the gauge (f + t, g - t), which is taken out.
Small systems are factorized, large ones solved by conjugate gradients (Hestenes and Stiefel 1952).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

# Up to this size forming and factorizing K^T K costs less than some fifty products with P, and is exact.
DIRECT_SIZE = 768
MAX_ITERATIONS = 5000
# Relative residual at which conjugate gradients stop: near rounding, which is what `gradcheck` expects.
RESIDUAL = {torch.float32: 1e-6, torch.float64: 1e-12}
# Above this the derivative cannot be believed.
ACCEPTED_RESIDUAL = 1e-3


def solve_adjoint(
    plan: Float[Tensor, "*batch n m"],
    p: Float[Tensor, "*batch n"],
    q: Float[Tensor, "*batch m"],
    *,
    tau_a: float = 1.0,
    tau_b: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """(u, v) of the system above; 0 for rows and columns without mass, whose right sides are ignored.

    With tau_a = tau_b = 1 only right sides with sum p = sum q can be solved for; what they lack is left out.

    Warns:
        RuntimeWarning: Conjugate gradients stopped early, so derivatives are inaccurate.
    """
    if plan.shape[-1] > plan.shape[-2]:
        v, u = solve_adjoint(plan.mT, q, p, tau_a=tau_b, tau_b=tau_a)
        return u, v
    rows, columns = plan.sum(-1), plan.sum(-2)
    system = _Schur(plan, _inverse(rows), _inverse(columns).sqrt(), columns.sqrt(), tau_a, tau_b)
    right = system.inverse_root * (q - tau_a * row_times(p * system.inverse_rows, plan))
    solve = _factorized if plan.shape[-1] <= DIRECT_SIZE else _conjugate_gradients
    v = system.inverse_root * solve(system, system.without_gauge(right))
    u = tau_a * system.inverse_rows * (p - row_times(v, plan.mT))
    return u, v


def _inverse(sums: Tensor) -> Tensor:
    return torch.where(sums > 0, 1 / sums, 0.0)


def row_times(row: Tensor, matrix: Tensor) -> Tensor:
    """The row vector times the matrix, with batch dimensions in front."""
    # Batched matrix-times-column is 3-14 times slower on CPU than row-times-matrix.
    return row @ matrix if row.ndim == 1 else (row[..., None, :] @ matrix)[..., 0, :]


@dataclass(frozen=True, eq=False)
class _Schur:
    """I / tau_b - tau_a K^T K, on vectors over the columns."""

    plan: Tensor
    inverse_rows: Tensor
    inverse_root: Tensor
    root: Tensor
    tau_a: float
    tau_b: float

    @property
    def singular(self) -> bool:
        """Whether the gauge is in the null space."""
        return self.tau_a == self.tau_b == 1

    def without_gauge(self, w: Tensor) -> Tensor:
        """The part of w orthogonal to the null vector sqrt(c)."""
        if not self.singular:
            return w
        share = (self.root * w).sum(-1, keepdim=True) / self.root.square().sum(-1, keepdim=True)
        return w - share * self.root

    def times(self, w: Tensor) -> Tensor:
        """The product with w."""
        over_rows = self.inverse_rows * row_times(self.inverse_root * w, self.plan.mT)
        return w / self.tau_b - self.tau_a * self.inverse_root * row_times(over_rows, self.plan)

    def dense(self) -> Tensor:
        """The matrix, with the gauge moved from eigenvalue 0 to 1."""
        half = self.plan * self.inverse_rows.sqrt()[..., None] * self.inverse_root[..., None, :]
        matrix = -self.tau_a * half.mT @ half
        matrix.diagonal(dim1=-2, dim2=-1).add_(1 / self.tau_b)
        if self.singular:
            unit = self.root / torch.linalg.vector_norm(self.root, dim=-1, keepdim=True)
            matrix += unit[..., :, None] * unit[..., None, :]
        return matrix


def _factorized(system: _Schur, right: Tensor) -> Tensor:
    matrix = system.dense()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        # A plan that falls apart into blocks has one gauge for each: take the solution of least norm.
        solution = (torch.linalg.pinv(matrix, hermitian=True) @ right[..., None])[..., 0]
    else:
        solution = torch.cholesky_solve(right[..., None], factor)[..., 0]
    return system.without_gauge(solution)


def _conjugate_gradients(system: _Schur, right: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    solution, residual = torch.zeros_like(right), right
    direction, energy = residual, size.square()
    goal = RESIDUAL[right.dtype] * size
    for step in range(min(MAX_ITERATIONS, 10 * right.shape[-1])):
        # Looking at the residual synchronizes with an accelerator.
        if step % 10 == 0 and bool((energy.sqrt() <= goal).all()):
            break
        image = system.times(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        # A problem of the batch that is solved has nothing left to divide by.
        length = torch.where(curvature > 0, energy / curvature, 0.0)
        solution = solution + length * direction
        residual = system.without_gauge(residual - length * image)
        previous, energy = energy, residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(previous > 0, energy / previous, 0.0) * direction
    worst = float((energy.sqrt() / torch.where(size > 0, size, 1.0)).max())
    if not worst <= ACCEPTED_RESIDUAL:
        warnings.warn(
            f"the derivative of the plan is inaccurate: its linear system was solved to {worst:.1e} only. Raise "
            "epsilon, use float64, or solve the transport problem to a smaller tolerance.",
            RuntimeWarning,
            stacklevel=2,
        )
    return system.without_gauge(solution)
