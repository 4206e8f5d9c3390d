"""The Sinkhorn divergence: closed forms, axioms, gradients, and what it cures."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import ot
from labkit.ot import divergence
from labkit.ot.problem import Settings

TIGHT = {"tolerance": 1e-11, "max_iterations": 100_000}


def test_two_diracs(device):
    x, y = torch.tensor([[0.0, 0.0]], device=device), torch.tensor([[3.0, 4.0]], device=device)
    assert ot.sinkhorn_divergence(x, y).item() == pytest.approx(25)
    assert ot.sinkhorn_divergence(x, y, cost="euclidean").item() == pytest.approx(5)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_gaussians_on_a_grid(device, epsilon):
    # Janati et al. 2020, thm. 1 with epsilon = 2 sigma^2: OT(A, B) of centered Gaussians, terms common to all left out.
    def transport(variance_a, variance_b):
        spread = math.sqrt(4 * variance_a * variance_b + epsilon**2 / 4)
        return variance_a + variance_b - spread + epsilon / 2 * math.log(spread + epsilon / 2)

    expected = 1.0 + transport(1.0, 0.5) - (transport(1.0, 1.0) + transport(0.5, 0.5)) / 2
    grid = torch.linspace(-9, 9, 400, dtype=torch.float64, device=device)
    a, b = torch.softmax(-(grid**2) / 2, 0), torch.softmax(-((grid - 1) ** 2), 0)
    options = {"epsilon": epsilon, "scale_cost": None, "tolerance": 1e-9, "max_iterations": 50_000}
    value = ot.sinkhorn_divergence(grid[:, None], grid[:, None], a, b, **options)
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tau", [1.0, 0.8])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_is_three_transports_at_one_epsilon(make_clouds, cost, tau):
    x, y, a, b = make_clouds()
    b = b if tau == 1 else 0.6 * b
    value = ot.sinkhorn_divergence(x, y, a, b, cost=cost, epsilon=0.2, tau_a=tau, tau_b=tau, **TIGHT)
    scale = a / a.sum() @ ot.PointCloud(x, y, cost).matrix() @ b / b.sum()
    options = {"epsilon": 0.2, "scale_cost": float(scale), "tau_a": tau, "tau_b": tau, **TIGHT}
    # Matrices, so that the general iteration is taken where the divergence takes the symmetric one.
    transport = [
        ot.sinkhorn(ot.CostMatrix(ot.PointCloud(p, q, cost).matrix()), u, v, **options).regularized_cost
        for p, q, u, v in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
    ]
    mass_term = 0.2 * scale / 2 * (a.sum() - b.sum()) ** 2
    torch.testing.assert_close(value, transport[0] - transport[1] / 2 - transport[2] / 2 + mass_term)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.2, 0.5, 2.0]),
    st.sampled_from([1.0, 0.7]),
    st.integers(0, 10_000),
)
def test_axioms(n, m, epsilon, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, 2, generator=generator, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=generator, dtype=torch.float64) + 0.05 for k in (n, m))
    if tau == 1:
        a, b = a / a.sum(), b / b.sum()
    options = {"epsilon": epsilon, "tau_a": tau, "tau_b": tau, "tolerance": 1e-5, "max_iterations": 100_000}
    value = ot.sinkhorn_divergence(x, y, a, b, **options)
    # By concavity a dual value errs by at most its marginal error times the error of the potentials, which differ
    # by less than the largest cost.
    bound = 1e-5 * float(torch.cdist(torch.cat([x, y]), torch.cat([x, y])).max()) ** 2
    assert value >= -bound
    mirrored = ot.sinkhorn_divergence(y, x, b, a, **options)
    torch.testing.assert_close(mirrored, value, rtol=0, atol=2 * bound)
    order = torch.randperm(n, generator=generator)
    same = ot.sinkhorn_divergence(x, x[order], a, a[order], **options)
    assert same.abs() <= bound
    moved = ot.sinkhorn_divergence(x + 5, y + 5, a, b, **options)
    torch.testing.assert_close(moved, value, rtol=0, atol=2 * bound)


def test_default_tolerance_is_good_enough_for_a_sign(make_clouds):
    x, y, _, _ = make_clouds(n=100, m=80, dtype=torch.float32)
    scale = ot.PointCloud(x, y).matrix().mean()
    assert ot.sinkhorn_divergence(x, x[torch.randperm(100)]).abs() <= 1e-4 * scale
    loose, tight = ot.sinkhorn_divergence(x, y), ot.sinkhorn_divergence(x.double(), y.double(), tolerance=1e-8)
    assert loose.item() == pytest.approx(tight.item(), rel=1e-3)


def test_value_and_gradient_vanish_for_one_cloud_with_itself(make_clouds):
    x, _, _, _ = make_clouds(dtype=torch.float32)
    value = ot.sinkhorn_divergence(x.requires_grad_(), x)
    value.backward()
    assert value.item() == 0
    assert x.grad.abs().max() <= 1e-8


@pytest.mark.parametrize("tau", [1.0, 0.8])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_gradient_is_that_of_finite_differences(make_clouds, cost, tau):
    x, y, a, b = make_clouds(n=6, m=5, d=2)

    def value(x, y, log_a, log_b):
        weights = log_a.softmax(0), (1.0 if tau == 1 else 1.5) * log_b.softmax(0)
        options = {"cost": cost, "epsilon": 0.3, "scale_cost": 2.0, "tau_a": tau, "tau_b": tau}
        return ot.sinkhorn_divergence(x, y, *weights, **options, **TIGHT)

    inputs = tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))
    assert torch.autograd.gradcheck(value, inputs, rtol=1e-4, atol=1e-7)


def test_scale_is_taken_from_the_cross_cost_without_gradient(make_clouds):
    x, y, _, _ = make_clouds()
    scale = ot.PointCloud(x, y).matrix().mean()
    gradients = []
    for scale_cost in ("mean", float(scale)):
        point = x.clone().requires_grad_()
        ot.sinkhorn_divergence(point, y, scale_cost=scale_cost).backward()
        gradients.append(point.grad)
    torch.testing.assert_close(*gradients)


def test_batch_is_a_loop(make_clouds):
    problems = [make_clouds(n=12, m=10, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    x.requires_grad_()
    batch = ot.sinkhorn_divergence(x, y, a, b, **TIGHT)
    assert batch.shape == (3,)
    (batch * torch.tensor([1.0, 2.0, 3.0]).to(batch)).sum().backward()
    for k, (x_one, y_one, a_one, b_one) in enumerate(problems):
        one = ot.sinkhorn_divergence(x_one.requires_grad_(), y_one, a_one, b_one, **TIGHT)
        torch.testing.assert_close(batch[k], one)
        one.backward()
        torch.testing.assert_close(x.grad[k], (k + 1) * x_one.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(make_clouds, device, dtype):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    x, y = x.to(dtype).requires_grad_(), y.to(dtype)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        value = ot.sinkhorn_divergence(x, y)
    assert value.dtype == torch.float32
    value.backward()
    full = x.detach().float().requires_grad_()
    expected = ot.sinkhorn_divergence(full, y.float())
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(x.grad, full.grad.to(dtype), rtol=2e-2, atol=1e-4)


def test_keeps_the_spread_that_plain_transport_loses(device, generator):
    # The trap of entropic transport as a loss: minimized over x it pulls the cloud towards the mean of y
    # (for a Gaussian y of variance v to variance v - epsilon / 2, or to a point).
    y = torch.randn(40, 2, generator=generator, dtype=torch.float64).to(device)
    start = 0.5 * torch.randn(40, 2, generator=generator, dtype=torch.float64).to(device)
    options = {"epsilon": 4.0, "scale_cost": None, "tolerance": 1e-5}
    losses = {
        "transport": lambda x: ot.sinkhorn(ot.PointCloud(x, y), **options).regularized_cost,
        "divergence": lambda x: ot.sinkhorn_divergence(x, y, **options),
    }
    kept = {}
    for name, loss in losses.items():
        x = start.clone().requires_grad_()
        for _ in range(150):
            (gradient,) = torch.autograd.grad(loss(x), x)
            # Each point has mass 1/40; undo it, so that a step of 1/4 is half of the way to the barycenter.
            x = (x - 0.25 * 40 * gradient).detach().requires_grad_()
        kept[name] = float(x.detach().var(0).sum() / y.var(0).sum())
    assert kept["transport"] < 0.01
    assert kept["divergence"] == pytest.approx(1, abs=0.05)


def test_not_converged_warns_at_the_caller(make_clouds):
    x, y, _, _ = make_clouds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            ot.sinkhorn_divergence(x, y, epsilon=1e-3, max_iterations=5)
    (warning,) = caught
    assert issubclass(warning.category, ot.NotConvergedWarning)
    assert warning.filename == __file__


def test_refuses_different_masses_unless_relaxed(make_clouds):
    x, y, a, b = make_clouds()
    with pytest.raises(ValueError, match="relax the marginals"):
        ot.sinkhorn_divergence(x, y, a, 2 * b)
    assert ot.sinkhorn_divergence(x, y, a, 2 * b, tau_a=0.9, tau_b=0.9) > 0


@pytest.mark.parametrize("tau", [1.0, 0.8])
@pytest.mark.parametrize("batch", [False, True])
def test_one_batch_of_three_is_three_in_turn(make_clouds, tau, batch):
    x, y, a, b = make_clouds(n=8, m=8)
    x = torch.stack([x, x + 0.2]) if batch else x
    inputs = tuple(t.requires_grad_() for t in (x, y, a.log(), b.log()))
    settings = Settings(0.2, "mean", tau, tau, 1e-11, 20_000)
    results = []
    for solver in (divergence.in_turn, divergence.together):
        three = solver(ot.PointCloud(x, y), (inputs[2].softmax(0), inputs[3].softmax(0)), settings, [None] * 3)
        values = torch.stack([v.broadcast_to(three.values[0].shape) for v in three.values])
        results.append((values, three.epsilon, *torch.autograd.grad(values.square().sum(), inputs)))
    torch.testing.assert_close(results[1], results[0])
    # Potentials of one start the other.
    again = divergence.together(
        ot.PointCloud(x, y), (inputs[2].softmax(0), inputs[3].softmax(0)), settings, three.potentials
    )
    torch.testing.assert_close(torch.stack(again.values), results[1][0])


@pytest.fixture
def count_iterations(monkeypatch):
    """A list that grows by the iterations of every problem that a divergence solves."""
    counts, solve = [], divergence.solve

    def counted(*arguments):
        coupling = solve(*arguments)
        counts.append(coupling.n_iterations)
        return coupling

    monkeypatch.setattr(divergence, "solve", counted)
    return counts


def test_warm_start_saves_iterations_and_changes_no_value(make_clouds, count_iterations):
    x, y, a, b = make_clouds()
    memory = ot.WarmStart()
    options = {"epsilon": 0.02, "tolerance": 1e-6, "max_iterations": 20_000}
    for step in range(3):
        count_iterations.clear()
        moved = x + 1e-4 * step
        warm = ot.sinkhorn_divergence(moved, y, a, b, warm_start=memory, **options)
        needed = sum(count_iterations)
        count_iterations.clear()
        cold = ot.sinkhorn_divergence(moved, y, a, b, **options)
        torch.testing.assert_close(warm, cold, rtol=1e-5, atol=1e-7)
        assert needed < sum(count_iterations) / 2 if step else needed == sum(count_iterations)
    memory.clear()
    count_iterations.clear()
    ot.sinkhorn_divergence(moved, y, a, b, warm_start=memory, **options)
    assert sum(count_iterations) > 2 * needed


def test_warm_start_of_other_sizes_is_ignored(make_clouds):
    memory = ot.WarmStart()
    for n, dtype in ((30, torch.float64), (20, torch.float64), (20, torch.float32)):
        x, y, _, _ = make_clouds(n=n, dtype=dtype)
        value = ot.sinkhorn_divergence(x.requires_grad_(), y, warm_start=memory)
        torch.testing.assert_close(value, ot.sinkhorn_divergence(x, y))
        value.backward()
