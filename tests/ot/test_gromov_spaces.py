"""The operators of Gromov-Wasserstein against brute force, for every way to hold the distances."""

from __future__ import annotations

import pytest
import torch

from labkit import ot
from labkit.ot.gromov.factors import make_space
from labkit.ot.gromov.spaces import Spaces, gradient_terms, make_spaces


def brute_force(dx, dy, plan):
    """L_ij = sum_kl (D_x[i, k] - D_y[j, l])^2 P_kl, by its definition."""
    gap = dx[:, None, :, None] - dy[None, :, None, :]
    return torch.einsum("ijkl,kl->ij", gap**2, plan)


def cloud(x, cost="sqeuclidean"):
    return ot.PointCloud(x, x, cost)


def pair(geom_x, geom_y, a, b, *, rank=None):
    return make_spaces((geom_x, geom_y), (a, b), None, (None, 1.0), rank=rank)


GEOMETRIES = {
    "sqeuclidean": cloud,
    "cosine": lambda x: cloud(x, "cosine"),
    "inner": ot.InnerProduct,
    "euclidean": lambda x: cloud(x, "euclidean"),
    "matrix": lambda x: ot.CostMatrix(cloud(x, "euclidean").matrix().sqrt()),
}
FACTORIZED = {"sqeuclidean": 5, "cosine": 4, "inner": 3}


@pytest.mark.parametrize("name_y", GEOMETRIES)
@pytest.mark.parametrize("name_x", GEOMETRIES)
def test_linearization_is_the_brute_force_sum(make_clouds, name_x, name_y):
    x, y, a, b = make_clouds(n=14, m=12)
    geometries = GEOMETRIES[name_x](x), GEOMETRIES[name_y](y)
    spaces = pair(*geometries, a, b)
    for name, space in ((name_x, spaces.x), (name_y, spaces.y)):
        assert (space.factor is None) == (name not in FACTORIZED)
        assert space.core.shape[-1] == FACTORIZED.get(name, space.n_points)
    plan = torch.rand(14, 12, dtype=x.dtype, device=x.device)  # Any marginals.
    dx, dy = (geometry.matrix() for geometry in geometries)
    expected = brute_force(dx, dy, plan)
    torch.testing.assert_close(spaces.linearize(plan), expected)
    torch.testing.assert_close(spaces.distortion(plan), (expected * plan).sum())
    torch.testing.assert_close(spaces.x.matrix(), dx)
    torch.testing.assert_close(spaces.x.squares_times(a), dx.square() @ a)
    torch.testing.assert_close(spaces.x.mean(a), a @ dx @ a)


def test_few_points_of_many_features_stay_dense(make_clouds):
    x, _, a, _ = make_clouds(n=10, d=8)
    assert make_space(cloud(x), "x", a, None).factor is None


def test_far_from_the_origin_squares_do_not_cancel(make_clouds):
    x, _, a, _ = make_clouds(n=20, dtype=torch.float32)
    near, far = (make_space(cloud(z), "x", a, None).matrix() for z in (x, x + 300))
    torch.testing.assert_close(far, near, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "inner", "euclidean"])
def test_gradients_of_the_factors_are_those_of_the_matrix(make_clouds, cost):
    x, y, a, b = make_clouds(n=14, m=12)
    plan = torch.rand(14, 12, dtype=x.dtype, device=x.device)
    gradients = []
    for dense in (False, True):
        points = [z.clone().requires_grad_() for z in (x, y)]
        geometries = [GEOMETRIES[cost](z) for z in points]
        if dense:
            geometries = [ot.CostMatrix(geometry.matrix()) for geometry in geometries]
        terms = gradient_terms(pair(*geometries, a, b), plan)
        arguments, partials = zip(*terms, strict=True)
        gradients.append(torch.autograd.grad(arguments, points, partials))
    for factorized, dense in zip(*gradients, strict=True):
        torch.testing.assert_close(factorized, dense)


def test_gradient_of_the_distortion_is_that_of_autograd(make_clouds):
    x, y, a, b = make_clouds(n=9, m=8)
    plan = torch.rand(9, 8, dtype=x.dtype, device=x.device)
    dx, dy = (cloud(z).matrix().requires_grad_() for z in (x, y))
    exact = torch.autograd.grad((brute_force(dx, dy, plan) * plan).sum(), (dx, dy))
    terms = dict(zip(("x", "y"), gradient_terms(pair(ot.CostMatrix(dx), ot.CostMatrix(dy), a, b), plan), strict=True))
    torch.testing.assert_close(terms["x"][1], exact[0])
    torch.testing.assert_close(terms["y"][1], exact[1])


def test_truncation_at_the_true_rank_is_exact(make_clouds):
    x, _, a, _ = make_clouds(n=40)
    matrix = cloud(x).matrix()  # Rank 5, which a matrix does not say.
    space = make_space(ot.CostMatrix(matrix), "x", a, 5)
    assert space.core.shape == (5, 5)
    torch.testing.assert_close(space.matrix(), matrix, atol=1e-10, rtol=1e-10)
    assert space.error < 1e-6


@pytest.mark.parametrize("make", ["euclidean", "matrix", "inner", "sqeuclidean"])
def test_truncation_error_is_what_it_says(make_clouds, make, monkeypatch):
    monkeypatch.setattr("labkit.ot.gromov.factors.BLOCK_ROWS", 16)
    x, _, a, _ = make_clouds(n=60, d=6)
    geometry = GEOMETRIES[make](x)
    errors = []
    for rank in (2, 4, 5):
        space = make_space(geometry, "x", a, rank)
        assert space.core.shape == (rank, rank)
        gap = space.matrix() - geometry.matrix()
        torch.testing.assert_close(space.error, (a @ gap.square() @ a).sqrt(), rtol=1e-6, atol=1e-9)
        errors.append(float(space.error))
        # No matrix of this rank is nearer in the weighted norm (Eckart, Young 1936).
        root = a.sqrt()
        values = torch.linalg.eigvalsh(root[:, None] * geometry.matrix() * root)
        best = values.abs().sort(descending=True).values[rank:].norm()
        assert errors[-1] <= 1.02 * best
    assert errors == sorted(errors, reverse=True)


def test_truncated_points_of_weight_zero_stay_finite(make_clouds):
    x, _, a, _ = make_clouds(n=30)
    a = a.index_fill(0, torch.tensor([0, 7], device=a.device), 0.0)
    space = make_space(cloud(x, "euclidean"), "x", a, 6)
    gap = space.matrix() - cloud(x, "euclidean").matrix()
    assert torch.isfinite(gap).all()
    assert space.error >= (a @ gap.square() @ a).sqrt()


def test_spaces_in_batches_and_other_precisions(make_clouds):
    problems = [make_clouds(n=14, m=12, seed=seed) for seed in range(3)]
    x, y, a, b = (torch.stack(tensors) for tensors in zip(*problems, strict=True))
    plan = a[..., :, None] * b[..., None, :]
    batch = pair(cloud(x), cloud(y, "euclidean"), a, b)
    for k in range(3):
        one = pair(cloud(x[k]), cloud(y[k], "euclidean"), a[k], b[k])
        torch.testing.assert_close(batch.linearize(plan)[k], one.linearize(plan[k]))
        again: Spaces = one.repeat(2)
        torch.testing.assert_close(again.linearize(plan[[k, k]])[1], one.linearize(plan[k]))
        single = one.cast(torch.float32).linearize(plan[k].float())
        torch.testing.assert_close(single, one.linearize(plan[k]).float(), rtol=1e-5, atol=1e-4)


def test_product_of_unequal_masses(make_clouds):
    x, y, a, b = make_clouds(n=14, m=12)
    fused = torch.rand(14, 12, dtype=x.dtype, device=x.device)
    spaces = make_spaces((cloud(x), cloud(y)), (3 * a, 2 * b), None, (fused, 0.3), balanced=False)
    product = spaces.product()
    torch.testing.assert_close(product.sum(), a.new_tensor(6.0).sqrt())
    torch.testing.assert_close(spaces.product_objective, spaces.objective(product))


def test_one_space_may_serve_a_batch(make_clouds):
    x, y, a, _ = make_clouds(n=14, m=12)
    spaces = make_spaces((cloud(x), cloud(torch.stack([y, 2 * y]))), (a, None), "mean", (None, 1.0))
    assert spaces.x.core.shape == (2, 5, 5)
    torch.testing.assert_close(spaces.unit[0], spaces.unit[1])


def test_inner_products_are_scaled_by_the_squared_norm(make_clouds):
    x, _, a, _ = make_clouds(n=14)
    spaces = make_spaces((ot.InnerProduct(x), ot.InnerProduct(x)), (a, a), "mean", (None, 1.0))
    torch.testing.assert_close((a * spaces.x.matrix().diagonal()).sum(), torch.ones_like(a[0]))


def test_refusals(make_clouds):
    x, _, a, _ = make_clouds(n=14)
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        make_space(cloud(x), "geom_x", a, 0)
    with pytest.raises(ValueError, match=r"x has shape \(14,\)"):
        ot.InnerProduct(x[:, 0])
    with pytest.raises(TypeError, match="expected a torch tensor"):
        ot.InnerProduct([[1.0]])
    with pytest.raises(ValueError, match="cannot divide distances"):
        make_spaces((ot.CostMatrix(-cloud(x).matrix()), cloud(x)), (a, a), "mean", (None, 1.0))


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_rounding_is_not_blown_up_to_distances(make_clouds, cost):
    x, y, _, b = make_clouds(n=14, m=12)
    alone = torch.zeros(14, dtype=x.dtype, device=x.device)
    alone[3] = 1
    for points, a in ((x, alone), (x[:1].expand(14, 3) + 0.1, None)):
        spaces = make_spaces((cloud(points.contiguous(), cost), cloud(y)), (a, b), "mean", (None, 1.0))
        expected = make_spaces((ot.CostMatrix(torch.zeros_like(x @ x.T)), cloud(y)), (a, b), "mean", (None, 1.0))
        torch.testing.assert_close(spaces.unit, expected.unit)
