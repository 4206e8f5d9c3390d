"""Flows of a plan against loops over its entries."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from labkit import views
from labkit.views.colors import MISSING, category_colors
from labkit.views.flows import FLOW, MOST_LABELS, PARTNER

KEYS = list("abcdef")


@pytest.fixture
def plan() -> pd.DataFrame:
    """A full plan between six things, in a shuffled order."""
    mass = np.random.default_rng(0).dirichlet(np.ones(36)).reshape(6, 6)
    rows = [(KEYS[i], KEYS[j], mass[i, j]) for i in range(6) for j in range(6)]
    return pd.DataFrame(rows, columns=["row_key", "col_key", "mass"]).sample(frac=1, random_state=1)


@pytest.fixture
def points() -> pd.DataFrame:
    """Six things of three labels, one of them without."""
    return pd.DataFrame({"key": KEYS, "label": ["x", "x", "y", "y", "z", None]})


@pytest.mark.parametrize("reverse", [False, True])
def test_the_largest_entries_of_each_sample(plan, reverse):
    found = views.flows_from(plan, ["b", "e"], per_sample=2, reverse=reverse)
    own, other = ("col_key", "row_key") if reverse else ("row_key", "col_key")
    wanted = {
        (row[own], row[other], row["mass"])
        for key in ("b", "e")
        for _, row in plan[plan[own] == key].nlargest(2, "mass").iterrows()
    }
    assert set(zip(found["from_key"], found["to_key"], found["mass"], strict=True)) == wanted
    assert (found["partner"] == (found["from_key"] == found["to_key"])).all()
    assert found.groupby("from_key")["mass"].is_monotonic_decreasing.all()


def test_all_entries_carry_all_mass(plan):
    assert views.flows_from(plan, KEYS, per_sample=6)["mass"].sum() == pytest.approx(1)
    assert views.flows_from(plan, ["unknown"], per_sample=6).empty


def test_lines_go_from_place_to_place(plan):
    flows = views.flows_from(plan, ["a", "b"], per_sample=6)
    sources = pd.DataFrame({"x": range(6), "y": range(6)}, index=KEYS)
    targets = pd.DataFrame({"x": range(10, 15), "y": range(5)}, index=KEYS[:5])
    lines = views.flow_lines(flows, sources, targets)
    there = flows[flows["to_key"] != "f"]
    assert len(lines["x0"]) == len(there) == 10
    assert lines["x0"].tolist() == [KEYS.index(k) for k in there["from_key"]]
    assert lines["x1"].tolist() == [10 + KEYS.index(k) for k in there["to_key"]]
    assert lines["color"].tolist() == [PARTNER if p else FLOW for p in there["partner"]]
    assert lines["alpha"].max() == 1
    assert (np.argsort(lines["alpha"]) == np.argsort(there["mass"].to_numpy())).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_labels_carry_the_mass_of_their_things(plan, points, reverse):
    found = views.label_flows(plan, points, reverse=reverse).set_index(["from_label", "to_label"])["mass"]
    label = dict(zip(KEYS, ["x", "x", "y", "y", "z", "(none)"], strict=True))
    wanted: dict[tuple[str, str], float] = {}
    for row in plan.itertuples():
        at = (label[row.row_key], label[row.col_key])
        wanted[at[::-1] if reverse else at] = wanted.get(at[::-1] if reverse else at, 0) + row.mass
    assert found.to_dict() == pytest.approx(wanted)


def test_many_labels_are_counted_together():
    n = MOST_LABELS + 5
    keys = [f"k{i}" for i in range(n)]
    plan = pd.DataFrame({"row_key": keys, "col_key": keys, "mass": np.arange(1, n + 1) / (n * (n + 1) / 2)})
    found = views.label_flows(plan, pd.DataFrame({"key": keys, "label": keys}))
    assert found["mass"].sum() == pytest.approx(1)
    assert set(found["from_label"]) == {*keys[5:], "other labels"}


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_both_backends_draw(plan, points, backend):
    projection = pd.concat(
        [pd.DataFrame({"key": KEYS, "modality": m, "x": range(6), "y": at, "trust": 1.0}) for at, m in enumerate("pq")]
    )
    flows = views.flows_from(plan, ["a"], per_sample=3)
    drawn = views.flow_map(projection, flows, source="p", target="q")
    assert hv.render(drawn, backend=backend) is not None
    labels = views.flow_sankey(views.label_flows(plan, points), source="p", target="q")
    assert hv.render(labels, backend=backend) is not None
    assert labels.dimension_values("percent").sum() == pytest.approx(100)


def test_labels_keep_their_colors_whatever_is_drawn(plan, points):
    some = views.label_flows(plan[(plan["row_key"] == "e") & (plan["col_key"] == "e")], points)
    drawn = views.flow_sankey(some, source="p", target="q", labels=["x", "y", "z", "(none)"])
    cmap = drawn.opts.get("style", backend="bokeh").kwargs["cmap"]
    assert cmap["z"] == category_colors(["x", "y", "z", "(none)"])["z"] != category_colors(["z"])["z"]
    assert cmap["z "] == cmap["z"]
    assert cmap["other labels"] == MISSING


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda plan, points: views.flows_from(plan.drop(columns="mass"), KEYS, per_sample=1), "mass"),
        (lambda plan, points: views.label_flows(plan, points.iloc[1:]), "key 'a' of the plan"),
        (lambda plan, points: views.flow_sankey(pd.DataFrame(), source="p", target="q"), "no flows"),
        (
            lambda plan, points: views.flow_map(
                pd.DataFrame({"key": [], "modality": [], "x": [], "y": []}),
                views.flows_from(plan, KEYS, per_sample=1),
                source="p",
                target="q",
            ),
            "no points",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told(plan, points, make, told):
    with pytest.raises(ValueError, match=told):
        make(plan, points)
