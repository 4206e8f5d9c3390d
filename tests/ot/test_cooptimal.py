"""Co-optimal transport against POT, its own definition, and permuted tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ot.coot import co_optimal_transport

from labkit import ot


@pytest.fixture
def tables(device, generator):
    """Two unrelated tables with weights of their samples and features."""

    def make(n=12, m=10, d=4, e=5):
        x, y = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((n, d), (m, e)))
        weights = [torch.rand(k, generator=generator, dtype=torch.float64) + 0.2 for k in (n, m, d, e)]
        return [t.to(device) for t in (x, y, *(w / w.sum() for w in weights))]

    return make


@pytest.mark.parametrize("epsilons", [(0.1, 0.1), (0.05, 0.02)])
def test_agrees_with_pot(tables, epsilons):
    x, y, a, b, c, d = tables()
    solution = ot.co_optimal_transport(
        x,
        y,
        a,
        b,
        features_a=c,
        features_b=d,
        epsilon=epsilons[0],
        epsilon_features=epsilons[1],
        scale_cost=None,
        tolerance=1e-9,
        max_iterations=1000,
    )
    x, y, a, b, c, d = (t.cpu().numpy() for t in (x, y, a, b, c, d))
    samples, features, log = co_optimal_transport(
        x,
        y,
        wx_samp=a,
        wy_samp=b,
        wx_feat=c,
        wy_feat=d,
        epsilon=epsilons,
        nits_bcd=2000,
        tol_bcd=1e-13,
        early_stopping_tol=0,
        tol_sinkhorn=1e-13,
        nits_ot=5000,
        log=True,
    )
    np.testing.assert_allclose(solution.samples.plan.cpu(), samples, atol=1e-7)
    np.testing.assert_allclose(solution.features.plan.cpu(), features, atol=1e-7)
    np.testing.assert_allclose(float(solution.regularized_cost), log["distances"][-1], rtol=1e-6)
    gap = (x[:, None, :, None] - y[None, :, None, :]) ** 2
    np.testing.assert_allclose(float(solution.cost), np.einsum("ijkl,ij,kl->", gap, samples, features), rtol=1e-5)


def test_finds_both_permutations(device, generator):
    x = torch.rand(20, 6, generator=generator, dtype=torch.float64).to(device) * torch.arange(1, 7).to(device)
    rows, columns = torch.randperm(20, generator=generator), torch.randperm(6, generator=generator)
    solution = ot.co_optimal_transport(x, x[rows][:, columns], epsilon=0.003)
    assert solution.converged
    assert torch.equal(solution.samples.top(1).index[:, 0].cpu(), rows.argsort())
    assert torch.equal(solution.features.top(1).index[:, 0].cpu(), columns.argsort())


def test_start_and_units(tables):
    x, y, a, b, _, _ = tables(e=4)
    eye = torch.eye(4, dtype=x.dtype, device=x.device)
    solution = ot.co_optimal_transport(x, y, a, b, epsilon=0.01, init_features=eye / 4, tolerance=1e-8)
    larger = ot.co_optimal_transport(100 * x, 100 * y, a, b, epsilon=0.01, init_features=eye, tolerance=1e-8)
    torch.testing.assert_close(larger.samples.plan, solution.samples.plan, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(larger.cost, 1e4 * solution.cost, rtol=1e-5, atol=0)


def test_gradient_is_that_of_finite_differences(tables):
    x, y, a, b, c, d = tables(n=4, m=5, d=3, e=2)

    def value(x, y):
        options = {"features_a": c, "features_b": d, "scale_cost": None, "tolerance": 1e-9, "max_iterations": 1000}
        return ot.co_optimal_transport(x, y, a, b, epsilon=0.1, **options).regularized_cost

    inputs = (x.requires_grad_(), y.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs, eps=1e-4, rtol=1e-4, atol=1e-6)


def test_batch_is_a_loop_and_absent_samples_do_not_count(tables):
    problems = [tables() for _ in range(3)]
    x, y, a, b, c, d = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    batch = ot.co_optimal_transport(x, y, a, b, features_a=c, features_b=d, tolerance=1e-7)
    for k, (x, y, a, b, c, d) in enumerate(problems):
        one = ot.co_optimal_transport(x, y, a, b, features_a=c, features_b=d, tolerance=1e-7)
        torch.testing.assert_close(batch.samples.plan[k], one.samples.plan, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(batch.regularized_cost[k], one.regularized_cost, rtol=1e-6, atol=0)
    far, longer = torch.cat([x.new_full((2, 4), 9.0), x]), torch.cat([a.new_zeros(2), a])
    more = ot.co_optimal_transport(far, y, longer, b, features_a=c, features_b=d, tolerance=1e-7)
    torch.testing.assert_close(more.features.plan, one.features.plan, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(more.regularized_cost, one.regularized_cost, rtol=1e-6, atol=0)


def test_says_what_is_wrong(tables):
    x, y, a, b, c, d = tables()
    with pytest.warns(ot.NotConvergedWarning, match="Co-optimal transport did not settle") as caught:
        solution = ot.co_optimal_transport(x, y, epsilon=0.01, max_iterations=1, tolerance=1e-8)
    assert not solution.converged
    assert caught[0].filename == __file__
    bad = x.clone()
    bad[0, 0] = float("nan")
    with pytest.raises(ValueError, match="x has 1 NaN"):
        ot.co_optimal_transport(bad, y)
    with pytest.raises(ValueError, match=r"y has shape \(10,\), expected"):
        ot.co_optimal_transport(x, y[:, 0])
    with pytest.raises(ValueError, match="is empty"):
        ot.co_optimal_transport(x[:0], y)
    with pytest.raises(ValueError, match="differ in total mass"):
        ot.co_optimal_transport(x, y, features_a=c, features_b=2 * d)
    with pytest.raises(ValueError, match=r"weights features_a have shape \(12,\)"):
        ot.co_optimal_transport(x, y, features_a=a)
    with pytest.raises(ValueError, match="epsilon=-1 must be positive"):
        ot.co_optimal_transport(x, y, epsilon_features=-1)
    with pytest.raises(ValueError, match=r"init_features has shape \(5, 4\)"):
        ot.co_optimal_transport(x, y, init_features=torch.ones(5, 4).to(x))
    with pytest.raises(ValueError, match="batch shape"):
        ot.co_optimal_transport(x.expand(2, -1, -1), y)
