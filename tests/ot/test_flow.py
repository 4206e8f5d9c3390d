"""The gradient flow goes where the loss is small, and shows the bias of the entropic value."""

from __future__ import annotations

import pytest
import torch

from labkit import ot


def test_without_entropy_one_step_reaches_the_target(make_clouds):
    x, y, _, _ = make_clouds(n=20, m=20)
    moved = ot.gradient_flow(x, y, epsilon=1e-3, debiased=False, n_steps=1)
    expected = y[ot.round_to_permutation(ot.sinkhorn(ot.PointCloud(x, y), epsilon=1e-3, tolerance=1e-6).plan)]
    torch.testing.assert_close(moved, expected, atol=0.05, rtol=0)


def test_one_step_of_the_entropic_value_is_the_barycenter(make_clouds):
    x, y, _, _ = make_clouds(n=20, m=30)
    moved = ot.gradient_flow(x, y, epsilon=0.2, debiased=False, n_steps=1, step=1.0)
    coupling = ot.sinkhorn(ot.PointCloud(x, y), epsilon=0.2)
    torch.testing.assert_close(moved, coupling.barycenter(y), atol=1e-3, rtol=1e-2)


def test_the_entropic_value_collapses_the_cloud_and_the_divergence_does_not(make_clouds):
    x, y, _, _ = make_clouds(n=60, m=60, d=2)
    spread = float(y.var(0).sum())
    biased = ot.gradient_flow(x, y, epsilon=2.0, debiased=False)
    debiased = ot.gradient_flow(x, y, epsilon=2.0)
    assert float(biased.var(0).sum()) < 0.1 * spread
    assert float(debiased.var(0).sum()) == pytest.approx(spread, rel=0.05)


def test_the_start_is_left_alone(make_clouds):
    x, y, _, _ = make_clouds()
    before = x.clone()
    moved = ot.gradient_flow(x, y, n_steps=2)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    assert not moved.requires_grad


@pytest.mark.parametrize("settings", [{"step": 0.0}, {"n_steps": 0}])
def test_steps_must_be_positive(make_clouds, settings):
    x, y, _, _ = make_clouds()
    with pytest.raises(ValueError, match="positive"):
        ot.gradient_flow(x, y, **settings)
