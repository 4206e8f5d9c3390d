"""Problems that the transport tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Clouds = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


@pytest.fixture
def make_clouds(device: torch.device) -> Clouds:
    """Factory of two overlapping clouds with random weights of total 1: x [n, d], y [m, d], a [n], b [m]."""

    def make(n: int = 30, m: int = 25, d: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        y = 0.7 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.5
        a = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
        b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
        return tuple(t.to(device, dtype) for t in (x, y, a / a.sum(), b / b.sum()))

    return make
