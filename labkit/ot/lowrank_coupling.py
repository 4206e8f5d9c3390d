"""A coupling of low rank: mass goes from a source point through one of a few clusters to a target point.

    P = Q diag(1 / g) R^T,      Q 1 = a,  R 1 = b,  Q^T 1 = R^T 1 = g

Everything is read off the factors in O((n + m) rank) memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.blocks import row_slices
from labkit.ot.cost import Geometry
from labkit.ot.coupling import TopMasses

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class LowRankCoupling:
    """A solved transport problem whose plan has a given nonnegative rank.

    Attributes:
        geometry: Whose cost was transported.
        a: Source weights. b: target weights.
        source: Shares of the clusters in each source point; rows sum to 1.
        target: Shares of the clusters in each target point; rows sum to 1.
        g: Mass of the clusters.
        epsilon: Relative to the scaled cost, as given.
        epsilon_absolute: In the cost's units.
        cost: <C, P> in the cost's units; detached; never below the optimal transport cost but for the marginal error.
        cost_error: Error of the factorized cost at sampled pairs, root mean square, as a fraction of the mean cost; 0
            when the cost is exact.
        regularized_cost: The objective at the optimum that was found, differentiable once in the points.
        marginal_error: |P 1 - a|_1 + |P^T 1 - b|_1 as a fraction of the mass.
        tolerance: What the criterion of convergence had to reach.
        n_iterations: Steps of mirror descent.
        converged: Whether the criterion was reached, at a local optimum in general.
    """

    geometry: Geometry
    a: Float[Tensor, " n"]
    b: Float[Tensor, " m"]
    source: Float[Tensor, "n rank"]
    target: Float[Tensor, "m rank"]
    g: Float[Tensor, " rank"]
    epsilon: float
    epsilon_absolute: Float[Tensor, ""]
    cost: Float[Tensor, ""]
    cost_error: float
    regularized_cost: Float[Tensor, ""]
    marginal_error: Float[Tensor, ""]
    tolerance: float
    n_iterations: int
    converged: bool

    @property
    def q(self) -> Float[Tensor, "n rank"]:
        """Mass from source points to clusters."""
        return self.a[:, None] * self.source

    @property
    def r(self) -> Float[Tensor, "m rank"]:
        """Mass from clusters to target points."""
        return self.b[:, None] * self.target

    def rows(self, chosen: slice) -> Float[Tensor, "k m"]:
        """The plan of some source points, as a matrix."""
        return (self.q[chosen] / self.g) @ self.r.mT

    def apply(self, v: Tensor) -> Tensor:
        """P v for a vector [m] or columns [m, k]; differentiable in v.

        Raises:
            ValueError: v does not have one entry or row per target point.
        """
        return self.q @ self._through(v)

    def barycenter(self, y: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
        """Where each source point goes on average: P y / P 1; differentiable in y.

        Rows of weight zero get the limit of their normalized row.

        Raises:
            ValueError: y does not have one row per target point.
        """
        mass = self.source @ self._through(torch.ones_like(self.b))
        return self.source @ self._through(y) / mass[:, None]

    def top(self, k: int) -> TopMasses:
        """The k largest masses of each row, in blocks.

        Raises:
            ValueError: k is not between 1 and the number of target points.
        """
        if not 1 <= k <= len(self.b):
            raise ValueError(f"k={k} must be between 1 and the number of target points, {len(self.b)}.")
        found = [self.rows(block).topk(k, 1) for block in row_slices(len(self.a), len(self.b), self.b.device)]
        return TopMasses(torch.cat([t.indices for t in found]), torch.cat([t.values for t in found]))

    def _through(self, v: Tensor) -> Tensor:
        if v.ndim not in (1, 2) or len(v) != len(self.b):
            raise ValueError(
                f"got shape {tuple(v.shape)}, expected one entry or row for each of the {len(self.b)} targets."
            )
        passed = self.r.mT @ v.to(self.g)
        return passed / (self.g if v.ndim == 1 else self.g[:, None])
