"""Maps keep every point where it is, with the colors and links that belong to it."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.legend import Legend

from labkit import views
from labkit.views import manifolds


@pytest.fixture
def points() -> pd.DataFrame:
    keys = list("abcde")
    return pd.DataFrame(
        {
            "key": keys, "split": "test", "label": ["cat", "cat", "dog", "dog", "other"], "group": range(5),
            "image": keys, "present_image": True, "text": keys, "present_text": [True] * 4 + [False],
        }
    )  # fmt: skip


@pytest.fixture
def projection() -> pd.DataFrame:
    """Texts in reverse order and one unit to the right of their pictures; "e" has no text."""
    image = pd.DataFrame({"key": list("abcde"), "modality": "image", "x": 0.0, "y": np.arange(5.0)})
    text = pd.DataFrame({"key": list("dcba"), "modality": "text", "x": 1.0, "y": [3.0, 2.0, 1.0, 0.0]})
    return pd.concat([image, text], ignore_index=True).assign(trust=np.linspace(0.2, 0.9, 9))


def test_frame_joins_by_key_not_by_order(points, projection):
    frame = views.manifold_frame(points, projection)
    assert frame["label"].tolist() == ["cat", "cat", "dog", "dog", "other", "dog", "dog", "cat", "cat"]
    assert (points["key"].to_numpy()[frame["row"]] == frame["key"]).all()


def test_field_values_belong_to_the_modality_that_asks(points, projection):
    field = pd.DataFrame({"key": ["a", "c", "c"], "source": ["image", "text", "text"], "value": [1.0, 0.0, 0.5]})
    frame = views.manifold_frame(points, projection, field).set_index(["key", "modality"])["value"]
    assert frame["a", "image"] == 1.0
    assert frame["c", "text"] == 0.25
    assert frame.isna().sum() == 7


def test_unknown_key_is_refused(points, projection):
    with pytest.raises(ValueError, match="'zz'"):
        views.manifold_frame(points, projection.assign(key="zz"))


def test_links_join_the_modalities_of_the_selected_samples(points, projection):
    frame = views.manifold_frame(points, projection)
    lines, n = views.pair_links(frame, np.array([False, True, False, True, True]))
    ends = sorted(map(tuple, lines.data[["x0", "y0", "x1", "y1"]].to_numpy().tolist()))
    assert ends == [(0.0, 1.0, 1.0, 1.0), (0.0, 3.0, 1.0, 3.0)]  # "e" has no text and no link
    assert n == 2


def test_links_beyond_the_limit_are_counted(points, projection, monkeypatch):
    monkeypatch.setattr(manifolds, "MAX_LINKS", 3)
    lines, n = views.pair_links(views.manifold_frame(points, projection), np.ones(5, dtype=bool))
    assert (len(lines), n) == (3, 4)


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
@pytest.mark.parametrize("color", ["modality", "label", "trust"])
def test_every_coloring_draws_in_both_backends(points, projection, color, backend):
    selection = np.array([True, False, False, False, False])
    for drawn in (
        views.manifold(points, projection, color=color, name="pca"),
        views.manifold(points, projection, color=color, modality="text", selection=selection),
    ):
        hv.render(drawn, backend=backend)


def test_trust_is_colored_on_an_absolute_scale(points, projection):
    colors = manifolds.coloring(views.manifold_frame(points, projection), "trust")
    assert colors.limits == (0.0, 1.0)


def test_a_color_does_not_depend_on_the_pane(points, projection):
    frame = views.manifold_frame(points, projection)
    whole = manifolds.coloring(frame, "label").categories
    drawn = manifolds.points_of(frame[frame["modality"] == "text"], manifolds.coloring(frame, "label"))
    assert hv.Store.lookup_options("bokeh", drawn, "style").kwargs["cmap"] == whole


def test_bad_requests_say_what_there_is(points, projection):
    with pytest.raises(ValueError, match="'flavor'.*trust"):
        views.manifold(points, projection, color="flavor")
    with pytest.raises(ValueError, match="smell.*image.*text"):
        views.manifold(points, projection, modality="smell")
    with pytest.raises(ValueError, match="5; got 2"):
        views.manifold(points, projection, selection=np.array([True, False]))


@pytest.mark.parametrize("color", ["modality", "trust"])
def test_large_maps_are_rasterized(points, projection, monkeypatch, color):
    monkeypatch.setattr(manifolds, "MAX_POINTS", 3)
    drawn = views.manifold(points, projection, color=color)
    (picture,) = (layer for layer in drawn if isinstance(layer, hv.RGB))
    assert not any(layer.label == "" and isinstance(layer, hv.Points) and len(layer) for layer in drawn)
    opaque = picture.dimension_values("A", flat=False) > 0
    places = len(projection[["x", "y"]].drop_duplicates())
    assert 0 < opaque.sum() <= 9 * places  # a dot is a few pixels
    hv.render(drawn, backend="bokeh")


def test_matplotlib_paints_categories_and_lists_them_once(points, projection):
    drawn = views.manifold(points, projection, color="label", modality="text")
    axes = hv.render(drawn, backend="matplotlib").axes[0]
    wanted = views.category_colors(points["label"])
    painted = [to_hex(c) for c in axes.collections[0].get_facecolors()]
    shown = points.set_index("key")["label"].loc[list("dcba")]
    assert sorted(painted) == sorted(wanted[label] for label in shown)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cat", "dog", "other"]
    assert not [artist for artist in axes.artists if isinstance(artist, Legend)]
