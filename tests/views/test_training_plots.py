"""Training curves: every run of a method is a line of its own, in one color."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from labkit import views

LOGS = {
    "a": [
        pd.DataFrame({"step": [1, 2, 3], "validation": [0.1, np.nan, 0.3], "ot": [3.0, 2.0, 1.0]}),
        pd.DataFrame({"step": [1, 2], "validation": [0.2, 0.4]}),
    ],
    "b": [pd.DataFrame({"step": [5], "validation": [0.5]})],
    "closed": [],
}
COLORS = {"a": "#0a84d0", "b": "#d55e00", "closed": "#009e73"}


def options(element: hv.Element, group: str, backend: str) -> dict:
    return hv.Store.lookup_options(backend, element, group).kwargs


def test_runs_are_drawn_apart_and_unlogged_steps_left_out() -> None:
    curves = {curve.label: curve for curve in views.trainings(LOGS, colors=COLORS).values()}
    assert list(curves) == ["a (2 runs)", "b (1 run)"]
    np.testing.assert_array_equal(curves["a (2 runs)"]["step"], [1, 3, np.nan, 1, 2])
    np.testing.assert_array_equal(curves["a (2 runs)"]["validation"], [0.1, 0.3, np.nan, 0.2, 0.4])
    np.testing.assert_array_equal(curves["b (1 run)"]["step"], [5])
    for backend in ("bokeh", "matplotlib"):
        assert [options(c, "style", backend)["color"] for c in curves.values()] == [COLORS["a"], COLORS["b"]]


def test_another_measure_is_that_of_who_logged_it() -> None:
    (curve,) = views.trainings(LOGS, measure="ot", colors=COLORS).values()
    np.testing.assert_array_equal(curve["ot"], [3, 2, 1])
    assert curve.label == "a (1 run)"
    with pytest.raises(ValueError, match="no log has 'nothing'"):
        views.trainings(LOGS, measure="nothing", colors=COLORS)


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_both_backends_draw_it(backend: str) -> None:
    drawn = views.trainings(LOGS, colors=COLORS)
    assert options(drawn, "plot", backend)["ylabel"] == "validation"
    hv.renderer(backend).get_plot(drawn)
