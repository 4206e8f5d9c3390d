"""Page Transport without a browser: what is shown is what the stored plans say."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from dashboards import plans
from dashboards.app import App
from dashboards.map_set import JOINT
from dashboards.session import Session
from labkit.diagnosis.stored import EPSILONS, diagnose_run
from labkit.store import Run, Store
from labkit.views.flows import PARTNER


@pytest.fixture(scope="module")
def diagnosed(runs_root, tmp_path_factory) -> Run:
    """A copy of a run with couplings."""
    folder = Store(runs_root).open("procrustes-s0").folder
    root = tmp_path_factory.mktemp("transport") / "runs"
    shutil.copytree(folder, root / folder.name)
    run = Store(root).open(folder.name)
    diagnose_run(run, measures=("diagram_distance_h0",))
    return run


def opened(run: Run, **query: str) -> App:
    return App(Session(Store(run.folder.parent)), {"page": "Transport", "run": run.id, **query})


def layer(app: App) -> dict:
    """The flows that are drawn."""
    return app.pages["Transport"].map.panes[JOINT]._data["flows"]


def test_every_stored_plan_is_offered_in_both_directions(diagnosed):
    app = opened(diagnosed)
    page = app.pages["Transport"]
    names = diagnosed.info["modalities"]
    assert set(page._pair.options) == {f"{a} → {b}" for a in names for b in names if a != b}
    assert list(page._epsilon.options) == [f"{e:g}" for e in sorted(EPSILONS, reverse=True)]


@pytest.mark.parametrize("pair", ["image → text", "text → image"])
def test_flows_and_shares_of_a_selection_are_those_of_the_stored_plan(diagnosed, pair):
    app = opened(diagnosed, **{"transport.pair": pair, "transport.epsilon": "0.01", "transport.flows": "2"})
    table, record = diagnosed.coupling("image", "text", "sinkhorn", 0.01)
    own, other = ("row_key", "col_key") if pair.startswith("image") else ("col_key", "row_key")
    keys = table[own].unique()[:9].tolist()
    app.session.select_keys([*keys, "not a key"])
    page = app.pages["Transport"]
    rows = table[table[own].isin(keys)]
    top = rows.sort_values("mass", ascending=False).groupby(own).head(2)
    assert len(layer(app)["x0"]) == len(top)
    assert page.moved.n == 9
    assert page.moved.shown == pytest.approx(top["mass"].sum() * record["n"] / 9)
    assert page.moved.stored == pytest.approx(rows["mass"].sum() * record["n"] / 9)
    diagonal = rows[rows[own] == rows[other]]["mass"].sum() * record["n"] / 9
    assert page.moved.partner.value == pytest.approx(diagonal)
    largest = rows.loc[rows.groupby(own)["mass"].idxmax()]
    assert page.moved.first.value == pytest.approx((largest[own] == largest[other]).mean())
    assert f"data-share='{page.moved.shown:.6f}'" in page._numbers.object
    partners = np.asarray(layer(app)["color"]) == PARTNER
    assert partners.sum() == (top[own] == top[other]).sum()


def test_lines_begin_and_end_at_the_points_of_the_things(diagnosed):
    app = opened(diagnosed, projection="pca", **{"transport.pair": "image → text", "transport.flows": "1"})
    table, _ = diagnosed.coupling("image", "text", "sinkhorn", 0.05)
    key = table["row_key"].iloc[0]
    app.session.select_keys([key])
    rows = table[table["row_key"] == key]
    to = rows.loc[rows["mass"].idxmax(), "col_key"]
    frame = diagnosed.projection("pca").set_index(["key", "modality"])[["x", "y"]]
    drawn = layer(app)
    assert (drawn["x0"][0], drawn["y0"][0]) == pytest.approx(tuple(frame.loc[(key, "image")]), rel=1e-5)
    assert (drawn["x1"][0], drawn["y1"][0]) == pytest.approx(tuple(frame.loc[(to, "text")]), rel=1e-5)


def test_nothing_selected_draws_no_line_and_counts_all(diagnosed):
    app = opened(diagnosed)
    page = app.pages["Transport"]
    assert len(layer(app)["x0"]) == 0
    assert page.moved.n == page.plan.n == len(page.plan.keys)
    app.session.selection.focus = int(app.session.content.rows_of(page.plan.keys[:1])[0])
    assert page.moved.n == 1
    assert len(layer(app)["x0"]) > 0


def test_a_selection_outside_the_plan_is_told(diagnosed):
    app = opened(diagnosed)
    train = app.session.content.points.query("split == 'train'")["key"].iloc[:3]
    app.session.select_keys(train)
    page = app.pages["Transport"]
    assert "0 of 3 selected things are in the plan" in page._numbers.object
    assert "None of the selected things is in the plan" in page._sankey.objects[0].object


@pytest.mark.parametrize(
    ("change", "told"), [({"converged": False}, "Not converged"), ({"marginal_error": 0.3}, "Marginals missed")]
)
def test_a_plan_that_was_not_solved_well_is_said_to_be_so(diagnosed, tmp_path, change, told):
    shutil.copytree(diagnosed.folder, tmp_path / "runs" / diagnosed.id)
    run = Store(tmp_path / "runs").open(diagnosed.id)
    table, record = run.coupling("image", "text", "sinkhorn", 0.05)
    meta = {k: v for k, v in record.items() if k not in ("source", "target", "solver", "epsilon", "step")}
    run.write_coupling("image", "text", "sinkhorn", 0.05, "final", table, meta | change)
    page = opened(run, **{"transport.pair": "image → text"}).pages["Transport"]
    assert not page.plan.trusted
    assert told in page._message.objects[0].object
    assert "lk-warning" in page._message.objects[0].object


def test_a_run_without_plans_says_which_command_makes_them(runs_root):
    run = Store(runs_root).open("cca-s0")
    app = opened(run)
    shown = app._places["Transport"].objects
    assert f"labkit diagnose {run.id}" in shown[0].object


def test_epsilons_of_a_direction_that_nobody_stored(diagnosed):
    content = opened(diagnosed).session.content
    assert plans.epsilons(content, ("image", "nothing")) == []
