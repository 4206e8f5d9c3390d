"""The result of a transport problem: who is matched with whom, at what cost, and whether to believe it.

    plan_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon_absolute)

Consumers read a `Coupling` and need not know which solver made it. From `sinkhorn` everything but the figures on
convergence is differentiable: potentials, plan, barycenter and map by the implicit function theorem (`implicit.py`),
which costs nothing unless a gradient is asked for.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import Geometry, PointCloud, full_precision
from labkit.ot.gap import duality_gap
from labkit.ot.plan import entropic_plan, log_weights, row_blocks
from labkit.ot.rounding import round_to_permutation

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
        f: Source potential in the cost's units. g: target potential. With both marginals fixed <a, f> = <b, g>.
        epsilon: Relative to the scaled cost, as given.
        epsilon_absolute: In the cost's units.
        cost: <C, P> in the cost's units (for Gromov-Wasserstein its distortion); detached; lower is nearer.
        regularized_cost: Optimal value of the whole objective in the cost's units.
        marginal_error: |P 1 - a|_1 + |P^T 1 - b|_1 as a fraction of the mass; where a marginal is relaxed, the
            distance is to a exp(-f / rho), which an optimal plan meets.
        tolerance: What `marginal_error` had to reach.
        n_iterations: Iterations over all stages (for Gromov-Wasserstein: linearizations).
        converged: Whether every problem of the batch reached its tolerance.
        tau_a: rho_a / (rho_a + epsilon) if the source marginal is relaxed, 1 if it is fixed. tau_b likewise.
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
    tau_a: float = 1.0
    tau_b: float = 1.0

    @cached_property
    @torch.no_grad()
    def dual_gap(self) -> Float[Tensor, "*batch"]:
        """Bound on the distance of `regularized_cost` to the optimum, in the cost's units, >= 0, 0 at best.

        The objective of a feasible plan made from this one, minus the dual value; both enclose the optimum, up to
        rounding. Costs two passes over the matrix when first asked for. Infinite if rounding to the marginals would
        need forbidden pairs. For Gromov-Wasserstein it is that of the last linearized problem.
        """
        with full_precision(self.f.device):
            weights, potentials = (self.a, self.b), (self.f, self.g)
            return duality_gap(self.geometry, weights, potentials, self.epsilon_absolute, (self.tau_a, self.tau_b))

    @property
    def plan(self) -> Float[Tensor, "*batch n m"]:
        """Mass that goes from i to j; rows sum to a, columns to b (unless relaxed). Kept once it was asked for."""
        return self._live_plan if self._is_live() else self._fixed_plan

    @cached_property
    def _live_plan(self) -> Tensor:
        with full_precision(self.f.device):
            return entropic_plan(self.geometry.matrix(), self.a, self.b, self.f, self.g, self.epsilon_absolute)

    @cached_property
    def _fixed_plan(self) -> Tensor:
        if "_live_plan" in self.__dict__:
            return self._live_plan.detach()
        with torch.no_grad(), full_precision(self.f.device):
            return entropic_plan(self.geometry.matrix(), self.a, self.b, self.f, self.g, self.epsilon_absolute)

    def _is_live(self) -> bool:
        """Whether derivatives are wanted now and were when this was solved."""
        return torch.is_grad_enabled() and self.f.requires_grad

    def apply(self, v: Float[Tensor, "*batch m *k"]) -> Float[Tensor, "*batch n *k"]:
        """P v for a vector [..., m] or columns [..., m, k].

        Raises:
            ValueError: v does not have one entry or row per target point.
        """
        vector = v.ndim == self.plan.ndim - 1 and v.shape[-1] == self.b.shape[-1]
        columns = self._rows_per_target(v[..., None] if vector else v, "v")
        with full_precision(self.f.device):
            result = self.plan @ columns
        return result[..., 0] if vector else result

    def barycenter(self, y: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch n k"]:
        """Where each source point goes on average: row-normalized P y / P 1.

        Rows of weight zero get the limit of their normalized row. The image has less variance than y, the more
        so the larger epsilon is.

        Raises:
            ValueError: y does not have one row per target point.
        """
        rows = self._rows_per_target(y, "y")
        with full_precision(self.f.device):
            return self._conditional(self.geometry.matrix() if self._is_live() else self._fixed_cost()) @ rows

    def map(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d"]:
        """Entropic map of new source points; equals `barycenter(y)` on the old ones.

            T(x) = sum_j y_j softmax_j((g_j - c(x, y_j)) / epsilon_absolute + log b_j)

        Differentiable in `x_new` any number of times. Pooladian & Niles-Weed 2021, eq. 4.

        Raises:
            TypeError: The geometry is not a PointCloud, so new points have no cost.
            ValueError: `x_new` has another number of features, or is not finite.
        """
        cloud = self._targets()
        with full_precision(self.f.device):
            return self._conditional(cloud.cost_from(x_new)) @ cloud.y

    def _targets(self) -> PointCloud:
        if not isinstance(self.geometry, PointCloud):
            raise TypeError(
                "map needs costs from new points to the targets, and this coupling was made from a CostMatrix: "
                "use barycenter(y) for the points it was solved on, or solve with a PointCloud."
            )
        y = self.geometry.y if self._is_live() else self.geometry.y.detach()
        return PointCloud(self.geometry.x, y, self.geometry.cost)

    def jacobian(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d d"]:
        """Derivative of `map` at each point: entry [..., k, i, j] is dT_i / dx_j.

        With c the cost and p the distribution to which x is sent, J = -Cov_p(y, grad_x c(x, y)) / epsilon, for the
        squared distance J = (2 / epsilon) Cov_p(y), symmetric and >= 0. Differentiable.

        Raises:
            TypeError: The geometry is not a PointCloud.
            ValueError: `x_new` has another number of features, or is not finite.
        """
        if isinstance(self.geometry, PointCloud) and self.geometry.cost == "sqeuclidean":
            return self._covariance(x_new) * (2 / self.epsilon_absolute)[..., None, None, None]
        wanted = torch.is_grad_enabled() and (x_new.requires_grad or self.f.requires_grad)
        with torch.enable_grad():
            points = x_new if x_new.requires_grad else x_new.detach().requires_grad_()
            image = self.map(points)
            rows = [
                torch.autograd.grad(column.sum(), points, retain_graph=True, create_graph=wanted)[0]
                for column in image.unbind(-1)
            ]
        return torch.stack(rows, -2)

    def _covariance(self, x_new: Tensor) -> Tensor:
        """Covariance of the targets under the distribution to which each point is sent."""
        image, cloud = self.map(x_new), self._targets()
        covariances = []
        with full_precision(self.f.device):
            n, (m, d) = image.shape[-2], cloud.y.shape[-2:]
            for rows in row_blocks((*image.shape[:-2], n, m * d), image.device):
                share = self._conditional(cloud.cost_from(x_new[..., rows, :]))
                # About the image itself: a second moment minus the square of the first would cancel.
                spread = cloud.y[..., None, :, :] - image[..., rows, None, :]
                covariances.append((share[..., None] * spread).mT @ spread)
        return torch.cat(covariances, -3)

    def top(self, k: int) -> TopMasses:
        """The k largest masses of each row.

        Raises:
            ValueError: k is not between 1 and the number of target points.
        """
        if not 1 <= k <= self.b.shape[-1]:
            raise ValueError(f"k={k} must be between 1 and the number of target points, {self.b.shape[-1]}.")
        mass, index = self.plan.topk(k, -1)
        return TopMasses(index, mass)

    def round(self) -> Int[Tensor, "*batch n"]:
        """The target of each source point under the one-to-one assignment that carries the most mass, or -1."""
        return round_to_permutation(self.plan)

    def _conditional(self, cost: Tensor) -> Tensor:
        score = (self.g[..., None, :] - cost) / self.epsilon_absolute[..., None, None]
        return torch.softmax(score + log_weights(self.b)[..., None, :], -1)

    def _fixed_cost(self) -> Tensor:
        with torch.no_grad():
            return self.geometry.matrix()

    def _rows_per_target(self, values: Tensor, name: str) -> Tensor:
        if values.ndim < 2 or values.shape[-2] != self.b.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}, expected one row for each of the {self.b.shape[-1]} targets."
            )
        return values.to(self.f.dtype)


def dual_part(weights: Tensor, potential: Tensor, rho: float | Tensor) -> Tensor:
    """What one marginal adds to the dual value: <a, f>, or <a, -rho (exp(-f / rho) - 1)> for a finite rho."""
    potential = torch.where(weights > 0, potential, 0.0)
    if isinstance(rho, float) and math.isinf(rho):
        return (weights * potential).sum(-1)
    return (weights * -rho * torch.expm1(-potential / rho)).sum(-1)


def warn_unless(converged: bool, message: str) -> None:
    """Tell the caller of the public function that called this, once for each of its lines."""
    if not converged:
        warnings.warn(message, NotConvergedWarning, stacklevel=3)
