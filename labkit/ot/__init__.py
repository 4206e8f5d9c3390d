"""Optimal transport: entropic, balanced or relaxed, and Gromov-Wasserstein, in differentiable torch.

>>> import torch
>>> from labkit import ot
>>> x, y = torch.randn(100, 8), torch.randn(120, 8)
>>> coupling = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.05)
>>> coupling.plan.shape
torch.Size([100, 120])

One convention throughout: <C, P> + epsilon KL(P | a b^T), with epsilon relative to the mean cost. Needs torch, numpy
and scipy only.
"""

from labkit.ot.cost import CostMatrix, PointCloud
from labkit.ot.coupling import Coupling, NotConvergedWarning, TopMasses
from labkit.ot.divergence import sinkhorn_divergence
from labkit.ot.gromov import gromov_wasserstein
from labkit.ot.sinkhorn import sinkhorn

__all__ = [
    "CostMatrix",
    "Coupling",
    "NotConvergedWarning",
    "PointCloud",
    "TopMasses",
    "gromov_wasserstein",
    "sinkhorn",
    "sinkhorn_divergence",
]
