"""Partial Gromov-Wasserstein: match a given mass of two spaces, and choose which.

    min_P  alpha G(P) + (1 - alpha) <M, P>
           + epsilon [KL(P | a b^T) + KL(a - P 1 | (|a| - s) a) + KL(b - P^T 1 | (|b| - s) b)]
    P >= 0,   P 1 <= a,   P^T 1 <= b,   |P| = s

Each linearized problem is partial transport, which is balanced transport with one more point on each side (see
`labkit.ot.partial`). Chapel, Alaya, Gasso 2020 (NeurIPS, section 3.3), with entropy and a line search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.loop import (
    INNER_ITERATIONS,
    NOT_CONVERGED,
    ConditionalGradient,
    conclude,
    iterate,
    relative_entropy,
)
from labkit.ot.gromov.spaces import Spaces, checked_plan, make_spaces
from labkit.ot.partial import with_slack
from labkit.ot.problem import Settings

if TYPE_CHECKING:
    from jaxtyping import Float


def partial_gromov_wasserstein(
    geom_x: Geometry | InnerProduct,
    geom_y: Geometry | InnerProduct,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    mass: float,
    epsilon: float = 0.05,
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
    rank: int | None = None,
    init_plan: Float[Tensor, "*batch n m"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> Coupling:
    """Couple the parts of two spaces that are most alike, of a given mass.

    Args:
        geom_x: Distances within the first space, as in `gromov_wasserstein`.
        geom_y: Distances within the second space.
        a: Weights of the first space, uniform by default: the most that may leave each point.
        b: Weights of the second space: the most that may arrive. The totals may differ.
        mass: How much is matched, in (0, min(|a|, |b|)], in the units of the weights.
        epsilon: Strength of the entropy, relative as in `gromov_wasserstein`.
        scale_cost: "mean" or None, as in `gromov_wasserstein`.
        fused_cost: M, a cost between points of the two spaces.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.
        rank: Truncate distances without exact factors to this rank; None keeps them exact.
        init_plan: Where to start; proportional to a b^T by default.
        tolerance: L1 distance, as a fraction of the mass, between the plan and the solution of the problem linearized
            at it.
        max_iterations: Steps.

    Returns:
        The coupling. `cost` is alpha G + (1 - alpha) <M, P>; `regularized_cost` adds the entropy and is differentiable
        once in both geometries and `fused_cost`, not in the weights. `marginal_error` counts what is matched and what
        stays, against a and b.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    settings = Settings(epsilon, None, 1.0, 1.0, tolerance, max_iterations)
    with full_precision(geom_x.device):
        spaces = make_spaces((geom_x, geom_y), (a, b), scale_cost, (fused_cost, alpha), rank=rank, balanced=False)
        with torch.no_grad():
            start = spaces.product() if init_plan is None else checked_plan(init_plan, spaces)
            problem = _Partial(spaces, settings, mass, start)
            start = start * (mass / start.sum((-2, -1)))[..., None, None]
            descent = ConditionalGradient(spaces, problem.minimize, problem.regularizer)
            settled = iterate(descent, start, tolerance=tolerance, max_iterations=max_iterations)
            regularizer = problem.regularizer(settled.coupling.plan)
        message = NOT_CONVERGED.format(
            name="Partial Gromov-Wasserstein", tolerance=tolerance, max_iterations=max_iterations
        )
        warn_unless(settled.converged, message)
        return conclude(spaces, settled, regularizer)


class _Partial:
    """The linearized problem and its regularizer; remembers potentials to start from."""

    def __init__(self, spaces: Spaces, settings: Settings, mass: float, like: Tensor) -> None:
        self.epsilon, self.unit = settings.epsilon, spaces.unit
        self.slack = with_slack(spaces.a, spaces.b, mass, like)
        self.potentials: tuple[Tensor, Tensor] | None = None

    def minimize(self, cost: Tensor, plan: Tensor, tolerance: float) -> Coupling:
        """The best plan of the given mass."""
        settings = Settings(self.epsilon, self.unit, 1.0, 1.0, tolerance, INNER_ITERATIONS)
        extended = self.slack.solve(cost, settings, self.potentials)
        self.potentials = extended.f, extended.g
        return self.slack.visible(extended, CostMatrix(cost))

    def regularizer(self, plan: Tensor) -> Tensor:
        """The entropy of what moves and of what stays."""
        entropy = relative_entropy(self.slack.extend(plan), *self.slack.weights)
        return self.epsilon * self.unit * (entropy - self.slack.left_a * self.slack.left_b)
