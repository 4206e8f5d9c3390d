"""What every registered loss keeps, run over the registry: a new loss is tested from its first day."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from labkit.geometry import knn, shortest_paths
from labkit.losses import LOSSES

NAMES = list(LOSSES)
ONE_SIDED = {"rc_literal", "rma_literal"}  # as the proposals write them
RANDOM = {"sliced_wasserstein"}  # the same seed draws other lines in another dtype


def loss_on(name: str, x: Tensor, y: Tensor, k: int = 2) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss with index sets or paths fixed at (x, y) where it takes them: combinatorics carries no gradient."""
    loss: Any = LOSSES.get(name)
    parameters = inspect.signature(loss).parameters
    if "generator" in parameters:
        return lambda a, b: loss(a, b, generator=torch.Generator().manual_seed(0))
    if "paths_x" in parameters:
        along_x, along_y = (shortest_paths(normalize(z, dim=1), k=k) for z in (x, y))
        return lambda a, b: loss(a, b, paths_x=along_x, paths_y=along_y)
    if "neighbors_x" not in parameters:
        return loss
    near_x, near_y = knn(x, k), knn(y, k)
    if "neighbors_y" not in parameters:
        return lambda a, b: loss(a, b, neighbors_x=near_x, k=k)
    return lambda a, b: loss(a, b, neighbors_x=near_x, neighbors_y=near_y)


def clouds(n: int = 12, d: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return x.to(dtype), y.to(dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_finite_and_keep_device_and_dtype(name, dtype, device):
    x, y = (v.to(device).requires_grad_() for v in clouds(dtype=dtype))
    value = loss_on(name, x, y)(x, y)
    value.backward()
    assert value.shape == ()
    assert (value.dtype, value.device.type) == (dtype, device.type)
    assert value >= 0
    for v in (x, y):
        assert v.grad is not None
        assert torch.isfinite(v.grad).all()
        assert v.grad.abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_finite_differences(name):
    x, y = (v.requires_grad_() for v in clouds(n=5, d=3))
    loss = loss_on(name, x.detach(), y.detach())
    assert torch.autograd.gradcheck(loss, (x, y), eps=1e-5, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOM))
def test_float32_and_float64_agree(name, device):
    x, y = clouds(seed=1)
    double, single = loss_on(name, x, y)(x, y), loss_on(name, x, y)
    if device.type == "cuda":
        single = loss_on(name, x.to(device), y.to(device))
    assert single(x.float().to(device), y.float().to(device)).item() == pytest.approx(double.item(), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_samples_does_not_matter(name):
    x, y = clouds()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    value = loss_on(name, x, y)(x, y)
    assert loss_on(name, x[order], y[order])(x[order], y[order]).item() == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONE_SIDED))
def test_the_modalities_can_be_exchanged(name):
    x, y = clouds()
    assert loss_on(name, y, x)(y, x).item() == pytest.approx(loss_on(name, x, y)(x, y).item(), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_coinciding_samples_give_a_finite_gradient(name):
    """Duplicates, a modality equal to the other and constant rows are where roots and arccos blow up."""
    x, y = clouds(n=6)
    x[1], y[1] = x[0], y[0]
    for first, second in ((x, y), (x, x.clone()), (torch.ones(6, 4).double(), y), (x, -x)):
        a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
        loss_on(name, first, second)(a, b).backward()
        assert a.grad is not None
        assert b.grad is not None
        assert torch.isfinite(a.grad).all()
        assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented_with_formula_and_source(name):
    text = inspect.getdoc(LOSSES.get(name)) or ""
    for part in ("Formula: ", "Source:"):
        assert part in text, f"the docstring of {name} has no {part!r}"
    assert len(text.split("Formula: ")[1].split("\n\n")[0]) > 20
    assert len(text.split("Source:")[1].strip()) > 10


def test_names_and_aliases():
    assert {"info_nce", "rc", "rma_isometric", "sinkhorn_divergence", "vicreg"} <= set(NAMES)
    assert LOSSES.get("rma") is LOSSES.get("rma_isometric")
