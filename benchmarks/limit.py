"""What a transport loss with gradients costs at the least on this machine, whatever the algorithm.

It needs the costs and the two gradients, which are three matrix products of 2 n^2 d operations, one exponential of
n^2 entries, and two matrix-vector products: nobody can do with less and see every pair of points.
"""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch


@cache
def loss_limit(n: int, d: int) -> float:
    """CPU seconds of that minimum in float64, the median of several runs."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, dtype=torch.float64, generator=generator) for _ in range(2))
    cost, kernel = torch.empty(n, n, dtype=torch.float64), torch.empty(n, n, dtype=torch.float64)
    v = torch.full((n,), 1 / n, dtype=torch.float64)
    times = []
    for _ in range(15):
        start = time.process_time()
        torch.mm(x, y.T, out=cost)
        torch.exp(cost, out=kernel)
        u = kernel @ v
        v = u @ kernel / n**2
        kernel @ y
        kernel.T @ x
        times.append(time.process_time() - start)
    return statistics.median(times)
