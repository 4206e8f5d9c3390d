"""Many starts: the hard case of isometric copies, what is reported about the others, and where they come from."""

from __future__ import annotations

import pytest
import torch

from labkit import ot
from labkit.ot.gromov import starts
from labkit.ot.gromov.bounds import lower_bound_plans
from labkit.ot.gromov.spaces import make_spaces


def space(x, cost="euclidean"):
    return ot.PointCloud(x, x, cost)


@pytest.fixture
def make_copies(device):
    """Factory of a cloud, its rotated, shifted, shuffled copy, and where point i went."""

    def make(n: int = 30, d: int = 3, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
        order = torch.randperm(n, generator=generator)
        y = torch.empty_like(x)
        y[order] = x @ rotation.mT + 4
        return x.to(device), y.to(device), order.to(device)

    return make


def matched(coupling, order):
    return float((coupling.top(1).index[:, 0] == order).double().mean())


def test_single_random_starts_miss_what_many_find(make_copies):
    x, y, order = make_copies()
    geometries = space(x), space(y)
    generator = torch.Generator().manual_seed(0)
    costs = []
    for _ in range(30):
        plan = torch.rand(30, 30, generator=generator, dtype=torch.float64).to(x.device)
        single = ot.gromov_wasserstein(*geometries, epsilon=0.01, init_plan=plan / plan.sum(), tolerance=0.01)
        costs.append(float(single.cost))
    missed = sum(cost > 0.01 for cost in costs)
    assert missed >= 6
    many = ot.gromov_wasserstein(*geometries, epsilon=0.005, n_starts=30)
    assert many.converged
    assert many.cost < 1e-4
    assert matched(many, order) == 1
    assert many.objectives.shape == (30,)
    assert many.objectives.min() == many.regularized_cost
    torch.testing.assert_close(many.spread, many.objectives.max() - many.objectives.min())
    assert many.spread > 0.01  # Some of them missed, too.
    assert many.n_alternatives == 0


@pytest.mark.parametrize("seed", range(3))
def test_lower_bound_plans_find_isometric_copies_at_once(make_copies, seed):
    x, y, order = make_copies(n=40, d=2, seed=seed)
    spaces = make_spaces((space(x), space(y)), (None, None), "mean", (None, 1.0))
    for plan in lower_bound_plans(spaces):
        coupling = ot.gromov_wasserstein(space(x), space(y), epsilon=0.005, init_plan=plan)
        assert matched(coupling, order) == 1


def test_few_known_pairs_are_enough(make_copies):
    x, y, order = make_copies(n=60, d=2, seed=1)
    pairs = torch.stack([torch.arange(3, device=x.device), order[:3]], 1)
    coupling = ot.gromov_wasserstein(space(x), space(y), epsilon=0.005, pairs=pairs)
    assert matched(coupling, order) == 1


def test_gap_to_the_lower_bound(make_clouds):
    x, y, a, b = make_clouds()
    coupling = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.01, n_starts=4)
    bounds = ot.gromov_lower_bounds(space(x), space(y), a, b)
    torch.testing.assert_close(coupling.lower_bound, bounds.best)
    assert coupling.gap > 0
    torch.testing.assert_close(coupling.gap, coupling.cost - bounds.best)


def test_symmetric_space_has_alternatives(device):
    # Every rotation of a regular polygon is as good as any other.
    angle = torch.arange(8, dtype=torch.float64, device=device) * torch.pi / 4
    x = torch.stack([angle.cos(), angle.sin()], 1)
    coupling = ot.gromov_wasserstein(space(x), space(x), epsilon=0.01, n_starts=12, tolerance=1e-4)
    assert coupling.cost < 1e-2
    assert coupling.n_alternatives >= 1


def test_random_starts_are_reproducible(make_clouds):
    x, y, _, _ = make_clouds(n=15, m=12)
    runs = [
        ot.gromov_wasserstein(space(x), space(y), epsilon=0.005, n_starts=8, seed=seed).objectives for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    torch.testing.assert_close(
        runs[0][:3], runs[2][:3], rtol=1e-3, atol=0
    )  # The product and the bounds do not depend on the seed.
    assert not torch.allclose(runs[0][3:], runs[2][3:])


def test_starts_together_are_starts_one_by_one(make_clouds, monkeypatch):
    x, y, a, b = make_clouds(n=15, m=12)
    pairs = torch.tensor([[0, 3], [4, 1]], device=x.device)

    def solve():
        return ot.gromov_wasserstein(
            space(x), space(y), a, b, epsilon=0.05, n_starts=9, pairs=pairs, tolerance=1e-7, max_iterations=2000
        )

    together = solve()
    monkeypatch.setattr(starts, "BATCH_ENTRIES", {"cpu": 1})
    monkeypatch.setattr(starts, "LARGE_BATCH_ENTRIES", 1)
    alone = solve()
    torch.testing.assert_close(together.objectives, alone.objectives, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(together.plan, alone.plan, rtol=1e-3, atol=1e-7)


def test_batch_is_a_loop_with_many_starts(make_clouds):
    problems = [make_clouds(n=10, m=8, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    options = {"epsilon": 0.1, "n_starts": 3, "tolerance": 1e-8, "max_iterations": 2000}
    batch = ot.gromov_wasserstein(space(x), space(y), a, b, **options)
    assert batch.objectives.shape == (3, 3)
    assert batch.n_alternatives.shape == (3,)
    for k, (x, y, a, b) in enumerate(problems):
        one = ot.gromov_wasserstein(space(x), space(y), a, b, **options)
        torch.testing.assert_close(batch.objectives[k], one.objectives, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(batch.plan[k], one.plan, rtol=1e-4, atol=1e-7)


def test_annealing_keeps_within_the_budget(make_clouds):
    x, y, _, _ = make_clouds(n=15, m=12)
    for budget in (1, 2, 5):
        with pytest.warns(ot.NotConvergedWarning):
            coupling = ot.gromov_wasserstein(space(x), space(y), epsilon=0.001, tolerance=1e-9, max_iterations=budget)
        assert coupling.n_iterations <= budget


def test_random_pairs_have_mass(make_clouds):
    x, y, _, b = make_clouds(n=12, m=10)
    a = torch.zeros(12, dtype=x.dtype, device=x.device)
    a[[2, 5]] = 0.5
    coupling = ot.gromov_wasserstein(space(x), space(y), a, b, epsilon=0.1, n_starts=8)
    assert torch.isfinite(coupling.objectives).all()
    torch.testing.assert_close(coupling.plan.sum(-1), a, atol=1e-3, rtol=0)


def test_refusals(make_clouds):
    x, y, _, b = make_clouds(n=12, m=10)
    geometries = space(x), space(y)
    for pairs in (torch.tensor([0, 1]), torch.zeros(2, 3).long(), torch.zeros(0, 2).long(), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match=r"pairs has shape .* expected integers \[k, 2\]"):
            ot.gromov_wasserstein(*geometries, pairs=pairs)
    for pairs in ([[0, 10]], [[12, 0]], [[-1, 0]]):
        with pytest.raises(ValueError, match="outside of the 12 and 10 points"):
            ot.gromov_wasserstein(*geometries, pairs=torch.tensor(pairs))
    a = torch.ones(12, dtype=x.dtype, device=x.device).index_fill(0, torch.tensor([0], device=x.device), 0.0)
    with pytest.raises(ValueError, match="no pair of points that both have a positive weight"):
        ot.gromov_wasserstein(*geometries, a / a.sum(), b, pairs=torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match="n_starts=0 must be at least 1"):
        ot.gromov_wasserstein(*geometries, n_starts=0)
