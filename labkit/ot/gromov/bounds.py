"""Lower bounds of the Gromov-Wasserstein distortion, each by transport alone, and the couplings that attain them.

    FLB = min_P sum_ij (s_i - t_j)^2 P_ij                         s_i = (sum_k D_x[i, k]^2 a_k)^1/2, t likewise
    SLB = W_2^2(D_x # a x a, D_y # b x b)                         all distances, as two distributions on the line
    TLB = min_P sum_ij W_2^2(D_x[i, .] # a, D_y[j, .] # b) P_ij   the distances from each point, likewise

for weights of total 1; FLB <= TLB and SLB <= TLB <= G(P) for every coupling P. Memoli 2011 (Found. Comput. Math. 11,
section 6), without his factor 1/2 and root; Memoli, Needham 2022 (arXiv:2106.06105); Weitkamp et al. 2022. On the
line transport matches quantiles, weighted ones too, so FLB and SLB take O(n^2 log n) for n points. Distances are not
subsampled, as that would no longer be a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.exact import exact
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.spaces import Spaces, make_spaces
from labkit.ot.problem import Settings
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float

# The dual of the unregularized problem starts at the potentials of this one, relative to the mean cost.
DUAL_EPSILON = 2e-3
DUAL_TOLERANCE = 1e-2
DUAL_ITERATIONS = 500
# Entries of the largest temporary tensor in the table of local bounds.
BLOCK_ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class LowerBounds:
    """What no coupling of two spaces can fall below, in the units of `gromov_wasserstein(...).cost`; detached.

    Attributes:
        flb: First lower bound, from the eccentricities of the points.
        slb: Second lower bound, from the distribution of all distances.
        tlb: Third lower bound, from the distribution of the distances from each point; the highest of the three,
            but for rounding, where its transport problem is solved exactly: for uniform weights and equal sizes, or
            with POT installed. Otherwise it is the value of a feasible dual, lower by a few permille of the mean cost.
    """

    flb: Float[Tensor, "*batch"]
    slb: Float[Tensor, "*batch"]
    tlb: Float[Tensor, "*batch"]

    @property
    def best(self) -> Float[Tensor, "*batch"]:
        """The highest of the three."""
        return torch.stack([self.flb, self.slb, self.tlb]).amax(0)


def gromov_lower_bounds(
    geom_x: Geometry | InnerProduct,
    geom_y: Geometry | InnerProduct,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
) -> LowerBounds:
    """Bound from below what `gromov_wasserstein` with the same arguments can return as `cost`.

    Args:
        geom_x: Distances within the first space, as in `gromov_wasserstein`.
        geom_y: Distances within the second space.
        a: Weights of the first space, uniform by default.
        b: Weights of the second; their total must be that of `a`.
        scale_cost: "mean" or None, as in `gromov_wasserstein`.
        fused_cost: M, a cost between points of the two spaces.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.

    Returns:
        Three bounds of alpha G(P) + (1 - alpha) <M, P>, without gradients. FLB and SLB take O(n^2 log n), and exact
        transport if there is a fused cost; TLB takes O(n^3) and exact transport. All need n^2 memory.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.
    """
    with full_precision(geom_x.device), torch.no_grad():
        return lower_bounds(make_spaces((geom_x, geom_y), (a, b), scale_cost, (fused_cost, alpha)))


@torch.no_grad()
def lower_bounds(spaces: Spaces) -> LowerBounds:
    """All three bounds of alpha G(P) + (1 - alpha) <M, P> over the couplings of two spaces of equal mass."""
    return LowerBounds(
        flb=first_lower_bound(spaces), slb=second_lower_bound(spaces), tlb=_third(spaces)[1].to(spaces.a.dtype)
    )


@torch.no_grad()
def first_lower_bound(spaces: Spaces) -> Float[Tensor, "*batch"]:
    """FLB: from the root mean square distance of each point to all others; linear memory unless fused."""
    return _first(spaces)[1].to(spaces.a.dtype)


@torch.no_grad()
def second_lower_bound(spaces: Spaces) -> Float[Tensor, "*batch"]:
    """SLB: from the distribution of all distances; a fused cost adds the least cost that transport can have."""
    (a, b), mass = _shares(spaces)
    first, second = (_all_distances(space.matrix(), share) for space, share in ((spaces.x, a), (spaces.y, b)))
    bound = spaces.alpha * mass.square() * _line_cost(first, second)
    if spaces.fused is not None:
        fused = (1 - spaces.alpha) * mass[..., None, None] * spaces.fused.detach().double()
        bound = bound + _transport(fused, a, b)[1]
    return bound.to(spaces.a.dtype)


@torch.no_grad()
def lower_bound_plans(spaces: Spaces) -> list[Float[Tensor, "*batch n m"]]:
    """The couplings behind FLB and TLB, from which to start a descent; rows sum to a, columns to b, nearly."""
    mass = spaces.a.sum(-1)[..., None, None]
    return [(mass * bound(spaces)[0]).to(spaces.a.dtype) for bound in (_first, _third)]


def _shares(spaces: Spaces) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Weights of total 1, in double precision as sums of many of them are compared, and the mass."""
    a, b = spaces.a.double(), spaces.b.double()
    return (a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)), a.sum(-1)


def _first(spaces: Spaces) -> tuple[Tensor, Tensor]:
    (a, b), mass = _shares(spaces)
    s, t = (
        space.squares_times(share.to(spaces.a.dtype)).double().sqrt() for space, share in ((spaces.x, a), (spaces.y, b))
    )
    if spaces.fused is None:
        return _line_plan((s, a), (t, b)), spaces.alpha * mass.square() * _line_cost((s, a), (t, b))
    return _transport(_mixed(spaces, (s[..., :, None] - t[..., None, :]).square(), mass), a, b)


def _third(spaces: Spaces) -> tuple[Tensor, Tensor]:
    (a, b), mass = _shares(spaces)
    x, y = spaces.x.matrix().double(), spaces.y.matrix().double()
    return _transport(_mixed(spaces, _local_costs(x, y, a, b), mass), a, b)


def _all_distances(matrix: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The distribution of the distances of all pairs: each value of a symmetric matrix once, with twice the weight."""
    i, k = torch.triu_indices(*matrix.shape[-2:], device=matrix.device)
    return matrix[..., i, k].double(), share[..., i] * share[..., k] * torch.where(i == k, 1.0, 2.0)


def _mixed(spaces: Spaces, structure: Tensor, mass: Tensor) -> Tensor:
    """The objective's cost per unit of share, when `structure` bounds the linearized distortion."""
    mass = mass[..., None, None]
    cost = spaces.alpha * mass.square() * structure
    return cost if spaces.fused is None else cost + (1 - spaces.alpha) * mass * spaces.fused.detach().double()


def _sorted_line(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted values and the cumulative weights at which the quantile function leaves them."""
    values, order = values.sort(-1)
    levels = weights.gather(-1, order).cumsum(-1)
    return values, levels / levels[..., -1:]


def _quantiles(values: Tensor, levels: Tensor, at: Tensor) -> Tensor:
    index = torch.searchsorted(levels.contiguous(), at.contiguous()).clamp_max(levels.shape[-1] - 1)
    return values.gather(-1, index)


def _line_cost(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """W_2^2 of two distributions (values, weights of total 1) on the line, batched."""
    return _sorted_cost(_sorted_line(*first), _sorted_line(*second))


def _sorted_cost(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    (x, levels_x), (y, levels_y) = first, second
    # Between two neighboring levels of either distribution both quantile functions are constant.
    levels = torch.cat([levels_x, levels_y], -1).sort(-1).values
    widths = torch.diff(levels, dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    middle = levels - widths / 2
    gap = _quantiles(x, levels_x, middle) - _quantiles(y, levels_y, middle)
    return (widths * gap.square()).sum(-1)


def _line_plan(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """The monotone coupling of two distributions on the line: overlaps of their intervals of levels."""
    (x, a), (y, b) = first, second
    rows, columns = x.argsort(-1), y.argsort(-1)
    above_x, above_y = a.gather(-1, rows).cumsum(-1), b.gather(-1, columns).cumsum(-1)
    below_x, below_y = (torch.nn.functional.pad(above[..., :-1], (1, 0)) for above in (above_x, above_y))
    upper = torch.minimum(above_x[..., :, None], above_y[..., None, :])
    lower = torch.maximum(below_x[..., :, None], below_y[..., None, :])
    overlap = (upper - lower).clamp_min(0)
    back_x, back_y = rows.argsort(-1), columns.argsort(-1)
    overlap = overlap.gather(-2, back_x[..., :, None].expand_as(overlap))
    return overlap.gather(-1, back_y[..., None, :].expand_as(overlap))


def _local_costs(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Float[Tensor, "*batch n m"]:
    """W_2^2 between the distances from i within x and those from j within y, for all i and j."""
    if bool((a == a[..., :1]).all() and (b == b[..., :1]).all()):
        return _uniform_local_costs(x, y)
    cost = x.new_empty((*x.shape[:-1], y.shape[-1]))
    for one in product(*map(range, x.shape[:-2])):
        rows = _sorted_line(x[one], a[one].expand_as(x[one]))
        columns = _sorted_line(y[one], b[one].expand_as(y[one]))
        n_columns, width = y.shape[-1], x.shape[-1] + y.shape[-1]
        step = max(1, BLOCK_ENTRIES // (n_columns * width))
        for start in range(0, x.shape[-1], step):
            block = tuple(t[start : start + step, None].expand(-1, n_columns, -1) for t in rows)
            others = tuple(t.expand(block[0].shape[0], -1, -1) for t in columns)
            cost[one][start : start + step] = _sorted_cost((block[0], block[1]), (others[0], others[1]))
    return cost


def _uniform_local_costs(x: Tensor, y: Tensor) -> Tensor:
    # With uniform weights all rows share their levels k / n, so the table is one of squared Euclidean distances
    # between quantile functions on the joint grid, by one matrix product.
    n, m = x.shape[-1], y.shape[-1]
    levels = torch.cat([torch.arange(1, n + 1).double() / n, torch.arange(1, m + 1).double() / m]).unique().to(x.device)
    widths = torch.diff(levels, prepend=levels.new_zeros(1))
    middle = levels - widths / 2
    rows, columns = (
        d.sort(-1).values[..., (middle * k).long().clamp_max(k - 1)] * widths.sqrt() for d, k in ((x, n), (y, m))
    )
    squares = rows.square().sum(-1)[..., :, None] + columns.square().sum(-1)[..., None, :]
    return (squares - 2 * rows @ columns.mT).clamp_min(0)


def _transport(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A coupling of little cost and a lower bound of <cost, P> over all; the optimum where that is an assignment."""
    n, m = cost.shape[-2:]
    if n == m and bool((a == a[..., :1]).all() and (b == b[..., :1]).all()):
        matrices = cost.reshape(-1, n, n).cpu().numpy()
        columns = torch.stack([torch.as_tensor(linear_sum_assignment(matrix)[1]) for matrix in matrices])
        columns = columns.reshape(cost.shape[:-1]).to(cost.device)
        plan = torch.zeros_like(cost).scatter_(-1, columns[..., None], 1 / n)
        return plan, (cost * plan).sum((-2, -1))
    if find_spec("ot") is not None:
        coupling = exact(CostMatrix(cost), a, b)
    else:
        least = cost.amin((-2, -1), keepdim=True)
        settings = Settings(DUAL_EPSILON, "mean", 1.0, 1.0, DUAL_TOLERANCE, DUAL_ITERATIONS)
        coupling = solve(CostMatrix(cost - least), a, b, settings)
    # Feasible for the dual without entropy are f_i <= min_j C_ij - g_j and then g_j <= min_i C_ij - f_i, over the
    # points with mass.
    f = torch.where(b[..., None, :] > 0, cost - coupling.g[..., None, :], torch.inf).amin(-1)
    g = torch.where(a[..., :, None] > 0, cost - f[..., :, None], torch.inf).amin(-2)
    return coupling.plan, (a * f).sum(-1) + (b * g).sum(-1)
