"""Costs as products of two thin factors, C = U V^T, so that C times a matrix is linear in the number of points.

Exact for squared Euclidean (rank d + 2) and cosine costs (rank d + 1). For others a matrix that is small enough is its
own factor, and a large one is interpolated between landmarks, C ~ C[:, J] C[I, J]^+ C[I, :], with more rows I than
columns J, and an error that is measured at sampled pairs (Mahoney & Drineas 2009, PNAS 106, CUR decomposition).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.blocks import part
from labkit.ot.cost import Geometry, PointCloud
from labkit.ot.stream import streamable

if TYPE_CHECKING:
    from jaxtyping import Float

LANDMARKS = 128
OVERSAMPLING = 4
# Singular values of the landmark block below this fraction of the largest add more noise than they explain.
CUTOFF = 1e-3
PROBES = 512


class CostFactors(NamedTuple):
    """C = left @ right^T.

    Attributes:
        left: Factor of the sources.
        right: Factor of the targets; None if `left` is the matrix itself.
        error: Root mean square of the error at sampled pairs, in the cost's units; 0 if the factors are exact.
    """

    left: Float[Tensor, "n k"]
    right: Float[Tensor, "m k"] | None
    error: float

    def times(self, target: Float[Tensor, "m r"]) -> Float[Tensor, "n r"]:
        """C times a matrix."""
        return self.left @ (target if self.right is None else self.right.mT @ target)

    def transposed_times(self, source: Float[Tensor, "n r"]) -> Float[Tensor, "m r"]:
        """C^T times a matrix."""
        product = self.left.mT @ source
        return product if self.right is None else self.right @ product

    def some_rows(self, index: Tensor) -> Float[Tensor, "k m"]:
        """Rows of C."""
        return self.left[index] if self.right is None else self.left[index] @ self.right.mT

    def some_columns(self, index: Tensor) -> Float[Tensor, "n k"]:
        """Columns of C."""
        return self.left[:, index] if self.right is None else self.left @ self.right[index].mT

    def detached(self) -> CostFactors:
        """The same without gradients."""
        return CostFactors(self.left.detach(), None if self.right is None else self.right.detach(), self.error)

    def double(self) -> CostFactors:
        """The same in double precision."""
        return CostFactors(self.left.double(), None if self.right is None else self.right.double(), self.error)


def factorize(geometry: Geometry) -> CostFactors:
    """Factors of a cost, differentiable in the points or the matrix.

    Raises:
        ValueError: The cost is too large for a matrix and cannot be computed in blocks.
    """
    if isinstance(geometry, PointCloud) and geometry.cost == "sqeuclidean":
        shift = geometry.y.detach().mean(0)
        x, y = geometry.x - shift, geometry.y - shift
        ones = torch.ones_like(x[:, :1]), torch.ones_like(y[:, :1])
        left = torch.cat((x.square().sum(1, keepdim=True), ones[0], -2 * x), 1)
        return CostFactors(left, torch.cat((ones[1], y.square().sum(1, keepdim=True), y), 1), 0.0)
    if isinstance(geometry, PointCloud) and geometry.cost == "cosine":
        x, y = (
            z / torch.where(norm > 0, norm, 1.0)
            for z in (geometry.x, geometry.y)
            for norm in (torch.linalg.vector_norm(z, dim=1, keepdim=True),)
        )
        return CostFactors(
            torch.cat((torch.ones_like(x[:, :1]), -x), 1), torch.cat((torch.ones_like(y[:, :1]), y), 1), 0.0
        )
    if not streamable(geometry):
        return CostFactors(geometry.matrix(), None, 0.0)
    n, m = geometry.shape
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randperm(k, generator=generator).to(geometry.device) for k in (n, m))
    every_row, every_column = (torch.arange(k, device=geometry.device) for k in (n, m))
    # More rows than columns: a square block can be nearly singular, least squares over many rows is stable.
    rows_here = rows[: OVERSAMPLING * LANDMARKS]
    left = part(geometry, every_row, columns[:LANDMARKS]).matrix()
    middle = torch.linalg.pinv(left[rows_here].detach(), rtol=CUTOFF)
    right = part(geometry, rows_here, every_column).matrix().mT @ middle.mT
    some_rows, some_columns = rows[-PROBES:], columns[-PROBES:]
    probes = part(geometry, some_rows, some_columns).matrix() - left[some_rows] @ right[some_columns].mT
    return CostFactors(left, right, float(probes.detach().square().mean().sqrt()))
