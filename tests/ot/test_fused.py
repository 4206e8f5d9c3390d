"""The compiled loops against the same formulas in torch, and what they leave alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from labkit.ot import newton
from labkit.ot.kernel import Kernel
from labkit.ot.newton import SchurComplement, fused_loops
from labkit.ot.potentials import improve
from labkit.ot.problem import Problem

pytest.importorskip("numba")


def make_kernel(*, n=30, m=23, dtype=torch.float64, rho_a=float("inf"), rho_b=float("inf"), epsilon=0.1):
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(n, m, generator=generator, dtype=dtype)
    a, b = (torch.rand(k, generator=generator, dtype=dtype) for k in (n, m))
    a[3:4] = b[5:6] = 0
    one = torch.ones((), dtype=dtype)
    problem = Problem(cost, a / a.sum(), b / b.sum(), epsilon, one, rho_a, rho_b, False, True)
    return Kernel(problem, torch.zeros_like(a), torch.zeros_like(b), epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(30, 23), (1, 1), (3, 9), (4, 2), (33, 8)])
@pytest.mark.parametrize("rhos", [(float("inf"), float("inf")), (0.5, float("inf")), (float("inf"), 0.3), (0.2, 2.0)])
def test_passes_are_those_of_torch(monkeypatch, dtype, n, m, rhos):
    compiled, plain = (make_kernel(n=n, m=m, dtype=dtype, rho_a=rhos[0], rho_b=rhos[1]) for _ in range(2))
    # No error is below -1: all passes are done.
    compiled.advance(7, -1.0)
    monkeypatch.setattr("labkit.ot.kernel.fused_loops", lambda matrix: None)
    plain.advance(7, -1.0)
    assert compiled.used == plain.used == 8
    rtol = {torch.float32: 1e-4, torch.float64: 1e-12}[dtype]
    for name in ("u", "v", "rows", "columns", "alpha", "beta"):
        torch.testing.assert_close(getattr(compiled, name), getattr(plain, name), rtol=rtol, atol=0)


def test_passes_stop_at_the_tolerance():
    kernel = make_kernel()
    kernel.advance(1000, 1e-3)
    assert kernel.used < 1000
    assert 1e-5 < float(kernel.error()) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_are_those_of_torch(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    plan = torch.rand(31, 22, generator=generator, dtype=dtype)
    rows, columns = plan.sum(1), plan.sum(0)
    gauge = torch.nn.functional.normalize(columns.sqrt(), dim=-1)
    rhs = torch.randn(22, generator=generator, dtype=dtype)
    for steps in (1, 3):
        found = []
        for loops in (fused_loops, lambda matrix: None):
            monkeypatch.setattr(newton, "fused_loops", loops)
            complement = SchurComplement(plan, 1 / rows, columns.rsqrt(), gauge)
            found.append(complement.solve(rhs, torch.zeros(1, dtype=dtype), steps, direct=False))
        assert found[0].steps == found[1].steps == steps
        torch.testing.assert_close(found[0].x, found[1].x)


def test_what_the_loops_do_not_apply_to():
    assert fused_loops(torch.ones(3, 4)) is not None
    assert fused_loops(torch.ones(2, 3, 4)) is None
    assert fused_loops(torch.ones(3, 4).mT) is None
    assert fused_loops(torch.ones(3, 4, device="meta")) is None


def test_numba_is_not_imported_before_it_is_needed():
    code = "import sys, labkit.ot; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rhos", [(float("inf"), float("inf")), (0.5, float("inf")), (float("inf"), 0.3), (0.2, 2.0)])
def test_improve_is_that_of_torch(monkeypatch, dtype, rhos):
    # Costs this far above epsilon make Newton's method worth it.
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-8}[dtype]
    compiled, plain = (make_kernel(dtype=dtype, rho_a=rhos[0], rho_b=rhos[1], epsilon=0.02) for _ in range(2))
    improve(compiled, tolerance, 1000)
    for module in ("kernel", "newton"):
        monkeypatch.setattr(f"labkit.ot.{module}.fused_loops", lambda matrix: None)
    improve(plain, tolerance, 1000)
    assert float(compiled.error()) <= tolerance
    assert compiled.used <= plain.used + 10
    plans = [k.alpha[:, None] * k.matrix * k.beta for k in (compiled, plain)]
    torch.testing.assert_close(*plans, rtol=0, atol=3 * tolerance)


def test_improve_stops_at_its_budget_and_takes_strided_weights():
    kernel = make_kernel(epsilon=0.005)
    doubled = torch.stack([kernel.problem.a, kernel.problem.a], -1)[:, 0]
    assert not doubled.is_contiguous()
    kernel.problem = replace(kernel.problem, a=doubled)
    improve(kernel, 1e-12, 20)
    assert 15 <= kernel.used <= 22
