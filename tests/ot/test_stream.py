"""Streamed transport against the dense solver on problems that both can solve, and one that only it can."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from labkit import ot
from labkit.ot import blocks, coarse, keops, stream

TIGHT = {"tolerance": 1e-8, "max_iterations": 2000}
RELAXATIONS = [(1.0, 1.0), (0.9, 1.0), (1.0, 0.7), (0.8, 0.95)]


@pytest.fixture
def streaming(monkeypatch):
    """Streams every problem while the block lasts, in many small blocks."""

    def switch(on: bool) -> None:
        monkeypatch.setattr(stream, "DENSE_ENTRIES", 0 if on else 2**28)
        monkeypatch.setitem(blocks.BLOCK_ENTRIES, "cpu", 2**12)

    return switch


@pytest.fixture
def both(streaming):
    """The dense and the streamed solution of one problem."""

    def solve(geometry, a=None, b=None, **options):
        options = TIGHT | {"epsilon": 0.05} | options
        streaming(False)
        dense = ot.sinkhorn(geometry, a, b, **options)
        streaming(True)
        return dense, ot.sinkhorn(geometry, a, b, **options)

    return solve


def absent(a, b):
    """The weights with some points taken out."""
    a, b = a.clone(), b.clone()
    a[3:9], b[0] = 0, 0
    return a / a.sum(), b / b.sum()


def agree(dense, streamed):
    assert isinstance(streamed, ot.StreamedCoupling)
    assert streamed.converged
    assert streamed.marginal_error <= TIGHT["tolerance"]
    torch.testing.assert_close(streamed.rows(slice(None)), dense.plan, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(streamed.cost, dense.cost, rtol=1e-6, atol=0)
    torch.testing.assert_close(streamed.regularized_cost, dense.regularized_cost, rtol=1e-10, atol=0)
    torch.testing.assert_close(streamed.epsilon_absolute, dense.epsilon_absolute)


# ------------------------------------------------------------------------------------------------- the dense solution


@pytest.mark.parametrize(("tau_a", "tau_b"), RELAXATIONS)
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "geodesic"])
def test_equals_the_dense_solution(make_clouds, both, cost, tau_a, tau_b):
    x, y, a, b = make_clouds(n=150, m=110)
    agree(*both(ot.PointCloud(x, y, cost), a, b, tau_a=tau_a, tau_b=tau_b))


@pytest.mark.parametrize(("tau_a", "tau_b"), RELAXATIONS)
def test_points_without_mass(make_clouds, both, tau_a, tau_b):
    x, y, a, b = make_clouds(n=90, m=130)
    a, b = absent(a, b)
    x[4] = 1e4
    dense, streamed = both(ot.PointCloud(x, y), a, b, tau_a=tau_a, tau_b=tau_b)
    agree(dense, streamed)
    assert not streamed.rows(slice(3, 9)).any()
    # What they would do with a vanishing mass; balanced potentials are determined up to a constant.
    shift = (dense.f - streamed.f)[0]
    torch.testing.assert_close(streamed.f + shift, dense.f, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(streamed.g - shift, dense.g, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale_cost", ["mean", "max", 3.0, None])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_scales(make_clouds, both, cost, scale_cost):
    x, y, a, b = make_clouds(n=40, m=60)
    a, b = absent(a, b)
    dense, streamed = both(ot.PointCloud(x, y, cost), a, b, scale_cost=scale_cost, epsilon=0.3)
    torch.testing.assert_close(streamed.epsilon_absolute, dense.epsilon_absolute)
    torch.testing.assert_close(streamed.regularized_cost, dense.regularized_cost, rtol=1e-10, atol=0)


def test_small_epsilon_overflows_nothing(make_clouds, both):
    # The potentials of the sample are far off in units of epsilon: the guarded branches of a pass run.
    x, y, a, b = make_clouds(n=60, m=50, d=2, dtype=torch.float32)
    dense, streamed = both(ot.PointCloud(x, y), a, b, epsilon=2e-3, tolerance=1e-3)
    assert streamed.marginal_error <= 1e-3
    torch.testing.assert_close(streamed.cost, dense.cost, rtol=1e-2, atol=0)


def test_single_precision(make_clouds, both):
    x, y, a, b = make_clouds(n=200, m=150, dtype=torch.float32)
    dense, streamed = both(ot.PointCloud(x, y), a, b, tolerance=1e-4)
    assert streamed.f.dtype == streamed.cost.dtype == torch.float32
    torch.testing.assert_close(streamed.cost, dense.cost, rtol=1e-4, atol=0)


def test_warm_start_needs_one_pass(make_clouds, streaming):
    x, y, a, b = make_clouds(n=80, m=60)
    streaming(True)
    first = ot.sinkhorn(ot.PointCloud(x, y), a, b, **TIGHT)
    again = ot.sinkhorn(ot.PointCloud(x, y), a, b, init=first, **TIGHT)
    assert again.n_iterations == 1 < first.n_iterations
    with pytest.raises(ValueError, match="init f"):
        ot.sinkhorn(ot.PointCloud(x, y), a, b, init=(first.f[:3], first.g))


def test_corrections_from_the_sample_save_passes(generator, device, monkeypatch):
    # Clusters, between which plain iterations exchange little mass.
    centers = 4 * torch.randn(5, 3, generator=generator)
    x, y = (
        (c[torch.randint(5, (4000,), generator=generator)] + torch.randn(4000, 3, generator=generator)).to(device)
        for c in (centers, centers + 1)
    )
    monkeypatch.setattr(stream, "DENSE_ENTRIES", 0)
    corrected = ot.sinkhorn(ot.PointCloud(x, y))
    monkeypatch.setattr(stream, "FAILURES", 0)
    plain = ot.sinkhorn(ot.PointCloud(x, y))
    torch.testing.assert_close(corrected.cost, plain.cost, rtol=1e-2, atol=0)
    assert 2 * corrected.n_iterations < plain.n_iterations


def test_useless_sample_does_no_harm(make_clouds, both, monkeypatch):
    monkeypatch.setattr(coarse, "SAMPLE_POINTS", 2)
    x, y, a, b = make_clouds(n=70, m=60)
    agree(*both(ot.PointCloud(x, y), a, b))


def test_says_when_it_did_not_converge(make_clouds, streaming):
    x, y, a, b = make_clouds(n=100, m=100)
    streaming(True)
    with pytest.warns(ot.NotConvergedWarning, match="max_iterations=2"):
        coupling = ot.sinkhorn(ot.PointCloud(x, y), a, b, epsilon=0.01, max_iterations=2, tolerance=1e-9)
    assert not coupling.converged
    assert coupling.n_iterations == 2
    assert coupling.marginal_error > 1e-9
    rows = coupling.rows(slice(None))
    error = (rows.sum(1) - a).abs().sum() + (rows.sum(0) - b).abs().sum()
    torch.testing.assert_close(coupling.marginal_error, error)


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(("tau_a", "tau_b"), RELAXATIONS)
@pytest.mark.parametrize("cost", ["sqeuclidean", "geodesic"])
def test_gradients_of_the_value(make_clouds, both, cost, tau_a, tau_b):
    inputs = [t.requires_grad_() for t in make_clouds(n=60, m=45)]
    x, y, a, b = inputs
    dense, streamed = both(ot.PointCloud(x, y, cost), a, b, tau_a=tau_a, tau_b=tau_b)
    expected = torch.autograd.grad(dense.regularized_cost, inputs)
    for gradient, reference in zip(torch.autograd.grad(streamed.regularized_cost, inputs), expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6 * float(reference.abs().max()))


def test_second_derivative_raises(make_clouds, streaming):
    x, y, _, _ = make_clouds(n=20, m=20)
    streaming(True)
    x.requires_grad_()
    value = ot.sinkhorn(ot.PointCloud(x, y), **TIGHT).regularized_cost
    (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.square().sum().backward()


def test_sinkhorn_divergence_of_large_clouds(make_clouds, streaming):
    x, y, a, b = make_clouds(n=80, m=70)
    gradients, values = [], []
    for on in (False, True):
        streaming(on)
        points = x.clone().requires_grad_()
        values.append(ot.sinkhorn_divergence(points, y, a, b, **TIGHT))
        gradients += torch.autograd.grad(values[-1], points)
    torch.testing.assert_close(values[1], values[0], rtol=1e-8, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-8)


# ------------------------------------------------------------------------------------------------------ cost functions


@pytest.mark.parametrize("on", [False, True])
def test_cost_function_equals_its_matrix(make_clouds, streaming, on):
    x, y, a, b = make_clouds(n=70, m=50)
    a, b = absent(a, b)
    cost = torch.cdist(x, y, p=1)
    expected = ot.sinkhorn(ot.CostMatrix(cost), a, b, **TIGHT)
    streaming(on)
    geometry = ot.CostFunction(lambda i, j: torch.cdist(x[i], y[j], p=1), 70, 50, x.device)
    found = ot.sinkhorn(geometry, a, b, **TIGHT)
    assert isinstance(found, ot.StreamedCoupling) == on
    torch.testing.assert_close(found.regularized_cost, expected.regularized_cost, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.apply(y), expected.apply(y), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("on", [False, True])
def test_cost_function_is_differentiated_in_what_it_uses(make_clouds, streaming, on):
    x, y, _, _ = make_clouds(n=40, m=30)
    power = torch.tensor(1.5, dtype=x.dtype, device=x.device, requires_grad=True)
    streaming(on)

    def value(exponent):
        geometry = ot.CostFunction(lambda i, j: (x[i, None] - y[j]).abs().pow(exponent).sum(-1), 40, 30, x.device)
        return ot.sinkhorn(geometry, scale_cost=5.0, **TIGHT).regularized_cost

    (gradient,) = torch.autograd.grad(value(power), power)
    with torch.no_grad():
        expected = (value(power + 1e-4) - value(power - 1e-4)) / 2e-4
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda i, j: torch.zeros(len(i), 3), ValueError, "shape"),
        (lambda i, j: torch.zeros(len(i), len(j), dtype=torch.long), TypeError, "int64"),
        (lambda i, j: 1.0, TypeError, "float"),
        (lambda i, j: torch.full((len(i), len(j)), torch.nan), ValueError, "NaN"),
    ],
)
def test_cost_function_is_checked(function, error, message):
    with pytest.raises(error, match=message):
        ot.CostFunction(function, 4, 5)
    with pytest.raises(ValueError, match="at least one point"):
        ot.CostFunction(lambda i, j: torch.zeros(len(i), len(j)), 0, 5)


def test_half_precision_costs_are_lifted():
    assert ot.CostFunction(lambda i, j: torch.zeros(len(i), len(j)).half(), 4, 5).matrix().dtype == torch.float32


# -------------------------------------------------------------------------------------------------------- the coupling


def test_reads_the_coupling_in_blocks(make_clouds, both):
    x, y, a, b = make_clouds(n=130, m=90)
    a, b = absent(a, b)
    dense, streamed = both(ot.PointCloud(x, y), a, b)
    close = {"rtol": 1e-5, "atol": 1e-8}
    torch.testing.assert_close(streamed.apply(y), dense.apply(y), **close)
    torch.testing.assert_close(streamed.apply(b), dense.apply(b), **close)
    torch.testing.assert_close(streamed.barycenter(y), dense.barycenter(y), **close)
    torch.testing.assert_close(streamed.map(x + 0.1), dense.map(x + 0.1), **close)
    torch.testing.assert_close(streamed.rows(slice(5, 100, 3)), dense.plan[5:100:3], **close)
    found, expected = streamed.top(4), dense.top(4)
    torch.testing.assert_close(found.mass, expected.mass, **close)
    massive = a > 0
    assert torch.equal(found.index[massive], expected.index[massive])


@pytest.mark.parametrize("name", ["apply", "barycenter", "map"])
def test_readings_are_differentiable_in_their_argument(make_clouds, both, name):
    x, y, a, b = make_clouds(n=50, m=70)
    dense, streamed = both(ot.PointCloud(x, y), a, b)
    argument = (x if name == "map" else y).clone().requires_grad_()
    gradients = []
    for coupling in (dense, streamed):
        result = getattr(coupling, name)(argument)
        weights = torch.linspace(-1, 2, result.numel()).to(result).reshape(result.shape)
        gradients += torch.autograd.grad((weights * result).sum(), argument)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)


def test_never_makes_the_plan(make_clouds, streaming):
    x, y, _, _ = make_clouds(n=30, m=20)
    streaming(True)
    coupling = ot.sinkhorn(ot.PointCloud(x, y))
    with pytest.raises(MemoryError, match=r"30 x 20 .*apply, barycenter, map, top\(k\), or rows"):
        _ = coupling.plan
    with pytest.raises(TypeError, match="expected a slice"):
        coupling.rows(3)
    with pytest.raises(ValueError, match="k=21"):
        coupling.top(21)
    with pytest.raises(ValueError, match="one row for each of the 20 targets"):
        coupling.apply(x)
    by_function = ot.sinkhorn(ot.CostFunction(lambda i, j: torch.cdist(x[i], y[j]), 30, 20, x.device))
    with pytest.raises(TypeError, match="barycenter"):
        by_function.map(x)


def test_what_cannot_be_streamed(make_clouds, streaming):
    x, y, _, _ = make_clouds(n=30, m=20)
    streaming(True)
    assert not isinstance(ot.sinkhorn(ot.CostMatrix(torch.cdist(x, y))), ot.StreamedCoupling)
    with pytest.raises(ValueError, match="Restricted geometry cannot be streamed"):
        ot.sinkhorn(ot.Restricted(ot.PointCloud(x, y), forbidden=[(0, 1)]))
    with pytest.raises(ValueError, match="one at a time"):
        ot.sinkhorn(ot.PointCloud(x[None], y[None]))


@pytest.mark.parametrize("cost", keops.COSTS)
def test_pykeops_gives_the_same(make_clouds, both, monkeypatch, cost):
    pytest.importorskip("pykeops", reason="the extra `keops`")
    monkeypatch.setattr(keops, "DEVICES", ("cpu", "cuda"))
    x, y, a, b = make_clouds(n=90, m=70)
    a, b = absent(a, b)
    assert keops.fused(ot.PointCloud(x, y, cost))
    agree(*both(ot.PointCloud(x, y, cost), a, b, tau_b=0.9))
    agree(*both(ot.PointCloud(x, x, cost), a, a))


LARGE = """
import resource, torch
from labkit import ot
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.rand(50_000, 3, generator=generator)
y = torch.rand(50_000, 3, generator=generator) ** 2
coupling = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.05, tolerance=1e-3)
assert isinstance(coupling, ot.StreamedCoupling) and coupling.converged
rows = coupling.rows(slice(0, 500))
assert ((rows.sum(1) - 1 / 50_000).abs() * 50_000).max() < 1e-3
print(float(coupling.marginal_error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_fifty_thousand_points_in_two_gigabytes():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    error, peak = map(float, done.stdout.split())
    assert error <= 1e-3
    assert peak < 2e9
