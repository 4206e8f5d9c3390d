"""Geometries against scipy, their derivatives where clouds coincide, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.distance import cdist

from labkit import ot

COSTS = ["sqeuclidean", "euclidean", "cosine", "geodesic"]


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_costs_agree_with_scipy(make_clouds, cost):
    x, y, _, _ = make_clouds()
    expected = torch.from_numpy(cdist(x.cpu(), y.cpu(), cost)).to(x)
    torch.testing.assert_close(ot.PointCloud(x, y, cost).matrix(), expected)


@pytest.mark.parametrize("cost", COSTS)
def test_batches_are_loops(make_clouds, cost):
    x, y, _, _ = make_clouds(n=12, m=10)
    batch = ot.PointCloud(x.reshape(2, 6, 3), y.reshape(2, 5, 3), cost).matrix()
    for k in range(2):
        single = ot.PointCloud(x.reshape(2, 6, 3)[k], y.reshape(2, 5, 3)[k], cost).matrix()
        torch.testing.assert_close(batch[k], single)


@pytest.mark.parametrize("cost", COSTS)
def test_costs_have_the_right_derivatives(make_clouds, cost):
    x, y, _, _ = make_clouds(n=5, m=4)
    x.requires_grad_(), y.requires_grad_()
    matrix = lambda x, y: ot.PointCloud(x, y, cost).matrix()
    assert torch.autograd.gradcheck(matrix, (x, y))
    assert torch.autograd.gradgradcheck(matrix, (x, y))


@pytest.mark.parametrize("cost", COSTS)
def test_gradient_is_finite_where_points_coincide_or_vanish(device, cost):
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]], device=device, requires_grad=True)
    matrix = ot.PointCloud(x, x, cost).matrix()
    matrix.sum().backward()
    assert torch.isfinite(matrix).all()
    assert torch.isfinite(x.grad).all()


def test_geodesics_are_great_circles(device):
    angles = torch.tensor([0.0, 1e-9, 1e-6, 1e-3, 0.5, 1.5, 3.0, 3.14159, math.pi], dtype=torch.float64, device=device)
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]], dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], -1) @ turn.to(device)
    arcs = ot.PointCloud(2 * circle[:1], 5 * circle, "geodesic").matrix()[0]
    # Rounding of the coordinates is magnified only near the opposite point and at tiny angles, where it counts as 0.
    torch.testing.assert_close(arcs, angles, rtol=1e-9, atol=3e-8)
    zero = torch.zeros(1, 2, dtype=torch.float64, device=device)
    right = ot.PointCloud(zero, circle, "geodesic").matrix()
    torch.testing.assert_close(right, torch.full_like(right, math.pi / 2))


def test_geodesics_on_a_sphere_are_arccosines(make_clouds):
    x, y, _, _ = make_clouds()
    expected = torch.arccos(1 - ot.PointCloud(x, y, "cosine").matrix())
    torch.testing.assert_close(ot.PointCloud(x, y, "geodesic").matrix(), expected)


@pytest.mark.parametrize("cost", COSTS)
def test_gradient_is_finite_at_opposite_points(device, cost):
    x = torch.tensor([[1.0, 2.0], [-2.0, 1.0]], device=device, requires_grad=True)
    ot.PointCloud(x, -2 * x, cost).matrix().sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("cost", COSTS)
def test_blocks_are_parts_of_the_matrix(make_clouds, cost):
    x, y, _, _ = make_clouds()
    for geometry in (ot.PointCloud(x, y, cost), ot.CostMatrix(ot.PointCloud(x, y, cost).matrix())):
        assert geometry.shape == (30, 25)
        assert geometry.dtype == torch.float64
        part = geometry.matrix()[3:11, 20:]
        torch.testing.assert_close(geometry.block(slice(3, 11), slice(20, None)), part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_survive_a_large_common_shift(device, dtype, generator):
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64).to(device, dtype)
    near = ot.PointCloud(x, x).matrix()
    # 1024 adds without rounding to multiples of 2^-10 only: round first, so that the clouds are truly congruent.
    grid = (x * 1024).round() / 1024
    torch.testing.assert_close(ot.PointCloud(grid + 1024, grid + 1024).matrix(), ot.PointCloud(grid, grid).matrix())
    assert (near >= 0).all()


@pytest.mark.parametrize("cost", ["euclidean", "cosine", "geodesic"])
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_squares_that_leave_single_precision_do_not_spoil_a_distance(make_clouds, cost, factor):
    x, y, _, _ = make_clouds(dtype=torch.float32)
    expected = ot.PointCloud(x, y, cost).matrix() * (factor if cost == "euclidean" else 1.0)
    torch.testing.assert_close(
        ot.PointCloud(factor * x, factor * y, cost).matrix(), expected, rtol=1e-5, atol=1e-6 * float(expected.max())
    )


def test_euclidean_distance_to_itself_is_zero_in_single_precision(device, generator):
    x = torch.randn(50, 20, generator=generator).to(device)
    assert ot.PointCloud(x, x, "euclidean").matrix().diagonal().abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted_and_keeps_its_gradient(device, dtype):
    x = torch.ones(3, 2, dtype=dtype, device=device, requires_grad=True)
    y = torch.zeros(4, 2, dtype=torch.float64, device=device)
    assert ot.PointCloud(x, x).matrix().dtype == torch.float32
    matrix = ot.PointCloud(x, y).matrix()
    assert matrix.dtype == torch.float64
    matrix.sum().backward()
    assert x.grad.dtype == dtype
    assert ot.CostMatrix(torch.ones(2, 2, dtype=dtype, device=device)).matrix().dtype == torch.float32


def test_autocast_does_not_reach_the_cost(device, generator):
    x, y = (torch.randn(9, 4, generator=generator).to(device) for _ in range(2))
    plain = ot.PointCloud(x, y).matrix()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = ot.PointCloud(x, y).matrix()
    assert torch.equal(plain, inside)


@pytest.mark.parametrize(
    ("x", "y", "cost", "error", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 4), "sqeuclidean", ValueError, "gromov_wasserstein"),
        (torch.ones(3, 2), torch.full((3, 2), torch.nan), "sqeuclidean", ValueError, "y has 6 NaN or infinite"),
        (torch.ones(3, 2), torch.ones(0, 2), "sqeuclidean", ValueError, "y is empty"),
        (torch.ones(3), torch.ones(3, 1), "sqeuclidean", ValueError, r"\[..., points, features\]"),
        (torch.ones(3, 2), torch.ones(3, 2), "euclidian", ValueError, "Did you mean 'euclidean'"),
        (torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2), "cosine", TypeError, "floating point"),
        ([[1.0]], torch.ones(1, 1), "cosine", TypeError, "torch.as_tensor"),
    ],
)
def test_point_clouds_refuse(x, y, cost, error, message):
    with pytest.raises(error, match=message):
        ot.PointCloud(x, y, cost)


@pytest.mark.parametrize("values", [torch.full((2, 2), torch.inf), torch.ones(0, 3), torch.ones(3)])
def test_cost_matrices_refuse(values):
    with pytest.raises(ValueError, match="the cost matrix"):
        ot.CostMatrix(values)
