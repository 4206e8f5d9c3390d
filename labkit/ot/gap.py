"""How far potentials can be from the optimum: a feasible plan above, the dual value below.

    gap = <C, P'> + epsilon KL(P' | a b^T) + rho_a KL(P' 1 | a) + rho_b KL(P'^T 1 | b) - D(f, g) >= 0,

where P' is the plan of the potentials with every fixed marginal made exact: scaled down and filled up as in
`round_to_marginals` if both are fixed, scaled if one is, and as it is if none. Value and objective of P' both lie
within the gap of the optimum. Computed in float64 and in blocks of rows, so that it holds for float32 potentials too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import Geometry
from labkit.ot.plan import row_blocks

if TYPE_CHECKING:
    from jaxtyping import Float

# A forbidden pair makes a plan infeasible, unless what it got is rounding.
NEGLIGIBLE_MASS = 1e-12


@dataclass(frozen=True, eq=False)
class _Dual:
    """Potentials and what they belong to, in one precision and in the cost's units; rho infinite if fixed."""

    geometry: Geometry
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    epsilon: Tensor
    rho_a: Tensor | None
    rho_b: Tensor | None

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, their costs and their part of the plan."""
        epsilon = self.epsilon[..., None, None]
        shape = (*self.a.shape, self.b.shape[-1])
        for rows in row_blocks(shape, self.a.device):
            cost = self.geometry.block(rows, slice(None)).to(self.a)
            exponent = (self.f[..., rows, None] + self.g[..., None, :] - cost) / epsilon
            yield rows, cost, (exponent + self.b.log()[..., None, :] + self.a.log()[..., rows, None]).exp()

    def value(self, mass: Tensor) -> Tensor:
        """The dual objective, given the mass of the plan."""
        value = _linear(self.a, self.f, self.rho_a) + _linear(self.b, self.g, self.rho_b)
        return value - self.epsilon * (mass - self.a.sum(-1) * self.b.sum(-1))


def duality_gap(
    geometry: Geometry,
    weights: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]],
    potentials: tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]],
    epsilon: Float[Tensor, "*batch"],
    taus: tuple[float, float],
) -> Float[Tensor, "*batch"]:
    """The gap above, in the cost's units; infinite if no feasible plan was found under forbidden pairs."""
    # MPS has no float64.
    dtype = epsilon.dtype if epsilon.device.type == "mps" else torch.float64
    a, b, f, g, epsilon = (t.detach().to(dtype) for t in (*weights, *potentials, epsilon))
    rho_a, rho_b = (None if tau == 1 else epsilon * tau / (1 - tau) for tau in taus)
    dual = _Dual(geometry, a, b, f, g, epsilon, rho_a, rho_b)
    row_factor, columns, mass = _scaled_rows(dual)
    if rho_b is not None:
        column_factor = torch.ones_like(b)
    else:
        column_factor = _quotient(b, columns)
        if rho_a is None:
            column_factor = column_factor.clamp_max(1)
    primal = _objective(dual, row_factor, column_factor, _share(dual, b - columns * column_factor))
    return (primal - dual.value(mass)).clamp_min(0)


def _scaled_rows(dual: _Dual) -> tuple[Tensor, Tensor, Tensor]:
    """Factors for the rows, the column sums that the plan then has, and its mass before."""
    factor, columns = torch.ones_like(dual.a), torch.zeros_like(dual.b)
    mass = torch.zeros_like(dual.epsilon)
    for rows, _, plan in dual.blocks():
        sums = plan.sum(-1)
        mass = mass + sums.sum(-1)
        if dual.rho_a is None:
            quotient = _quotient(dual.a[..., rows], sums)
            factor[..., rows] = quotient.clamp_max(1) if dual.rho_b is None else quotient
        columns = columns + (factor[..., rows, None] * plan).sum(-2)
    return factor, columns, mass


def _share(dual: _Dual, missing: Tensor) -> tuple[Tensor | None, Tensor]:
    """Weights of rows (None: what the row lacks) and columns, whose product is added to the scaled plan."""
    missing = missing.clamp_min(0)
    if dual.rho_a is None and dual.rho_b is None:
        return None, _quotient(missing, missing.sum(-1, keepdim=True))
    if dual.rho_b is None:
        return dual.a / dual.a.sum(-1, keepdim=True), missing
    return (None if dual.rho_a is None else torch.zeros_like(dual.a)), dual.b / dual.b.sum(-1, keepdim=True)


def _objective(dual: _Dual, row_factor: Tensor, column_factor: Tensor, share: tuple[Tensor | None, Tensor]) -> Tensor:
    """The primal objective of row_factor P column_factor + share."""
    value, columns = torch.zeros_like(dual.epsilon), torch.zeros_like(dual.b)
    at_forbidden = torch.zeros_like(dual.epsilon)
    for rows, cost, plan in dual.blocks():
        plan = row_factor[..., rows, None] * plan * column_factor[..., None, :]
        by_row = (dual.a[..., rows] - plan.sum(-1)).clamp_min(0) if share[0] is None else share[0][..., rows]
        plan = plan + by_row[..., :, None] * share[1][..., None, :]
        forbidden = torch.isinf(cost)
        at_forbidden = at_forbidden + torch.where(forbidden, plan, 0.0).sum((-2, -1))
        plan = torch.where(forbidden, 0.0, plan)
        value = value + (plan * torch.where(forbidden, 0.0, cost)).sum((-2, -1))
        product = dual.a[..., rows, None] * dual.b[..., None, :]
        value = value + dual.epsilon * _relative_entropy(plan, product).sum((-2, -1))
        if dual.rho_a is not None:
            value = value + dual.rho_a * _relative_entropy(plan.sum(-1), dual.a[..., rows]).sum(-1)
        columns = columns + plan.sum(-2)
    if dual.rho_b is not None:
        value = value + dual.rho_b * _relative_entropy(columns, dual.b).sum(-1)
    return torch.where(at_forbidden > NEGLIGIBLE_MASS * dual.a.sum(-1), math.inf, value)


def _linear(weights: Tensor, potential: Tensor, rho: Tensor | None) -> Tensor:
    potential = torch.where(weights > 0, potential, 0.0)
    if rho is None:
        return (weights * potential).sum(-1)
    return (-rho[..., None] * weights * torch.expm1(-potential / rho[..., None])).sum(-1)


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """Entries of KL(p | q) = p log(p / q) - p + q."""
    ratio = torch.where(p > 0, p / torch.where(q > 0, q, 1.0), 1.0)
    return p * ratio.log() - p + q


def _quotient(wanted: Tensor, carried: Tensor) -> Tensor:
    return torch.where(carried > 0, wanted / torch.where(carried > 0, carried, 1.0), 1.0)
