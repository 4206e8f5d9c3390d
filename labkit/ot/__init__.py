"""Optimal transport: entropic, balanced or relaxed, and Gromov-Wasserstein, in differentiable torch.

>>> import torch
>>> from labkit import ot
>>> x, y = torch.randn(100, 8), torch.randn(120, 8)
>>> coupling = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.05)
>>> coupling.plan.shape
torch.Size([100, 120])

One convention throughout: <C, P> + epsilon KL(P | a b^T), with epsilon relative to the mean cost. Needs torch, numpy
and scipy only; numba (the extra `fast`) makes small problems faster, POT solves `exact`.

costs       PointCloud, CostMatrix, CostFunction (blocks on demand), InnerProduct; Restricted forbids and fixes pairs
entropic    sinkhorn (streamed by itself when large), partial_sinkhorn, sinkhorn_divergence, sinkhorn_low_rank
other       exact, sliced_wasserstein, refine (bijections between millions of points)
maps        Coupling.map, Coupling.jacobian, debiased_map, progressive_map
spaces      gromov_wasserstein, its unbalanced, semirelaxed and partial forms, co_optimal_transport, gromov_lower_bounds
rounding    round_to_marginals, round_to_permutation
"""

from labkit.ot.cost import CostMatrix, PointCloud
from labkit.ot.coupling import Coupling, NotConvergedWarning, TopMasses
from labkit.ot.divergence import WarmStart, sinkhorn_divergence
from labkit.ot.exact import ExactCoupling, exact
from labkit.ot.flow import gradient_flow
from labkit.ot.function import CostFunction
from labkit.ot.gromov import (
    CoOptimalCoupling,
    GromovCoupling,
    InnerProduct,
    LowerBounds,
    co_optimal_transport,
    gromov_lower_bounds,
    gromov_wasserstein,
    partial_gromov_wasserstein,
    semirelaxed_gromov_wasserstein,
    unbalanced_gromov_wasserstein,
)
from labkit.ot.lowrank import sinkhorn_low_rank
from labkit.ot.lowrank_coupling import LowRankCoupling
from labkit.ot.maps import DebiasedMap, ProgressiveMap, debiased_map, progressive_map
from labkit.ot.partial import partial_sinkhorn
from labkit.ot.refine import Assignment, refine
from labkit.ot.restricted import Restricted
from labkit.ot.rounding import round_to_marginals, round_to_permutation
from labkit.ot.sinkhorn import sinkhorn
from labkit.ot.sliced import SlicedWasserstein, sliced_wasserstein
from labkit.ot.streamed_coupling import StreamedCoupling

__all__ = [
    "Assignment",
    "CoOptimalCoupling",
    "CostFunction",
    "CostMatrix",
    "Coupling",
    "DebiasedMap",
    "ExactCoupling",
    "GromovCoupling",
    "InnerProduct",
    "LowRankCoupling",
    "LowerBounds",
    "NotConvergedWarning",
    "PointCloud",
    "ProgressiveMap",
    "Restricted",
    "SlicedWasserstein",
    "StreamedCoupling",
    "TopMasses",
    "WarmStart",
    "co_optimal_transport",
    "debiased_map",
    "exact",
    "gradient_flow",
    "gromov_lower_bounds",
    "gromov_wasserstein",
    "partial_gromov_wasserstein",
    "partial_sinkhorn",
    "progressive_map",
    "refine",
    "round_to_marginals",
    "round_to_permutation",
    "semirelaxed_gromov_wasserstein",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_low_rank",
    "sliced_wasserstein",
    "unbalanced_gromov_wasserstein",
]
