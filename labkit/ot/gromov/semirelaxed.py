"""Semi-relaxed Gromov-Wasserstein: every point of the first space finds its place, the second space offers places.

    min_P  alpha G(P) + (1 - alpha) <M, P> + epsilon KL(P | a b^T),   P 1 = a,  P^T 1 free

Which points of the second space are used, and how much, is part of the answer: P^T 1 weights them anew (a summary of
the first space, or a search for it in the second). With one marginal, a linearized problem is a softmax in each row:
    P_ij = a_i softmax_j(log b_j - C_ij / epsilon)
Vincent-Cuaz et al. 2022 (ICLR), who take proximal steps in the place of the entropy: KL(P | P_k) for KL(P | a b^T),
mirror descent that ends without entropy (there section 3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.gromov.descend import METHODS
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.loop import NOT_CONVERGED, ConditionalGradient, Step, conclude, iterate, relative_entropy
from labkit.ot.gromov.spaces import Spaces, checked_plan, make_spaces
from labkit.ot.problem import Settings

if TYPE_CHECKING:
    from jaxtyping import Float


def semirelaxed_gromov_wasserstein(
    geom_x: Geometry | InnerProduct,
    geom_y: Geometry | InnerProduct,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    method: str = "entropic",
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
    rank: int | None = None,
    init_plan: Float[Tensor, "*batch n m"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 500,
) -> Coupling:
    """Couple a space with the part of another that is most like it.

    Args:
        geom_x: Distances within the first space, as in `gromov_wasserstein`.
        geom_y: Distances within the second space.
        a: Weights of the first space, uniform by default: the rows of the plan sum to them.
        b: What the entropy draws the other marginal towards, uniform by default; its total does not matter to the
            plan, and a point of weight zero is not offered.
        epsilon: Strength of the entropy, relative as in `gromov_wasserstein`; for proximal steps their inverse size.
        method: "entropic", or "proximal" for steps that end without entropy, at a vertex as a rule.
        scale_cost: "mean" or None, as in `gromov_wasserstein`.
        fused_cost: M, a cost between points of the two spaces.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.
        rank: Truncate distances without exact factors to this rank; None keeps them exact.
        init_plan: Where to start; proportional to a b^T by default. Proximal steps cannot leave its zeros.
        tolerance: L1 distance, as a fraction of the mass, between the plan and the solution of the problem linearized
            at it.
        max_iterations: Steps.

    Returns:
        The coupling; `plan.sum(-2)` is the marginal found. `cost` is alpha G + (1 - alpha) <M, P>; `regularized_cost`
        adds the entropy, if there is one, and is differentiable once in both geometries and `fused_cost`, not in the
        weights. `marginal_error` counts the rows only; g is zero.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    settings = Settings(epsilon, None, 1.0, 1.0, tolerance, max_iterations)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown, expected one of {list(METHODS)}.")
    proximal = method == "proximal"
    with full_precision(geom_x.device):
        spaces = make_spaces((geom_x, geom_y), (a, b), scale_cost, (fused_cost, alpha), rank=rank, balanced=False)
        problem = _SemiRelaxed(spaces, settings, proximal)
        with torch.no_grad():
            start = spaces.product() if init_plan is None else checked_plan(init_plan, spaces)
            start = start * (spaces.a.sum(-1) / start.sum((-2, -1)))[..., None, None]
            descent = ConditionalGradient(spaces, problem.minimize, problem.regularizer)
            step = problem.proximal_step if proximal else descent
            settled = iterate(step, start, tolerance=tolerance, max_iterations=max_iterations)
            regularizer = problem.regularizer(settled.coupling.plan)
        message = NOT_CONVERGED.format(
            name="Semi-relaxed Gromov-Wasserstein", tolerance=tolerance, max_iterations=max_iterations
        )
        warn_unless(settled.converged, message)
        return conclude(spaces, settled, regularizer)


class _SemiRelaxed:
    """The linearized problem and its regularizer."""

    def __init__(self, spaces: Spaces, settings: Settings, proximal: bool) -> None:
        self.spaces, self.settings, self.proximal = spaces, settings, proximal
        self.epsilon = settings.epsilon * spaces.unit
        self.log_ratio: Tensor | None = None

    def proximal_step(self, plan: Tensor, tolerance: float) -> Step:
        """Mirror descent: the entropy is relative to the last plan, which goes into the cost."""
        epsilon = self.epsilon[..., None]
        if self.log_ratio is None:
            product = self.spaces.a[..., :, None] * self.spaces.b[..., None, :]
            least = torch.finfo(plan.dtype).tiny
            self.log_ratio = plan.clamp_min(least).log() - product.clamp_min(least).log()
        cost = self.spaces.gradient(plan) - epsilon[..., None] * self.log_ratio
        coupling = self.minimize(cost, plan, tolerance)
        # The logarithm of the plan itself would forget how far it is below the least number.
        self.log_ratio = (coupling.f[..., None] - cost) / epsilon[..., None]
        return Step(coupling, coupling.plan, coupling.marginal_error)

    def minimize(self, cost: Tensor, plan: Tensor, tolerance: float) -> Coupling:
        """The best plan with rows a, in closed form."""
        a, b, epsilon = self.spaces.a, self.spaces.b, self.epsilon[..., None]
        scores = b.log()[..., None, :] - cost / epsilon[..., None]
        f = -epsilon * torch.logsumexp(scores, -1)
        solution = a[..., :, None] * torch.exp(scores + (f / epsilon)[..., :, None])
        zero = torch.zeros_like(self.epsilon)
        return Coupling(
            geometry=CostMatrix(cost),
            a=a,
            b=b,
            f=f,
            g=torch.zeros_like(b),
            epsilon=self.settings.epsilon,
            epsilon_absolute=self.epsilon,
            cost=(cost * solution).sum((-2, -1)),
            regularized_cost=zero,
            marginal_error=(solution.sum(-1) - a).abs().sum(-1) / a.sum(-1),
            tolerance=self.settings.tolerance,
            n_iterations=1,
            converged=True,
        )

    def regularizer(self, plan: Tensor) -> Tensor:
        """Epsilon KL(P | a b^T), or zero if the steps are proximal."""
        if self.proximal:
            return torch.zeros_like(self.epsilon)
        return self.epsilon * relative_entropy(plan, self.spaces.a, self.spaces.b)
