"""Descent to a local optimum of entropic or proximal Gromov-Wasserstein: linearize, transport, repeat.

    entropic   P_t+1 = argmin <grad F(P_t), P> + epsilon KL(P | a b^T)
    proximal   P_t+1 = argmin <grad F(P_t), P> + epsilon KL(P | P_t),     P_0 replaced by a b^T in the divergence

The gradient is affine in the state Z = F_x^T P F_y of `Spaces`, the only thing that is carried from step to step.
A proximal step is an entropic one with the mean of all states so far and epsilon / t: its limit has no entropy. Where
the objective bends upwards between two plans, which it never does for squared Euclidean distances, the state goes
only as far as the bound F + epsilon KL falls. Inner problems start at the last potentials and are solved as closely
as the last move asks for, in single precision while moves are large.
Peyre, Cuturi, Solomon 2016 (ICML, prop. 2); Xu, Luo, Zha, Carin 2019 (ICML, eq. 9); Rakotomamonjy, Flamary, Courty
2015 (arXiv:1510.06567, line search).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.gromov.factors import ROUNDING
from labkit.ot.gromov.spaces import Spaces
from labkit.ot.kernel import Kernel
from labkit.ot.potentials import improve, solve_potentials
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

METHODS = ("entropic", "proximal")
# The inner problems are solved closer than the outer one, whose error they would otherwise set.
INNER_RATIO = 0.1
MOVE_RATIO = 1e-3
INNER_ITERATIONS = 2000
LOOSEST_INNER = 1e-3
# Above this error potentials of the last problem are no better a start than none.
COLD_ERROR = 0.7
# Moves that single precision resolves in a problem in double precision.
SINGLE_TOLERANCE = 1e-3
# Share of the way that a step goes at least, as rounding can make a descent direction look flat.
SHORTEST_STEP = 0.05


@dataclass(frozen=True)
class Method:
    """What to minimize and when to stop; the fields are the parameters of `gromov_wasserstein` with the same names.

    Raises:
        ValueError: A field is out of its range.
    """

    epsilon: float
    name: str
    tolerance: float
    max_iterations: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.epsilon > 0 or not math.isfinite(self.epsilon):
            raise ValueError(f"epsilon={self.epsilon} must be positive: .05 is smooth, .005 nearly a permutation.")
        if self.name not in METHODS:
            raise ValueError(f"method={self.name!r} is unknown, expected one of {list(METHODS)}.")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance={self.tolerance} must be positive: the plan never stops moving exactly.")
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations={self.max_iterations} must be at least 1.")


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a descent stands. Problem and potentials are those of the last transport, in units of `Spaces.unit`.

    Attributes:
        plan: The coupling.
        cost: Linearized cost. problem: the transport problem with it that the plan solves.
        f: Source potential. g: target potential.
        change: L1 move of the plan in the last step, as a fraction of the mass; large before the first.
        marginal_error: L1 error of both marginals of the plan, as a fraction of the mass.
        z: State where the next linearization would be. x: C_x Z C_y of it in units of `unit`, times -4 alpha.
        n_iterations: Steps.
    """

    plan: Float[Tensor, "*batch n m"]
    cost: Float[Tensor, "*batch n m"]
    problem: Problem
    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    change: Float[Tensor, "*batch"]
    marginal_error: Float[Tensor, "*batch"]
    z: Float[Tensor, "*batch r s"]
    x: Float[Tensor, "*batch r s"]
    n_iterations: int

    def settled(self, tolerance: float) -> Bool[Tensor, "*batch"]:
        """Which plans moved by at most `tolerance`, with marginals within a tenth of it."""
        return (self.change <= tolerance) & (self.marginal_error <= INNER_RATIO * tolerance)


class _State:
    """Where the objective is linearized: Z, X = C_x Z C_y and what the line search knows, in units of `unit`."""

    def __init__(self, spaces: Spaces, plan: Tensor, earlier: Descent | None) -> None:
        self.spaces = spaces
        weight = 2 * spaces.alpha / spaces.unit
        rows, columns = spaces.squares
        self.constant = weight * ((rows * spaces.a).sum(-1) + (columns * spaces.b).sum(-1))
        self.rows, self.columns = rows * weight[..., None], columns * weight[..., None]
        self.weight = -2 * weight[..., None, None]
        self.fused = None
        if spaces.fused is not None:
            self.fused = (1 - spaces.alpha) * spaces.fused.detach() / spaces.unit[..., None, None]
        self.absent = not bool((spaces.a > 0).all() and (spaces.b > 0).all())
        self.z, self.x, self.fused_value = self._measure(plan, earlier)
        # Entropy of a plan that was given is not known; the first step goes all the way.
        self.entropy: Tensor | None = None
        self.steps = torch.ones_like(self.constant)

    def _measure(self, plan: Tensor, earlier: Descent | None = None) -> tuple[Tensor, Tensor, Tensor | float]:
        fused = 0.0 if self.fused is None else (self.fused * plan).sum((-2, -1))
        if earlier is not None and earlier.x.dtype == plan.dtype:
            return earlier.z, earlier.x, fused
        z = self.spaces.state(plan) if earlier is None else earlier.z.to(plan)
        return z, self.spaces.crossed(z) * self.weight, fused

    def cost(self) -> Float[Tensor, "*batch n m"]:
        """The gradient of the objective."""
        cost = self.spaces.cost_from(self.x, self.rows, self.columns)
        return cost if self.fused is None else cost.add_(self.fused)

    def problem(self, cost: Tensor, epsilon: float) -> Problem:
        """Transport with this cost; what points of weight zero cost is replaced, as it could overflow."""
        spaces = self.spaces
        if self.absent:
            massive = (spaces.a > 0)[..., :, None] & (spaces.b > 0)[..., None, :]
            cost = torch.where(massive, cost, torch.where(massive, cost, math.inf).amin((-2, -1), keepdim=True))
        return Problem(
            cost=cost,
            a=spaces.a,
            b=spaces.b,
            epsilon=epsilon,
            scale=spaces.unit,
            rho_a=math.inf,
            rho_b=math.inf,
            symmetric=False,
            absent=self.absent,
        )

    def move(self, plan: Tensor, dual: Tensor, epsilon: float, length: float | None) -> Tensor:
        """Go towards the solution of the linearized problem, by `length` or as far as the objective's bound falls.

        Args:
            plan: The solution.
            dual: Its <cost, plan> + epsilon KL.
            epsilon: Of the problem.
            length: Share of the way in (0, 1], or None for the line search.

        Returns:
            The shares gone, one per problem.
        """
        z, x, fused = self._measure(plan)
        if length is None:
            linear = self.constant + (self.x * z).sum((-2, -1)) + fused
            steps = self._search(z, x, dual, (dual - linear) / epsilon, epsilon)
        else:
            steps = torch.full_like(dual, length)
        share = steps[..., None, None]
        self.z, self.x = self.z + share * (z - self.z), self.x + share * (x - self.x)
        self.fused_value = self.fused_value + steps * (fused - self.fused_value)
        return steps

    def _search(self, z: Tensor, x: Tensor, dual: Tensor, entropy: Tensor, epsilon: float) -> Tensor:
        if self.entropy is None:
            self.entropy = entropy
            return self.steps
        here = self.constant + (self.x * self.z).sum((-2, -1)) + self.fused_value + epsilon * self.entropy
        bend = ((x - self.x) * (z - self.z)).sum((-2, -1))
        best = ((here - dual) / bend).clamp(SHORTEST_STEP, 1)
        # What falls below the rounding of the sums says nothing about the length, which then stays what it was.
        known = bend > ROUNDING * torch.finfo(bend.dtype).eps * (self.constant.abs() + dual.abs())
        self.steps = torch.where(bend > 0, torch.where(known, best, self.steps), 1.0)
        self.entropy = self.entropy + self.steps * (entropy - self.entropy)
        return self.steps


def descend(
    spaces: Spaces, plan: Float[Tensor, "*batch n m"], method: Method, earlier: Descent | None = None
) -> Descent:
    """Go from a plan, whose marginals may be rough, to a local optimum; `settled` of the result says if it got there.

    With `earlier`, a descent on a similar problem, its potentials are used and its steps are counted.
    """
    rough = (method.max_iterations - (0 if earlier is None else earlier.n_iterations)) // 2
    easy = method.name == "proximal" or method.tolerance >= SINGLE_TOLERANCE
    if easy or rough < 1 or spaces.a.dtype != torch.float64:
        return run(spaces, plan, method, earlier=earlier)
    single = replace(method, tolerance=SINGLE_TOLERANCE)
    start = run(spaces.cast(torch.float32), plan.float(), single, rough, earlier)
    if not bool(torch.isfinite(start.change + start.marginal_error).all()):
        return run(spaces, plan, method, earlier=earlier)
    return run(spaces, start.plan.double(), method, earlier=start)


def run(
    spaces: Spaces, plan: Tensor, method: Method, budget: int | None = None, earlier: Descent | None = None
) -> Descent:
    """Steps until the plan settles; with a `budget` also until an inner problem cannot be solved closely enough."""
    state, mass = _State(spaces, plan, earlier), spaces.a.sum(-1)
    potentials, taken, inner = None, 0, LOOSEST_INNER
    if earlier is not None:
        potentials, taken = (earlier.f.to(plan), earlier.g.to(plan)), earlier.n_iterations
        inner = min(inner, MOVE_RATIO * float(earlier.change.max()))
    proximal = method.name == "proximal"
    descent, spare = earlier, None
    for step in range(1, (budget or max(1, method.max_iterations - taken)) + 1):
        epsilon = method.epsilon / step if proximal else method.epsilon
        cost = state.cost()
        problem = state.problem(cost, epsilon)
        inner = max(inner, INNER_RATIO * method.tolerance)
        kernel = _transport(problem, potentials, inner)
        potentials = f, g = kernel.potentials()
        error = kernel.error()
        solution = kernel.matrix.mul_(kernel.alpha[..., :, None]).mul_(kernel.beta[..., None, :])
        spare = torch.sub(plan, solution, out=spare)
        change = spare.abs_().sum((-2, -1)) / mass
        steps = state.move(solution, _dual(problem, f, g), epsilon, 1 / (step + 1) if proximal else None)
        # After a part of the way the rest of the move is still to come.
        change = change if proximal else change / steps
        descent = Descent(solution, cost, problem, f, g, change, error, state.z, state.x, taken + step)
        if bool(descent.settled(method.tolerance).all()) or (budget is not None and float(error.max()) > inner):
            break
        plan, inner = solution, min(inner, MOVE_RATIO * float(change.max()))
    assert descent is not None  # there is at least one step
    return descent


def _transport(problem: Problem, potentials: tuple[Tensor, Tensor] | None, tolerance: float) -> Kernel:
    """Solve a linearized problem from the potentials of the one before."""
    if potentials is not None:
        kernel = Kernel(problem, *potentials, problem.epsilon)
        if kernel.trusted() and float(kernel.error().max()) < COLD_ERROR:
            improve(kernel, tolerance, INNER_ITERATIONS)
            return kernel
    f, g, _ = solve_potentials(problem, tolerance=tolerance, max_iterations=INNER_ITERATIONS)
    return Kernel(problem, f, g, problem.epsilon)


def _dual(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """<f, a> + <g, b>: the cost plus epsilon KL of the plan of these potentials, up to a constant."""
    first, second = ((w * torch.where(w > 0, p, 0.0)).sum(-1) for w, p in ((problem.a, f), (problem.b, g)))
    return first + second
