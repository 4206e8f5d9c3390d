"""The outer loop of the Gromov-Wasserstein variants: linearize, transport, move, until the plan stays where it is.

    minimize  alpha G(P) + (1 - alpha) <M, P> + R(P)      over a convex set, R convex (an entropy)
    Q = argmin <grad_k, Q> + R(Q),      P_{k+1} = P_k + t (Q - P_k)

G is a quadratic form, so that the step with the least upper bound G + (1 - t) R(P) + t R(Q) is known in closed form
and the objective does not rise, unless that step is shorter than SHORTEST_STEP. t = 1 wherever G is concave, which is
the usual case for fixed marginals; where a marginal is free, G bends upwards and plain linearization runs into
cycles. Generalized conditional gradient: Bredies, Lorenz, Maass 2009 (Comput. Optim. Appl. 42); for transport
Rakotomamonjy, Flamary, Courty 2015 (arXiv:1510.06567).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.coupling import Coupling
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.gromov.spaces import Spaces, gradient_terms

if TYPE_CHECKING:
    from jaxtyping import Float

# The inner problems are solved closer than the outer one, whose error they would otherwise set.
INNER_RATIO = 0.1
INNER_ITERATIONS = 2000
# No inner problem needs to be closer than this share of the last move, or than this at the start.
LOOSEST_INNER = 1e-2
# Inner errors can make a descent direction look flat, and the loop stall; a step of this length goes on regardless.
SHORTEST_STEP = 0.05
NOT_CONVERGED = (
    "{name} did not settle to tolerance={tolerance} in max_iterations={max_iterations}: raise epsilon or "
    "max_iterations, accept a larger tolerance, or start nearer by init_plan."
)


class Step(NamedTuple):
    """One step of a loop: the solution of the linearized problem, the plan to linearize at next, the inner error."""

    coupling: Coupling
    plan: Tensor
    marginal_error: Tensor


class Settled(NamedTuple):
    """Where a loop ended, after how many steps, and whether the plan had stopped moving."""

    coupling: Coupling
    n_iterations: int
    converged: bool


def iterate(
    step: Callable[[Tensor, float], Step],
    plan: Float[Tensor, "*batch n m"],
    *,
    tolerance: float,
    max_iterations: int,
) -> Settled:
    """Repeat `step(plan, inner_tolerance)` until its solution is the plan that it was linearized at.

    Converged means: within `tolerance` in L1 as a fraction of the mass, with marginals within a tenth of it.

    Raises:
        FloatingPointError: The plan is not finite or has no mass left.
    """
    tightest, inner, change = INNER_RATIO * tolerance, LOOSEST_INNER, float("inf")
    for n_iterations in range(1, max_iterations + 1):
        inner = max(tightest, min(inner, INNER_RATIO * change))
        coupling, moved, error = step(plan, inner)
        solution = coupling.plan
        change = float(((solution - plan).abs().sum((-2, -1)) / solution.sum((-2, -1))).max())
        plan = moved
        if not math.isfinite(change):
            raise FloatingPointError(
                "the plan overflowed or lost all of its mass: epsilon, or the price of leaving mass, is too small for "
                "the range of the distances. Raise epsilon or tau_a and tau_b, use float64, or start by init_plan."
            )
        if change <= tolerance and bool((error <= tightest).all()):
            return Settled(coupling, n_iterations, True)
    return Settled(coupling, max_iterations, False)


class ConditionalGradient:
    """Steps for `iterate` on a problem with a convex feasible set, by the line search described above.

    Args:
        spaces: The structure and the fused cost.
        minimize: (cost, plan, tolerance) -> the coupling that minimizes <cost, Q> + R(Q) over the set.
        regularizer: R, one value per problem.
    """

    def __init__(
        self,
        spaces: Spaces,
        minimize: Callable[[Tensor, Tensor, float], Coupling],
        regularizer: Callable[[Tensor], Tensor],
    ) -> None:
        self.spaces, self.minimize, self.regularizer = spaces, minimize, regularizer
        self.gradient: Tensor | None = None

    def __call__(self, plan: Tensor, tolerance: float) -> Step:
        """Solve the linearized problem and go towards its solution, all the way if that is no mistake."""
        gradient = self.spaces.gradient(plan) if self.gradient is None else self.gradient
        coupling = self.minimize(gradient, plan, tolerance)
        direction = coupling.plan - plan
        # The gradient is affine in the plan: its change over the step is all that the line search needs.
        bend = self.spaces.gradient(coupling.plan) - gradient
        slope = (gradient * direction).sum((-2, -1)) + self.regularizer(coupling.plan) - self.regularizer(plan)
        curvature = (bend * direction).sum((-2, -1))
        overshoots = slope + curvature / 2 > 0
        length = torch.where(overshoots, (-slope / curvature).clamp(SHORTEST_STEP, 1), 1)[..., None, None]
        self.gradient = gradient + length * bend
        return Step(coupling, plan + length * direction, coupling.marginal_error)


def relative_entropy(
    plan: Float[Tensor, "*batch n m"], a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch"]:
    """KL(P | a b^T) = sum P log(P / ab) - P + ab; where ab = 0 the plan has no mass either."""
    p, q = plan.sum(-1), plan.sum(-2)
    own = torch.special.entr(plan).sum((-2, -1))
    cross = sum((m * torch.where(w > 0, w, 1.0).log()).sum(-1) for m, w in ((p, a), (q, b)))
    return a.sum(-1) * b.sum(-1) - p.sum(-1) - own - cross


def conclude(spaces: Spaces, settled: Settled, regularizer: Float[Tensor, "*batch"]) -> Coupling:
    """The coupling with cost alpha G + (1 - alpha) <M, P>, and that plus `regularizer` with envelope gradients."""
    plan = settled.coupling.plan
    cost = spaces.objective(plan)
    regularized = cost + regularizer
    if torch.is_grad_enabled():
        regularized = with_envelope_gradient(regularized, *gradient_terms(spaces, plan))
    return replace(
        settled.coupling,
        cost=cost,
        regularized_cost=regularized,
        n_iterations=settled.n_iterations,
        converged=settled.converged,
    )
