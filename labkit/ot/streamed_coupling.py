"""A coupling of clouds that are too large for a plan: everything is read off it in blocks of rows.

    plan_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon_absolute)

The n x m plan is never made: asking for it raises, and the error names what to ask for instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from labkit.ot.blocks import Streamable, row_slices
from labkit.ot.cost import PointCloud, full_precision
from labkit.ot.coupling import Coupling, TopMasses

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class StreamedCoupling(Coupling):
    """A `Coupling` without a plan in memory; the potentials are detached, the value is differentiable once.

    `apply` and `barycenter` are differentiable in their argument, `map` in the new points, once each; what they keep
    for the backward pass does not grow with n m.
    """

    geometry: Streamable

    @property
    def plan(self) -> Tensor:
        """Never there.

        Raises:
            MemoryError: Always, with the alternatives.
        """
        n, m = self.geometry.shape
        raise MemoryError(
            f"a plan of {n} x {m} entries is not kept in memory: use apply, barycenter, map, top(k), or "
            "rows(slice) for a part of it."
        )

    def rows(self, chosen: slice) -> Float[Tensor, "r m"]:
        """The plan of some source points, as a matrix.

        Raises:
            TypeError: `chosen` is not a slice.
        """
        if not isinstance(chosen, slice):
            raise TypeError(
                f"rows got a {type(chosen).__name__}, expected a slice of source points like slice(0, 100)."
            )
        return self._mass(chosen, conditional=False)

    def apply(self, v: Tensor) -> Tensor:
        """P v for a vector [m] or columns [m, k], in blocks: [n] or [n, k].

        Raises:
            ValueError: v does not have one entry or row per target point.
        """
        vector = v.ndim == 1 and len(v) == len(self.b)
        result = self._times(self._rows_per_target(v[:, None] if vector else v, "v"), conditional=False)
        return result[:, 0] if vector else result

    def barycenter(self, y: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
        """Where each source point goes on average: row-normalized P y / P 1, in blocks.

        Raises:
            ValueError: y does not have one row per target point.
        """
        return self._times(self._rows_per_target(y, "y"), conditional=True)

    def map(self, x_new: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Entropic map of new source points, in blocks; see `Coupling.map`.

        Raises:
            TypeError: The geometry is not a PointCloud, so new points have no cost.
            ValueError: `x_new` has another number of features, or is not finite.
        """
        if not isinstance(self.geometry, PointCloud):
            raise TypeError(
                "map needs costs from new points to the targets, and this coupling was made from a cost function: "
                "use barycenter(y) for the points it was solved on, or solve with a PointCloud."
            )
        cloud = PointCloud(self.geometry.x.detach(), self.geometry.y.detach(), self.geometry.cost)

        def image(points: Tensor) -> Tensor:
            with full_precision(points.device):
                return self._conditional(cloud.cost_from(points)) @ cloud.y

        blocks = [x_new[rows] for rows in row_slices(len(x_new), len(self.b), self.b.device)]
        return torch.cat([checkpoint(image, block, use_reentrant=False) for block in blocks])

    def top(self, k: int) -> TopMasses:
        """The k largest masses of each row, in blocks.

        Raises:
            ValueError: k is not between 1 and the number of target points.
        """
        if not 1 <= k <= len(self.b):
            raise ValueError(f"k={k} must be between 1 and the number of target points, {len(self.b)}.")
        found = [self._mass(rows, conditional=False).topk(k, 1) for rows in self._blocks()]
        return TopMasses(torch.cat([t.indices for t in found]), torch.cat([t.values for t in found]))

    def _times(self, columns: Tensor, *, conditional: bool) -> Tensor:
        return _BlockProduct.apply(columns, lambda rows: self._mass(rows, conditional=conditional), [*self._blocks()])

    def _blocks(self) -> list[slice]:
        return list(row_slices(len(self.a), len(self.b), self.b.device))

    @torch.no_grad()
    def _mass(self, rows: slice, *, conditional: bool) -> Tensor:
        """The plan of some rows; divided by its row sums if `conditional`."""
        with full_precision(self.f.device):
            cost = self.geometry.block(rows, slice(None))
            if conditional:
                return self._conditional(cost)
            exponent = torch.sub(self.g, cost).add_(self.f[rows, None]).div_(self.epsilon_absolute)
            return exponent.add_(self.b.detach().log()).add_(self.a.detach().log()[rows, None]).exp_()


class _BlockProduct(torch.autograd.Function):
    """M v for a constant matrix M that is computed anew, block by block, in both directions."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, matrix: Callable[[slice], Tensor], blocks: list[slice]) -> Tensor:
        ctx.matrix, ctx.blocks = matrix, blocks
        return torch.cat([matrix(rows) @ columns for rows in blocks])

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        products = (ctx.matrix(rows).mT @ outer[rows] for rows in ctx.blocks)
        return functools.reduce(Tensor.add_, products), None, None
