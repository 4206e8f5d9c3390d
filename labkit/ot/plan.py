"""The plan that potentials stand for, and what one pass over it says.

    P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)

Marginals, transport cost and the pullback of P to the points (the gradient of sum_ij P_ij C(x_i, y_j) with P held)
need every entry once, so they are taken together, over blocks of rows that stay in the cache: beyond the costs no
second n x m matrix is held. For costs of the form u(x) + v(y) - s <p(x), p(y)> the pullback is a product of P with
the points; for others it is differentiated block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import COSTS
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float

# Entries of a block: 8 MB in float64, about the last cache of a CPU; an accelerator wants large launches.
BLOCK_ENTRIES = {"cpu": 2**20}
LARGE_BLOCK_ENTRIES = 2**26
# Costs u(x) + v(y) - s <p(x), p(y)>.
PRODUCT_COSTS = ("sqeuclidean", "cosine")


class PlanSums(NamedTuple):
    """Sums over a plan in scaled units: row and column sums, and <C, P>."""

    rows: Float[Tensor, "*batch n"]
    columns: Float[Tensor, "*batch m"]
    cost: Float[Tensor, "*batch"]


class Pullback:
    """Gradient of sum_ij W_ij C(x_i, y_j) with respect to both clouds, for weights W that arrive in blocks of rows.

    Both clouds must have the batch dimensions of W. With `mirrored` W is symmetric and both clouds are the same,
    so that one gradient serves for both. A gradient that is not `wanted` is not computed, and meaningless.
    """

    def __init__(
        self, x: Tensor, y: Tensor, cost: str, *, mirrored: bool = False, wanted: tuple[bool, bool] = (True, True)
    ) -> None:
        x, y = x.detach(), y.detach()
        self.mirrored, self.wanted, self.cost, self.x, self.y = mirrored, wanted, cost, x, y
        if self.cost == "sqeuclidean":
            # Without the common shift row sums times x would cancel against W y.
            shift = y.mean(-2, keepdim=True)
            self.x, self.y = x - shift, y - shift
        elif self.cost == "cosine":
            self.norms = tuple(_positive(torch.linalg.vector_norm(z, dim=-1, keepdim=True)) for z in (x, y))
            self.x, self.y = x / self.norms[0], y / self.norms[1]
        self.grad_x, self.grad_y = torch.zeros_like(x), torch.zeros_like(y)

    def add(self, rows: slice, weights: Float[Tensor, "*batch k m"]) -> None:
        """Take in the weights of some rows."""
        if self.cost in PRODUCT_COSTS:
            if self.wanted[0] or self.mirrored:
                self.grad_x[..., rows, :] = weights @ self.y
            if self.wanted[1] and not self.mirrored:
                self.grad_y += weights.mT @ self.x[..., rows, :]
            return
        with torch.enable_grad():
            x, y = self.x[..., rows, :].detach().requires_grad_(), self.y.detach().requires_grad_()
            grads = torch.autograd.grad(COSTS[self.cost](x, y), (x, y), weights)
        self.grad_x[..., rows, :] = grads[0]
        self.grad_y += grads[1]

    def gradients(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients for x and y, given the row and column sums of all weights."""
        x, y = self.grad_x, self.grad_x if self.mirrored else self.grad_y
        if self.cost == "sqeuclidean":
            x, y = 2 * (rows[..., None] * self.x - x), 2 * (columns[..., None] * self.y - y)
        elif self.cost == "cosine":
            x, y = (
                # The derivative of z / |z| takes out the radial part.
                (unit * (unit * grad).sum(-1, keepdim=True) - grad) / norm
                for unit, grad, norm in ((self.x, x, self.norms[0]), (self.y, y, self.norms[1]))
            )
        return x, y


def _positive(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, norms, 1.0)


def row_blocks(shape: tuple[int, ...], device: torch.device) -> Iterator[slice]:
    """Slices of rows so that a block of a matrix of this shape has about BLOCK_ENTRIES entries."""
    *batch, n, m = shape
    entries = BLOCK_ENTRIES.get(device.type, LARGE_BLOCK_ENTRIES)
    count = max(1, entries // (m * torch.Size(batch).numel()))
    return (slice(start, min(start + count, n)) for start in range(0, n, count))


def measure_plan(
    problem: Problem, f: Tensor, g: Tensor, *, pullback: Pullback | None = None, plan: Tensor | None = None
) -> PlanSums:
    """Sums over the plan of potentials in scaled units, feeding `pullback` and filling `plan` where given."""
    # Weights enter as logarithms: at a point of weight zero the potentials may be too large to exponentiate.
    of_row = f / problem.epsilon + problem.a.log()
    of_column = (g / problem.epsilon + problem.b.log())[..., None, :]
    rows, columns = torch.empty_like(problem.a), torch.zeros_like(problem.b)
    by_row = torch.empty_like(problem.a)
    for block in row_blocks(problem.cost.shape, problem.cost.device):
        cost = problem.cost[..., block, :]
        mass = torch.sub(of_column, cost, alpha=1 / problem.epsilon).add_(of_row[..., block, None]).exp_()
        rows[..., block] = mass.sum(-1)
        columns += mass.sum(-2)
        if pullback is not None:
            pullback.add(block, mass)
        if plan is not None:
            plan[..., block, :] = mass
        # A forbidden pair has infinite cost and no mass: it counts 0.
        finite = cost.clamp_max(torch.finfo(cost.dtype).max) if problem.restricted else cost
        by_row[..., block] = mass.mul_(finite).sum(-1)
    return PlanSums(rows, columns, by_row.sum(-1))


def entropic_plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    """a_i b_j exp((f_i + g_j - C_ij) / epsilon), with one epsilon per problem of the batch; differentiable."""
    exponent = (f[..., :, None] + g[..., None, :]).sub_(cost).div_(epsilon[..., None, None])
    return exponent.add_(log_weights(a)[..., :, None]).add_(log_weights(b)[..., None, :]).exp_()


def log_weights(weights: Tensor) -> Tensor:
    """Logarithms of weights; at a weight of zero -inf with derivative 0, so that no 0 times infinity arises."""
    if not weights.requires_grad:
        return weights.log()
    massive = weights.detach() > 0
    return torch.where(massive, torch.where(massive, weights, 1.0).log(), -torch.inf)
