"""Gromov-Wasserstein: match two spaces by their inner distances, without a common space.

    G(P) = sum_ijkl (D_x[i, k] - D_y[j, l])^2 P_ij P_kl
    min_P  alpha G(P) + (1 - alpha) <M, P> + epsilon KL(P | a b^T),   P 1 = a,  P^T 1 = b

G is as written, without 1/2 and without root; `ot.gromov` of POT has the same G and the same absolute epsilon. The
problem is not convex, and its local optima are many: start more than once where the matching matters.
Peyre, Cuturi, Solomon 2016 (ICML); proximal: Xu, Luo, Zha, Carin 2019 (ICML); fused: Vayer et al. 2019 (ICML).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, full_precision
from labkit.ot.coupling import warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.gromov.descend import INNER_RATIO, Method
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.result import GromovCoupling
from labkit.ot.gromov.spaces import Spaces, checked_plan, gradient_terms, make_spaces
from labkit.ot.gromov.starts import Search, Starts, others_as_good, search

if TYPE_CHECKING:
    from jaxtyping import Float, Int

NEAR_OPTIMAL = 0.01
NOT_CONVERGED = (
    "Gromov-Wasserstein did not settle to tolerance={tolerance} in max_iterations={max_iterations}: raise epsilon or "
    "max_iterations, accept a larger tolerance, or start nearer by init_plan."
)


def gromov_wasserstein(
    geom_x: Geometry | InnerProduct,
    geom_y: Geometry | InnerProduct,
    a: Float[Tensor, "*batch n"] | None = None,
    b: Float[Tensor, "*batch m"] | None = None,
    *,
    epsilon: float = 0.05,
    scale_cost: str | None = "mean",
    fused_cost: Float[Tensor, "*batch n m"] | None = None,
    alpha: float = 0.5,
    method: str = "entropic",
    rank: int | None = None,
    n_starts: int = 1,
    init_plan: Float[Tensor, "*batch n m"] | None = None,
    pairs: Int[Tensor, "k 2"] | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> GromovCoupling:
    """Couple two spaces so that pairs at some distance go to pairs at the same distance.

    Args:
        geom_x: The first space: `PointCloud(x, x)`, a symmetric `CostMatrix`, or `InnerProduct(x)`. Squared Euclidean
            and cosine distances and inner products of d features take O(n^2 d) a step, all others O(n^3).
        geom_y: The second space; it may have another dimension and number of points.
        a: Weights of the first space, uniform by default.
        b: Weights of the second; their total must be that of `a`.
        epsilon: Strength of the entropy, relative to the objective of the product coupling: for the pure problem
            the mean of |D_x - D_y|^2.
        scale_cost: "mean" divides each distance matrix (and `fused_cost`) by its mean, so that G is a pure number
            and the units of the spaces do not matter; None takes them as they are, and epsilon as absolute.
        fused_cost: M, a cost between points of the two spaces, for the fused problem.
        alpha: Weight of the structure against `fused_cost`; without a fused cost it is 1.
        method: "entropic", or "proximal" for the problem without entropy: epsilon is then the strength of
            KL(P | last P), and the plan becomes sparse.
        rank: Replace distances that have no exact factors of at most this rank by their leading eigenvectors, which
            makes a step O(n^2 rank); `approximation_error` says what that costs.
        n_starts: How many of these to start from; the best is returned: `init_plan` and `pairs` if given, the
            product, the plans of the first and third lower bound, and random ones without end. The product and
            random ones come down from a large epsilon.
        init_plan: Where to start.
        pairs: Indices (i, j) of points that are known to correspond; three may be enough.
        seed: Of the random starts.
        tolerance: L1 change of the plan in one step to reach, as a fraction of the mass. The marginals are kept to
            a tenth of it.
        max_iterations: Steps from each start.

    Returns:
        The coupling. `cost` is alpha G + (1 - alpha) <M, P> of its plan in the units described under `scale_cost`;
        `regularized_cost` adds the entropy (nothing for "proximal") and is differentiable once in both geometries
        and `fused_cost`, not in the weights, at the local optimum. `n_iterations` counts the steps of all starts.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: A geometry that is not one space with itself, or input that makes no problem.
        FloatingPointError: The numbers overflowed.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough, here or in a linearized problem.
    """
    how = Method(epsilon, method, tolerance, max_iterations)
    with full_precision(geom_x.device):
        spaces = make_spaces((geom_x, geom_y), (a, b), scale_cost, (fused_cost, alpha), rank=rank)
        with torch.no_grad():
            start = None if init_plan is None else checked_plan(init_plan, spaces)
            found = search(spaces, how, Starts(n_starts, start, pairs, seed))
        coupling = _coupling(spaces, how, found)
    warn_unless(coupling.converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    return coupling


def _coupling(spaces: Spaces, method: Method, search: Search) -> GromovCoupling:
    best, unit = search.best, spaces.unit
    if not bool(torch.isfinite(best.objective + best.marginal_error).all()):
        raise FloatingPointError(
            "Gromov-Wasserstein overflowed: epsilon is too small for the range of the distances in this dtype. Raise "
            "epsilon, use float64, or remove outlying points."
        )
    value = best.objective
    if torch.is_grad_enabled():
        value = with_envelope_gradient(value, *gradient_terms(spaces, best.plan))
    closeness = NEAR_OPTIMAL * spaces.product_objective
    return GromovCoupling(
        geometry=CostMatrix(best.cost * unit[..., None, None]),
        a=spaces.a,
        b=spaces.b,
        f=best.f * unit[..., None],
        g=best.g * unit[..., None],
        epsilon=method.epsilon,
        epsilon_absolute=best.epsilon * unit,
        cost=best.value,
        regularized_cost=value,
        marginal_error=best.marginal_error,
        tolerance=INNER_RATIO * method.tolerance,
        n_iterations=search.n_iterations,
        converged=bool(best.settled.all()),
        spaces=spaces,
        objectives=search.objectives,
        n_alternatives=others_as_good(search, spaces.a, closeness),
        approximation_error=spaces.x.error + spaces.y.error,
    )
