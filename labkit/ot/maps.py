"""Maps for points that were not there when the transport was solved, for the squared Euclidean cost.

    entropic      T(x) = sum_j y_j p_j(x),  p(x) = softmax_j((g_j - |x - y_j|^2) / epsilon + log b_j)   (`Coupling.map`)
    debiased      x + T_xy(x) - T_xx(x)
    progressive   x <- x + alpha_k (T_k(x) - x), k = 1 .. K, with T_k from the moved source to the target

The entropic map pulls every image towards the mean of the target. The map of the source to itself, at the same
epsilon, has the same fault, so taking out its displacement repairs most of it: Pooladian, Cuturi, Niles-Weed 2022
("Debiaser beware", arXiv:2202.08919, sec. 3). ProgOT goes in steps of constant speed, alpha_k = 1 / (K - k + 1), each
with an epsilon for the cost that is left: Kassraie, Pooladian, Klein, Thornton, Niles-Weed, Cuturi 2024
(arXiv:2406.05061, algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.problem import Scale, Settings
from labkit.ot.sinkhorn import NOT_CONVERGED, solve

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class DebiasedMap:
    """x + T_xy(x) - T_xx(x); call it with new points.

    Attributes:
        cross: The coupling of source and target.
        itself: The coupling of the source with itself at the same absolute epsilon.
    """

    cross: Coupling
    itself: Coupling

    @property
    def converged(self) -> bool:
        """Whether both problems reached their tolerance."""
        return self.cross.converged and self.itself.converged

    @property
    def marginal_error(self) -> Float[Tensor, "*batch"]:
        """The larger one of both problems."""
        return torch.maximum(self.cross.marginal_error, self.itself.marginal_error)

    def __call__(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d"]:
        """Images of new points, differentiable in them.

        Raises:
            ValueError: `x_new` has another number of features, or is not finite.
        """
        image = self.cross.map(x_new)
        return x_new.to(image.dtype) + image - self.itself.map(x_new)

    def jacobian(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d d"]:
        """Derivative at each point, I + J_xy - J_xx: symmetric, and not always >= 0."""
        jacobian = self.cross.jacobian(x_new)
        identity = torch.eye(x_new.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
        return identity + jacobian - self.itself.jacobian(x_new)


@dataclass(frozen=True, eq=False)
class ProgressiveMap:
    """A chain of partial moves along entropic maps; call it with new points.

    Attributes:
        steps: The coupling of each step; its source is where the previous steps have brought x.
        strides: alpha_k, the part of the displacement that a step takes; 1 in the last.
    """

    steps: tuple[Coupling, ...]
    strides: tuple[float, ...]

    @property
    def converged(self) -> bool:
        """Whether the problems of all steps reached their tolerance."""
        return all(step.converged for step in self.steps)

    @property
    def marginal_error(self) -> Float[Tensor, "*batch"]:
        """The largest one of all steps."""
        return torch.stack([step.marginal_error for step in self.steps]).amax(0)

    @property
    def coupling(self) -> Coupling:
        """The coupling of the last step: whose points are matched with whose."""
        return self.steps[-1]

    def __call__(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k d"]:
        """Images of new points, differentiable in them.

        Raises:
            ValueError: `x_new` has another number of features, or is not finite.
        """
        x = x_new
        for step, stride in zip(self.steps, self.strides, strict=True):
            image = step.map(x)
            x = x.to(image.dtype).lerp(image, stride)
        return x


def debiased_map(
    x: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch m d"],
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    scale_cost: Scale = "mean",
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> DebiasedMap:
    """Entropic map from x to y without most of its bias towards the mean.

    Worth its second problem where epsilon is large. For a small one there is little bias, and the map of x to itself,
    which then returns points to their nearest neighbors, adds noise: `Coupling.map` is better.

    Args:
        x: Source points.
        y: Target points.
        a: Source weights, uniform by default.
        b: Target weights.
        epsilon: Relative to the scaled cost between x and y; both problems share its absolute value.
        scale_cost: As in `sinkhorn`.
        tolerance: L1 marginal error to reach in both problems.
        max_iterations: For each problem.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough for one of the problems.
    """
    cloud = PointCloud(x, y)
    settings = Settings(epsilon, scale_cost, 1.0, 1.0, tolerance, max_iterations)
    cross = solve(cloud, a, b, settings)
    same_epsilon = replace(settings, scale_cost=cross.epsilon_absolute / epsilon)
    result = DebiasedMap(cross, solve(PointCloud(cloud.x, cloud.x), a, a, same_epsilon))
    warn_unless(result.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    return result


def progressive_map(
    x: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch m d"],
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    n_steps: int = 4,
    epsilon: float = 0.05,
    scale_cost: Scale = "mean",
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> ProgressiveMap:
    """Map from x to y in steps, less biased than the plain entropic map at the same relative epsilon (ProgOT).

    Each step only has to point the way. More steps are not always better: each adds its sampling error.

    Args:
        x: Source points.
        y: Target points.
        a: Source weights, uniform by default.
        b: Target weights.
        n_steps: Number of transport problems; 1 is the plain entropic map.
        epsilon: Relative to the scaled cost of each step, from where x is by then: its absolute value falls.
        scale_cost: As in `sinkhorn`, in each step.
        tolerance: L1 marginal error to reach in each step.
        max_iterations: For each step.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough for one of the steps.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps} must be at least 1.")
    cloud = PointCloud(x, y)
    source, init = cloud.x, None
    steps, strides = [], [1 / (n_steps - k) for k in range(n_steps)]
    settings = Settings(epsilon, scale_cost, 1.0, 1.0, tolerance, max_iterations)
    for stride in strides:
        steps.append(solve(PointCloud(source, cloud.y), a, b, settings, init))
        # What is left to do after a step costs about so much less, and so do its potentials.
        init = ((1 - stride) * steps[-1].f, (1 - stride) * steps[-1].g)
        source = source.lerp(steps[-1].barycenter(cloud.y), stride)
    result = ProgressiveMap(tuple(steps), tuple(strides))
    warn_unless(result.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    return result
