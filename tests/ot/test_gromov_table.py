"""Every variant of Gromov-Wasserstein against POT: dense, factorized and low-rank spaces, pure and fused.

POT's conventions in terms of ours, for alpha G + (1 - alpha) <M, P> and absolute epsilon and rho:
    entropic_fused_gromov_wasserstein        alpha, epsilon           the same
    fused_unbalanced_gromov_wasserstein      G + alpha' <M, P> + rho' KL2 + epsilon' KL2 (KL2 the quadratic divergence):
                                             alpha' = (1 - alpha) / alpha, rho' and epsilon' ours / 2 alpha
    entropic_semirelaxed_...                 our proximal steps, same alpha and epsilon, from the product with uniform b
    partial_gromov_wasserstein, ..._fused    without entropy; their entropic form counts only what moves (ours also
                                             what stays), and adds the scalar <M, P> to the gradient in place of M if
                                             fused, so that it is compared where the entropy hardly matters
"""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
import torch

from labkit import ot
from labkit.ot.gromov.spaces import make_spaces

KINDS = ["dense", "factorized", "low-rank"]
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["pure", "fused"])
KIND = pytest.mark.parametrize("kind", KINDS)


class Table:
    """Two spaces as our functions take them, and as the matrices that POT takes."""

    def __init__(self, make_clouds, kind, fused, uniform_b=False):
        x, y, a, b = make_clouds(n=20, m=16)
        if uniform_b:
            b = torch.full_like(b, 1 / 16)
        metric = "sqeuclidean" if kind == "factorized" else "euclidean"
        x, y = (p / ot.PointCloud(p, p, metric).matrix().mean() ** (0.5 if kind == "factorized" else 1) for p in (x, y))
        self.geometries = ot.PointCloud(x, x, metric), ot.PointCloud(y, y, metric)
        self.alpha = 0.6 if fused else 1.0
        self.cost = ot.PointCloud(x, y).matrix() if fused else None
        rank = 6 if kind == "low-rank" else None
        self.weights = a, b
        self.spaces = make_spaces(self.geometries, (a, b), None, (self.cost, self.alpha), rank=rank)
        assert (self.spaces.x.factor is None) == (kind == "dense")
        self.options = {"scale_cost": None, "fused_cost": self.cost, "alpha": self.alpha, "rank": rank}

    @property
    def arrays(self):
        """D_x, D_y, a, b."""
        return [t.cpu().numpy() for t in (self.spaces.x.matrix(), self.spaces.y.matrix(), *self.weights)]

    @property
    def fused_cost(self):
        return None if self.cost is None else self.cost.cpu().numpy()

    def objective(self, plan):
        return float(self.spaces.objective(torch.as_tensor(plan).to(self.spaces.a)))


@KIND
def test_fused(make_clouds, kind):
    table = Table(make_clouds, kind, True)
    solution = ot.gromov_wasserstein(*table.geometries, *table.weights, epsilon=0.2, tolerance=1e-8, **table.options)
    expected = pot.gromov.entropic_fused_gromov_wasserstein(
        table.fused_cost, *table.arrays, alpha=table.alpha, epsilon=0.2, tol=1e-10, max_iter=2000, stopThr=1e-11
    )
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-6)


@FUSED
@KIND
def test_unbalanced(make_clouds, kind, fused):
    table = Table(make_clouds, kind, fused)
    epsilon, tau = 0.2, 0.8
    solution = ot.unbalanced_gromov_wasserstein(
        *table.geometries, *table.weights, epsilon=epsilon, tau_a=tau, tau_b=tau, tolerance=1e-8, **table.options
    )
    plan, _, log = pot.gromov.fused_unbalanced_gromov_wasserstein(
        *table.arrays,
        reg_marginals=epsilon * tau / (1 - tau) / (2 * table.alpha),
        epsilon=epsilon / (2 * table.alpha),
        alpha=(1 - table.alpha) / table.alpha,
        M=table.fused_cost,
        max_iter=1000,
        tol=1e-10,
        max_iter_ot=2000,
        tol_ot=1e-10,
        log=True,
    )
    assert 0.3 < plan.sum() < 0.95
    np.testing.assert_allclose(solution.plan.cpu(), plan, atol=1e-7)
    np.testing.assert_allclose(float(solution.regularized_cost), table.alpha * log["fugw_cost"], rtol=1e-6)


@FUSED
@KIND
def test_semirelaxed(make_clouds, kind, fused):
    table = Table(make_clouds, kind, fused, uniform_b=True)
    x, y, a, _ = table.arrays
    solution = ot.semirelaxed_gromov_wasserstein(
        *table.geometries,
        table.weights[0],
        epsilon=0.1,
        method="proximal",
        tolerance=1e-7,
        max_iterations=5000,
        **table.options,
    )
    options = {"epsilon": 0.1, "max_iter": 5000, "tol": 1e-11, "symmetric": True}
    if fused:
        expected = pot.gromov.entropic_semirelaxed_fused_gromov_wasserstein(
            table.fused_cost, x, y, a, alpha=table.alpha, **options
        )
    else:
        expected = pot.gromov.entropic_semirelaxed_gromov_wasserstein(x, y, a, **options)
    np.testing.assert_allclose(solution.plan.cpu(), expected, atol=1e-4)
    np.testing.assert_allclose(float(solution.cost), table.objective(expected), rtol=1e-6)


@FUSED
@KIND
def test_partial(make_clouds, kind, fused):
    table = Table(make_clouds, kind, fused)
    plan = None
    for epsilon in (0.1, 0.03, 0.01, 0.003):
        solution = ot.partial_gromov_wasserstein(
            *table.geometries,
            *table.weights,
            mass=0.6,
            epsilon=epsilon,
            init_plan=plan,
            tolerance=1e-4,
            **table.options,
        )
        plan = solution.plan

    def exact(start):
        if fused:
            return pot.gromov.partial_fused_gromov_wasserstein(
                table.fused_cost, *table.arrays, m=0.6, alpha=table.alpha, G0=start, symmetric=True
            )
        return pot.gromov.partial_gromov_wasserstein(*table.arrays, m=0.6, G0=start, symmetric=True)

    # POT refuses a start that exceeds a marginal by rounding. What it still gains is the blur of the entropy.
    gained = float(solution.cost) - table.objective(exact((1 - 1e-3) * solution.plan.cpu().numpy()))
    assert gained <= 0.02 * float(solution.cost)
    assert float(solution.cost) <= 1.001 * table.objective(exact(0.6 * np.outer(*table.arrays[2:])))
