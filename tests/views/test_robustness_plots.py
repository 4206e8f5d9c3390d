"""Pictures of robustness: what they draw equals the tables, in both backends."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from labkit import stats, views
from labkit.conditions import canonical
from labkit.corruptions import CORRUPTIONS
from labkit.corruptions.raw import RAW
from labkit.views._style import kinds
from labkit.views.colors import VARIANT
from labkit.views.robustness_plots import FAMILIES, OTHER, family_of

CELLS = (("defocus_blur", "image"), ("motion_blur", "image"), ("feature_noise", "image"), ("feature_noise", "text"))


@pytest.fixture(scope="module")
def curves() -> pd.DataFrame:
    """Three methods, two seeds, four severities; gotma loses least, then clip, then cca, which starts highest."""
    rows = [
        {"corruption": corruption, "corrupted": corrupted, "method": method, "seed": seed, "severity": float(severity),
         "value": start + 0.01 * seed - slope * severity * (1 + i), "chance": 0.1, "n": 50 + seed}
        for i, (corruption, corrupted) in enumerate(CELLS)
        for method, start, slope in (("clip", 0.7, 0.02), ("cca", 0.8, 0.04), ("gotma", 0.75, 0.01))
        for seed in range(2)
        for severity in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def shares() -> pd.DataFrame:
    first = {0.0: (0.1, 0.3), 1.0: (0.2, 0.2), 2.0: (0.3, 0.1), np.inf: (0.4, 0.4)}
    rows = [
        {"corruption": "fog", "corrupted": corrupted, "method": method, "first": s, "share": share, "seeds": 3, "n": 40}
        for corrupted, flip in (("image", 1), ("text", -1))
        for method, lift in (("clip", 0.0), ("gotma", 0.1))
        for s, pair in first.items()
        for share in [pair[::flip][0] + (lift if s == np.inf else -lift if s == 2.0 else 0.0)]
    ]
    return pd.DataFrame(rows)


def drawn(element: hv.core.dimension.Dimensioned) -> plt.Figure:
    figure = hv.render(element, backend="matplotlib")
    plt.close(figure)
    return figure


def test_every_corruption_has_a_family() -> None:
    names = [*CORRUPTIONS.names(), *RAW.names()]
    assert {name: family_of(name) for name in names if family_of(name) == OTHER} == {}


def test_a_corruption_is_in_one_family() -> None:
    names = [name for family in FAMILIES.values() for name in family]
    assert len(names) == len(set(names))
    assert family_of(canonical("feature_noise")) == "features"
    assert family_of("fog") == OTHER


def test_a_family_has_a_panel_for_each_corruption_and_modality(curves) -> None:
    levels = stats.curve_levels(curves)
    axes = drawn(views.robustness_panels(levels, metric="mrr", family="features")).axes
    assert [a.get_title() for a in axes] == ["feature noise of image", "feature noise of text"]
    everything = drawn(views.robustness_panels(levels, metric="mrr")).axes
    assert [a.get_title() for a in everything][:2] == ["defocus blur of image", "motion blur of image"]
    assert len(everything) == 4


def test_lines_are_the_levels_in_the_colors_of_their_methods(curves) -> None:
    levels = stats.curve_levels(curves)
    axes = drawn(views.robustness_panels(levels, metric="mrr", family="blur")).axes[0]
    wanted = levels[levels["corruption"] == "defocus_blur"]
    lines = {line.get_label(): line for line in axes.lines}
    for method in ("clip", "cca", "gotma"):
        np.testing.assert_allclose(lines[method].get_ydata(), wanted.loc[wanted["method"] == method, "value"])
        assert to_hex(lines[method].get_color()) == VARIANT[method]
    bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert {to_hex(c.get_facecolor()[0]) for c in bands} == {VARIANT[m] for m in ("clip", "cca", "gotma")}
    assert len(bands) == 3


def test_panels_have_one_scale_that_shows_chance_and_one_legend(curves) -> None:
    levels = stats.curve_levels(curves)
    figure = drawn(views.robustness_panels(levels, metric="mrr"))
    assert len({a.get_ylim() for a in figure.axes}) == 1
    low, high = figure.axes[0].get_ylim()
    assert low < 0.1
    assert high > levels["high"].max()
    legends = [a.get_legend() for a in figure.axes if a.get_legend()]
    assert [[t.get_text() for t in one.get_texts()] for one in legends] == [["chance", "cca", "gotma", "clip"]]


def test_panels_say_what_the_bands_are(curves) -> None:
    layout = views.robustness_panels(stats.curve_levels(curves, test_share=0.3), metric="recall_at_10")
    title = hv.Store.lookup_options("bokeh", layout, "plot").kwargs["title"]
    for part in ("recall@10", "95% t over 2 seeds, corrected for overlapping splits", "n = 50"):
        assert part in title


def test_bokeh_draws_the_panels(curves) -> None:
    grid = hv.render(views.robustness_panels(stats.curve_levels(curves), metric="mrr"), backend="bokeh")
    from bokeh.models import Legend
    from bokeh.plotting import figure

    figures = list(grid.select({"type": figure}))
    assert len(figures) == 4
    assert len({(f.y_range.start, f.y_range.end) for f in figures}) == 1
    shown = [legend for legend in grid.select({"type": Legend}) if legend.visible and legend.items]
    assert [{item.label.value for item in legend.items} for legend in shown] == [{"chance", "clip", "cca", "gotma"}]


def test_panels_are_in_the_order_that_is_told(curves) -> None:
    levels = stats.curve_levels(curves)
    titles = [
        hv.Store.lookup_options("bokeh", panel, "plot").kwargs["title"]
        for panel in views.robustness_panels(levels, metric="mrr")
    ]
    told = [f"{views.words(corruption)} of {corrupted}" for corruption, corrupted in views.panel_order(levels)]
    assert titles == told
    assert told[0] == "defocus blur of image"


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_curves_of_one_corruption_are_its_levels(curves, backend: str) -> None:
    levels = stats.curve_levels(curves).query("corruption == 'motion_blur'")
    overlay = views.severity_curves(levels, metric="mrr")
    assert hv.render(overlay, backend=backend)
    plt.close("all")
    lines = {line.label: line for line in overlay if isinstance(line, hv.Curve)}
    rows = levels[levels["method"] == "cca"].sort_values("severity")
    np.testing.assert_allclose(lines["cca"].dimension_values("value"), rows["value"])
    title = hv.Store.lookup_options("bokeh", overlay, "plot").kwargs["title"]
    assert "under motion blur of image; n = 50" in title
    assert "95% t over 2 seeds" in title


def test_curves_of_several_corruptions_are_refused(curves) -> None:
    with pytest.raises(ValueError, match="got 4: use robustness_panels"):
        views.severity_curves(stats.curve_levels(curves), metric="mrr")


def test_first_failures_have_one_color_in_histograms_and_maps(shares) -> None:
    colors = views.first_colors([np.inf, 2.0, 0.0, 1.0])
    assert list(colors) == ["when clean", "severity 1", "severity 2", "never"]
    assert len(set(colors.values())) == 4
    figure = hv.render(views.failure_histogram(shares), backend="bokeh")
    drawn = {item.label.value: item.renderers[0].glyph.line_color for item in figure.legend[0].items}
    assert drawn == colors


def overview(curves: pd.DataFrame, number: str = "kept") -> pd.DataFrame:
    made = views.robustness_overview(stats.curve_numbers(curves), metric="mrr", number=number)
    return made.get(0).data


def test_overview_has_the_numbers_and_half_their_intervals(curves) -> None:
    cells = overview(curves).set_index(["what", "method"])
    summary = stats.summarize_numbers(stats.curve_numbers(curves)).set_index(
        ["number", "corruption", "corrupted", "method"]
    )
    for corruption, corrupted in CELLS:
        for method in ("clip", "cca", "gotma"):
            row = summary.loc[("kept", corruption, corrupted, method)]
            cell = cells.loc[(f"{views.words(corruption)} of {corrupted}", method)]
            assert cell["text"] == f"{row['value']:.2f} ±{(row['high'] - row['low']) / 2:.2f}"
            assert cell["damage"] == pytest.approx(1 - row["value"])


def test_overview_begins_with_the_mean_of_all_and_orders_the_methods_by_it(curves) -> None:
    cells = overview(curves)
    numbers = stats.curve_numbers(curves)
    means = numbers.groupby(["method", "seed"])["kept"].mean().groupby("method").mean()
    first = cells[cells["what"] == "mean of all"].sort_values("column")
    assert first["method"].tolist() == means.sort_values(ascending=False).index.tolist() == ["gotma", "clip", "cca"]
    np.testing.assert_allclose(first["value"], means[first["method"]])
    assert (cells.loc[cells["what"] != "mean of all", "y"] < 0).all()


def test_families_are_set_apart(curves) -> None:
    places = overview(curves).drop_duplicates("what").set_index("what")["y"].sort_values(ascending=False)
    gaps = -places.diff()
    assert gaps["motion blur of image"] == pytest.approx(1.0)
    assert gaps["feature noise of image"] > 1.2


def test_a_lost_or_unknown_cell_is_drawn(curves) -> None:
    chance = curves.copy()
    lost = (chance["method"] == "cca") & (chance["corruption"] == "motion_blur")
    chance.loc[lost, "value"] = 0.1
    cells = overview(chance).set_index(["what", "method"])
    assert cells.loc[("motion blur of image", "cca"), "text"] == "-"
    assert cells.loc[("mean of all", "cca"), "text"] == "-", "a mean without one of the corruptions compares nothing"
    assert cells.loc[("mean of all", "cca"), "column"] == 2


@pytest.mark.parametrize("backend", ["matplotlib", "bokeh"])
@pytest.mark.parametrize("number", ["kept", "area"])
def test_overview_is_drawn(curves, backend: str, number: str) -> None:
    made = views.robustness_overview(stats.curve_numbers(curves), metric="mrr", number=number)
    figure = hv.render(made, backend=backend)
    if backend == "bokeh":
        assert "pale: nothing lost" in figure.title.text
    else:
        texts = [t.get_text() for t in figure.axes[0].texts]
        assert set(overview(curves, number)["text"]) <= set(texts)
        plt.close(figure)


def test_bars_are_as_long_as_the_shares(shares) -> None:
    axes = drawn(views.failure_histogram(shares)).axes[0]
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert rows == ["clip", "gotma"], "who never fails most often is on top"
    mean = shares.groupby(["method", "first"])["share"].mean()
    lengths = {rows[i]: [] for i in range(2)}
    for collection in axes.collections:
        for (x0, y), (x1, _) in collection.get_segments():
            lengths[rows[round(y)]].append(x1 - x0)
    for method, found in lengths.items():
        np.testing.assert_allclose(found, mean[method].sort_index())


def test_histogram_of_one_corruption_says_so(shares) -> None:
    one = shares[shares["corrupted"] == "image"]
    title = hv.Store.lookup_options("bokeh", views.failure_histogram(one), "plot").kwargs["title"]
    assert "fog of image" in title
    assert "3 seeds, n = 40" in title
    several = hv.Store.lookup_options("bokeh", views.failure_histogram(shares), "plot").kwargs["title"]
    assert "mean over 2 corruptions and modalities" in several


def test_bokeh_names_every_severity_in_the_legend(shares) -> None:
    figure = hv.render(views.failure_histogram(shares), backend="bokeh")
    assert [item.label.value for item in figure.legend[0].items] == ["when clean", "severity 1", "severity 2", "never"]


def test_tables_that_cannot_be_drawn_are_refused(curves, shares) -> None:
    levels = stats.curve_levels(curves)
    with pytest.raises(ValueError, match="there are corruptions of blur, features"):
        views.robustness_panels(levels, metric="mrr", family="audio")
    with pytest.raises(ValueError, match=r"lacking: \['seeds'\]"):
        views.robustness_panels(levels.drop(columns="seeds"), metric="mrr")
    with pytest.raises(ValueError, match="kept or area; got 'drop'"):
        views.robustness_overview(stats.curve_numbers(curves), metric="mrr", number="drop")
    with pytest.raises(ValueError, match="lacking: rows"):
        views.failure_histogram(shares.iloc[:0])


def test_intervals_that_differ_in_their_seeds_alone_are_told_together() -> None:
    t, bootstrap = "95% t over {} seeds, corrected", "95% bootstrap over {} seeds x 598 groups"
    told = kinds([t.format(5), bootstrap.format(5), t.format(10), t.format(5), "none: 1 seed"])
    assert told == f"{bootstrap.format(5)} | {t.format('5-10')} | none: 1 seed"
