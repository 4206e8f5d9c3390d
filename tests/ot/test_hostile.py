"""Input that nobody should pass, to every public function: a clear error, or numbers that can be believed.

`CLOUDS` solve between two clouds in one space, `SPACES` compare spaces by their inner distances, `MAPS` send x to y.
All take (x, y, a, b); the first two return what the public function returns, maps the image of x.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings

import pytest
import torch
from torch import Tensor

from labkit import ot

QUIET = {"tolerance": 1e-3, "max_iterations": 5000}
CLOUDS = {
    "sinkhorn": lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, **QUIET),
    "relaxed": lambda x, y, a, b: ot.sinkhorn(ot.PointCloud(x, y), a, b, tau_a=0.9, tau_b=0.9, **QUIET),
    "restricted": lambda x, y, a, b: ot.sinkhorn(ot.Restricted(ot.PointCloud(x, y), forbidden=[]), a, b, **QUIET),
    "divergence": lambda x, y, a, b: ot.sinkhorn_divergence(x, y, a, b, **QUIET),
    "exact": lambda x, y, a, b: ot.exact(ot.PointCloud(x, y), a, b),
    "sliced": lambda x, y, a, b: ot.sliced_wasserstein(x, y, a, b, n_projections=20),
}


def spaces(function, **options):
    """A function of two spaces as a function of two clouds of points."""
    return lambda x, y, a, b, **budget: function(
        ot.PointCloud(x, x, "euclidean"), ot.PointCloud(y, y, "euclidean"), a, b, **options, **budget
    )


CLOUDS["low_rank"] = lambda x, y, a, b: ot.sinkhorn_low_rank(
    ot.PointCloud(x, y), a, b, rank=min(3, len(x), len(y)), **QUIET
)
CLOUDS["partial"] = lambda x, y, a, b: ot.partial_sinkhorn(ot.PointCloud(x, y), a, b, mass=0.6, **QUIET)
SPACES = {
    "gromov": spaces(ot.gromov_wasserstein),
    "gromov_relaxed": spaces(ot.unbalanced_gromov_wasserstein),
    "gromov_semirelaxed": spaces(ot.semirelaxed_gromov_wasserstein),
    "gromov_partial": spaces(ot.partial_gromov_wasserstein, mass=0.6),
    "gromov_bounds": spaces(ot.gromov_lower_bounds),
    "cooptimal": ot.co_optimal_transport,
}
MAPS = {
    "debiased_map": lambda x, y, a, b: ot.debiased_map(x, y, a, b, **QUIET)(x),
    "progressive_map": lambda x, y, a, b: ot.progressive_map(x, y, a, b, **QUIET)(x),
}
VALUES = {**CLOUDS, **SPACES}
EVERY = {**VALUES, **MAPS}
RELAXED = ("relaxed", "partial", "gromov_relaxed", "gromov_semirelaxed", "gromov_partial")
BALANCED = {name: solve for name, solve in EVERY.items() if name not in RELAXED}


def over(functions):
    return pytest.mark.parametrize("solve", functions.values(), ids=functions.keys())


def numbers(result) -> dict[str, Tensor]:
    """All floating-point tensors of a result, by name."""
    if isinstance(result, Tensor):
        return {"value": result}
    if isinstance(result, tuple):
        return {name: value for name, value in result._asdict().items() if isinstance(value, Tensor)}
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, ot.Coupling):
        fields["plan"] = result.plan
    found = {}
    for name, field in fields.items():
        if isinstance(field, ot.Coupling):
            found |= {f"{name}.{inner}": value for inner, value in numbers(field).items()}
        elif isinstance(field, Tensor) and field.is_floating_point():
            found[name] = field
    return found


def require_numbers(result) -> None:
    for name, value in numbers(result).items():
        assert torch.isfinite(value).all(), name


@contextlib.contextmanager
def believed():
    """Room for the honest ways to fail: an overflow that is raised, or a warning, which is collected."""
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(FloatingPointError):
        warnings.simplefilter("always")
        yield caught


def value_of(result) -> Tensor:
    return next(v for name, v in numbers(result).items() if name in ("value", "cost", "tlb"))


@pytest.fixture
def clouds(make_clouds):
    return make_clouds(n=7, m=6, dtype=torch.float32)


# ------------------------------------------------------------------------------------------------------ what is refused


@over(EVERY)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_nan_and_infinities_are_named(clouds, solve, bad, which):
    arguments = [t.clone() for t in clouds]
    arguments[which].view(-1)[2] = bad
    with pytest.raises(ValueError, match="1 NaN or infinite entries"):
        solve(*arguments)


@over(EVERY)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_integers_and_booleans_are_not_taken_for_numbers(clouds, solve, dtype, which):
    arguments = [t.to(dtype) if k == which else t for k, t in enumerate(clouds)]
    with pytest.raises(TypeError, match="expected floating point"):
        solve(*arguments)


@over(EVERY)
def test_arrays_and_lists_are_not_taken_for_tensors(clouds, solve):
    x, y, a, b = clouds
    for arguments in ((x.cpu().numpy(), y, a, b), (x, y, a.tolist(), b)):
        with pytest.raises(TypeError, match="expected a torch tensor"):
            solve(*arguments)


@over(EVERY)
@pytest.mark.parametrize("which", [0, 1])
def test_empty_clouds_are_refused(clouds, solve, which):
    x, y, a, b = clouds
    with pytest.raises(ValueError, match="is empty"):
        solve(x[:0] if which == 0 else x, y[:0] if which == 1 else y, a, b)


@over(EVERY)
@pytest.mark.parametrize("which", [2, 3])
def test_unusable_weights_are_refused(clouds, solve, which):
    def replaced(value):
        return [value if k == which else t for k, t in enumerate(clouds)]

    weights = clouds[which]
    for bad, message in (
        (-weights, "negative"),
        (weights * torch.tensor(-1.0).where(weights == weights.max(), torch.tensor(1.0)), "negative"),
        (0 * weights, "no mass"),
        (weights[:-1], "have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(*replaced(bad))


@over(BALANCED)
def test_unequal_masses_are_refused(clouds, solve):
    x, y, a, b = clouds
    with pytest.raises(ValueError, match="differ in total mass"):
        solve(x, y, 3 * a, b)


@over(EVERY)
def test_other_devices_are_named(clouds, solve):
    x, y, a, b = clouds
    away = torch.device("meta")
    for arguments in ((x, y, a.to(away), b), (x, y, a, b.to(away)), (x, y.to(away), a, b)):
        with pytest.raises(ValueError, match=r"on meta"):
            solve(*arguments)


# ---------------------------------------------------------------------------------------- what is odd but has an answer


@over(CLOUDS)
def test_all_mass_in_one_point(make_clouds, solve):
    x, y, a, b = make_clouds(n=7, m=6)
    a = torch.zeros_like(a)
    a[3] = 1
    result = solve(x, y, a, b)
    require_numbers(result)
    if solve in (CLOUDS["sinkhorn"], CLOUDS["restricted"], CLOUDS["exact"]):
        expected = (b * (x[3] - y).square().sum(-1)).sum()
        torch.testing.assert_close(value_of(result), expected, rtol=1e-3, atol=0)
        torch.testing.assert_close(result.plan[3], b, rtol=2e-3, atol=1e-4)


@over(VALUES)
def test_all_points_in_one_place(clouds, solve):
    x, y, a, b = clouds
    result = solve(torch.ones_like(x), torch.ones_like(y), a, b)
    require_numbers(result)
    assert value_of(result).abs().item() < 1e-6


@over(EVERY)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 6), (7, 1)])
def test_one_point(clouds, solve, sizes):
    x, y, _, _ = clouds
    result = solve(x[: sizes[0]], y[: sizes[1]], None, None)
    require_numbers(result)


@over(EVERY)
def test_a_cloud_that_is_given_twice(clouds, solve):
    x, _, a, _ = clouds
    require_numbers(solve(x, x, a, a))


@over(VALUES)
@pytest.mark.parametrize("factor", [1e-15, 1e15])
def test_tiny_and_huge_coordinates(clouds, solve, factor):
    # Squared distances are then of the order of 1e-30 and 1e30, in single precision.
    x, y, a, b = clouds
    torch.manual_seed(0)
    expected = value_of(solve(x, y, a, b))
    torch.manual_seed(0)
    result = solve(factor * x, factor * y, a, b)
    require_numbers(result)
    # Spaces are divided by their mean distance, so that their comparison is a pure number.
    pure = solve in SPACES.values() and solve is not SPACES["cooptimal"]
    units = 1.0 if pure else factor**2
    torch.testing.assert_close(value_of(result) / units, expected, rtol=1e-2, atol=1e-4)


@over(VALUES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(clouds, solve, dtype, device):
    x, y, a, b = clouds
    x, y = x.to(dtype), y.to(dtype)
    torch.manual_seed(0)
    expected = solve(x.float(), y.float(), a, b)
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result = solve(x, y, a, b)
        require_numbers(result)
    torch.testing.assert_close(value_of(result), value_of(expected))
    assert value_of(result).dtype == torch.float32


@over({name: solve for name, solve in VALUES.items() if name != "gromov_bounds"})
def test_gradients_at_coinciding_points_are_finite(clouds, solve):
    x, y, a, b = clouds
    x = torch.cat([x[:3], x[:4]]).requires_grad_()
    y = torch.cat([x[:3].detach(), y[:3]]).requires_grad_()
    result = solve(x, y, a, b)
    value = getattr(result, "regularized_cost", None)
    (value_of(result) if value is None else value).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(y.grad).all()


@over(MAPS)
def test_maps_of_odd_clouds(clouds, solve, device):
    x, y, a, b = clouds
    torch.testing.assert_close(solve(torch.zeros_like(x), torch.ones_like(y), a, b), torch.ones_like(x))
    for factor in (1e-15, 1e15):
        image = solve(factor * x, factor * y, a, b)
        torch.testing.assert_close(image / factor, solve(x, y, a, b), rtol=1e-2, atol=1e-3)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        image = solve(x.half(), y.half(), a, b)
    torch.testing.assert_close(image, solve(x.half().float(), y.half().float(), a, b))


@over(EVERY)
def test_weights_of_many_orders_of_magnitude(clouds, solve):
    x, y, a, b = clouds
    a = torch.logspace(-38, 0, 7).to(a)
    with believed():
        require_numbers(solve(x, y, a / a.sum(), b))


@over(EVERY)
def test_one_point_far_from_all_others(clouds, solve):
    x, y, a, b = clouds
    x = torch.cat([x[:-1], 1e6 + x[-1:]])
    with believed():
        require_numbers(solve(x, y, a, b))


# ------------------------------------------------------------------------------------------------- what cannot be done


def clouded(function, **options):
    return lambda x, y, a, b, **budget: function(ot.PointCloud(x, y), a, b, **options, **budget)


BUDGETED = {
    "sinkhorn": clouded(ot.sinkhorn),
    "relaxed": clouded(ot.sinkhorn, tau_a=0.9, tau_b=0.8),
    "partial": clouded(ot.partial_sinkhorn, mass=0.6),
    "divergence": ot.sinkhorn_divergence,
    "gromov": spaces(ot.gromov_wasserstein),
    "gromov_relaxed": spaces(ot.unbalanced_gromov_wasserstein),
    "gromov_semirelaxed": spaces(ot.semirelaxed_gromov_wasserstein),
    "gromov_partial": spaces(ot.partial_gromov_wasserstein, mass=0.6),
    "cooptimal": ot.co_optimal_transport,
}


@over(BUDGETED)
def test_a_budget_too_small_for_epsilon_is_admitted(make_clouds, solve):
    arguments = make_clouds(n=8, m=7)
    with believed() as caught:
        result = solve(*arguments, epsilon=1e-3, tolerance=1e-5, max_iterations=2)
        require_numbers(result)
        warned = [w for w in caught if issubclass(w.category, ot.NotConvergedWarning)]
        converged = getattr(result, "converged", not warned)
        assert bool(converged) != bool(warned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.9), (1.0, 0.5)])
def test_an_epsilon_too_small_for_the_budget_is_admitted(make_clouds, dtype, epsilon, taus):
    x, y, a, b = make_clouds(n=60, m=50, dtype=dtype)
    options = {"epsilon": epsilon, "tau_a": taus[0], "tau_b": taus[1], "tolerance": 1e-6}
    with believed() as caught:
        solution = ot.sinkhorn(ot.PointCloud(x, y), a, b, max_iterations=5, **options)
        require_numbers(solution)
        # One pass more may be needed to end on potentials that cannot overflow.
        assert solution.n_iterations <= 6
        assert solution.converged == bool(solution.marginal_error <= 1e-6)
        assert solution.converged != any("raise epsilon" in str(w.message) for w in caught)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_cost_matrices_in_any_unit(make_clouds, factor, device):
    x, y, a, b = make_clouds(n=7, m=6, dtype=torch.float32)
    cost = ot.PointCloud(x, y).matrix()
    for solve in (ot.sinkhorn, ot.exact):
        expected, scaled = (solve(ot.CostMatrix(c), a, b) for c in (cost, factor * cost))
        require_numbers(scaled)
        torch.testing.assert_close(scaled.cost / factor, expected.cost, rtol=1e-4, atol=0)


def test_a_range_of_costs_beyond_single_precision(device):
    # One pair costs 1e30 times the others: the mean is all its own, and the others are equal next to it.
    cost = torch.ones(4, 4, device=device)
    cost[0, 0] = 1e30
    with contextlib.suppress(FloatingPointError):
        require_numbers(ot.sinkhorn(ot.CostMatrix(cost)))
    solution = ot.exact(ot.CostMatrix(cost))
    require_numbers(solution)
    assert solution.plan[0, 0] == 0
