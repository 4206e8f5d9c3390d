"""The matching of large clouds against exact assignment, known optima, and its own promises."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from labkit import ot

# The function hides the module of the same name.
MODULE = importlib.import_module("labkit.ot.refine")
COSTS = ("sqeuclidean", "euclidean", "cosine")


def exact(x: Tensor, y: Tensor, cost: str = "sqeuclidean") -> float:
    """Mean cost of the best matching with capacities floor and ceil of n / m, by a square problem with idle sources."""
    costs = cdist(x.double().cpu().numpy(), y.double().cpu().numpy(), cost)
    n, m = costs.shape
    times, extra = divmod(n, m)
    columns = np.tile(costs, (1, times + (extra > 0)))
    idle = np.full((columns.shape[1] - n, columns.shape[1]), 1e3 * n * costs.max())
    idle[:, times * m :] = 0
    square = np.concatenate([columns, idle])
    row, column = linear_sum_assignment(square)
    return square[row, column][row < n].sum() / n


def counts_are_fair(match: Tensor, n: int, m: int) -> bool:
    counts = torch.bincount(match.cpu(), minlength=m)
    return len(match) == n and len(counts) == m and counts.min() >= n // m and counts.max() <= -(-n // m)


def brenier(n: int, d: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x, y = the gradient of a convex function at x in another order, and where each x went."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    root, w = (torch.randn(d, d, generator=generator) / d**0.5 for _ in range(2))
    moved = x @ root @ root.T + torch.tanh(2 * x @ w.T) @ w
    place = torch.randperm(n, generator=generator)
    y = torch.empty_like(moved)
    y[place] = moved
    return x, y, place


def clusters(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(6, d, generator=generator)
    return center[torch.randint(6, (n,), generator=generator)] + 0.4 * torch.randn(n, d, generator=generator)


@pytest.fixture
def only_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small clouds go the way of large ones."""
    monkeypatch.setattr(MODULE, "EXACT_PAIRS", 0)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (40, 40), (1, 7), (7, 1), (23, 60), (60, 23), (60, 20)])
def test_small_clouds_are_matched_exactly(device, cost, n, m) -> None:
    x, y = clusters(n, 3, 0), clusters(m, 3, 1) + 0.5
    result = ot.refine(x.to(device), y.to(device), cost=cost)
    assert counts_are_fair(result.match, n, m)
    assert result.cost == pytest.approx(exact(x, y, cost), rel=1e-5)
    assert result.lower_bound == result.cost
    assert result.certified
    assert result.gap == 0


@pytest.mark.usefixtures("only_sweeps")
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("n", "m"), [(500, 500), (200, 600), (600, 200), (600, 250), (300, 2000)])
def test_sweeps_come_near_the_optimum_and_bound_it(device, cost, n, m) -> None:
    x, y = clusters(n, 8, 0), clusters(m, 8, 1)
    result = ot.refine(x.to(device), y.to(device), cost=cost)
    best = exact(x, y, cost)
    assert counts_are_fair(result.match, n, m)
    assert result.certified
    assert result.lower_bound <= best * (1 + 1e-5)
    assert result.cost >= best * (1 - 1e-5)
    assert result.cost - best <= 0.02 * (result.product_cost - best)
    assert result.gap <= 0.1
    matched = cdist(x.double().numpy(), y.double().numpy(), cost)[np.arange(n), result.match.cpu().numpy()]
    assert result.cost == pytest.approx(matched.mean(), rel=1e-6)
    mean = cdist(x.double().numpy(), y.double().numpy(), cost).mean()
    assert result.product_cost == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize("n", [2048, 4096])
def test_gradient_of_a_convex_function_is_found(device, n) -> None:
    x, y, place = brenier(n)
    result = ot.refine(x.to(device), y.to(device))
    best = float((x - y[place]).double().square().sum(1).mean())
    assert torch.equal(result.match.sort().values.cpu(), torch.arange(n))
    assert (result.cost - best) / (result.product_cost - best) <= 0.002
    assert result.lower_bound <= best * (1 + 1e-6)
    assert result.gap <= 0.005


def test_sampled_bound_is_near_the_certified_one(device, monkeypatch) -> None:
    # A search that misses much, or there would be nothing left to estimate.
    monkeypatch.setattr("labkit.ot.refinement.search.PROBES", 2)
    x, y = clusters(3000, 8, 0).to(device), clusters(3000, 8, 1).to(device)
    certified = ot.refine(x, y, max_sweeps=1)
    monkeypatch.setattr(MODULE, "CERTIFIED_PAIRS", 0)
    monkeypatch.setattr(MODULE, "ESTIMATED_PAIRS", 3000 * 1024)
    sampled = ot.refine(x, y, max_sweeps=1)
    assert certified.certified
    assert not sampled.certified
    assert torch.equal(sampled.match, certified.match)
    assert sampled.lower_bound_error > 0
    assert abs(sampled.lower_bound - certified.lower_bound) <= 4 * sampled.lower_bound_error


def test_sweeps_never_raise_the_cost(device) -> None:
    costs = []
    x, y = clusters(3000, 8, 0).to(device), clusters(3000, 8, 1).to(device)
    result = ot.refine(x, y, tolerance=0, max_sweeps=4, on_sweep=lambda done, cost: costs.append((done, cost)))
    done, values = zip(*costs, strict=True)
    assert done == tuple(range(1, result.n_sweeps + 1))
    assert all(after <= before * (1 + 1e-6) for before, after in zip(values, values[1:], strict=False))
    assert values[-1] == result.cost
    assert values[-1] < values[0]


def test_a_seed_fixes_the_matching() -> None:
    x, y = clusters(2500, 6, 0), clusters(2500, 6, 1)
    first, again, other = (ot.refine(x, y, seed=seed, max_sweeps=1).match for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("n", [2000, 4000])
def test_a_line_is_sorted(device, n) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 1, generator=generator), torch.rand(2000, 1, generator=generator)
    result = ot.refine(x.to(device), y.to(device))
    pairs = y.sort(0).values.repeat_interleave(n // 2000, 0)
    assert result.cost == pytest.approx(float((x.sort(0).values - pairs).double().square().mean()), rel=1e-6)
    assert counts_are_fair(result.match, n, 2000)
    assert result.gap == 0


def degenerate(kind: str, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, 6, generator=generator)
    if kind == "identical":
        return torch.ones(n, 6)
    if kind == "duplicates":
        return points[torch.randint(40, (n,), generator=generator)]
    if kind == "subspace":
        return points[:, :2] @ torch.randn(2, 6, generator=generator)
    if kind == "far off":
        return 1e4 + points
    if kind == "outlier":
        points[0] = 1e6
    return points * {"tiny": 1e-15, "huge": 1e15}.get(kind, 1.0)


@pytest.mark.usefixtures("only_sweeps")
@pytest.mark.parametrize("kind", ["identical", "duplicates", "subspace", "far off", "outlier", "tiny", "huge"])
@pytest.mark.parametrize(("n", "m"), [(700, 700), (300, 700), (700, 300)])
def test_degenerate_clouds_are_matched(device, kind, n, m) -> None:
    x, y = degenerate(kind, n), degenerate(kind, m + 1)[1:]
    result = ot.refine(x.to(device), y.to(device))
    best = exact(x, y)
    assert counts_are_fair(result.match, n, m)
    span = result.product_cost - best
    assert result.cost - best <= 0.03 * span + 1e-5 * best
    assert result.lower_bound <= best + 1e-4 * span + 1e-5 * best


def test_a_cloud_is_matched_with_itself(device) -> None:
    x = clusters(3000, 8, 0).to(device)
    result = ot.refine(x, x)
    assert result.cost == 0
    assert torch.equal(result.match.cpu(), torch.arange(3000))
    assert result.gap == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(0, 99))
def test_counts_are_fair_and_the_bound_holds(n: int, m: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "EXACT_PAIRS", 0)
        result = ot.refine(x, y, max_sweeps=2)
    best = exact(x, y)
    assert counts_are_fair(result.match, n, m)
    assert result.lower_bound <= best + 1e-5 * result.product_cost
    assert result.cost >= best - 1e-5 * result.product_cost


def test_half_precision_and_gradients_are_accepted(device) -> None:
    x, y = clusters(50, 3, 0).half().to(device).requires_grad_(), clusters(50, 3, 1).half().to(device)
    result = ot.refine(x, y)
    assert result.cost == pytest.approx(exact(x.detach().float(), y.float()), rel=1e-5)
    assert not result.match.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": torch.zeros(3, 2), "y": torch.full((3, 2), torch.nan)}, ValueError, "NaN"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3, 4)}, ValueError, "features"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(0, 2)}, ValueError, "empty"),
        ({"x": torch.zeros(2, 3, 2), "y": torch.zeros(2, 3, 2)}, ValueError, r"\[points, features\]"),
        ({"x": torch.zeros(3, 2).long(), "y": torch.zeros(3, 2)}, TypeError, "floating"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3, 2), "cost": "manhattan"}, ValueError, "manhattan"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3, 2), "tolerance": -1.0}, ValueError, "tolerance"),
        ({"x": torch.zeros(3, 2), "y": torch.zeros(3, 2), "max_sweeps": 0}, ValueError, "max_sweeps"),
    ],
)
def test_bad_input_is_refused(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        ot.refine(**arguments)


@pytest.mark.slow
def test_memory_is_linear() -> None:
    program = """
        import resource
        import torch
        from labkit import ot
        torch.set_num_threads(1)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(100_000, 8, generator=generator) for _ in range(2))
        ot.refine(x[:3000], y[:3000], max_sweeps=1)
        before = peak()
        result = ot.refine(x, y, max_sweeps=1)
        assert result.match.sort().values.equal(torch.arange(100_000))
        print(peak() - before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=600
    )
    # One bit for each pair of points would be 1,200 MB.
    assert float(run.stdout) < 400
