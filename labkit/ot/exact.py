"""Exact optimal transport, without entropy: min_P <C, P> over plans with marginals a and b.

POT's network simplex finds the plan and a dual solution (Bonneel et al. 2011, ACM Trans. Graph. 30; on the CPU, in
float64, about n^2.5). The potentials are completed by f_i = min_j C_ij - g_j, so that <a, f> + <b, g> bounds every
plan's cost from below whatever happened before, and the gap to it certifies the optimum. The value has gradients by
the envelope theorem: P for the cost, f and g for the weights.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeGuard

import numpy as np
import torch
from torch import Tensor

from labkit.ot.cost import Geometry, full_precision
from labkit.ot.coupling import Coupling, warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.problem import check_weights, match_mass, settle

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MAX_PIVOTS = 100_000_000
# Largest gap between cost and dual bound, and largest mass on forbidden pairs, relative to largest cost and mass.
TOLERANCE = 1e-9
NOT_CONVERGED = (
    "exact transport stopped before the optimum: the costs span too many orders of magnitude for float64, or the "
    "problem is too large. Clip the costs, or use ot.sinkhorn; f and g still give a lower bound."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactCoupling(Coupling):
    """A coupling of at most n + m - 1 pairs, with epsilon = 0; `cost` and `regularized_cost` are the same number.

    `n_iterations` is 0: the network simplex does not count its pivots.

    Attributes:
        source: Source index of each pair that carries mass.
        target: Its target index.
        mass: Its mass; pairs that fill up a batch have index 0 and mass 0.
    """

    source: Int[Tensor, "*batch k"]
    target: Int[Tensor, "*batch k"]
    mass: Float[Tensor, "*batch k"]

    @property
    def plan(self) -> Float[Tensor, "*batch n m"]:
        """Mass that goes from i to j; constant almost everywhere, so without gradient. Kept once it was asked for."""
        return self._plan

    @cached_property
    def _plan(self) -> Tensor:
        return _dense((*self.a.shape, self.b.shape[-1]), self.source, self.target, self.mass)

    def barycenter(self, y: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch n k"]:
        """Where each source point goes on average: row-normalized P y / P 1; differentiable in y.

        A point of weight zero goes where an infinitesimal mass would: to the j with the least C_ij - g_j.

        Raises:
            ValueError: y does not have one row per target point.
        """
        rows = self._rows_per_target(y, "y")
        with full_precision(self.f.device):
            share = self.plan / torch.where(self.a > 0, self.a, 1.0)[..., None]
            if (self.a == 0).any():
                reduced = torch.where(self.b > 0, -self.g, torch.inf)[..., None, :] + self.geometry.matrix().detach()
                nearest = torch.zeros_like(share).scatter_(-1, reduced.argmin(-1, keepdim=True), 1.0)
                share = torch.where((self.a > 0)[..., None], share, nearest)
            return share @ rows

    def map(self, x_new: Float[Tensor, "*batch k d"]) -> NoReturn:
        """Exact transport has no continuous map.

        Raises:
            TypeError: Always; the message says what to use.
        """
        raise TypeError(
            "an exact plan says nothing about new points: use barycenter(y) for the points it was solved on, or "
            "ot.sinkhorn with a small epsilon, whose map is continuous."
        )


def exact(
    geometry: Geometry, a: Float[Tensor, "*batch n"] | None = None, b: Float[Tensor, "*batch m"] | None = None
) -> ExactCoupling:
    """Solve transport exactly, on the CPU and in float64 whatever the input is.

    Args:
        geometry: Costs, batch dimensions in front; `Restricted` for forbidden and fixed pairs.
        a: Source weights >= 0, uniform by default.
        b: Target weights, with the total of `a`.

    Returns:
        The coupling. `cost` is differentiable (once) in what made the costs and, up to a constant, in a and b; where
        the optimum is not unique this is one of the subgradients. <a, f> = <b, g>, each half of the cost.

    Raises:
        ImportError: POT is not installed.
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.

    Warns:
        NotConvergedWarning: The optimum was not reached.
    """
    with full_precision(geometry.device):
        geometry = settle(geometry, a, b, balanced=True)
        cost = geometry.matrix()
        *batch, n, m = cost.shape
        masses = check_weights(a, (*batch, n), cost, "a"), check_weights(b, (*batch, m), cost, "b")
        masses = masses[0], match_mass(*masses)
        flat = (t.detach().double().cpu().reshape(-1, *t.shape[len(batch) :]).numpy() for t in (cost, *masses))
        solutions = [_solve(*problem) for problem in zip(*flat, strict=True)]
        fields = (torch.from_numpy(np.stack(field)) for field in zip(*solutions, strict=True))
        found = _Solution(*(v.reshape((*batch, *v.shape[1:])).to(cost.device) for v in fields))
        f, g, mass, value, error = (v.to(cost.dtype) for v in (found.f, found.g, found.mass, found.value, found.error))
        converged = bool(found.settled.all())
        warn_unless(converged, NOT_CONVERGED)
        if torch.is_grad_enabled():
            terms = [(w.to(cost).broadcast_to(v.shape), v) for w, v in ((a, f), (b, g)) if _wants_gradient(w)]
            if cost.requires_grad:
                terms.append((cost, _dense(cost.shape, found.source, found.target, mass)))
            value = with_envelope_gradient(value, *terms)
        return ExactCoupling(
            geometry=geometry,
            a=masses[0],
            b=masses[1],
            f=f,
            g=g,
            epsilon=0.0,
            epsilon_absolute=torch.zeros_like(error),
            cost=value,
            regularized_cost=value,
            marginal_error=error,
            tolerance=TOLERANCE,
            n_iterations=0,
            converged=converged,
            source=found.source,
            target=found.target,
            mass=mass,
        )


class _Solution(NamedTuple):
    """Solved problems in the units of the cost; fields as in `ExactCoupling`, float64, `settled` if optimal."""

    source: Any
    target: Any
    mass: Any
    f: Any
    g: Any
    value: Any
    error: Any
    settled: Any


def _wants_gradient(weights: Tensor | None) -> TypeGuard[Tensor]:
    return weights is not None and weights.requires_grad


def _dense(shape: tuple[int, ...], source: Tensor, target: Tensor, mass: Tensor) -> Tensor:
    *batch, n, m = shape
    plan = mass.new_zeros((*batch, n * m))
    return plan.scatter_add_(-1, source * m + target, mass).unflatten(-1, (n, m))


def _solve(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> _Solution:
    """One problem; forbidden pairs have cost +inf."""
    n, m = cost.shape
    unit, total = np.abs(cost, where=np.isfinite(cost), out=np.zeros_like(cost)).max() or 1.0, a.sum()
    scaled, a, b = cost / unit, a / total, b / b.sum()
    plan, g, optimal = _network_simplex(scaled, a, b)
    astray = plan[np.isinf(scaled)].sum()
    if astray > TOLERANCE:
        raise ValueError(
            f"{astray:.2%} of the mass cannot flow along allowed pairs, so no plan has both marginals: forbid fewer "
            "pairs or change the weights."
        )
    plan = np.where(np.isinf(scaled), 0.0, plan)
    f, g = _completed(scaled, a, b, g)
    source, target = plan.nonzero()
    mass = plan[source, target]
    value = (scaled[source, target] * mass).sum()
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    gap = value - a @ f - b @ g
    shift = (a @ f - b @ g) / 2
    pad = (0, n + m - len(mass))
    return _Solution(
        source=np.pad(source, pad),
        target=np.pad(target, pad),
        mass=np.pad(mass, pad) * total,
        f=(f - shift) * unit,
        g=(g + shift) * unit,
        value=value * unit * total,
        error=error,
        settled=optimal and gap <= TOLERANCE and error <= TOLERANCE,
    )


def _network_simplex(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Plan, target potential, and whether POT calls it optimal, for costs in [-1, 1] or +inf and masses of total 1."""
    try:
        import ot as pot
    except ImportError as error:
        raise ImportError("exact transport is solved by POT, which is not installed: pip install pot.") from error
    # Clearing one forbidden pair changes at most this many others, each by a cost of at most 2.
    prohibitive = 1.0 + 4 * min(cost.shape)
    with warnings.catch_warnings():
        # What POT warns of is said by `converged`.
        warnings.simplefilter("ignore")
        plan, log = pot.lp.emd(a, b, np.minimum(cost, prohibitive), numItermax=MAX_PIVOTS, log=True)
    return plan, log["v"], log["warning"] is None


def _completed(cost: np.ndarray, a: np.ndarray, b: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Potentials with f_i + g_j <= C_ij wherever both have mass; where one has none, those of a vanishing mass."""
    g = g - g[b > 0].mean()
    f = (cost[:, b > 0] - g[b > 0]).min(1)
    g = np.where(b > 0, g, (cost[a > 0] - f[a > 0, None]).min(0))
    return f, g
