"""Derivatives of the potentials by the implicit function theorem: one linear solve, nothing is unrolled.

Optimal potentials solve f_i + tau_a epsilon log sum_j b_j exp((g_j - C_ij) / epsilon) = 0 and the like for g. With
the plan P and its sums r, c, a loss L of (f, g) is pulled back by

    [ r / tau_a    P      ] [u]   [dL / df]        dL / dC_ij =  P_ij (u_i + v_j)
    [ P^T        c / tau_b] [v] = [dL / dg],       dL / da_i  = -epsilon (P v)_i / a_i,   dL / db_j likewise.

With both marginals fixed f + t, g - t are the same potentials. They are returned with <a, f> = <b, g>, which a loss
on them may rely on; what does not depend on t has the same derivative in any case. Absolute epsilon is a constant.
Luise et al. 2018 (NeurIPS); Eisenberger et al. 2022 (CVPR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from labkit.ot.adjoint import solve_adjoint
from labkit.ot.cost import COSTS, full_precision
from labkit.ot.newton import row_times
from labkit.ot.plan import Pullback, entropic_plan, row_blocks

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Solution:
    """Optimal potentials in the cost's units with what they solve; all tensors detached.

    Attributes:
        f: Source potential. g: target potential.
        epsilon: Absolute, one per problem of the batch.
        tau_a: 1 for a fixed source marginal, rho_a / (rho_a + epsilon) otherwise. tau_b likewise.
    """

    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    epsilon: Float[Tensor, "*batch"]
    tau_a: float
    tau_b: float

    def weight_partials(self, f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Partial derivatives of the optimal value with respect to a and b, as functions of what they depend on."""
        epsilon = self.epsilon[..., None]
        partials = []
        for potential, tau, other in ((f, self.tau_a, b), (g, self.tau_b, a)):
            mass = other.sum(-1, keepdim=True)
            if tau == 1:
                partials.append(potential - epsilon * (1 - mass))
                continue
            # Optimal potentials have sum_j b_j exp((f_i + g_j - C_ij) / epsilon) = exp(-f_i / rho).
            rho = epsilon * tau / (1 - tau)
            excess = torch.expm1(-potential / rho)
            partials.append(-rho * excess - epsilon * (excess + 1 - mass))
        return partials[0], partials[1]


def with_implicit_gradient(
    solution: Solution,
    cost: str | None,
    arguments: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """The potentials (f, g), differentiable once in the arguments.

    Args:
        solution: What was found for these arguments.
        cost: Name of the cost if the arguments hold two clouds, None if they hold a matrix.
        arguments: (a, b, x, y) or (a, b, matrix), where a and b have equal masses if both marginals are fixed.
    """
    a, b = arguments[:2]
    f, g = solution.f, solution.g
    if torch.is_grad_enabled() and any(t.requires_grad for t in arguments):
        f, g = _Implicit.apply(solution, cost, *arguments)
    if solution.tau_a == solution.tau_b == 1:
        shift = ((a * f).sum(-1) - (b * g).sum(-1)) / (a.sum(-1) + b.sum(-1))
        f, g = f - shift[..., None], g + shift[..., None]
    return f, g


class _Refuse(torch.autograd.Function):
    """A value that depends on others in a way that is not differentiated: asking for it raises."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *dependencies: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "this derivative of transport is of too high an order: a value has first and second ones, a plan, "
            "potentials or a map first ones only. Take the gradient without create_graph, or detach it."
        )


class _Implicit(torch.autograd.Function):
    """The potentials as functions of (a, b, x, y) or (a, b, matrix)."""

    @staticmethod
    def forward(ctx: Any, solution: Solution, cost: str | None, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solution, ctx.cost = solution, cost
        ctx.save_for_backward(*arguments)
        return solution.f.clone(), solution.g.clone()

    @staticmethod
    def backward(ctx: Any, grad_f: Tensor, grad_g: Tensor) -> tuple[Tensor | None, ...]:
        arguments = ctx.saved_tensors
        if torch.is_grad_enabled():
            arguments = tuple(_Refuse.apply(t) for t in arguments)
        return None, None, *_Adjoint.apply(ctx.solution, ctx.cost, grad_f, grad_g, *arguments)


class _Adjoint(torch.autograd.Function):
    """Gradients for the arguments, linear in those for the potentials; its transpose is the forward derivative."""

    @staticmethod
    def forward(
        ctx: Any, solution: Solution, cost: str | None, grad_f: Tensor, grad_g: Tensor, *arguments: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.solution, ctx.cost = solution, cost
        ctx.save_for_backward(*arguments)
        with full_precision(grad_f.device):
            return _pull_back(solution, cost, arguments, (grad_f, grad_g))

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        arguments = ctx.saved_tensors
        with torch.no_grad(), full_precision(directions[0].device):
            tangents = _push_forward(ctx.solution, ctx.cost, arguments, directions)
        if torch.is_grad_enabled():
            tangents = tuple(_Refuse.apply(t, *directions, *arguments) for t in tangents)
        return None, None, *tangents, *(None for _ in arguments)


class SecondPartials:
    """Partial derivatives of an optimal value as differentiable functions of what it depends on.

    Attributes:
        solution: The optimum.
        cost: As in `with_implicit_gradient`.
        arguments: As there, detached.
        live: Which of the arguments are differentiated; only those are passed when called.
    """

    def __init__(self, solution: Solution, cost: str | None, arguments: tuple[Tensor, ...]) -> None:
        self.solution, self.cost = solution, cost
        self.arguments = tuple(t.detach() for t in arguments)
        self.live = tuple(t.requires_grad for t in arguments)

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """One partial derivative for each given argument."""
        left = iter(given)
        # A view of each, so that x and y stay two arguments where they are one tensor.
        a, b, *sources = (
            next(left).view_as(fixed) if live else fixed for fixed, live in zip(self.arguments, self.live, strict=True)
        )
        with full_precision(a.device):
            f, g = with_implicit_gradient(self.solution, self.cost, (a, b, *sources))
            cost = _cost_of(self.cost, tuple(sources))
            plan = entropic_plan(cost, a, b, f, g, self.solution.epsilon)
            partials = [*self.solution.weight_partials(f, g, a, b)]
            if self.cost is None:
                partials.append(plan)
            else:
                wanted = [s for s, live in zip(sources, self.live[2:], strict=True) if live]
                found = iter(torch.autograd.grad(cost, wanted, plan, create_graph=True) if wanted else ())
                partials += [next(found) if live else plan for live in self.live[2:]]
        return tuple(p for p, live in zip(partials, self.live, strict=True) if live)


def _cost_of(cost: str | None, sources: tuple[Tensor, ...]) -> Tensor:
    if cost is None:
        return sources[0]
    x, y = sources
    return COSTS[cost](x, y)


def _plan_of(solution: Solution, cost: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return entropic_plan(cost, *weights, solution.f, solution.g, solution.epsilon)


def _pull_back(
    solution: Solution, cost: str | None, arguments: tuple[Tensor, ...], outer: tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Gradients for the arguments from those for (f, g)."""
    (a, b), sources = arguments[:2], arguments[2:]
    matrix = _cost_of(cost, sources)
    listening = _listening(solution, matrix, (a, b), outer)
    plan = _plan_of(solution, matrix, (a, b))
    del matrix
    of_f, of_g = (torch.where(w > 0, grad, 0.0) for w, grad in zip((a, b), outer, strict=True))
    if listening is not None:
        of_f, of_g = of_f - listening.sum(-1), of_g - listening.sum(-2)
    u, v = solve_adjoint(plan, of_f, of_g, tau_a=solution.tau_a, tau_b=solution.tau_b)
    by_row, by_column = row_times(v, plan.mT), row_times(u, plan)
    for block in row_blocks(plan.shape, plan.device):
        plan[..., block, :].mul_(u[..., block, None] + v[..., None, :])
    if listening is not None:
        plan += listening
        by_row, by_column = by_row + listening.sum(-1), by_column + listening.sum(-2)
    epsilon = solution.epsilon[..., None]
    grads = -epsilon * _share(by_row, a), -epsilon * _share(by_column, b)
    if cost is None:
        return *grads, plan
    x, y = sources
    pullback = Pullback(x, y, cost)
    for block in row_blocks(plan.shape, plan.device):
        pullback.add(block, plan[..., block, :])
    return *grads, *pullback.gradients(plan.sum(-1), plan.sum(-2))


def _push_forward(
    solution: Solution, cost: str | None, arguments: tuple[Tensor, ...], directions: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Derivatives of (f, g) when the arguments move in the given directions."""
    (a, b), sources = arguments[:2], arguments[2:]
    matrix = _cost_of(cost, sources)
    moved = directions[2] if cost is None else _cost_direction(cost, sources, directions[2:])
    epsilon = solution.epsilon[..., None]
    of_a, of_b = (epsilon * _share(d, w) for d, w in zip(directions[:2], (a, b), strict=True))
    plan = _plan_of(solution, matrix, (a, b))
    change = plan * moved
    of_f, of_g = change.sum(-1) - row_times(of_b, plan.mT), change.sum(-2) - row_times(of_a, plan)
    f, g = solve_adjoint(plan, of_f, of_g, tau_a=solution.tau_a, tau_b=solution.tau_b)
    by_row, by_column = _conditionals(solution, matrix, (a, b))
    f_silent = solution.tau_a * (by_row * (moved - (g + of_b)[..., None, :])).sum(-1)
    g_silent = solution.tau_b * (by_column * (moved - (f + of_a)[..., :, None])).sum(-2)
    return torch.where(a > 0, f, f_silent), torch.where(b > 0, g, g_silent)


def _cost_direction(cost: str, sources: tuple[Tensor, ...], directions: tuple[Tensor, ...]) -> Tensor:
    """How the cost matrix changes when the points move: the transpose of its pullback, by a second backward pass."""
    with torch.enable_grad():
        points = tuple(s.detach().requires_grad_() for s in sources)
        matrix = COSTS[cost](*points)
        weights = torch.zeros_like(matrix, requires_grad=True)
        grads = torch.autograd.grad(matrix, points, weights, create_graph=True)
    return torch.autograd.grad(grads, weights, directions)[0]


def _conditionals(solution: Solution, cost: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Where the mass of each row goes and that of each column comes from, as shares; also for weights of zero."""
    (a, b), epsilon = weights, solution.epsilon[..., None, None]
    by_row = torch.softmax((solution.g[..., None, :] - cost) / epsilon + b.log()[..., None, :], -1)
    by_column = torch.softmax((solution.f[..., :, None] - cost) / epsilon + a.log()[..., :, None], -2)
    return by_row, by_column


def _listening(
    solution: Solution, cost: Tensor, weights: tuple[Tensor, Tensor], outer: tuple[Tensor, Tensor]
) -> Tensor | None:
    """Derivative of the loss by the costs of points of weight zero, whose potentials follow those of the others.

    f_i = -tau_a epsilon log sum_j b_j exp((g_j - C_ij) / epsilon), which nothing else depends on.
    """
    silent = [torch.where(w > 0, 0.0, grad) for w, grad in zip(weights, outer, strict=True)]
    if not any(bool(s.any()) for s in silent):
        return None
    by_row, by_column = _conditionals(solution, cost, weights)
    return by_row * solution.tau_a * silent[0][..., :, None] + by_column * solution.tau_b * silent[1][..., None, :]


def _share(sums: Tensor, weights: Tensor) -> Tensor:
    """The quotient, and 0 for weights of zero."""
    return torch.where(weights > 0, sums / torch.where(weights > 0, weights, 1.0), 0.0)
