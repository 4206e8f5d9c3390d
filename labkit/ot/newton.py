"""The linear system of Newton's method for entropic transport.

With rows kept exact, the negative Hessian of the dual in g, times epsilon, is the Schur complement
    diag(q / tau_b) - tau_a P^T diag(1 / p) P,      p = P 1,  q = P^T 1   (at the optimum; 1 / tau = 1 + epsilon / rho).
In normalized coordinates it is I - S^T S. If both marginals are fixed, its kernel is the gauge (f + c, g - c), which
is projected out. Conjugate gradients need two matrix-vector products a step; where the plan falls into clusters that
exchange little mass they stall, and a dense Cholesky factor takes over as their preconditioner.

Brauer, Clason, Lorenz, Wirth 2017 (arXiv:1710.06635, Sinkhorn-Newton); Tang et al. 2024 (ICLR, sparse Newton).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Operator = Callable[[Tensor], Tensor]

# On an accelerator a look at the residual synchronizes.
LOOK_EVERY = 8
# Above this many columns the factor (m^2 numbers, m^3 work) costs more than it saves.
LARGEST_FACTOR = 8192
# Conjugate gradient steps, as a fraction of the columns, that cost about as much as the factor.
STEPS_PER_COLUMN = 1 / 8
FEWEST_STEPS = 32
# Added to the unit diagonal before the factorization, one after the other until it succeeds.
RIDGES = {torch.float32: (1e-6, 1e-5, 1e-4), torch.float64: (1e-14, 1e-12, 1e-10, 1e-8)}

# Newton's direction is solved for to a fraction of the residual: the error so far, within these.
FORCING = (0.01, 0.1)
# A step changes a scaling at most by the factor exp(LONGEST_STEP).
LONGEST_STEP = 10.0
# A step is accepted if the slope of the dual along it has not turned to less than minus this fraction of itself.
OVERSHOOT = 0.5
BACKTRACKS = 8


class Solution(NamedTuple):
    """Result of a linear solve: the solution, steps taken, and whether all problems of the batch met their bound."""

    x: Float[Tensor, "*batch m"]
    steps: int
    met: bool


@cache
def _compiled() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    kept = Path(__file__).parent / "__pycache__"
    if not any(kept.glob("fused.*.nbi")) and os.access(kept.parent, os.W_OK):
        # Half a minute of silence would pass for a hang.
        logging.getLogger(__name__).warning("compiling the inner loops of labkit.ot, once for this installation ...")
    return import_module("labkit.ot.fused")


def fused_loops(matrix: Tensor) -> ModuleType | None:
    """The module `fused` where it applies to this kernel: one problem on a CPU, and numba is installed."""
    return _compiled() if matrix.ndim == 2 and matrix.device.type == "cpu" and matrix.is_contiguous() else None


def row_times(row: Tensor, matrix: Tensor) -> Tensor:
    """x^T M with batch dimensions in front."""
    # Batched matrix-times-column is 3-14 times slower on CPU than row-times-matrix.
    return row @ matrix if matrix.ndim == 2 else (row[..., None, :] @ matrix)[..., 0, :]


def cheap_steps(columns: int, max_steps: int) -> int:
    """Steps of conjugate gradients after which a factorization is the cheaper way."""
    if columns > LARGEST_FACTOR:
        return max_steps
    return min(max_steps, max(FEWEST_STEPS, round(STEPS_PER_COLUMN * columns)))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def conjugate_gradient(
    operator: Operator,
    rhs: Float[Tensor, "*batch m"],
    *,
    bound: Float[Tensor, "*batch 1"],
    max_steps: int,
    precondition: Operator | None = None,
) -> Solution:
    """Solve a positive semi-definite system from zero until the 2-norm of the residual is within `bound`.

    Problems of a batch that are done, or whose direction has no curvature left in this precision, stay as they are.
    """
    x, residual = torch.zeros_like(rhs), rhs
    limit = bound.square()
    direction = z = residual if precondition is None else precondition(residual)
    rz = _dot(residual, z)
    every = LOOK_EVERY if rhs.is_cuda else 1
    for step in range(1, max_steps + 1):
        image = operator(direction)
        curvature = _dot(direction, image)
        going = (curvature > 0) & (_dot(residual, residual) > limit)
        length = torch.where(going, rz / curvature, 0.0)
        x = torch.addcmul(x, length, direction)
        residual = torch.addcmul(residual, length, image, value=-1)
        if step % every == 0 or step == max_steps:
            met = _dot(residual, residual) <= limit
            if bool((met | ~going).all()):
                return Solution(x, step, bool(met.all()))
        z = residual if precondition is None else precondition(residual)
        rz_new = _dot(residual, z)
        direction = torch.addcmul(z, torch.where(going, rz_new / rz, 0.0), direction)
        rz = rz_new
    return Solution(x, max_steps, False)


class SchurComplement:
    """I - S^T S for S = diag(left) K diag(right), with the unit vector `gauge` of its kernel projected out.

    Attributes:
        matrix: K, `[..., n, m]`.
        weights: left^2, zero in rows without mass.
        right: Zero in columns without mass.
        gauge: Unit vector, or None if a marginal is relaxed and the complement is definite.
    """

    def __init__(self, matrix: Tensor, weights: Tensor, right: Tensor, gauge: Tensor | None) -> None:
        self.matrix, self.weights, self.right, self.gauge = matrix, weights, right, gauge
        self.factor: Tensor | None = None

    def project(self, x: Tensor) -> Tensor:
        """Take out the part along the gauge."""
        return x if self.gauge is None else x - _dot(x, self.gauge) * self.gauge

    def __call__(self, x: Tensor) -> Tensor:
        """(I - S^T S) x."""
        rows = row_times(x * self.right, self.matrix.mT).mul_(self.weights)
        return self.project(x - row_times(rows, self.matrix).mul_(self.right))

    def factorize(self) -> None:
        """Make the Cholesky factor of the complement that `precondition` uses; without one if it fails."""
        scaled = self.weights.sqrt()[..., :, None] * self.matrix
        scaled = scaled.mul_(self.right[..., None, :])
        dense = (scaled.mT @ scaled).neg_()
        diagonal = dense.diagonal(dim1=-2, dim2=-1)
        diagonal += 1
        if self.gauge is not None:
            dense += self.gauge[..., :, None] * self.gauge[..., None, :]
        for ridge in RIDGES[dense.dtype]:
            diagonal += ridge
            factor, info = torch.linalg.cholesky_ex(dense)
            if not bool(info.any()):
                self.factor = factor
                return

    def precondition(self, x: Tensor) -> Tensor:
        """Solution with the factor."""
        assert self.factor is not None
        return self.project(torch.cholesky_solve(x[..., None], self.factor)[..., 0])

    def solve(self, rhs: Tensor, bound: Tensor, max_steps: int, direct: bool) -> Solution:
        """Solve until the residual is within `bound`; with `direct`, factorize at once."""
        rhs = self.project(rhs)
        columns = rhs.shape[-1]
        solution, steps = Solution(rhs, 0, False), 0
        large, cheap = columns > LARGEST_FACTOR, cheap_steps(columns, max_steps)
        if large or not direct:
            solution = self._plain(rhs, bound, cheap)
            steps = solution.steps
        if solution.met or large or steps >= max_steps:
            return solution
        self.factorize()
        if self.factor is None:
            return solution._replace(met=False)
        solution = conjugate_gradient(
            self, rhs, bound=bound, max_steps=min(cheap, max_steps - steps), precondition=self.precondition
        )
        return solution._replace(steps=steps + solution.steps)

    def _plain(self, rhs: Tensor, bound: Tensor, max_steps: int) -> Solution:
        """Conjugate gradients without the factor."""
        loops = fused_loops(self.matrix)
        if loops is None:
            return conjugate_gradient(self, rhs, bound=bound, max_steps=max_steps)
        x = torch.zeros_like(rhs)
        gauge = x if self.gauge is None else self.gauge
        system = (t.numpy() for t in (self.matrix, self.weights, self.right, gauge, rhs))
        steps, met = loops.conjugate_gradient(*system, float(bound), max_steps, x.numpy())
        return Solution(x, steps, met)


def inverse_root(diagonal: Tensor) -> Tensor:
    """diagonal^-1/2, and 0 where the diagonal is 0 (points without mass)."""
    massive = diagonal > 0
    return torch.where(massive, torch.where(massive, diagonal, 1.0).rsqrt(), 0.0)
