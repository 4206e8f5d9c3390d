"""Potentials of one cloud with itself: f = g, by damped passes that need one matrix-vector product each.

    f <- f / 3 + 2 / 3 S f,   (S f)_i = -tau epsilon log sum_j a_j exp((f_j - C_ij) / epsilon)

Along an eigenvector of the normalized plan with eigenvalue lambda the error is multiplied by 1 / 3 - 2 lambda / 3. A
positive definite kernel (of squared distances, distances, cosine) has lambda in [0, 1]: a rate of 1 / 3, whatever
epsilon is. The undamped iteration would oscillate; its average with f has 1 / 2 (Feydy et al. 2019, AISTATS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from labkit.ot.kernel import SAFE_RANGE, exponentiate, prescribed_marginal, relaxation, update
from labkit.ot.newton import row_times
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Passes between two looks at the error.
CHECK_EVERY = 3
# A slower rate means that the kernel is far from positive definite, and that the general method is better.
SLOWEST_RATE = 0.8


def solve_symmetric(
    problem: Problem, f: Float[Tensor, "*batch n"], tolerance: float, budget: int
) -> tuple[Float[Tensor, "*batch n"] | None, int]:
    """The potential whose plan has an error within `tolerance`, and the passes it took.

    None if `budget` does not suffice, if the iteration is slow, or if it leaves the range of the kernel at f.
    """
    a, rho, epsilon = problem.a, problem.rho_a, problem.epsilon
    tau, mass = relaxation(rho, epsilon), a.sum(-1)
    matrix = exponentiate(problem.cost, f, f, epsilon, torch.empty_like(problem.cost))
    factor, prescribed = torch.exp((tau - 1) / epsilon * f), prescribed_marginal(a, f, rho)
    log_u, last = torch.zeros_like(f), math.inf
    for used in range(1, budget + 1):
        u = log_u.exp()
        sums = row_times(a * u, matrix)
        if used % CHECK_EVERY == 0 or used == budget:
            target = prescribed * torch.exp(-epsilon / rho * log_u)
            error = float((2 * (target - a * u * sums).abs().sum(-1) / mass).max())
            if error <= tolerance:
                safe = torch.where(a > 0, log_u, 0.0).abs().amax() < SAFE_RANGE[f.dtype]
                return (f + epsilon * log_u if bool(safe) else None), used
            if not error < SLOWEST_RATE**CHECK_EVERY * last:
                return None, used
            last = error
        log_u = log_u.add(update(sums, tau, factor).log_(), alpha=2).div_(3)
    return None, budget
