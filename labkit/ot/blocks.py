"""Soft minima and Sinkhorn passes over costs that are computed block by block and never stored.

    f_i = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon)

One pass exponentiates every block of rows once and uses it twice: its row sums give the new f of these rows, and the
block, rescaled by it, adds to the column sums that give the new g. For C = u(x) + v(y) - s <p(x), p(y)> a single
matrix product yields the exponent with all potentials: both sides get two more features for them.
Memory is O((n + m) d) and one block. Feydy et al. 2019 (AISTATS, streamed log-sum-exp).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud
from labkit.ot.function import CostFunction
from labkit.ot.keops import fused, fused_softmin
from labkit.ot.kernel import prescribed_marginal, relaxation

if TYPE_CHECKING:
    from jaxtyping import Float

Streamable = PointCloud | CostFunction
# Entries of a block. On a CPU a few rows that stay in the last cache are fastest; an accelerator wants large launches.
BLOCK_ENTRIES = {"cpu": 2**20}
LARGE_BLOCK_ENTRIES = 2**27
# A matrix product needs some rows to be efficient, however many columns there are.
LEAST_ROWS = 16


@dataclass(frozen=True, eq=False)
class StreamedProblem:
    """One checked problem in scaled units, with costs in their own; otherwise the fields are those of `Problem`.

    `sweep` needs mass at every point.
    """

    geometry: Streamable
    a: Float[Tensor, " n"]
    b: Float[Tensor, " m"]
    epsilon: float
    scale: Float[Tensor, ""]
    rho_a: float
    rho_b: float
    symmetric: bool = False

    @property
    def tau_a(self) -> float:
        """The factor on an update of f."""
        return relaxation(self.rho_a, self.epsilon)

    @property
    def tau_b(self) -> float:
        """The factor on an update of g."""
        return relaxation(self.rho_b, self.epsilon)


class Pass(NamedTuple):
    """What one pass over the costs says about potentials g.

    Attributes:
        f: The best source potential for g: the rows of the plan of (f, g) are as prescribed.
        g: The best target potential for that f.
        error: L1 distance of the columns of the plan of (f, old g) to the prescribed ones, over the mass.
    """

    f: Float[Tensor, " n"]
    g: Float[Tensor, " m"]
    error: float


def part(geometry: Streamable, rows: Tensor, columns: Tensor) -> Streamable:
    """The same costs for chosen points only."""
    if isinstance(geometry, CostFunction):
        return geometry.part(rows, columns)
    return PointCloud(geometry.x[rows], geometry.y[columns], geometry.cost)


def transposed(geometry: Streamable) -> Streamable:
    """Sources and targets exchanged."""
    if isinstance(geometry, CostFunction):
        return geometry.transposed()
    return PointCloud(geometry.y, geometry.x, geometry.cost)


def row_slices(n: int, m: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows so that a block has about BLOCK_ENTRIES entries."""
    entries = BLOCK_ENTRIES.get(device.type, LARGE_BLOCK_ENTRIES)
    count = max(LEAST_ROWS, entries // m)
    return (slice(start, min(start + count, n)) for start in range(0, n, count))


class Exponents:
    """Blocks of rows of (f_i + g_j) - C_ij / epsilon, for potentials that are already divided by epsilon.

    The block that `rows` returns is overwritten by the next one.
    """

    def __init__(self, geometry: Streamable, f: Tensor, g: Tensor, epsilon: float) -> None:
        self.geometry, self.f, self.g, self.epsilon = geometry, f, g, epsilon
        self.n, self.m = geometry.shape
        self.factors = _product_form(geometry, f, g, epsilon) if isinstance(geometry, PointCloud) else None
        self.buffer: Tensor | None = None

    def blocks(self) -> Iterator[slice]:
        """The rows, in pieces that `rows` takes."""
        return row_slices(self.n, self.m, self.g.device)

    def rows(self, block: slice) -> Float[Tensor, "r m"]:
        """The exponents of some rows."""
        if self.factors is None:
            exponent = torch.sub(self.g, self.geometry.block(block, slice(None)), alpha=1 / self.epsilon)
            return exponent.add_(self.f[block, None])
        left, right = self.factors
        count = block.stop - block.start
        if self.buffer is None:
            self.buffer = left.new_empty(count, self.m)
        return torch.mm(left[block], right, out=self.buffer[:count])


def _product_form(cloud: PointCloud, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor] | None:
    """L and R with L R = f_i + g_j - C_ij / epsilon, or None if the cost has no such form."""
    if cloud.cost == "sqeuclidean":
        shift = cloud.y.mean(0)
        x, y = cloud.x - shift, cloud.y - shift
        f, g, strength = f - x.square().sum(1) / epsilon, g - y.square().sum(1) / epsilon, 2 / epsilon
    elif cloud.cost == "cosine":
        x, y = (torch.nn.functional.normalize(z, dim=1, eps=torch.finfo(z.dtype).tiny) for z in (cloud.x, cloud.y))
        f, strength = f - 1 / epsilon, 1 / epsilon
    else:
        return None
    left = torch.cat((strength * x, torch.ones_like(f)[:, None], f[:, None]), 1)
    right = torch.cat((y, g[:, None], torch.ones_like(g)[:, None]), 1)
    return left, right.T.contiguous()


def softmin(geometry: Streamable, potential: Tensor, log_weights: Tensor, epsilon: float) -> Float[Tensor, " n"]:
    """-log sum_j w_j exp(g_j - C_ij / epsilon) for g = `potential` divided by epsilon; nothing can overflow."""
    if isinstance(geometry, PointCloud) and fused(geometry):
        return fused_softmin(geometry, potential + log_weights, epsilon)
    n = geometry.shape[0]
    result = potential.new_empty(n)
    exponents = Exponents(geometry, potential.new_zeros(n), potential + log_weights, epsilon)
    for block in exponents.blocks():
        exponent = exponents.rows(block)
        largest = exponent.amax(1, keepdim=True)
        result[block] = -(exponent.sub_(largest).exp_().sum(1).log() + largest[:, 0])
    return result


def sweep(problem: StreamedProblem, f: Tensor, g: Tensor) -> Pass:
    """One iteration from g in one pass over the costs; `f` should be near the best one and keeps numbers in range."""
    epsilon, absolute = problem.epsilon, problem.epsilon * float(problem.scale)
    if fused(problem.geometry):
        f_new = problem.tau_a * epsilon * softmin(problem.geometry, g / epsilon, problem.b.log(), absolute)
        columns = torch.zeros_like(g)
    else:
        f_new, columns = _both_sums(problem, f, g)
    if bool((columns > torch.finfo(g.dtype).tiny).all() and torch.isfinite(columns).all()):
        best = g - epsilon * columns.log()
    else:
        best = epsilon * softmin(transposed(problem.geometry), f_new / epsilon, problem.a.log(), absolute)
        columns = torch.exp((g - best) / epsilon)
    missing = (problem.b * columns - prescribed_marginal(problem.b, g, problem.rho_b)).abs().sum()
    error = 2 * float(missing) / float(problem.a.sum() + problem.b.sum())
    return Pass(f_new, problem.tau_b * best, error if not math.isnan(error) else math.inf)


def _both_sums(problem: StreamedProblem, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The best f for g, and the column sums of the kernel with it, from one exponential for each pair."""
    epsilon = problem.epsilon
    exponents = Exponents(problem.geometry, f / epsilon, g / epsilon, epsilon * float(problem.scale))
    f_new, columns = torch.empty_like(f), torch.zeros_like(g)
    for block in exponents.blocks():
        kernel, log_rows, shift = _exponentiate(exponents, block, problem.b)
        f_new[block] = problem.tau_a * (f[block] - epsilon * log_rows)
        columns += (problem.a[block] * torch.exp((f_new[block] - f[block]) / epsilon + shift)) @ kernel
    return f_new, columns


def sweep_symmetric(problem: StreamedProblem, g: Tensor) -> Pass:
    """One damped iteration of a cloud with itself, f <- (f + S f) / 2 (Feydy et al. 2019); the error is of (g, g)."""
    epsilon = problem.epsilon
    absolute = epsilon * float(problem.scale)
    if fused(problem.geometry):
        log_rows = g / epsilon - softmin(problem.geometry, g / epsilon, problem.b.log(), absolute)
    else:
        exponents = Exponents(problem.geometry, g / epsilon, g / epsilon, absolute)
        log_rows = torch.cat([_exponentiate(exponents, block, problem.b)[1] for block in exponents.blocks()])
    missing = (problem.a * log_rows.exp() - prescribed_marginal(problem.a, g, problem.rho_a)).abs().sum()
    error = 2 * float(missing) / float(problem.a.sum())
    best = problem.tau_a * (g - epsilon * log_rows)
    return Pass(g, (g + best) / 2, error if not math.isnan(error) else math.inf)


def _exponentiate(exponents: Exponents, block: slice, b: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """exp(exponent - shift) of some rows, and the logarithms of the row sums weighted by b, shift included."""
    kernel = exponents.rows(block).exp_()
    rows = kernel @ b
    if bool((rows > torch.finfo(b.dtype).tiny).all() and torch.isfinite(rows).all()):
        return kernel, rows.log(), 0.0
    exponent = exponents.rows(block)
    shift = exponent.amax(1)
    kernel = exponent.sub_(shift[:, None]).exp_()
    return kernel, (kernel @ b).log() + shift, shift
