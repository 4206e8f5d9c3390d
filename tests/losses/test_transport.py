"""The Sinkhorn divergence as a loss, against POT."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch
from torch.nn import functional as F

from labkit.losses import sinkhorn_divergence


def clouds(n: int = 20, m: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(m, 6, generator=generator, dtype=torch.float64) + 0.5
    return x, y


def by_pot(x, y, epsilon: float) -> float:
    """<C, P> + epsilon KL(P | a b^T) from POT's log-domain solver, debiased; one absolute epsilon for all three."""
    x, y = F.normalize(x, dim=1).numpy(), F.normalize(y, dim=1).numpy()
    absolute = epsilon * (1 - x @ y.T).mean()

    def value(p, q):
        cost, a, b = 1 - p @ q.T, pot.unif(len(p)), pot.unif(len(q))
        plan = pot.sinkhorn(a, b, cost, absolute, method="sinkhorn_log", stopThr=1e-7, numItermax=5000)
        return float((plan * cost).sum() + absolute * (plan * np.log(plan / np.outer(a, b))).sum())

    return value(x, y) - value(x, x) / 2 - value(y, y) / 2


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
@pytest.mark.parametrize("m", [20, 13])
def test_it_equals_the_divergence_of_pot(epsilon, m):
    x, y = clouds(m=m)
    assert sinkhorn_divergence(x, y, epsilon=epsilon).item() == pytest.approx(by_pot(x, y, epsilon), rel=2e-3)


def test_equal_clouds_cost_nothing(device):
    x = clouds()[0].to(device)
    assert sinkhorn_divergence(x, x).item() == pytest.approx(0, abs=1e-5)


def test_it_is_blind_to_the_pairing():
    """The trap that the module documents: shuffling the rows of one modality changes nothing."""
    x, y = clouds()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert sinkhorn_divergence(x, y[order]).item() == pytest.approx(sinkhorn_divergence(x, y).item(), rel=1e-4)
    assert sinkhorn_divergence(x, x[order]).item() == pytest.approx(0, abs=1e-4)


def test_the_length_of_the_rows_does_not_matter():
    x, y = clouds()
    assert sinkhorn_divergence(3 * x, y).item() == pytest.approx(sinkhorn_divergence(x, y).item(), rel=1e-6)


def test_relaxed_marginals_care_less_for_an_outlier():
    x, _ = clouds()
    y = x.clone()
    y[0] = -x[0] * 10
    assert sinkhorn_divergence(x, y, tau=0.5).item() < 0.9 * sinkhorn_divergence(x, y).item()


def test_clouds_of_different_spaces_are_refused():
    x, y = clouds()
    with pytest.raises(ValueError, match="x has 6 features and y has 3"):
        sinkhorn_divergence(x, y[:, :3])


@pytest.mark.parametrize("seed", range(6))
def test_a_collapsed_cloud_has_no_divergence_and_a_finite_gradient(seed, device):
    torch.manual_seed(seed)
    x = torch.randn(1, 128, device=device).repeat(20, 1).requires_grad_()
    value = sinkhorn_divergence(x, 1.0001 * x.detach())
    value.backward()
    assert value.abs() < 1e-6
    assert x.grad is not None
    assert x.grad.isfinite().all()
