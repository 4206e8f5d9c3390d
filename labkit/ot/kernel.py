"""The kernel of an entropic transport problem that has absorbed potentials, and Sinkhorn's pass in scaling form.

    K = exp((f0 + g0 - C) / epsilon),   plan = diag(alpha) K diag(beta),   alpha = a u,  beta = b v,
    u = (K beta)^-tau_a exp(-(1 - tau_a) f0 / epsilon),   f = f0 + epsilon log u,   v and g likewise.

K is exponentiated once; a pass is then two matrix-vector products and two divisions. When the scalings leave the
range in which K is accurate, they are absorbed into f0 and g0 and K is built anew.
Schmitzer 2019 (SIAM J. Sci. Comput. 41, absorption); Chizat et al. 2018 (Math. Comp. 87, relaxed marginals).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.newton import (
    BACKTRACKS,
    FORCING,
    LONGEST_STEP,
    OVERSHOOT,
    SchurComplement,
    cheap_steps,
    fused_loops,
    inverse_root,
    row_times,
)
from labkit.ot.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Float

# Largest |log scaling| on top of K before it is built anew: what K lost to underflow stays below rounding.
SAFE_RANGE = {torch.float32: 30.0, torch.float64: 200.0}


def relaxation(rho: float, epsilon: float) -> float:
    """The factor tau = rho / (rho + epsilon) on an update; 1 for an infinite rho."""
    return 1 / (1 + epsilon / rho)


def cast(problem: Problem, dtype: torch.dtype) -> Problem:
    """The problem in another precision; itself if it has that one."""
    if problem.cost.dtype == dtype:
        return problem
    return replace(problem, cost=problem.cost.to(dtype), a=problem.a.to(dtype), b=problem.b.to(dtype))


def log_softmin(cost: Tensor, weights: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    """-epsilon log sum_j w_j exp((g_j - C_ij) / epsilon): slow, but nothing can overflow."""
    exponent = (potential[..., None, :] - cost) / epsilon + weights.log()[..., None, :]
    return -epsilon * torch.logsumexp(exponent, -1)


def log_sweep(problem: Problem, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """One update of f and g that cannot overflow."""
    f = relaxation(problem.rho_a, epsilon) * log_softmin(problem.cost, problem.b, g, epsilon)
    g = relaxation(problem.rho_b, epsilon) * log_softmin(problem.cost.mT, problem.a, f, epsilon)
    return f, g


def best_shift(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """The c for which (f + c, g - c) has the largest dual value; the plan does not depend on it.

    Sejourne, Vialard, Peyre 2022 (AISTATS).
    """
    log_a = torch.logsumexp(problem.a.log() - f / problem.rho_a, -1)
    log_b = torch.logsumexp(problem.b.log() - g / problem.rho_b, -1)
    return ((log_a - log_b) / (1 / problem.rho_a + 1 / problem.rho_b))[..., None]


def prescribed_marginal(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
    """The marginal w exp(-f / rho) that optimal potentials prescribe; the weights themselves when rho is infinite."""
    # Masked before the exponential: a weight 0 times an overflow would be NaN.
    return weights * torch.exp(-torch.where(weights > 0, potential, 0.0) / rho)


def update(sums: Tensor, tau: float, factor: Tensor) -> Tensor:
    """The scaling that a pass gives: sums^-tau factor."""
    # A sum that underflowed gives a huge scaling, which `trusted` finds, instead of an infinite one.
    sums = sums.clamp_min(torch.finfo(sums.dtype).tiny)
    return sums.reciprocal_() if tau == 1 else sums.pow_(-tau).mul_(factor)


def exponentiate(cost: Tensor, f: Tensor, g: Tensor, epsilon: float, out: Tensor) -> Tensor:
    """exp((f_i + g_j - C_ij) / epsilon), in place of `out`."""
    torch.add((f / epsilon)[..., :, None], cost, alpha=-1 / epsilon, out=out)
    return out.add_((g / epsilon)[..., None, :]).exp_()


class Kernel:
    """A problem at one epsilon, with scalings that are improved in place of its potentials.

    Args:
        matrix: Memory for K, of the shape and type of the cost.

    Attributes:
        used: Passes and steps of conjugate gradients so far.
    """

    def __init__(self, problem: Problem, f: Tensor, g: Tensor, epsilon: float, matrix: Tensor | None = None) -> None:
        self.problem, self.epsilon = problem, epsilon
        self.tau_a, self.tau_b = relaxation(problem.rho_a, epsilon), relaxation(problem.rho_b, epsilon)
        self.balanced = self.tau_a == self.tau_b == 1
        self.mass = (problem.a.sum(-1) + problem.b.sum(-1)) / 2
        self.tiny = torch.finfo(problem.cost.dtype).tiny
        if matrix is None:
            matrix = torch.empty_like(problem.cost, memory_format=torch.contiguous_format)
        self.matrix, self.direct = matrix, False
        self.absorb(f.to(problem.cost), g.to(problem.cost))
        self.used = 1

    def absorb(self, f: Tensor, g: Tensor) -> None:
        """Build K from these potentials, which become its scalings 1, and make u exact."""
        if not math.isinf(min(self.problem.rho_a, self.problem.rho_b)):
            shift = best_shift(self.problem, f, g)
            f, g = f + shift, g - shift
        self.f0, self.g0 = f, g
        self.operator: Tensor | None = None
        exponentiate(self.problem.cost, f, g, self.epsilon, self.matrix)
        self.row_factor = torch.exp((self.tau_a - 1) / self.epsilon * f)
        self.column_factor = torch.exp((self.tau_b - 1) / self.epsilon * g)
        self.prescribed = prescribed_marginal(self.problem.b, g, self.problem.rho_b)
        self._set(torch.ones_like(g))

    def refresh(self, v: Tensor) -> None:
        """Set v, the best u for it, and what both make of the columns."""
        self._set(v)
        self.used += 1

    def _set(self, v: Tensor) -> None:
        self.v, self.beta = v, self.problem.b * v
        self.rows = row_times(self.beta, self.matrix.mT)
        self.u = update(self.rows, self.tau_a, self.row_factor)
        self.alpha = self.problem.a * self.u
        self.columns = row_times(self.alpha, self.matrix)

    def advance(self, count: int, tolerance: float) -> None:
        """Up to `count` passes of Sinkhorn's iteration; no more than the tolerance needs where looking is free."""
        loops = fused_loops(self.matrix)
        if loops is None:
            for _ in range(count):
                self.refresh(update(self.columns, self.tau_b, self.column_factor))
            return
        bound = tolerance * float(self.mass)
        _, done = loops.passes(self.matrix.numpy(), *self._numbers(), bound, count, self._state())
        self._after(done)

    def run(self, tolerance: float, patience: float, every: int, budget: int, safe: Tensor) -> Tensor:
        """Passes and Newton's method by turns, compiled; returns the last v that was trusted.

        Does nothing and returns `safe` where the compiled loops do not apply, or once the system needs a factor.
        Ends when the error is within the tolerance, after `budget` iterations, or when the kernel has to be built
        anew or Newton's system has to be factorized.
        """
        loops = fused_loops(self.matrix)
        if loops is None or self.direct:
            return safe
        # Memory only: the loop fills it when it comes to Newton's method. Float32 stages share the kernel's own.
        single = self.matrix
        if single.dtype != torch.float32:
            single = torch.empty_like(single, dtype=torch.float32)
        # The loop may end before it has trusted any v of its own.
        safe = safe.clone()
        limit = math.exp(SAFE_RANGE[self.v.dtype])
        cap = cheap_steps(self.v.shape[-1], budget)
        done, self.direct = loops.improve(
            self.matrix.numpy(),
            single.numpy(),
            *self._numbers(),
            float(self.mass),
            limit,
            tolerance,
            patience,
            every,
            cap,
            budget,
            self._state(),
            safe.numpy(),
        )
        self._after(done)
        return safe

    def _numbers(self) -> tuple[object, ...]:
        """What the compiled loops ask about the problem."""
        vectors = (self.problem.a, self.problem.b, self.row_factor, self.column_factor, self.prescribed)
        taus, power = (self.tau_a, self.tau_b), -self.epsilon / self.problem.rho_b
        # A user's weights may be strided.
        return tuple(t.contiguous().numpy() for t in vectors), taus, power, self.tiny

    def _state(self) -> tuple[object, ...]:
        """What they change in place."""
        return self.v.numpy(), self.u.numpy(), self.rows.numpy(), self.columns.numpy()

    def _after(self, done: int) -> None:
        """Count passes, and work out what goes with the new state."""
        self.used += done
        self.beta, self.alpha = self.problem.b * self.v, self.problem.a * self.u

    def target(self) -> Tensor:
        """The column sums that the potentials prescribe, b exp(-g / rho_b)."""
        if self.tau_b == 1:
            return self.problem.b
        return self.prescribed * self.v ** (-self.epsilon / self.problem.rho_b)

    def residual(self) -> Tensor:
        """Prescribed minus actual column sums: the gradient of the dual for g, as rows are exact."""
        return self.target() - self.beta * self.columns

    def error(self) -> Float[Tensor, "*batch"]:
        """L1 norm of the residual as a fraction of the mean mass."""
        return self.residual().abs().sum(-1) / self.mass

    def trusted(self) -> bool:
        """Whether the scalings are finite and small enough for K to be accurate."""
        bound = math.exp(SAFE_RANGE[self.v.dtype])
        u, v = self.u, self.v
        if self.problem.absent:
            u, v = (torch.where(w > 0, s, 1.0) for w, s in ((self.problem.a, u), (self.problem.b, v)))
        low, high = torch.minimum(u.amin(), v.amin()), torch.maximum(u.amax(), v.amax())
        return bool((low > 1 / bound) & (high < bound))

    def potentials(self) -> tuple[Tensor, Tensor]:
        """The current f, g."""
        return self.f0 + self.epsilon * self.u.log(), self.g0 + self.epsilon * self.v.log()

    def newton(self, tolerance: float, max_steps: int) -> bool:
        """One step of Newton's method for the dual in g, with rows kept exact; False if it found no ascent.

        The linear system is solved in single precision while that suffices, and by a factorization once conjugate
        gradients have stalled at this epsilon.
        """
        target, actual = self.target(), self.beta * self.columns
        residual = target - actual
        error = residual.abs().sum(-1, keepdim=True) / self.mass[..., None]
        residual = torch.where(error > tolerance, residual, 0.0)
        root = inverse_root(actual + self.epsilon / self.problem.rho_b * target)
        rhs = residual * root
        bound = rhs.norm(dim=-1, keepdim=True) * error.sqrt().clamp(*FORCING)
        while True:
            complement = self._complement(actual, root)
            dtype = complement.matrix.dtype
            solution = complement.solve(rhs.to(dtype), bound.to(dtype), max_steps, self.direct)
            self.used, max_steps = self.used + solution.steps, max_steps - solution.steps
            self.direct = self.direct or complement.factor is not None
            if solution.met or max_steps < 1 or dtype == torch.float64:
                break
            self.operator = self.matrix.double()
        direction = (root * solution.x.to(root)).clamp_(-LONGEST_STEP, LONGEST_STEP)
        return self._search(direction, residual)

    def _complement(self, actual: Tensor, root: Tensor) -> SchurComplement:
        if self.operator is None:
            self.operator = self.matrix.float()
        weights = torch.where(self.alpha > 0, self.tau_a * self.alpha / self.rows, 0.0)
        gauge = torch.nn.functional.normalize(actual.sqrt(), dim=-1) if self.balanced else None
        weights, right = weights.to(self.operator), (self.beta * root).to(self.operator)
        return SchurComplement(self.operator, weights, right, None if gauge is None else gauge.to(self.operator))

    def _search(self, direction: Tensor, residual: Tensor) -> bool:
        """Go along the direction, less far for those problems of the batch where the dual falls again."""
        start = self.v
        slope = (direction * residual).sum(-1, keepdim=True)
        length = torch.ones_like(slope)
        for _ in range(BACKTRACKS):
            self.refresh(start * torch.exp(length * direction))
            now = (direction * self.residual()).sum(-1, keepdim=True)
            fine = now >= -OVERSHOOT * slope
            if bool(fine.all()):
                return True
            length = torch.where(fine, length, length / 4)
        self.refresh(start)
        return False
