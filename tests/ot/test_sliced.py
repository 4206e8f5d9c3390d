"""Sliced Wasserstein against POT with the same directions, closed forms, and the laws of its weights."""

from __future__ import annotations

import math

import ot as pot
import pytest
import torch

from labkit import ot


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("m", [30, 25])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_agrees_with_pot_along_the_same_directions(make_clouds, weighted, m, p):
    x, y, a, b = make_clouds(n=30, m=m)
    weights = (a, b) if weighted else (None, None)
    directions = torch.randn(3, 40, generator=seeded(), dtype=x.dtype)
    directions = (directions / directions.norm(dim=0)).to(x.device)
    expected = pot.sliced_wasserstein_distance(x, y, *weights, projections=directions, p=p)
    estimate = ot.sliced_wasserstein(x, y, *weights, n_projections=40, p=p, generator=seeded())
    torch.testing.assert_close(estimate.value, expected**p)


def test_one_dimension_is_exact_transport(make_clouds):
    x, y, a, b = make_clouds(d=1)
    estimate = ot.sliced_wasserstein(x, y, a, b, n_projections=2)
    torch.testing.assert_close(estimate.value, ot.exact(ot.PointCloud(x, y), a, b).cost)
    assert estimate.standard_error.item() == pytest.approx(0, abs=1e-12)


def test_translation_has_a_closed_form(make_clouds):
    x, _, a, _ = make_clouds(n=40, d=5)
    shift = torch.tensor([3.0, 0, 0, 0, 4.0]).to(x)
    # W_2^2 along u is <u, t>^2, with mean |t|^2 / d and standard deviation |t|^2 sqrt(2 (d - 1) / (d + 2)) / d.
    estimate = ot.sliced_wasserstein(x, x + shift, a, a, n_projections=4000, generator=seeded())
    assert abs(estimate.value.item() - 5) < 4 * estimate.standard_error.item()
    assert estimate.standard_error.item() == pytest.approx(5 * math.sqrt(8 / 7 / 4000), rel=0.1)


def test_gaussians_have_a_closed_form(device):
    # Shadows of N(0, s^2 I) are N(0, s^2): W_2^2 = (s - t)^2 along every direction; quantiles instead of samples.
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    quantiles = (math.sqrt(2) * torch.erfinv(2 * levels - 1)).to(device)[:, None]
    value = ot.sliced_wasserstein(quantiles, 3 * quantiles, n_projections=2).value
    assert value.item() == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_gradients(make_clouds, p):
    x, y, a, b = make_clouds(n=6, m=5)
    for tensor in (x, y, a, b):
        tensor.requires_grad_()
    options = {"n_projections": 7, "p": p}
    weighted = lambda x, y, a, b: (
        ot.sliced_wasserstein(x, y, a.softmax(0), b.softmax(0), generator=seeded(), **options).value
    )
    assert torch.autograd.gradcheck(weighted, (x, y, a, b))
    uniform = lambda x, y: ot.sliced_wasserstein(x, y[:5], generator=seeded(), **options).value
    assert torch.autograd.gradcheck(uniform, (x[:5].detach().requires_grad_(), y))


def test_gradient_at_equal_clouds_is_zero(make_clouds):
    x, _, a, _ = make_clouds()
    for p in (1.0, 1.5, 2.0):
        moving = x.clone().requires_grad_()
        value = ot.sliced_wasserstein(moving, x, a, a, p=p).value
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert moving.grad.abs().max() < 1e-9


def test_batch_is_a_loop_over_the_same_directions(make_clouds):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(4)]
    x, y, a, b = (torch.stack(tensors).unflatten(0, (2, 2)) for tensors in zip(*problems, strict=True))
    batch = ot.sliced_wasserstein(x, y, a, b, generator=seeded())
    for k, problem in enumerate(problems):
        one = ot.sliced_wasserstein(*problem, generator=seeded())
        torch.testing.assert_close(batch.value[divmod(k, 2)], one.value)
        torch.testing.assert_close(batch.standard_error[divmod(k, 2)], one.standard_error)


def test_weights_count_as_copies(make_clouds):
    x, y, _, _ = make_clouds(n=6, m=8)
    counts = torch.tensor([1, 2, 0, 3, 1, 1])
    weights = counts.to(x) / 8
    copied = ot.sliced_wasserstein(x.repeat_interleave(counts.to(x.device), 0), y, generator=seeded())
    torch.testing.assert_close(ot.sliced_wasserstein(x, y, weights, generator=seeded()).value, copied.value)
    heavy = ot.sliced_wasserstein(x, y, 5 * weights, torch.full((8,), 5 / 8).to(x), generator=seeded())
    torch.testing.assert_close(heavy.value, 5 * copied.value)


def test_many_equal_weights_survive_single_precision(device):
    x = torch.randn(20_000, 2, generator=seeded()).to(device)
    weights = torch.full((20_000,), 1 / 20_000, device=device)
    uniform = ot.sliced_wasserstein(x, x + 1, generator=seeded(), n_projections=2).value
    weighted = ot.sliced_wasserstein(x, x + 1, weights, weights, generator=seeded(), n_projections=2).value
    torch.testing.assert_close(weighted, uniform, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("options", "message"), [({"n_projections": 1}, "at least 2"), ({"p": 0.5}, "at least 1")])
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ot.sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 2), **options)
