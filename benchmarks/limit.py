"""What a transport loss with gradients costs at the least on this machine, whatever the algorithm.

It needs the costs and the two gradients, which are three matrix products of 2 n^2 d operations, one exponential of
n^2 entries, and two matrix-vector products: nobody can do with less and see every pair of points.
"""

from __future__ import annotations

import statistics
from functools import cache

import torch
from torch import Tensor

from benchmarks.race import timed
from benchmarks.solvers import Prepared, itself


@cache
def loss_limit(n: int, d: int, device: str) -> float:
    """Seconds of that minimum in float64 on a device, the median of several runs."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, dtype=torch.float64, generator=generator).to(device) for _ in range(2))
    cost, kernel = torch.empty(n, n, dtype=x.dtype, device=device), torch.empty(n, n, dtype=x.dtype, device=device)
    v = torch.full((n,), 1 / n, dtype=x.dtype, device=device)

    def run() -> tuple[Tensor, Tensor, Tensor]:
        torch.mm(x, y.T, out=cost)
        torch.exp(cost, out=kernel)
        return (kernel @ v) @ kernel, kernel @ y, kernel.T @ x

    return statistics.median(timed(Prepared(run, itself), device)[0] for _ in range(15))
