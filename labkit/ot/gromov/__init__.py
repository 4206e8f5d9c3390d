"""Gromov-Wasserstein: transport between spaces that have distances of their own but no common coordinates."""

from labkit.ot.gromov.bounds import LowerBounds, gromov_lower_bounds
from labkit.ot.gromov.cooptimal import CoOptimalCoupling, co_optimal_transport
from labkit.ot.gromov.factors import InnerProduct
from labkit.ot.gromov.partial import partial_gromov_wasserstein
from labkit.ot.gromov.result import GromovCoupling
from labkit.ot.gromov.semirelaxed import semirelaxed_gromov_wasserstein
from labkit.ot.gromov.solve import gromov_wasserstein
from labkit.ot.gromov.unbalanced import unbalanced_gromov_wasserstein

__all__ = [
    "CoOptimalCoupling",
    "GromovCoupling",
    "InnerProduct",
    "LowerBounds",
    "co_optimal_transport",
    "gromov_lower_bounds",
    "gromov_wasserstein",
    "partial_gromov_wasserstein",
    "semirelaxed_gromov_wasserstein",
    "unbalanced_gromov_wasserstein",
]
