"""Page Robustness without a browser: curves, what fails at a point of a curve, areas, the color of first failure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bokeh.events import Tap

from dashboards import maps, robust
from dashboards.app import App
from dashboards.robust import Curve
from dashboards.session import Session
from labkit import stats
from labkit.store import Store

CURVE = Curve("feature_noise", "image")


def opened(root, variant: str, **query: str) -> App:
    run = next(r for r in Store(root).runs() if r.info["variant"] == variant)
    own = {f"robustness.{name}": value for name, value in query.items()}
    return App(Session(Store(root)), {"run": run.id, "page": "Robustness", **own})


@pytest.fixture
def page(runs_root):
    return opened(runs_root, "cca", curve=str(CURVE)).pages["Robustness"]


def clicked(page, method: str, severity: float) -> set[str]:
    """Keys that are selected after a click near a point of a curve, as the browser tells it."""
    rows = page.levels.query("corruption == 'feature_noise' and corrupted == 'image' and method == @method")
    y = float(rows.loc[rows["severity"] == severity, "value"].iloc[0])
    drawn = page._drawing.objects[0].get_root()
    figure = next(m for m in drawn.references() if type(m).__name__ == "figure")
    figure._trigger_event(Tap(figure, x=severity + 0.05, y=y))
    return set(page.content.points.loc[page.session.selection.mask, "key"])


def failing(run, severity: float, direction: tuple[str, str] | None = None) -> set[str]:
    """Recomputed from the stored field alone."""
    field = run.field("recall_at_10").query("split == 'test'")
    if direction is not None:
        field = field[(field["source"] == direction[0]) & (field["target"] == direction[1])]
    place = ["key", "source", "target"]
    clean = field[field["corruption"] == "none"].set_index(place)["value"]
    noisy = field.query("corruption == 'feature_noise' and corrupted == 'image' and severity == @severity")
    lost = (noisy.set_index(place)["value"] < 0.5) & (clean.reindex(noisy.set_index(place).index) >= 0.5)
    return set(lost[lost].index.get_level_values("key"))


def test_a_click_selects_what_fails_there_and_not_when_clean(page):
    keys = clicked(page, "cca", 4)
    assert keys == failing(page.content.run, 4)
    assert len(keys) > 10
    assert f"{len(keys)} test samples of this run fail at severity 4" in page._told.object


def test_a_direction_narrows_what_fails(runs_root):
    page = opened(runs_root, "cca", curve=str(CURVE), direction="image → text").pages["Robustness"]
    keys = clicked(page, "cca", 5)
    assert keys == failing(page.content.run, 5, ("image", "text"))
    assert keys < failing(page.content.run, 5)


def test_a_click_on_another_method_takes_its_run_of_the_same_seed(page):
    own = page.content.run
    other = next(
        r for r in page.session.store.runs()
        if r.info["variant"] == "procrustes" and r.info["seed"] == own.info["seed"]
    )  # fmt: skip
    assert clicked(page, "procrustes", 3) == failing(other, 3)
    assert other.id in page._told.object


def test_a_click_beside_all_curves_selects_nothing(page):
    page.click(CURVE, 2.5, 2.0)
    assert not page.session.selection.mask.any()
    page.click(CURVE, None, None)
    assert not page.session.selection.mask.any()


def test_curves_and_areas_are_those_of_the_stored_scores(page, runs_root):
    scores = Store(runs_root).scores()
    rows = scores.query("metric == 'recall_at_10' and split == 'test' and variant == 'cca'")
    noisy = rows.query("corruption == 'feature_noise' and corrupted == 'image'")
    at_two = noisy.query("severity == 2").groupby("seed")["value"].mean()
    levels = page.levels.query("corruption == 'feature_noise' and corrupted == 'image' and method == 'cca'")
    shown = levels.set_index("severity").loc[2]
    assert shown["value"] == pytest.approx(at_two.mean())
    assert shown["seeds"] == 2
    assert "2 seeds" in shown["interval"]

    directions = noisy[["source", "target"]].drop_duplicates()
    clean = rows.query("corruption == 'none'").merge(directions)
    curve = pd.concat([clean, noisy]).groupby(["seed", "severity"])["value"].mean().unstack()
    area = (curve * [0.1, 0.2, 0.2, 0.2, 0.2, 0.1]).sum(axis=1) / curve[0]
    table = page._areas.objects[-1].value.set_index("method")
    assert table.loc["cca", "area"].startswith(f"{area.mean():.3f} [")
    assert table.loc["procrustes", "seeds of both"] == "2"
    assert table.loc["procrustes", "difference to cca"]


def test_small_multiples_draw_every_corruption_of_a_family(runs_root):
    page = opened(runs_root, "cca", family="features").pages["Robustness"]
    figures = [m for m in page._drawing.objects[0].get_root().references() if type(m).__name__ == "figure"]
    assert len(figures) == 3
    assert {f.title.text for f in figures} == {f"feature noise of {m}" for m in ("image", "text", "speech fr")}
    speech = next(f for f in figures if f.title.text.endswith("image"))
    row = page.levels.query("corrupted == 'image' and method == 'cca' and severity == 5").iloc[0]
    speech._trigger_event(Tap(speech, x=5.0, y=float(row["value"])))
    keys = set(page.content.points.loc[page.session.selection.mask, "key"])
    assert keys == failing(page.content.run, 5)


def test_a_run_without_curves_shows_those_of_others_and_the_command(runs_root):
    page = opened(runs_root, "clip").pages["Robustness"]
    assert f"labkit robustness {page.session.run}" in page._message.objects[0].object
    assert set(page.levels["method"]) == {"cca", "procrustes"}
    assert "difference to" not in " ".join(page._areas.objects[-1].value.columns)


def test_points_are_colored_by_the_severity_of_their_first_failure(page):
    page._color()
    session = page.session
    assert (session.page, session.color, session.under) == ("Manifolds", "first failure", str(CURVE))
    drawn = session_maps(session)
    fields = Store(session.store.root).fields("recall_at_10", [session.run])
    first = stats.first_failures(stats.sample_curves(fields, where=CURVE.where))
    wanted = first[first["source"] == "image"].groupby("key")["first"].min()
    at = drawn.frame.part("image")
    names = np.array(list(drawn.paint.coloring.categories))[drawn.paint.values[at]]
    keys = session.content.points["key"].to_numpy()[drawn.frame.row[at]]
    for key, name in zip(keys, names, strict=True):
        assert name == called(wanted.get(key))
    assert {"when clean", "never", "not measured"} <= set(names)


def test_an_unknown_corruption_of_the_color_is_replaced_and_the_first_one_told(page):
    frame = session_maps_frame(page)
    paint = maps.paint(page.content, frame, "first failure: <b> of image")
    assert "feature noise" in paint.problem
    assert robust.curves(page.content.run, "recall_at_10")[0] == CURVE


def session_maps(session):
    return session.opened.__self__.pages["Manifolds"].maps


def session_maps_frame(page):
    page.session.page = "Manifolds"
    return session_maps(page.session).frame


def called(first: float | None) -> str:
    if first is None:
        return "not measured"
    return {0.0: "when clean", np.inf: "never"}.get(first, f"severity {first:g}")
