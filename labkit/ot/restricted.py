"""Assignment with few pairs: a geometry in which some pairs are forbidden and some are fixed.

A forbidden pair carries no mass: its cost is +inf, so that exp(-C / epsilon) is exactly 0 there. A fixed pair (i, j)
is made of forbidden ones. Fixed pairs link points into groups, and the side of a group that weighs less (both, if
they weigh the same) exchanges mass along fixed pairs only. For one pair that means P_ij = min(a_i, b_j): with equal
weights i and j belong to each other alone, otherwise the heavier point has the difference left for others.
Whether any plan is left is a question of maximal flow (Hall's condition), which scipy answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, maximum_flow
from torch import Tensor

from labkit.ot.cost import Geometry

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# Above this number of pairs the flow is not computed; an infeasible problem then does not converge, and says so.
FLOW_PAIRS = 4_000_000
# Capacities of the flow are integers of 32 bits.
FLOW_UNITS = 2**30


@dataclass(frozen=True, eq=False)
class Restricted:
    """Another geometry, with pairs that may not be matched and pairs that must be.

    Costs stay those of `geometry`, as do their gradients; `scale_cost` looks at allowed pairs only.

    Attributes:
        geometry: Whose costs apply to the allowed pairs.
        forbidden: Boolean mask, true where no mass may go, or index pairs (i, j); a mask after construction.
        fixed: Index pairs (i, j), the same for all problems of a batch; a point may be in several.

    Raises:
        TypeError: The pairs are not integers or the mask is not boolean.
        ValueError: A wrong shape, an index out of range, or a pair both fixed and forbidden.
    """

    geometry: Geometry
    _: KW_ONLY
    forbidden: Bool[Tensor, "*batch n m"] | Int[Tensor, "k 2"] | Sequence[tuple[int, int]] | None = None
    fixed: Int[Tensor, "k 2"] | Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        """Check the pairs and turn `forbidden` into a mask, `fixed` into a tensor."""
        if isinstance(self.geometry, Restricted):
            raise TypeError("the geometry is Restricted already: pass all forbidden and fixed pairs at once.")
        shape = self.shape[-2:]
        fixed = None if self.fixed is None else self._pairs(self.fixed, "fixed")
        forbidden = self.forbidden
        if isinstance(forbidden, Tensor) and forbidden.dtype == torch.bool:
            if forbidden.shape[-2:] != shape or forbidden.ndim > len(self.shape):
                raise ValueError(f"forbidden has shape {tuple(forbidden.shape)}, expected a mask {tuple(self.shape)}.")
            forbidden = forbidden.to(self.device)
        elif forbidden is not None:
            forbidden = _mask_of(self._pairs(forbidden, "forbidden"), shape)
        if fixed is not None and forbidden is not None and forbidden[..., fixed[:, 0], fixed[:, 1]].any():
            raise ValueError("a pair is both fixed and forbidden: remove it from one of the two.")
        object.__setattr__(self, "forbidden", forbidden)
        object.__setattr__(self, "fixed", fixed)

    def _pairs(self, pairs: Tensor | Sequence[tuple[int, int]], name: str) -> Tensor:
        pairs = torch.as_tensor(pairs, device=self.device)
        if pairs.numel() == 0:
            return pairs.new_zeros((0, 2), dtype=torch.long)
        if pairs.is_floating_point() or pairs.dtype == torch.bool:
            raise TypeError(f"{name} has type {pairs.dtype}, expected integer pairs (i, j); forbidden may be a mask.")
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"{name} has shape {tuple(pairs.shape)}, expected one row (i, j) for each pair.")
        sizes = torch.tensor(self.shape[-2:], device=self.device)
        if ((pairs < 0) | (pairs >= sizes)).any():
            raise ValueError(f"{name} has indices outside 0 <= i < {sizes[0]}, 0 <= j < {sizes[1]}.")
        return pairs.long()

    @property
    def device(self) -> torch.device:
        """Where the costs are."""
        return self.geometry.device

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.geometry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, n, m)."""
        return self.geometry.shape

    @property
    def symmetric(self) -> bool:
        """Always False: the general iteration is used."""
        return False

    @cached_property
    def mask(self) -> Bool[Tensor, "*batch n m"]:
        """True where no mass may go; pairs are fixed as for uniform weights (see `settled`)."""
        n, m = self.shape[-2:]
        like = torch.empty((), dtype=torch.float64, device=self.device)
        return self._mask(like.new_full((n,), 1 / n), like.new_full((m,), 1 / m))

    def matrix(self) -> Float[Tensor, "*batch n m"]:
        """The costs, +inf where no mass may go."""
        return self.geometry.matrix().masked_fill(self.mask, torch.inf)

    def block(self, rows: slice, columns: slice) -> Float[Tensor, "*batch r c"]:
        """Some rows and columns of the matrix."""
        return self.geometry.block(rows, columns).masked_fill(self.mask[..., rows, columns], torch.inf)

    def _mask(self, a: Tensor, b: Tensor) -> Tensor:
        shape = self.shape[-2:]
        mask = self.forbidden
        if not isinstance(mask, Tensor):
            mask = torch.zeros(shape, dtype=torch.bool, device=a.device)
        if not isinstance(self.fixed, Tensor) or not len(self.fixed):
            return mask
        rows, columns = _exclusive(self.fixed, a, b)
        return mask | (rows[..., :, None] | columns[..., None, :]) & ~_mask_of(self.fixed, shape)

    def settled(self, a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch m"], balanced: bool) -> Restricted:
        """The same restrictions as a mask only, for the given weights.

        Args:
            a: Checked source weights.
            b: Checked target weights.
            balanced: Whether both marginals are fixed, so that a plan must carry all of the mass.

        Raises:
            ValueError: A point with mass has no partner with mass, or the mass cannot flow along allowed pairs.
        """
        mask = self._mask(a, b).broadcast_to((*a.shape, b.shape[-1]))
        lonely_rows = _require_partners(mask, a, b, "source")
        lonely_columns = _require_partners(mask.mT, b, a, "target")
        if balanced and self.forbidden is not None:
            _require_flow(mask, a, b)
        # Points without mass have no influence: one that could go nowhere is left free, to have a finite potential.
        free = lonely_rows[..., :, None] | lonely_columns[..., None, :]
        return Restricted(self.geometry, forbidden=mask & ~free)


def _mask_of(pairs: Tensor, shape: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(tuple(shape), dtype=torch.bool, device=pairs.device)
    mask[pairs[:, 0], pairs[:, 1]] = True
    return mask


def _exclusive(fixed: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The points that exchange mass along fixed pairs only: the lighter side of each group, or both sides."""
    n, m = a.shape[-1], b.shape[-1]
    i, j = fixed.cpu().numpy().T
    graph = coo_array((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m))
    groups = torch.from_numpy(connected_components(graph, directed=False)[1]).long().to(a.device)
    linked = torch.zeros(n + m, dtype=torch.bool, device=a.device)
    linked[fixed[:, 0]] = linked[n + fixed[:, 1]] = True
    sides = []
    for weights, part in ((a, slice(None, n)), (b, slice(n, None))):
        total = weights.new_zeros((*weights.shape[:-1], n + m))
        sides.append(total.index_add_(-1, groups[part], weights * linked[part]))
    rounding = 1 + 16 * torch.finfo(a.dtype).eps
    lighter = [mine <= other * rounding for mine, other in (sides, sides[::-1])]
    return lighter[0][..., groups[:n]] & linked[:n], lighter[1][..., groups[n:]] & linked[n:]


def _require_partners(mask: Tensor, mine: Tensor, other: Tensor, side: str) -> Tensor:
    """Points that have no allowed partner with mass; none of them may have mass itself."""
    lonely = ~(~mask & (other > 0)[..., None, :]).any(-1)
    stuck = lonely & (mine > 0)
    if stuck.any():
        where = stuck.nonzero()[0].tolist()
        problem = f" of problem {tuple(where[:-1])}" if len(where) > 1 else ""
        raise ValueError(
            f"{side} point {where[-1]}{problem} has weight {mine[tuple(where)]:.3g} but no allowed partner with "
            "weight: allow one of its pairs, or give it weight zero."
        )
    return lonely


def _require_flow(mask: Tensor, a: Tensor, b: Tensor) -> None:
    """Refuse restrictions under which no plan has the marginals a and b.

    If each row is barred from at most a fraction r of the targets' mass, and each column from at most 1 - r of the
    sources', Hall's condition holds; only without that the maximal flow is computed.
    """
    barred_rows = (mask.to(b) @ b[..., None])[..., 0] / b.sum(-1, keepdim=True)
    barred_columns = (mask.mT.to(a) @ a[..., None])[..., 0] / a.sum(-1, keepdim=True)
    sure = torch.where(a > 0, barred_rows, 0).amax(-1) + torch.where(b > 0, barred_columns, 0).amax(-1) <= 1
    if sure.all() or mask.shape[-1] * mask.shape[-2] > FLOW_PAIRS:
        return
    for index in (~sure).reshape(-1).nonzero()[:, 0].tolist():
        allowed = ~mask.reshape(-1, *mask.shape[-2:])[index].cpu().numpy()
        share = _largest_flow(allowed, *(w.reshape(-1, w.shape[-1])[index].double().cpu().numpy() for w in (a, b)))
        # Each capacity was rounded down to an integer.
        if share < 1 - 2 * sum(allowed.shape) / FLOW_UNITS - torch.finfo(a.dtype).eps * sum(allowed.shape):
            where = f" of problem {index} of the batch" if mask.ndim > 2 else ""
            raise ValueError(
                f"only {share:.4%} of the mass{where} can flow along allowed pairs, so no plan has both marginals: "
                "forbid fewer pairs, change the weights, or relax the marginals by tau_a, tau_b < 1."
            )


def _largest_flow(allowed: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The share of the mass that allowed pairs can carry."""
    n, m = allowed.shape
    supply, demand = (np.floor(w / w.sum() * FLOW_UNITS).astype(np.int32) for w in (a, b))
    i, j = allowed.nonzero()
    tail = np.concatenate([np.zeros(n, int), 1 + i, 1 + n + np.arange(m)])
    head = np.concatenate([1 + np.arange(n), 1 + n + j, np.full(m, 1 + n + m)])
    capacity = np.concatenate([supply, np.minimum(supply[i], demand[j]), demand])
    graph = csr_array((capacity, (tail, head)), shape=(n + m + 2, n + m + 2))
    return maximum_flow(graph, 0, n + m + 1).flow_value / FLOW_UNITS
