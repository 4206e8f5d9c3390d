"""The result of a transport problem: who is matched with whom, at what cost, and whether to believe it.

    plan_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon_absolute)

Consumers read a `Coupling` and need not know which solver made it. Plan, barycenter and map come from detached
potentials: they are right as numbers, and are not differentiated with respect to what the solver was given.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, PointCloud, full_precision

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class NotConvergedWarning(UserWarning):
    """A solver used up its iterations before it reached its tolerance."""


class TopMasses(NamedTuple):
    """The largest entries of each row of a plan, in falling order: column indices and masses."""

    index: Int[Tensor, "*batch n k"]
    mass: Float[Tensor, "*batch n k"]


@dataclass(frozen=True, eq=False)
class Coupling:
    """A solved transport problem.

    Attributes:
        geometry: Whose cost the potentials refer to (for Gromov-Wasserstein: the linearized cost).
        a: Source weights. b: target weights.
        f: Source potential in the cost's units. g: target potential. Both detached.
        epsilon: Relative to the scaled cost, as given.
        epsilon_absolute: In the cost's units.
        cost: <C, P> in the cost's units (for Gromov-Wasserstein its distortion); detached; lower is nearer.
        regularized_cost: Optimal value of the whole objective in the cost's units, differentiable once.
        marginal_error: |P 1 - a|_1 + |P^T 1 - b|_1 as a fraction of the mass; where a marginal is relaxed, the
            distance is to a exp(-f / rho), which an optimal plan meets.
        tolerance: What `marginal_error` had to reach.
        n_iterations: Iterations over all stages (for Gromov-Wasserstein: linearizations).
        converged: Whether every problem of the batch reached its tolerance.
    """

    geometry: Geometry
    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    epsilon: float
    epsilon_absolute: Float[Tensor, "*batch"]
    cost: Float[Tensor, "*batch"]
    regularized_cost: Float[Tensor, "*batch"]
    marginal_error: Float[Tensor, "*batch"]
    tolerance: float
    n_iterations: int
    converged: bool

    @cached_property
    def plan(self) -> Float[Tensor, "*batch n m"]:
        """Mass that goes from i to j; rows sum to a, columns to b (unless relaxed)."""
        with torch.no_grad(), full_precision(self.f.device):
            return entropic_plan(self.geometry.matrix(), self.a, self.b, self.f, self.g, self.epsilon_absolute)

    def apply(self, v: Float[Tensor, "*batch m *k"]) -> Float[Tensor, "*batch n *k"]:
        """P v for a vector [..., m] or columns [..., m, k]; differentiable in v.

        Raises:
            ValueError: v does not have one entry or row per target point.
        """
        vector = v.ndim == self.plan.ndim - 1 and v.shape[-1] == self.b.shape[-1]
        columns = self._rows_per_target(v[..., None] if vector else v, "v")
        with full_precision(self.f.device):
            result = self.plan @ columns
        return result[..., 0] if vector else result

    def barycenter(self, y: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch n k"]:
        """Where each source point goes on average: row-normalized P y / P 1; differentiable in y.

        Rows of weight zero get the limit of their normalized row. The image has less variance than y, the more
        so the larger epsilon is.

        Raises:
            ValueError: y does not have one row per target point.
        """
        rows = self._rows_per_target(y, "y")
        with full_precision(self.f.device):
            return self._conditional(self.geometry.matrix().detach()) @ rows

    def map(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d"]:
        """Entropic map of new source points; equals `barycenter(y)` on the old ones.

            T(x) = sum_j y_j softmax_j((g_j - c(x, y_j)) / epsilon_absolute + log b_j)

        Differentiable in `x_new`; potentials and targets are constants. Pooladian & Niles-Weed 2021, eq. 4.

        Raises:
            TypeError: The geometry is not a PointCloud, so new points have no cost.
            ValueError: `x_new` has another number of features, or is not finite.
        """
        if not isinstance(self.geometry, PointCloud):
            raise TypeError(
                "map needs costs from new points to the targets, and this coupling was made from a CostMatrix: "
                "use barycenter(y) for the points it was solved on, or solve with a PointCloud."
            )
        cloud = PointCloud(self.geometry.x, self.geometry.y.detach(), self.geometry.cost)
        cost = cloud.cost_from(x_new)
        with full_precision(self.f.device):
            return self._conditional(cost) @ cloud.y

    def top(self, k: int) -> TopMasses:
        """The k largest masses of each row.

        Raises:
            ValueError: k is not between 1 and the number of target points.
        """
        if not 1 <= k <= self.b.shape[-1]:
            raise ValueError(f"k={k} must be between 1 and the number of target points, {self.b.shape[-1]}.")
        mass, index = self.plan.topk(k, -1)
        return TopMasses(index, mass)

    def _conditional(self, cost: Tensor) -> Tensor:
        score = (self.g[..., None, :] - cost) / self.epsilon_absolute[..., None, None]
        return torch.softmax(score + self.b.log()[..., None, :], -1)

    def _rows_per_target(self, values: Tensor, name: str) -> Tensor:
        if values.ndim < 2 or values.shape[-2] != self.b.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}, expected one row for each of the {self.b.shape[-1]} targets."
            )
        return values.to(self.f.dtype)


def entropic_plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    """a_i b_j exp((f_i + g_j - C_ij) / epsilon), with one epsilon per problem of the batch."""
    # Weights enter as logarithms: at a point of weight zero the potentials may be too large to exponentiate.
    exponent = (f[..., :, None] + g[..., None, :] - cost).div_(epsilon[..., None, None])
    return exponent.add_(a.log()[..., :, None]).add_(b.log()[..., None, :]).exp_()


def warn_unless(converged: bool, message: str) -> None:
    """Tell the caller of the public function that called this, once for each of its lines."""
    if not converged:
        warnings.warn(message, NotConvergedWarning, stacklevel=3)
