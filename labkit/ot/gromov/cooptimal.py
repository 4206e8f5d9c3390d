"""Co-optimal transport: couple the samples of two tables and their features at the same time.

    min_{P, Q}  sum_ijkl (x_ik - y_jl)^2 P_ij Q_kl + epsilon KL(P | a b^T) + epsilon_features KL(Q | c d^T)

for tables x [n, d] and y [m, e] without common samples or features: unlike Gromov-Wasserstein it says which feature
corresponds to which, and it compares entries, so that both tables need the same units. Given one coupling the other
is entropic transport with the linearized cost; alternating never raises the objective. Redko, Vayer, Flamary, Courty
2020 (NeurIPS, alg. 1). Not convex in both: a local optimum that depends on the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, full_precision, lift, require_finite
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.gromov.loop import INNER_ITERATIONS, NOT_CONVERGED, Step, iterate, relative_entropy
from labkit.ot.problem import Settings, check_weights, match_mass
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class CoOptimalCoupling:
    """A solved co-optimal transport problem.

    Attributes:
        samples: Coupling of the rows, with the cost that the features' coupling makes.
        features: Coupling of the columns, with the cost that the samples' coupling makes.
        cost: sum (x_ik - y_jl)^2 P_ij Q_kl, in squared units of the entries; detached; lower is nearer.
        regularized_cost: The whole objective, differentiable once in x and y.
        n_iterations: Pairs of transport problems solved.
        converged: Whether both couplings stopped moving, with their marginals met.
    """

    samples: Coupling
    features: Coupling
    cost: Float[Tensor, "*batch"]
    regularized_cost: Float[Tensor, "*batch"]
    n_iterations: int
    converged: bool


def co_optimal_transport(
    x: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch m e"],
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    features_a: Float[Tensor, "*batch d"] | None = None,
    features_b: Float[Tensor, "*batch e"] | None = None,
    epsilon: float = 0.05,
    epsilon_features: float | None = None,
    scale_cost: str | None = "mean",
    init_features: Float[Tensor, "*batch d e"] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> CoOptimalCoupling:
    """Couple the rows of two tables, and their columns.

    Args:
        x: First table, samples in rows.
        y: Second table; it may have other numbers of samples and features.
        a: Weights of the samples of x, uniform by default. b: of y; the totals must agree.
        b: See `a`.
        features_a: Weights of the features of x, uniform by default. features_b: of y; the totals must agree.
        features_b: See `features_a`.
        epsilon: Strength of the entropy of the samples' coupling, relative to the cost of the product couplings.
        epsilon_features: Of the features' coupling; as `epsilon` by default.
        scale_cost: "mean" makes both epsilons relative as said; None makes them absolute.
        init_features: Coupling of the features to start from; the product by default.
        tolerance: L1 change of the features' coupling in one iteration to reach, as a fraction of its mass.
        max_iterations: Pairs of transport problems.

    Returns:
        Both couplings and the value.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    epsilons = epsilon, epsilon if epsilon_features is None else epsilon_features
    for value in epsilons:
        Settings(value, None, 1.0, 1.0, tolerance, max_iterations)
    if scale_cost not in ("mean", None):
        raise ValueError(f"scale_cost={scale_cost!r} is unknown, expected 'mean' or None.")
    x, y = _checked_tables(x, y)
    with full_precision(x.device):
        samples = _checked_weights((x, y), (a, b), ("a", "b"))
        features = _checked_weights((x.mT, y.mT), (features_a, features_b), ("features_a", "features_b"))
        with torch.no_grad():
            start = _product(*features)
            if init_features is not None:
                start = _checked_start(init_features, start)
            alternation = _Alternation(x.detach(), y.detach(), samples, features, epsilons, scale_cost)
            settled = iterate(alternation, start, tolerance=tolerance, max_iterations=max_iterations)
        message = NOT_CONVERGED.format(name="Co-optimal transport", tolerance=tolerance, max_iterations=max_iterations)
        warn_unless(settled.converged, message.replace("init_plan", "init_features"))
        regularized = alternation.value(settled.coupling)
        if torch.is_grad_enabled():
            regularized = with_envelope_gradient(regularized, *alternation.gradient_terms(x, y, settled.coupling))
    return CoOptimalCoupling(
        samples=alternation.samples,
        features=settled.coupling,
        cost=settled.coupling.cost,
        regularized_cost=regularized,
        n_iterations=settled.n_iterations,
        converged=settled.converged,
    )


class _Alternation:
    """Steps for `iterate` on the coupling of the features; remembers that of the samples."""

    samples: Coupling

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        samples: tuple[Tensor, Tensor],
        features: tuple[Tensor, Tensor],
        epsilons: tuple[float, float],
        scale_cost: str | None,
    ) -> None:
        self.x, self.y, self.epsilons = x, y, epsilons
        self.weights = samples, features
        self.unit = torch.ones_like(samples[0][..., 0])
        if scale_cost == "mean":
            mass = samples[0].sum(-1) * features[0].sum(-1)
            mean = (_linearized(x, y, _product(*features)) * _product(*samples)).sum((-2, -1)) / mass
            self.unit = torch.where(mean > 0, mean, 1.0)
        self.potentials: list[tuple[Tensor, Tensor] | None] = [None, None]

    def __call__(self, plan: Tensor, tolerance: float) -> Step:
        """The best coupling of the samples for that of the features, and the best of the features for that."""
        self.samples = self._solve(0, _linearized(self.x, self.y, plan), tolerance)
        features = self._solve(1, _linearized(self.x.mT, self.y.mT, self.samples.plan), tolerance)
        return Step(features, features.plan, torch.maximum(features.marginal_error, self.samples.marginal_error))

    def _solve(self, side: int, cost: Tensor, tolerance: float) -> Coupling:
        settings = Settings(self.epsilons[side], self.unit, 1.0, 1.0, tolerance, INNER_ITERATIONS)
        coupling = solve(CostMatrix(cost), *self.weights[side], settings, self.potentials[side])
        self.potentials[side] = coupling.f, coupling.g
        return coupling

    def value(self, features: Coupling) -> Tensor:
        """The whole objective at the couplings found."""
        value = features.cost
        for coupling in (self.samples, features):
            value = value + coupling.epsilon_absolute * relative_entropy(coupling.plan, coupling.a, coupling.b)
        return value

    def gradient_terms(self, x: Tensor, y: Tensor, features: Coupling) -> list[tuple[Tensor, Tensor]]:
        """Derivatives of the cost with both couplings held, for the tables that want them."""
        p, q = self.samples.plan, features.plan
        terms = []
        if x.requires_grad:
            terms.append((x, 2 * (self.x * p.sum(-1)[..., :, None] * q.sum(-1)[..., None, :] - p @ self.y @ q.mT)))
        if y.requires_grad:
            terms.append((y, 2 * (self.y * p.sum(-2)[..., :, None] * q.sum(-2)[..., None, :] - p.mT @ self.x @ q)))
        return terms


def _linearized(x: Tensor, y: Tensor, plan: Tensor) -> Float[Tensor, "*batch n m"]:
    """Sum_kl (x_ik - y_jl)^2 Q_kl."""
    rows, columns = x.square() @ plan.sum(-1)[..., None], y.square() @ plan.sum(-2)[..., None]
    return rows + columns.mT - 2 * x @ plan @ y.mT


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :] / a.sum(-1)[..., None, None]


def _checked_tables(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, table in (("x", x), ("y", y)):
        require_finite(table, name)
        if table.ndim < 2:
            raise ValueError(f"{name} has shape {tuple(table.shape)}, expected [..., samples, features].")
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}: move both to one device.")
    if x.shape[:-2] != y.shape[:-2]:
        raise ValueError(f"x has batch shape {tuple(x.shape[:-2])} and y {tuple(y.shape[:-2])}, expected the same.")
    dtype = torch.promote_types(lift(x).dtype, lift(y).dtype)
    return x.to(dtype), y.to(dtype)


def _checked_weights(
    tables: tuple[Tensor, Tensor], weights: tuple[Tensor | None, Tensor | None], names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Weights of the rows of both tables, of equal totals."""
    a, b = (
        check_weights(w, table.shape[:-1], table.detach(), name)
        for w, table, name in zip(weights, tables, names, strict=True)
    )
    return a, match_mass(a, b)


def _checked_start(plan: Tensor, like: Tensor) -> Tensor:
    require_finite(plan, "init_features")
    if plan.shape != like.shape or (plan < 0).any() or (plan.sum((-2, -1)) <= 0).any():
        raise ValueError(
            f"init_features has shape {tuple(plan.shape)}, expected masses >= 0 of shape {tuple(like.shape)}."
        )
    return plan.detach().to(like)
