"""The whole app without a browser: real runs, hostile texts, empty and broken stores."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest
from bokeh.events import SelectionGeometry

from dashboards.app import App
from dashboards.items import card, neighbors
from dashboards.parts import legend, notice, table
from dashboards.session import COLORS, Session
from labkit.store import Run, Store
from labkit.views import density, manifolds


def texts(view) -> str:
    """All HTML that a view would send, with what escapes it."""
    found = [pane.object for pane in view.select() if isinstance(getattr(pane, "object", None), str)]
    return "\n".join(found)


def opened(root, query: dict[str, str] | None = None) -> App:
    """The app of a new session."""
    return App(Session(Store(root), dark=(query or {}).get("theme") == "dark"), query)


def marks(page, title: str, name: str = "marks") -> dict[str, np.ndarray]:
    """Data of the marks drawn in the map whose title begins with `title`."""
    figure = next(f for f in page.figures if f.title.text.startswith(title))
    return {k: np.asarray(v) for k, v in figure.select_one({"name": name}).data_source.data.items()}


def box(page, title: str, low, high) -> None:
    """Draw a box in a map, as the browser tells it."""
    figure = next(f for f in page.figures if f.title.text.startswith(title))
    shape = {"type": "rect", "x0": low[0], "y0": low[1], "x1": high[0], "y1": high[1]}
    figure._trigger_event(SelectionGeometry(figure, geometry=shape, final=True))


@pytest.fixture
def app(runs_root):
    return drawn(opened(runs_root))


def drawn(app: App) -> App:
    """The app with its figures made, as when a browser looks."""
    root = app.pages["Manifolds"].view.get_root()
    app.pages["Manifolds"].figures = [m for m in root.references() if type(m).__name__ == "figure"]
    return app


def test_the_newest_trained_run_is_shown_first(app):
    assert app.session.run.startswith("clip-s0")
    assert "5 complete" in app._bar.states.object
    assert len(app._bar.pick.options.values()) == 5
    assert app.state == {
        "run": app.session.run, "page": "Manifolds", "step": "final", "projection": "pca", "gap": "raw",
        "color": "modality", "theme": "default", "manifolds.space": "shared space", "manifolds.k": "8",
        "manifolds.links": "True", "manifolds.contours": "False",
    }  # fmt: skip


def test_a_lasso_in_one_map_marks_the_partners_in_all(app):
    page = app.pages["Manifolds"]
    projection = page.content.run.projection("pca")
    texts_at = projection[projection["modality"] == "text"]
    middle = texts_at[["x", "y"]].median().to_numpy()
    half = texts_at[["x", "y"]].std().to_numpy() / 2
    corners = middle + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    page.maps.panes["text"].area(corners)
    inside = (np.abs(texts_at[["x", "y"]].to_numpy() - middle) < half).all(axis=1)
    wanted = set(texts_at["key"][inside])
    assert 10 < len(wanted) < 900
    assert set(page.content.points["key"][page.session.selection.mask]) == wanted
    for modality in page.content.modalities:
        there = projection[(projection["modality"] == modality) & projection["key"].isin(wanted)]
        assert sorted(marks(page, modality)["x"].tolist()) == sorted(there["x"].tolist())
    links = marks(page, "all", "links")
    counted = projection[projection["key"].isin(wanted)].groupby("key").size()
    assert len(links["x0"]) == int((counted * (counted - 1) // 2).sum())
    keys = pd.read_csv(page._csv())["key"]
    assert set(keys) == wanted


def test_a_box_selects_and_an_empty_one_selects_nothing(app):
    page = app.pages["Manifolds"]
    projection = page.content.run.projection("pca")
    low, high = projection[["x", "y"]].min().to_numpy(), projection[["x", "y"]].max().to_numpy()
    box(page, "all modalities", low - 1, high + 1)
    assert page.session.selection.mask.all()
    box(page, "image", high + 1, high + 2)
    assert not page.session.selection.mask.any()
    page.session.selection.undo()
    assert page.session.selection.mask.all()


def test_a_click_finds_the_nearest_point_and_nothing_far_away(app):
    page = app.pages["Manifolds"]
    projection = page.content.run.projection("pca")
    images = projection[projection["modality"] == "image"].reset_index(drop=True)
    at = images[["x", "y"]].to_numpy()[40]
    page.maps.panes["image"].click(at[0], at[1])
    nearest = images["key"][np.hypot(*(images[["x", "y"]].to_numpy() - at).T).argmin()]
    assert page.content.points["key"][page.session.selection.focus] == nearest
    assert html.escape(nearest) in page._card.object
    far = images[["x", "y"]].max().to_numpy() * 3
    page.maps.panes["image"].click(far[0], far[1])
    assert page.content.points["key"][page.session.selection.focus] == nearest
    assert len(marks(page, "image", "star")["x"]) == 1


def test_search_selects_captions_and_is_literal(app):
    page = app.pages["Manifolds"]
    page.search = "penguin"
    captions = page.content.points["caption"]
    assert set(captions[page.session.selection.mask]) == set(captions[captions.str.lower().str.contains("penguin")])
    page.search = ".*"
    assert not page.session.selection.mask.any()


@pytest.mark.parametrize("color", COLORS)
def test_every_color_draws_or_says_why_not(app, color):
    app.pages["Manifolds"].session.color = color
    assert len(app.pages["Manifolds"].maps.panes) == 4
    assert app.pages["Manifolds"]._legend.object
    drawn(app)


def test_pages_are_drawn_when_somebody_looks(app):
    assert app.pages["Robustness"].levels.empty
    app.session.page = "Robustness"
    assert set(app.pages["Robustness"].levels["method"]) == {"cca", "procrustes"}
    assert not app.pages["Runs"]._board.objects
    app.session.page = "Runs"
    assert app.pages["Runs"]._board.objects


def test_the_url_brings_everything_back(runs_root):
    known = [run.id for run in Store(runs_root).runs()]
    asked = {"run": known[2], "page": "Runs", "color": "split", "projection": "pca", "theme": "dark"}
    asked |= {"step": "final", "gap": "centered"}
    state = opened(runs_root, asked).state
    assert {name: value for name, value in state.items() if not name.startswith("runs.")} == asked
    other = opened(runs_root, {"run": "nosuch", "page": "Nowhere", "color": "pink", "projection": "umap"})
    assert other.state["page"] == "Manifolds"
    assert other.state["color"] == "modality"
    assert other.state["projection"] == "umap"  # what is wished for; the page says what it shows instead
    told = texts(other.message)
    assert all(part in told for part in ("no run", "page Nowhere", "color pink"))
    assert f"labkit project {other.session.run}" in texts(other.page._message)
    assert other.page._controls.method.value == "pca"


def test_an_empty_store_says_what_to_run(tmp_path, hostile_run):
    app = opened(tmp_path / "none")
    for page in ("Manifolds", "Robustness", "Runs"):
        app.session.page = page
        assert "make demo" in texts(app._places[page])
    hostile_run(tmp_path / "none")
    app.refresh(fresh=True)
    assert app.session.run == "hostile-s0"


def test_a_failed_run_alone_is_told_and_escaped(tmp_path, failed_run, markup):
    failed_run(tmp_path)
    app = opened(tmp_path, {"run": "broken-s0"})
    app.session.page = "Runs"
    told = texts(app.message) + texts(app.pages["Runs"].view)
    assert "1 failed" in app._bar.states.object
    assert html.escape(markup) in told
    assert "<script" not in told
    assert "<img src=x" not in told


def test_an_interrupted_run_is_not_called_running(tmp_path):
    run = Store(tmp_path).create("dead-s0", name="d", variant="d", config={}, seed=0, data_root=".")
    run._claim.release(force=True)
    assert "1 interrupted" in opened(tmp_path)._bar.states.object


def test_a_run_without_projection_names_the_command(tmp_path, hostile_run):
    hostile_run(tmp_path, projected=False)
    app = opened(tmp_path)
    assert "<code>labkit project hostile-s0</code>" in texts(app._places["Manifolds"])
    app.session.page = "Robustness"
    assert "not computed" in texts(app.pages["Robustness"].view)
    app.session.page = "Runs"
    assert "No scores yet" in texts(app.pages["Runs"].view)


def test_missing_vectors_and_fields_are_told(tmp_path, hostile_run):
    run = hostile_run(tmp_path)
    (run.folder / "embeddings" / "text@final.npy").write_bytes(b"cut")
    app = opened(tmp_path)
    assert "truncated" in app.pages["Manifolds"]._numbers.object
    app.session.selection.focus = 1
    assert "truncated" in app.pages["Manifolds"]._near.object
    app.pages["Manifolds"].session.color = "recall@10"
    assert "not computed" in texts(app.pages["Manifolds"]._message)
    (run.folder / "points.parquet").write_bytes(b"cut")
    run.write_selection("some", [])  # the record changes, so the folder is read again
    assert "truncated" in texts(opened(tmp_path)._places["Manifolds"])


def test_an_unreadable_folder_is_listed(tmp_path, hostile_run):
    hostile_run(tmp_path)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "run.json").write_text('{"schema": 99}')
    app = opened(tmp_path, {"page": "Runs"})
    assert "schema 99" in texts(app.pages["Runs"].view)


def test_hostile_texts_are_escaped_everywhere(tmp_path, hostile_run, failed_run, markup):
    hostile_run(tmp_path)
    failed_run(tmp_path)
    app = opened(tmp_path, {"color": "label"})
    page = app.pages["Manifolds"]
    page.session.selection.select(np.arange(12))
    page.session.selection.focus = 0
    shown = texts(page.view)
    assert html.escape(markup, quote=True) in shown
    assert "<script" not in shown
    assert "<img src=x" not in shown


def test_items_come_from_the_data_folder_only(tmp_path, hostile_run, failed_run):
    hostile_run(tmp_path)
    failed_run(tmp_path)
    content = opened(tmp_path).session.content
    assert content is not None
    for row in (0, 1):  # one leads out of the folder, the other is gone
        assert "data:" not in card(content, row)
        assert "data:" not in neighbors(content, row, step="final", k=5)


def test_fifty_thousand_points_are_rasterized_and_can_be_selected(tmp_path):
    n = manifolds.MAX_POINTS // 2 + 10
    run = Store(tmp_path).create("large", name="l", variant="l", config={"data": 1}, seed=0, data_root=".")
    keys = np.arange(n).astype(str)
    items = {"image": None, "text": None, "present_image": True, "present_text": True}
    run.write_points(pd.DataFrame({"key": keys, "split": "test", "group": np.arange(n), "label": "a", **items}))
    rng = np.random.default_rng(0)
    places = {m: rng.normal(size=(n, 2)) for m in ("image", "text")}
    run.write_projection("pca", "final", pd.concat([
        pd.DataFrame({"key": keys, "modality": m, "x": z[:, 0], "y": z[:, 1], "trust": 1.0}) for m, z in places.items()
    ]))  # fmt: skip
    for m, z in places.items():
        run.write_embedding(m, "final", z)
    run.complete()
    page = drawn(opened(tmp_path)).pages["Manifolds"]
    assert "random sample of 1,000 pairs, ranked against 2,000 random targets" in page._numbers.object
    box(page, "all modalities", (0, 0), (0.1, 0.1))
    caught = [
        ((z > 0) & (z < 0.1)).all(axis=1)
        for z in (run.projection("pca").query("modality == @m")[["x", "y"]].to_numpy() for m in places)
    ]
    assert set(np.flatnonzero(page.session.selection.mask)) == set(np.flatnonzero(caught[0] | caught[1]))
    chosen = marks(page, "image", "chosen")
    mask = page.session.selection.mask
    x, y = places["image"][mask].T
    own = pd.DataFrame({"x": x, "y": y, "color": pd.Categorical(["a"] * len(x))})
    drawn_at = density.count(own, page.maps.frame.extent, chosen["image"][0].shape[::-1])
    assert ((chosen["image"][0] > 0) == (drawn_at.total > 0)).mean() > 0.999  # coordinates are stored in 32 bits


def test_notice_keeps_commands_and_escapes_the_rest():
    shown = notice("`labkit x` & <b>").object
    assert "<code>labkit x</code> &amp; &lt;b&gt;" in shown


def test_table_shows_missing_as_nothing_and_texts_as_they_are(markup):
    made = table(pd.DataFrame({"a": [markup, None], "b": [0.12345, np.nan], "c": [1, 2]}))
    assert made.value["a"].tolist() == [markup, ""]
    assert made.formatters["a"] == {"type": "plaintext"}
    assert made.formatters["b"].format == "0.000"


def test_legend_names_categories_and_counts_what_is_not_measured():
    frame = pd.DataFrame({"label": ["<b>", "x", "x"], "value": [0.5, np.nan, np.nan]})
    named = legend(manifolds.coloring(frame, "label"), "label", frame["label"])
    assert "&lt;b&gt;" in named
    assert "<b>" not in re.sub(r"<b style[^>]*>", "", named)
    assert "not measured: 2 of 3" in legend(manifolds.coloring(frame, "value"), "value", frame["value"])


def test_switching_runs_starts_the_selection_anew(app):
    page = app.pages["Manifolds"]
    page.session.selection.select(np.array([1, 2]))
    page.session.selection.focus = 2
    app.session.run = next(i for i in app._bar.pick.options.values() if i != app.session.run)
    assert isinstance(page.content.run, Run)
    assert page.content.run.id == app.session.run
    assert len(page.session.selection) == 0
    assert page.session.selection.focus is None
