"""Under autocast, losses with determinants, eigenvalues or transport keep the value that they have without."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from labkit import losses
from labkit.losses import LOSSES

IN_LOW_PRECISION = {"info_nce", "siglip", "reconstruction"}  # logits and errors that 16 bits are made for
EXACT = sorted(set(LOSSES) - IN_LOW_PRECISION)


def value_of(name: str, x: Tensor, y: Tensor) -> Tensor:
    loss: Any = LOSSES.get(name)
    parameters = inspect.signature(loss).parameters
    options: dict[str, Any] = {"k": 4} if "k" in parameters else {}
    if "generator" in parameters:
        options["generator"] = torch.Generator().manual_seed(0)
    return loss(x, y, **options)


@pytest.fixture
def clouds(generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(24, 6, generator=generator)
    return x, x + 0.3 * torch.randn(24, 6, generator=generator)


@pytest.mark.parametrize("name", EXACT)
def test_autocast_changes_nothing(name, clouds):
    x, y = clouds
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = value_of(name, x, y)
    assert cast.dtype == torch.float32
    assert cast.item() == pytest.approx(value_of(name, x, y).item(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", EXACT)
def test_half_precision_is_lifted(name, clouds):
    x, y = (z.bfloat16() for z in clouds)
    value = value_of(name, x, y)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(value_of(name, x.float(), y.float()).item(), rel=1e-5, abs=1e-7)


def test_autocast_would_change_what_is_not_guarded(clouds):
    """The guard is needed: the same sum of products, unguarded, is off by more than float32 would allow."""
    x, y = clouds
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = x @ y.T
    assert product.dtype == torch.bfloat16
    assert (product.float() - x @ y.T).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["permutation_defect", "permutation_defect_literal", "cycle_defect", "klot", "gcca"])
def test_plans_and_correlations_likewise(name, generator):
    plan = torch.rand(12, 12, generator=generator)
    arguments = (plan, plan.T.contiguous()) if name in ("klot", "gcca") else (plan / plan.sum(),)
    loss = getattr(losses, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(*arguments)
    assert cast.item() == pytest.approx(loss(*arguments).item(), rel=1e-5)
