"""The Schur complement of the dual's Hessian and its solvers, against dense linear algebra."""

from __future__ import annotations

import pytest
import torch

from labkit.ot import newton
from labkit.ot.newton import SchurComplement, conjugate_gradient, inverse_root


@pytest.fixture(params=["compiled", "torch"])
def loops(request, monkeypatch):
    """Both implementations of the inner loops."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(newton, "fused_loops", lambda matrix: None)


def make_complement(device, *, n=9, m=7, dtype=torch.float64, batch=(), seed=0, absent=False):
    """A random plan, and its complement with both marginals fixed."""
    generator = torch.Generator().manual_seed(seed)
    plan = torch.rand(*batch, n, m, generator=generator, dtype=torch.float64).pow(4)
    if absent:
        plan[..., 2, :] = plan[..., :, 3] = 0
    plan = (plan / plan.sum((-2, -1), keepdim=True)).to(device, dtype)
    rows, columns = plan.sum(-1), plan.sum(-2)
    gauge = columns.sqrt()
    root = inverse_root(columns)
    return (
        plan,
        root,
        SchurComplement(plan, inverse_root(rows).square(), root, gauge / gauge.norm(dim=-1, keepdim=True)),
    )


def hessian(plan):
    """diag(q) - P^T diag(1 / p) P, entry by entry."""
    rows, columns = plan.sum(1), plan.sum(0)
    dense = torch.diag(columns)
    for i in range(plan.shape[0]):
        if rows[i] > 0:
            dense = dense - torch.outer(plan[i], plan[i]) / rows[i]
    return dense


@pytest.mark.parametrize("absent", [False, True])
def test_complement_is_the_scaled_hessian(device, absent):
    plan, root, complement = make_complement(device, absent=absent)
    expected = root[:, None] * hessian(plan) * root
    identity = torch.eye(7, dtype=plan.dtype, device=device)
    if absent:
        identity[3, 3] = 0
    product = torch.stack([complement(column) for column in identity], 1)
    torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("n", [9, 12, 5])
def test_solution_is_that_of_the_pseudo_inverse(device, loops, direct, absent, n):
    plan, root, complement = make_complement(device, n=n, absent=absent)
    rhs = root * torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=plan.dtype).to(device)
    bound = 1e-12 * rhs.norm(dim=-1, keepdim=True)
    solution = complement.solve(rhs, bound, 100, direct)
    assert solution.met
    dense = root[:, None] * hessian(plan) * root
    expected = torch.linalg.pinv(dense, hermitian=True, atol=1e-10) @ complement.project(rhs)
    torch.testing.assert_close(solution.x, expected, rtol=1e-8, atol=1e-9)
    assert (complement.factor is not None) == direct


def test_steps_are_bounded_and_admitted(device, loops):
    _, root, complement = make_complement(device, n=40, m=30)
    rhs = complement.project(root * torch.randn(30, dtype=root.dtype, device=device))
    solution = complement.solve(rhs, 1e-12 * rhs.norm(dim=-1, keepdim=True), 2, direct=False)
    assert solution.steps == 2
    assert not solution.met


def test_batch_is_a_loop(device):
    plan, root, complement = make_complement(device, batch=(2, 3))
    rhs = root * torch.linspace(-1, 2, 7, dtype=root.dtype, device=device)
    # One problem of the batch is done before it begins.
    rhs[1, 1] = 0
    bound = 1e-12 * rhs.norm(dim=-1, keepdim=True)
    solution = conjugate_gradient(complement, complement.project(rhs), bound=bound, max_steps=50)
    assert solution.met
    assert (solution.x[1, 1] == 0).all()
    for i, j in ((0, 0), (0, 2), (1, 2)):
        one = SchurComplement(plan[i, j], complement.weights[i, j], root[i, j], complement.gauge[i, j])
        alone = one.solve(rhs[i, j], bound[i, j], 50, direct=False)
        torch.testing.assert_close(solution.x[i, j], alone.x, rtol=1e-9, atol=1e-10)


def test_clusters_that_hardly_touch_need_the_factor(device, loops):
    # Ten blocks joined by masses of 1e-7: ten eigenvalues near zero, which conjugate gradients find one by one.
    generator = torch.Generator().manual_seed(0)
    plan = torch.block_diag(*[torch.rand(20, 20, generator=generator, dtype=torch.float64) for _ in range(10)])
    plan = (plan + 1e-7 * torch.rand(200, 200, generator=generator, dtype=torch.float64)).to(device)
    rows, columns = plan.sum(1), plan.sum(0)
    root = inverse_root(columns)
    complement = SchurComplement(plan, 1 / rows, root, torch.nn.functional.normalize(columns.sqrt(), dim=-1))
    rhs = complement.project(torch.randn(200, generator=generator, dtype=torch.float64).to(device))
    solution = complement.solve(rhs, 1e-8 * rhs.norm(dim=-1, keepdim=True), 1000, direct=False)
    assert solution.met
    torch.testing.assert_close(complement(solution.x), rhs, rtol=0, atol=1e-7)
