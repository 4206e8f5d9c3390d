"""Problems that are refused, and what the message says to do."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from labkit import ot


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0 must be positive"),
        ({"epsilon": math.nan}, "epsilon=nan must be positive"),
        ({"tau_a": 0.0}, r"tau_a=0.0 must be in \(0, 1\]"),
        ({"tau_b": 1.5}, r"tau_b=1.5 must be in \(0, 1\]"),
        ({"tolerance": 0.0}, "tolerance=0.0 must be positive"),
        ({"max_iterations": 0}, "max_iterations=0 must be at least 1"),
        ({"scale_cost": "median"}, "scale_cost='median' is unknown"),
        ({"scale_cost": -1.0}, "scale_cost=-1.0 must be positive"),
        ({"a": -torch.ones(3)}, "a have negative entries"),
        ({"a": torch.zeros(3)}, "a have no mass"),
        ({"b": torch.ones(4) / 4 * torch.nan}, "weights b has 4 NaN"),
        ({"b": torch.ones(3) / 3}, r"b have shape \(3,\), expected \(4,\)"),
        ({"a": torch.ones(2, 3) / 3}, "what broadcasts to it"),
        ({"a": torch.ones(3)}, "differ in total mass by 66"),
        ({"init": (torch.zeros(4), torch.zeros(3))}, r"init f has shape \(4,\)"),
    ],
)
def test_sinkhorn_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ot.sinkhorn(ot.CostMatrix(torch.rand(3, 4)), **options)


def test_negative_costs_need_a_number_as_scale(make_clouds):
    x, y, _, _ = make_clouds()
    similarity = -ot.PointCloud(x, y).matrix()
    with pytest.raises(ValueError, match="may be negative a positive number"):
        ot.sinkhorn(ot.CostMatrix(similarity))
    assert ot.sinkhorn(ot.CostMatrix(similarity), scale_cost=5.0).converged


def test_costs_that_overflow_the_dtype_are_named(device):
    x = torch.tensor([[0.0], [1e25]], device=device)
    with pytest.raises(ValueError, match="rescale"):
        ot.sinkhorn(ot.PointCloud(x, x.clone()))


def test_loads_with_torch_alone():
    blocked = ("pandas", "sklearn", "ot", "jaxtyping", "beartype", "pydantic", "pyarrow")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import labkit.ot"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
