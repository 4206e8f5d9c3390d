"""Unbalanced Gromov-Wasserstein: the marginals are prices instead of constraints, so outliers may stay at home.

    H(P) = alpha G(P) + (1 - alpha) <M, P>
           + epsilon / 2 KL2(P | a b^T) + rho_a / 2 KL2(P 1 | a) + rho_b / 2 KL2(P^T 1 | b)
    KL2(p | q) = KL(p x p | q x q) = 2 |p| sum p log(p / q) - |p|^2 + |q|^2

The quadratic divergence KL2 makes the problem scale with the mass like G does. Two plans in the place of one make it
convex in each: alternating between them is unbalanced transport with cost
    2 alpha L(P) + (1 - alpha) M + epsilon E(P | a b^T) + rho_a E(P 1 | a) + rho_b E(P^T 1 | b),   E = sum p log(p / q)
and strengths epsilon |P|, rho |P|, after which the masses are made equal. Sejourne, Vialard, Peyre 2021 (NeurIPS,
alg. 1), whose epsilon and rho are half of ours; fused: Thual et al. 2022 (NeurIPS). With the halves, fixed marginals
(tau = 1) of mass 1 give back `gromov_wasserstein`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.loop import INNER_ITERATIONS, NOT_CONVERGED, Step, conclude, iterate
from labkit.ot.gromov.spaces import Spaces, checked_plan, make_spaces
from labkit.ot.problem import Settings
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float


def unbalanced_gromov_wasserstein(
    geom_x: Geometry | InnerProduct,
    geom_y: Geometry | InnerProduct,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    tau_a: float = 0.95,
    tau_b: float = 0.95,
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
    rank: int | None = None,
    init_plan: Float[Tensor, "*batch n m"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 500,
) -> Coupling:
    """Couple two spaces, leaving out what has no counterpart.

    Args:
        geom_x: Distances within the first space, as in `gromov_wasserstein`.
        geom_y: Distances within the second space.
        a: Weights of the first space, uniform by default; the totals of a and b may differ.
        b: Weights of the second space.
        epsilon: Strength of the entropy, relative as in `gromov_wasserstein`.
        tau_a: rho_a / (rho_a + epsilon) in (0, 1]: the nearer to 1, the dearer it is to leave mass; 1 fixes P 1 = a.
        tau_b: See `tau_a`.
        scale_cost: "mean" or None, as in `gromov_wasserstein`.
        fused_cost: M, a cost between points of the two spaces.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.
        rank: Truncate distances without exact factors to this rank; None keeps them exact.
        init_plan: Where to start; a b^T / sqrt(|a| |b|) by default.
        tolerance: L1 distance, as a fraction of the mass, between the plan and the solution of the problem linearized
            at it.
        max_iterations: Steps.

    Returns:
        The coupling. `cost` is alpha G + (1 - alpha) <M, P>; `regularized_cost` is H, differentiable once in both
        geometries and `fused_cost`, not in the weights. `marginal_error`: L1 distance of the marginals to those that
        the potentials prescribe, a exp(-f / (rho_a |P|)).

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.
        FloatingPointError: The numbers overflowed, or leaving mass is so cheap against the distortion of the start
            that no mass is left to go on with.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    settings = Settings(epsilon, None, tau_a, tau_b, tolerance, max_iterations)
    with full_precision(geom_x.device):
        balanced = tau_a == tau_b == 1
        spaces = make_spaces((geom_x, geom_y), (a, b), scale_cost, (fused_cost, alpha), rank=rank, balanced=balanced)
        with torch.no_grad():
            start = spaces.product() if init_plan is None else checked_plan(init_plan, spaces)
            descent = _Alternation(spaces, settings)
            settled = iterate(descent, start, tolerance=tolerance, max_iterations=max_iterations)
            regularizer = descent.regularizer(settled.coupling.plan)
        message = NOT_CONVERGED.format(
            name="Unbalanced Gromov-Wasserstein", tolerance=tolerance, max_iterations=max_iterations
        )
        warn_unless(settled.converged, message)
        return conclude(spaces, settled, regularizer)


@dataclass
class _Alternation:
    """Steps for `iterate`: as the two plans of the alternation enter alike, each step makes one from the other."""

    spaces: Spaces
    settings: Settings
    potentials: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def __call__(self, plan: Tensor, tolerance: float) -> Step:
        spaces, mass = self.spaces, plan.sum((-2, -1))
        offset = torch.stack([strength * self._entropy(p, q) for strength, p, q in self._terms(plan)]).sum(0)
        cost = spaces.gradient(plan) + offset[..., None, None]
        settings = Settings(
            epsilon=self.settings.epsilon,
            scale_cost=spaces.unit * mass,
            tau_a=self.settings.tau_a,
            tau_b=self.settings.tau_b,
            tolerance=tolerance,
            max_iterations=INNER_ITERATIONS,
        )
        # Costs and epsilon are proportional to the mass, and so are the potentials.
        units = mass[..., None]
        init = None if self.potentials is None else (self.potentials[0] * units, self.potentials[1] * units)
        coupling = solve(CostMatrix(cost), spaces.a, spaces.b, settings, init)
        self.potentials = coupling.f / units, coupling.g / units
        if 1 in (self.settings.tau_a, self.settings.tau_b):  # The mass is fixed.
            return Step(coupling, coupling.plan, coupling.marginal_error)
        ratio = (mass / coupling.plan.sum((-2, -1))).sqrt()
        return Step(coupling, ratio[..., None, None] * coupling.plan, coupling.marginal_error)

    def regularizer(self, plan: Tensor) -> Tensor:
        """H without its cost: (epsilon KL2(P | a b^T) + rho_a KL2(P 1 | a) + rho_b KL2(P^T 1 | b)) / 2."""
        value = torch.zeros_like(self.spaces.unit)
        for strength, p, q in self._terms(plan):
            mass, reference = p.flatten(self.spaces.unit.ndim).sum(-1), q.flatten(self.spaces.unit.ndim).sum(-1)
            value = value + strength * (mass * self._entropy(p, q) + (reference.square() - mass.square()) / 2)
        return value

    def _terms(self, plan: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Strength, measure and reference of each divergence in H; a fixed marginal has none."""
        spaces, settings = self.spaces, self.settings
        epsilon = settings.epsilon * spaces.unit
        terms = [(epsilon, plan, spaces.a[..., :, None] * spaces.b[..., None, :])]
        for tau, marginal, weights in (
            (settings.tau_a, plan.sum(-1), spaces.a),
            (settings.tau_b, plan.sum(-2), spaces.b),
        ):
            if tau < 1:
                terms.append((epsilon * tau / (1 - tau), marginal, weights))
        return terms

    def _entropy(self, p: Tensor, q: Tensor) -> Tensor:
        """Sum p log(p / q), one per problem; where q = 0 the coupling has no mass either."""
        positive = (p > 0) & (q > 0)
        entropy = p * torch.where(positive, p / q, 1.0).log()
        return entropy.flatten(self.spaces.unit.ndim).sum(-1)
