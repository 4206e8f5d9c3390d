"""Drawings of transport show what they are given, in both backends."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pytest

from labkit import views
from labkit.views.transport import DRAWS

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(12, 2)), RANDOM.normal(size=(9, 2))


def segments(drawing: hv.Overlay) -> hv.Segments:
    (found,) = [element for element in drawing if isinstance(element, hv.Segments)]
    return found


def test_lines_of_a_matching_are_its_pairs():
    plan = np.zeros((12, 9))
    target = RANDOM.integers(9, size=12)
    plan[np.arange(12), target] = RANDOM.random(12) + 0.1
    lines = segments(views.plan_lines(X, Y, plan, title="a matching"))
    start, end = np.stack([lines["x0"], lines["y0"]], 1), np.stack([lines["x1"], lines["y1"]], 1)
    np.testing.assert_array_equal(start, np.repeat(X, DRAWS, axis=0))
    np.testing.assert_array_equal(end, np.repeat(Y[target], DRAWS, axis=0))


def test_lines_of_a_spread_plan_go_where_its_mass_is():
    plan = np.zeros((3000, 9))
    plan[:, [2, 5]] = [0.25, 0.75]
    lines = segments(views.plan_lines(np.zeros((3000, 2)), Y, plan, title="two targets"))
    assert set(lines["x1"]) == set(Y[[2, 5], 0])
    assert np.mean(lines["x1"] == Y[5, 0]) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_every_drawing_renders(backend):
    table = [
        {"n": 10, "gap": 0.1, "bound": 0.3},
        {"n": 10, "gap": 0.2, "bound": 0.3},
        {"n": 99, "gap": 0.01, "bound": 0.1},
    ]
    drawings = [
        views.plan_lines(X, Y, np.full((12, 9), 1 / 108), title="all to all"),
        views.clouds({"target": Y, "flow": X}, title="two clouds"),
        views.against_size(table, {"gap": "gap", "bound": "bound"}, title="gaps", ylabel="gap (lower is better)"),
    ]
    for drawing in drawings:
        assert hv.render(drawing, backend=backend) is not None


def test_a_line_against_the_size_is_the_mean():
    table = [{"n": 10, "gap": 0.1}, {"n": 10, "gap": 0.3}, {"n": 100, "gap": 0.01}]
    drawing = views.against_size(table, {"gap": "gap"}, title="gaps", ylabel="gap")
    (curve,) = [element for element in drawing if isinstance(element, hv.Curve)]
    np.testing.assert_allclose(curve["figure"], [0.2, 0.01])
