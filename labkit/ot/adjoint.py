"""The linear system behind every derivative of an entropic plan, solved as in Newton's method for the plan itself.

    [ r / tau_a    P       ] [u]   [p]
    [ P^T         c / tau_b] [v] = [q],      r = P 1,  c = P^T 1,

is the negative Hessian of the dual problem times epsilon. Eliminating u leaves the Schur complement of `newton.py`,
I - S^T S with S = (tau_a / r)^(1/2) P (tau_b / c)^(1/2), for w = (c / tau_b)^(1/2) v. With both marginals fixed its
kernel is sqrt(c), the gauge (f + t, g - t), which is taken out.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.newton import SchurComplement, inverse_root, row_times

if TYPE_CHECKING:
    from jaxtyping import Float

# Up to this size a factor costs less than some fifty products with P.
DIRECT_SIZE = 512
MAX_ITERATIONS = 5000
# Relative residual to reach: near rounding, which is what finite differences can see.
RESIDUAL = {torch.float32: 1e-6, torch.float64: 1e-12}
# Above this a derivative cannot be believed.
ACCEPTED_RESIDUAL = 1e-3


def solve_adjoint(
    plan: Float[Tensor, "*batch n m"],
    p: Float[Tensor, "*batch n"],
    q: Float[Tensor, "*batch m"],
    *,
    tau_a: float = 1.0,
    tau_b: float = 1.0,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]]:
    """(u, v) of the system above; 0 for rows and columns without mass, whose right sides are ignored.

    With tau_a = tau_b = 1 only right sides with sum p = sum q can be solved for; what they lack is left out.

    Warns:
        RuntimeWarning: The system was not solved, so that derivatives are inaccurate.
    """
    if plan.shape[-1] > plan.shape[-2]:
        v, u = solve_adjoint(plan.mT, q, p, tau_a=tau_b, tau_b=tau_a)
        return u, v
    rows, columns = plan.sum(-1), plan.sum(-2)
    of_rows, right = tau_a * inverse_root(rows).square(), tau_b**0.5 * inverse_root(columns)
    gauge = torch.nn.functional.normalize(columns.sqrt(), dim=-1) if tau_a == tau_b == 1 else None
    system = SchurComplement(plan, of_rows, right, gauge)
    rhs = system.project(right * (q - row_times(p * of_rows, plan)))
    size = torch.linalg.vector_norm(rhs, dim=-1, keepdim=True)
    bound = RESIDUAL[plan.dtype] * size
    solution = system.solve(rhs, bound, MAX_ITERATIONS, direct=columns.shape[-1] <= DIRECT_SIZE)
    if not solution.met:
        residual = torch.linalg.vector_norm(rhs - system(solution.x), dim=-1, keepdim=True)
        _require_accuracy(residual / torch.where(size > 0, size, 1.0))
    v = right * solution.x
    return of_rows * (p - row_times(v, plan.mT)), v


def _require_accuracy(residual: Tensor) -> None:
    worst = float(residual.max())
    if not worst <= ACCEPTED_RESIDUAL:
        warnings.warn(
            f"the derivative of a plan is inaccurate: its linear system was solved to {worst:.1e} only. Raise "
            "epsilon, use float64, or solve the transport problem to a smaller tolerance.",
            RuntimeWarning,
            stacklevel=2,
        )
