"""The other transport losses against POT, exact sorting, and the traps that they document."""

from __future__ import annotations

import math

import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses import (
    entropic_ot,
    entropic_ot_literal,
    exact_ot,
    low_rank_divergence,
    sinkhorn_divergence,
    sliced_wasserstein,
    unbalanced_divergence,
)


def clouds(n: int = 20, m: int = 20, d: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.5


def costs(x: Tensor, y: Tensor, cost: str = "cosine") -> np.ndarray:
    cosine = (F.normalize(x, dim=1) @ F.normalize(y, dim=1).T).numpy()
    cosine = cosine.clip(-1, 1)
    return {"cosine": 1 - cosine, "euclidean": np.sqrt(2 - 2 * cosine), "geodesic": np.arccos(cosine)}[cost]


@pytest.mark.parametrize("cost", ["cosine", "euclidean", "geodesic"])
@pytest.mark.parametrize("m", [20, 13])
def test_entropic_transport_in_both_conventions_by_pot(cost, m):
    x, y = clouds(m=m)
    matrix = costs(x, y, cost)
    a, b = pot.unif(20), pot.unif(m)
    plan = pot.sinkhorn(a, b, matrix, 0.1, method="sinkhorn_log", stopThr=1e-9, numItermax=10000)
    linear = (plan * matrix).sum()
    kl, entropy = (plan * np.log(plan / np.outer(a, b))).sum(), -(plan * np.log(plan)).sum()
    assert entropic_ot(x, y, epsilon=0.1, cost=cost).item() == pytest.approx(linear + 0.1 * kl, rel=1e-3)
    literal = entropic_ot_literal(x, y, epsilon=0.1, cost=cost).item()
    assert literal == pytest.approx(linear - 0.1 * entropy, rel=1e-3)


def test_entropic_transport_of_equal_clouds_is_not_zero_and_its_literal_form_is_negative():
    x = clouds()[0]
    assert entropic_ot(x, x, epsilon=0.2).item() > 0.1
    assert entropic_ot_literal(x, x, epsilon=0.2).item() < -0.5
    assert sinkhorn_divergence(x, x, epsilon=0.2).item() == pytest.approx(0, abs=1e-5)


def test_entropic_transport_prefers_a_target_that_has_shrunk():
    """Great circle angles scaled towards the pole: the divergence wants the true spread, plain transport less of it."""
    flat = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def cap(size: float) -> Tensor:
        return F.normalize(F.pad(0.5 * size * flat, (0, 1), value=1.0), dim=1)

    sizes = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2]
    plain = [entropic_ot(cap(s), cap(1.0), epsilon=0.3).item() for s in sizes]
    debiased = [sinkhorn_divergence(cap(s), cap(1.0), epsilon=0.3).item() for s in sizes]
    assert sizes[int(np.argmin(plain))] < 0.7
    assert sizes[int(np.argmin(debiased))] == 1.0


def test_the_literal_form_has_the_gradient_of_the_other():
    x, y = (z.requires_grad_() for z in clouds())
    gradients = [torch.autograd.grad(loss(x, y), x)[0] for loss in (entropic_ot, entropic_ot_literal)]
    assert gradients[0].allclose(gradients[1])


@pytest.mark.parametrize("m", [20, 13])
def test_exact_transport_by_pot(m):
    x, y = clouds(m=m)
    assert exact_ot(x, y).item() == pytest.approx(pot.emd2([], [], costs(x, y)))
    assert exact_ot(x, x[torch.randperm(20)]).item() == pytest.approx(0, abs=1e-12)


def test_relaxed_marginals_by_pot_and_their_debiasing():
    x, y = clouds(m=13)
    epsilon, tau = 0.1, 0.8
    rho = epsilon * tau / (1 - tau)

    def value(p: Tensor, q: Tensor) -> float:
        matrix, a, b = costs(p, q), pot.unif(len(p)), pot.unif(len(q))
        plan = pot.unbalanced.sinkhorn_stabilized_unbalanced(
            a, b, matrix, epsilon, rho, numItermax=20000, stopThr=1e-12
        )

        def kl(u: np.ndarray, v: np.ndarray) -> float:
            return float((u * np.log(u / v) - u + v).sum())

        return (
            (plan * matrix).sum() + epsilon * kl(plan, np.outer(a, b)) + rho * (kl(plan.sum(1), a) + kl(plan.sum(0), b))
        )

    expected = value(x, y) - value(x, x) / 2 - value(y, y) / 2
    assert unbalanced_divergence(x, y, epsilon=epsilon, tau=tau).item() == pytest.approx(expected, rel=5e-3)
    assert unbalanced_divergence(x, x, epsilon=epsilon, tau=tau).item() == pytest.approx(0, abs=1e-5)


def test_an_outlier_costs_less_where_mass_may_stay():
    x, _ = clouds()
    y = x.clone()
    y[0] = -10 * x[0]
    assert unbalanced_divergence(x, y, tau=0.5).item() < 0.8 * sinkhorn_divergence(x, y).item()


def test_the_sliced_value_by_sorting_and_below_the_exact_one():
    x, y = clouds()
    value = sliced_wasserstein(x, y, n_projections=4000, generator=torch.Generator().manual_seed(0)).item()
    lines = torch.randn(6, 4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lines = lines / lines.norm(dim=0)
    shadows = [(F.normalize(z, dim=1) @ lines).sort(dim=0).values for z in (x, y)]
    assert value == pytest.approx(3 * (shadows[0] - shadows[1]).square().mean().item(), rel=0.05)
    assert 0.2 * exact_ot(x, y).item() < value < exact_ot(x, y).item()
    assert sliced_wasserstein(x, x.flip(0)).item() == pytest.approx(0, abs=1e-12)


def test_a_shift_costs_the_same_in_every_solver():
    """Small clouds near two poles: all mass moves by nearly the same vector, which any solver must see."""
    generator = torch.Generator().manual_seed(0)
    noise = [0.01 * torch.randn(30, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    north = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    tilted = F.normalize(torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64), dim=0)
    x, y = north + noise[0], tilted + noise[1]
    expected = 1 - float(north @ tilted)
    lines = torch.Generator().manual_seed(0)
    for value in (
        exact_ot(x, y),
        sinkhorn_divergence(x, y),
        low_rank_divergence(x, y, rank=2, max_iterations=500),
        sliced_wasserstein(x, y, n_projections=20000, generator=lines),
    ):
        assert value.item() == pytest.approx(expected, rel=0.03)


def test_low_rank_transport_is_zero_for_equal_clouds_and_near_the_exact_value_at_high_rank():
    x, y = clouds(30, 24)
    assert low_rank_divergence(x, x).item() == pytest.approx(0, abs=1e-3)
    own = [low_rank_divergence(x, y, rank=r, max_iterations=500).item() for r in (2, 20)]
    exact = exact_ot(x, y).item()
    assert own[0] > 0
    assert own[1] < 1.2 * exact
    assert low_rank_divergence(x, y).item() > low_rank_divergence(x, F.normalize(x + 0.2 * x.flip(0), dim=1)).item()


def test_low_rank_gradient_moves_a_cloud_onto_the_other():
    x, y = clouds(24, 24, 3)
    moving = x.clone().requires_grad_()
    optimizer = torch.optim.SGD([moving], lr=4.0)
    before = exact_ot(x, y).item()
    for _ in range(12):
        optimizer.zero_grad()
        low_rank_divergence(moving, y, rank=6, max_iterations=50).backward()
        optimizer.step()
    assert exact_ot(moving.detach(), y).item() < 0.6 * before


@pytest.mark.parametrize(
    "loss",
    [sinkhorn_divergence, unbalanced_divergence, entropic_ot, exact_ot, low_rank_divergence, sliced_wasserstein],
)
def test_all_are_blind_to_the_pairing_and_refuse_other_spaces(loss):
    x, y = clouds()
    seeded = {"generator": torch.Generator().manual_seed(0)} if loss is sliced_wasserstein else {}
    first = loss(x, y, **seeded).item()
    seeded = {"generator": torch.Generator().manual_seed(0)} if loss is sliced_wasserstein else {}
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert loss(x, y[order], **seeded).item() == pytest.approx(first, rel=0.03)
    with pytest.raises(ValueError, match="x has 6 features and y has 3"):
        loss(x, y[:, :3])


def test_log_of_sizes_that_differ():
    x, y = clouds(m=13)
    gap = (entropic_ot(x, y) - entropic_ot_literal(x, y)).item()
    assert gap == pytest.approx(0.05 * (math.log(20) + math.log(13)))
