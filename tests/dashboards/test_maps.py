"""Maps as flat arrays: what they find, mark, paint and draw, against brute force over the stored tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import shapely

from dashboards import content as contents
from dashboards import maps
from dashboards.frames import Shown
from dashboards.map_set import JOINT, MAX_LINES, MapSet
from labkit.store import Run, Store, StoreError
from labkit.views import density, manifolds

N = 400
MODALITIES = ("image", "sound", "text")


def stored(root, n: int = N, *, missing: float = 0.3, seed: int = 0) -> Run:
    """A run of three modalities, one with items missing, whose points are in no order of the keys."""
    random = np.random.default_rng(seed)
    run = Store(root).create("r", name="r", variant="drawn", config={"n": n}, seed=0, data_root=".")
    keys = random.permutation([f"k{i}" for i in range(n)])
    table = pd.DataFrame({"key": keys, "split": "test", "group": np.arange(n), "label": random.choice(list("abc"), n)})
    table["weight"] = random.normal(size=n)
    frames = []
    for m in MODALITIES:
        there = random.random(n) > (missing if m == "sound" else 0)
        table[m], table[f"present_{m}"] = None, there
        xy = random.normal(size=(there.sum(), 2))
        places = {"key": keys[there], "modality": m, "x": xy[:, 0], "y": xy[:, 1]}
        frames.append(pd.DataFrame({**places, "trust": random.random(there.sum())}))
    run.write_points(table)
    for m in MODALITIES:
        run.write_embedding(m, "final", random.normal(size=(n, 4)))
    run.write_projection("pca", "final", pd.concat(frames))
    run.write_projection("pca", 0, pd.concat(frames).assign(x=lambda t: t["x"] * 3))
    run.complete()
    return run


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    run = stored(tmp_path_factory.mktemp("maps"))
    return contents.at(str(run.folder), contents.stamp(run))


@pytest.fixture(scope="module")
def frame(content):
    return maps.frame(content, Shown("pca", "raw", "final"))


@pytest.fixture(scope="module")
def table(content):
    """The stored map with the row of each point's sample."""
    found = content.run.projection("pca", "final")
    return found.assign(row=content.points.reset_index().set_index("key").loc[found["key"], "index"].to_numpy())


def of(table: pd.DataFrame, modality: str | None) -> pd.DataFrame:
    return table if modality is None else table[table["modality"] == modality]


@pytest.mark.parametrize("modality", [None, *MODALITIES])
def test_an_area_holds_what_shapely_says(frame, table, modality):
    points, random = of(table, modality), np.random.default_rng(1)
    for _ in range(20):
        corners = random.normal(size=2) + random.normal(size=(random.integers(3, 30), 2)) * random.choice(
            [0.02, 0.4, 3]
        )
        area = shapely.Polygon(corners)
        if not area.is_valid:
            area = area.convex_hull
        inside = shapely.contains_xy(area, points["x"].astype("float32"), points["y"].astype("float32"))
        assert sorted(frame.within(area, modality)) == sorted(points["row"][inside])


@pytest.mark.parametrize("modality", [None, *MODALITIES])
def test_the_nearest_point_is_the_nearest(frame, table, modality):
    points, random, scale = of(table, modality), np.random.default_rng(2), np.array([2.0, 5.0])
    for x, y in random.normal(size=(20, 2)):
        away = np.hypot(*((points[["x", "y"]].to_numpy() - (x, y)) / scale).T)
        row, found = frame.nearest(x, y, modality, tuple(scale))
        assert row == points["row"].iloc[np.argmin(away)]
        assert found == pytest.approx(away.min(), rel=1e-4)


def test_lines_join_the_points_of_the_same_sample(frame, table):
    rows = np.arange(0, N, 7)
    ends = frame.ends(rows)
    found = {tuple(np.round(line, 4)) for line in np.column_stack([ends[c] for c in ("x0", "y0", "x1", "y1")])}
    places = table.set_index(["row", "modality"])[["x", "y"]]
    wanted = {
        tuple(np.round(np.r_[places.loc[(r, a)], places.loc[(r, b)]].astype("float32"), 4))
        for r in rows
        for a, b in (("image", "sound"), ("image", "text"), ("sound", "text"))
        if (r, a) in places.index and (r, b) in places.index
    }
    assert found == wanted
    absent = next(r for r in range(N) if (r, "sound") not in places.index)
    assert frame.place(absent, "sound") is None
    assert frame.place(absent, "text") == pytest.approx(tuple(places.loc[(absent, "text")]), rel=1e-5)


def test_all_steps_of_a_frame_share_one_extent(content, frame, table):
    early = maps.frame(content, Shown("pca", "raw", "0"))
    assert early.extent == frame.extent
    (left, right), (low, high) = frame.extent
    assert left < 3 * table["x"].min() < 3 * table["x"].max() < right
    assert low < table["y"].min() < table["y"].max() < high
    assert np.allclose(early.x, 3 * frame.x, rtol=1e-5)


@pytest.mark.parametrize("color", ["modality", "label", "weight", "trust"])
def test_a_point_has_the_color_of_its_sample(content, frame, table, color):
    paint = maps.paint(content, frame, color)
    asked = table.assign(label=content.points["label"].to_numpy()[table["row"]])
    asked["weight"] = content.points["weight"].to_numpy()[table["row"]]
    ordered = pd.concat([of(asked, m) for m in MODALITIES])  # points stand modality after modality
    names = paint.coloring.categories
    shown = paint.values if names is None else np.array(list(names))[paint.values]
    if names is None:
        assert shown == pytest.approx(ordered[color].to_numpy(), rel=1e-5)
    else:
        assert shown.tolist() == ordered[color].tolist()
    assert not paint.problem


def test_a_color_that_is_not_there_is_told(content, frame):
    for color in ("kind", "recall@10"):
        paint = maps.paint(content, frame, color)
        assert paint.coloring.column == "modality"
        assert paint.problem


def test_counts_of_the_joint_map_are_the_sum_and_hold_every_point(content, frame):
    for color in ("label", "weight"):
        paint = maps.paint(content, frame, color)
        joint = maps.counted(frame, paint, None, frame.extent)
        each = [maps.counted(frame, paint, m, frame.extent) for m in MODALITIES]
        assert (joint.total == sum(c.total for c in each)).all()
        assert joint.total.sum() == len(frame)
    part = ((-0.5, 0.5), (-1.0, 1.0))
    inside = (np.abs(frame.x) < 0.5) & (np.abs(frame.y) < 1)
    assert maps.counted(frame, paint, None, part).total.sum() == inside.sum()


def test_a_map_with_samples_of_another_run_names_the_remedy(tmp_path):
    run = stored(tmp_path, 20)
    foreign = run.projection("pca", "final").assign(key=lambda t: "x" + t["key"])
    run.write_projection("pca", "final", foreign)
    content = contents.at(str(run.folder), contents.stamp(run))
    with pytest.raises(StoreError, match="labkit project r"):
        maps.frame(content, Shown("pca", "raw", "final"))


class Told:
    """Maps of a content with everything that they tell."""

    def __init__(self, content, frame, color: str = "label") -> None:
        self.areas: list[np.ndarray] = []
        self.clicks: list[int] = []
        paint = maps.paint(content, frame, color)
        self.maps = MapSet(content, frame, paint, on_area=self.areas.append, on_click=self.clicks.append)
        self.roots = [view.get_root() for view in self.maps.views]

    def layer(self, pane: str, name: str) -> dict[str, np.ndarray]:
        """What a layer of a map shows."""
        return {k: np.asarray(v) for k, v in self.maps.panes[pane]._data[name].items()}


def test_marks_lines_and_star_follow_the_selection(content, frame, table):
    told = Told(content, frame)
    mask = np.zeros(N, dtype=bool)
    mask[5:60] = True
    told.maps.mark(mask, 70, links=True)
    for pane in (JOINT, *MODALITIES):
        own = of(table, None if pane == JOINT else pane)
        chosen = own[own["row"].between(5, 59)]
        shown = told.layer(pane, "marks")
        assert sorted(np.round(shown["x"], 4)) == sorted(np.round(chosen["x"].astype("float32"), 4))
        star = own[own["row"] == 70]
        assert sorted(told.layer(pane, "star")["x"]) == pytest.approx(sorted(star["x"]), rel=1e-5)
    ends = frame.ends(np.r_[5:60, 70])
    assert (told.layer(JOINT, "links")["x0"] == ends["x0"]).all()
    assert told.maps.lines == (len(ends["x0"]), len(ends["x0"]))
    told.maps.mark(mask, None, links=False)
    assert len(told.layer(JOINT, "links")["x0"]) == 0


def test_gestures_of_one_map_are_told_and_wrong_ones_are_not(content, frame, table):
    told = Told(content, frame)
    pane = told.maps.panes["image"]
    pane.area(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    own = of(table, "image")
    assert sorted(told.areas[0]) == sorted(own["row"][(own["x"].abs() < 1) & (own["y"].abs() < 1)])
    pane.area(np.array([(0, 0), (1, 1)]))
    pane.area(np.array([(0, 0), (1, np.nan), (1, 1)]))
    assert len(told.areas) == 1
    first = own.iloc[0]
    pane.click(first["x"], first["y"])
    pane.click(frame.extent[0][1], frame.extent[1][1])
    pane.click(None, 0.0)
    assert told.clicks == [first["row"]]


def test_another_step_moves_the_points_that_are_drawn(content, frame):
    told = Told(content, frame)
    early = maps.frame(content, Shown("pca", "raw", "0"))
    told.maps.move(early)
    for pane in told.maps.panes.values():
        source = pane._base.data_source
        at = np.asarray(source.data["point"], dtype=int)
        assert np.allclose(source.data["x"], early.x[at])
        assert len(at) == frame.part(pane.modality).stop - frame.part(pane.modality).start


def test_large_maps_are_pictures_of_what_is_in_view(tmp_path, monkeypatch):
    monkeypatch.setattr(manifolds, "MAX_POINTS", 100)
    monkeypatch.setattr(manifolds, "MAX_LINKS", 10)
    run = stored(tmp_path)
    content = contents.at(str(run.folder), contents.stamp(run))
    frame = maps.frame(content, Shown("pca", "raw", "final"))
    told = Told(content, frame)
    assert told.maps.large
    mask = np.arange(N) % 2 == 0
    told.maps.mark(mask, None, links=True)
    view = ((-1.0, 1.0), (-1.0, 1.0))
    told.maps._ranged(view)
    for pane in (JOINT, *MODALITIES):
        at = frame.points(None if pane == JOINT else pane, mask)
        paint = told.maps.paint
        expected = density.shade(density.count(paint.table(frame, at), view, maps.SIZE), paint.colors)
        shown = told.layer(pane, "chosen")
        assert (shown["image"][0] == expected).all()
        assert (shown["x"][0], shown["y"][0], shown["dw"][0], shown["dh"][0]) == (-1, -1, 2, 2)
        base = told.maps.panes[pane]._base.data_source.data
        everything = maps.counted(frame, paint, None if pane == JOINT else pane, view)
        assert (np.asarray(base["image"][0]) == density.shade(everything, paint.colors)).all()
    assert told.layer(JOINT, "lines")["image"].any()
    assert told.maps.lines[1] < MAX_LINES


def test_contours_enclose_the_share_that_they_say():
    x, y = np.random.default_rng(0).normal(size=(2, 20_000))
    found = dict(density.contours(x, y, ((-5, 5), (-5, 5))))
    assert tuple(found) == density.SHARES
    for share, curves in found.items():
        inside = sum(shapely.contains_xy(shapely.Polygon(c), x, y).astype(int) for c in curves) % 2
        assert inside.mean() == pytest.approx(share, abs=0.03)
    assert density.contours(x[:9], y[:9], ((-5, 5), (-5, 5))) == []
