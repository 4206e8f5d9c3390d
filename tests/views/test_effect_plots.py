"""Pictures of comparisons show the numbers of their tables."""

from __future__ import annotations

import itertools

import holoviews as hv
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from labkit import stats, views
from labkit.views._labels import place_labels
from labkit.views.effects import VERDICT


def title(drawn: hv.Overlay) -> str:
    return hv.render(drawn, backend="bokeh").title.text


def part(drawn: hv.Overlay, kind: type) -> list[hv.Element]:
    return [element for element in drawn if type(element) is kind]


# ---------------------------------------------------------------- mean ranks


@pytest.fixture
def values() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = ["clip", "gotma", *(f"method {i}" for i in range(28))]
    return pd.DataFrame(rng.normal(scale=0.2, size=(10, 30)) + np.linspace(3, 0, 30), columns=names)


def test_mean_ranks_best_on_top_and_bars_over_the_cliques(values: pd.DataFrame) -> None:
    found = stats.rank_comparison(values)
    drawn = views.critical_difference(found, title="recall@10")
    dots = part(drawn, hv.Points)[0].data
    np.testing.assert_allclose(dots["rank"], found.ranks)
    assert dots["y"].tolist() == list(range(30, 0, -1))
    place = dict(zip(dots["method"], dots["y"], strict=True))
    critical, bars, _ = part(drawn, hv.Segments)
    assert (critical.data["x1"] - critical.data["x0"]).item() == pytest.approx(found.critical_difference)
    spans = {(round(r.y0 - 0.25), round(r.y1 + 0.25)) for r in bars.data.itertuples()}
    assert spans == {(place[c[0]], place[c[-1]]) for c in found.cliques}
    axes = hv.render(drawn, backend="matplotlib").axes[0]
    names = dict(zip(axes.get_yticks(), (t.get_text() for t in axes.get_yticklabels()), strict=True))
    assert names == {y: name for name, y in place.items()}
    assert "Friedman p < 0.001" in title(drawn)
    assert "Nemenyi, 5% over 10 blocks taken as independent" in title(drawn)


def test_tests_of_pairs_have_no_critical_difference(values: pd.DataFrame) -> None:
    found = stats.rank_comparison(values.iloc[:, :6], method="corrected", test_share=0.3)
    drawn = views.critical_difference(found)
    assert part(drawn, hv.Segments)[0].data.empty
    assert "corrected for overlapping splits" in title(drawn)


def test_too_many_bars_are_counted_not_drawn() -> None:
    rng = np.random.default_rng(0)
    found = stats.rank_comparison(pd.DataFrame(rng.normal(size=(400, 30)) + np.linspace(3, 0, 30)).add_prefix("m"))
    assert len(found.cliques) > 12
    drawn = views.critical_difference(found)
    assert len(part(drawn, hv.Segments)[1].data) == 12
    assert f"{len(found.cliques) - 12} further bars are not drawn" in title(drawn)


# ---------------------------------------------------------------- effects and verdicts


@pytest.fixture
def effects() -> pd.DataFrame:
    return pd.DataFrame(
        {"level": [0.5, 0.25], "difference": [0.1, -0.2], "low": [0.05, np.nan], "high": [0.15, np.nan]}
    )


def test_effects_stand_where_the_table_says(effects: pd.DataFrame) -> None:
    drawn = views.effect_plot(effects, title="gotma - clip", xlabel="difference of recall@10")
    dots = part(drawn, hv.Points)[0].data
    assert dots[["effect", "y", "row"]].to_numpy().tolist() == [[0.1, 2, "0.5"], [-0.2, 1, "0.25"]]
    lines = part(drawn, hv.Segments)[0].data
    assert lines[["low", "y", "high"]].to_numpy().tolist() == [[0.05, 2, 0.15]]
    assert part(drawn, hv.VLine)[0].data == 0
    assert not part(drawn, hv.Rectangles)
    said = views.effect_plot(effects.assign(kind="95% t over 3 seeds"), title="gotma - clip", xlabel="")
    assert title(said) == "gotma - clip\n95% t over 3 seeds"


def test_effects_without_rows_or_columns_are_refused(effects: pd.DataFrame) -> None:
    for table in (effects.iloc[:0], effects.drop(columns="low")):
        with pytest.raises(ValueError, match="effects have rows and the columns level, difference, low, high"):
            views.effect_plot(table, title="", xlabel="")


@pytest.fixture
def verdicts() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["A-one", "A-two", "B-one", "C-one"],
            "verdict": ["holds", "undecided", "does not hold", "not tested"],
            "effect": [0.1, 0.0, -0.5, np.nan], "low": [0.05, -0.1, -0.8, np.nan], "high": [0.15, 0.1, -0.1, np.nan],
            "margin": [0.02, 0.03, 0.3, np.nan], "expect": ["greater", "equal", "greater", "greater"],
            "methods": [np.nan, np.nan, 20, np.nan],
            "kind": ["95% t over 10 seeds", "95% t over 5 seeds", "spearman", None],
            "n": [230, 227, 240, np.nan],
        }
    )  # fmt: skip


def test_verdicts_have_colors_and_correlations_an_axis_of_their_own(verdicts: pd.DataFrame) -> None:
    drawn = views.verdict_plot(verdicts)
    dots = part(drawn, hv.Points)[0].data
    assert dots["row"].tolist() == ["A-one (greater)", "A-two (equal)"]
    assert dots["color"].tolist() == [VERDICT["holds"], VERDICT["undecided"]]
    boxes = part(drawn, hv.Rectangles)[0].data
    assert boxes[["x0", "x1"]].to_numpy().tolist() == [[-0.02, 0.02], [-0.03, 0.03]]
    for words in ("1 holds", "1 undecided", "n = 227 samples or more", "95% t over 10 seeds | 95% t over 5 seeds"):
        assert words in title(drawn)
    other = views.verdict_plot(verdicts, correlations=True)
    assert part(other, hv.Points)[0].data["row"].tolist() == ["B-one (greater)"]


def test_claims_that_nothing_tested_are_no_picture(verdicts: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no such claim is tested yet"):
        views.verdict_plot(verdicts.iloc[3:])


# ---------------------------------------------------------------- levels and associations


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = []
    for v, variant in enumerate(["clip", "gotma"]):
        for i, pairs in enumerate([1.0, 0.1, 0.5]):
            for seed in range(4):
                rows.append({"variant": variant, "cell": f"{variant}, pairs={pairs:g}", "seed": seed, "metric": "mrr",
                             "source": "image", "target": "text", "split": "test", "corruption": "none",
                             "step": "final", "value": 0.1 * v + 0.2 * i + 0.01 * seed, "n": 50,
                             "higher_is_better": True, "data.pairs": pairs})  # fmt: skip
    return pd.DataFrame(rows)


def test_levels_stand_in_order_with_intervals_over_seeds(scores: pd.DataFrame) -> None:
    table = views.level_table(scores, axis="data.pairs", metric="mrr").set_index(["method", "level"])
    half = 3.182446 * np.std([0, 0.01, 0.02, 0.03], ddof=1) / 2
    row = table.loc[("gotma", 0.5)]
    assert row[["value", "low", "high"]].tolist() == pytest.approx([0.515, 0.515 - half, 0.515 + half], abs=1e-6)
    assert (row["seeds"], row["n"], row["interval"]) == (4, 50, "95% t over 4 seeds")
    drawn = views.level_curves(scores, axis="data.pairs", metric="mrr", descending=True)
    curves = {c.label: c.data for c in part(drawn, hv.Curve)}
    assert set(curves) == {"clip", "gotma"}
    np.testing.assert_allclose(curves["clip"]["value"], [0.015, 0.415, 0.215])
    axes = hv.render(drawn, backend="matplotlib").axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "0.5", "0.1"]
    assert "mrr" not in title(drawn)
    for words in ("mean reciprocal rank along pairs", "n = 50", "95% t over 4 seeds"):
        assert words in title(drawn)


def test_panels_have_one_scale_and_lines_of_a_variant_one_color(scores: pd.DataFrame) -> None:
    scores["cell"] = scores["cell"].where(scores["variant"] == "clip", scores["cell"] + ", unpaired=dropped")
    scores["cell"] = scores["cell"].str.replace("gotma", "clip")
    drawn = views.level_panels(scores, ["data.pairs", "data.pairs"], metric="mrr")
    figure = hv.render(drawn, backend="matplotlib")
    first, second = (a for a in figure.axes if a.get_lines())
    assert first.get_ylim() == second.get_ylim()
    lines = {
        text.get_text(): line for text, line in zip(first.get_legend().get_texts(), first.get_lines(), strict=True)
    }
    assert set(lines) == {"clip", "clip, unpaired=dropped"}
    assert len({line.get_color() for line in lines.values()}) == 1
    assert len({line.get_linestyle() for line in lines.values()}) == 2
    with pytest.raises(ValueError, match="no axis to draw"):
        views.level_panels(scores, [], metric="mrr")


def test_many_lines_keep_their_legend(scores: pd.DataFrame) -> None:
    many = pd.concat([scores.assign(variant=scores["variant"] + str(i)) for i in range(10)])
    drawn = views.level_curves(many, axis="data.pairs", metric="mrr", by="variant")
    assert len(hv.render(drawn, backend="matplotlib").axes[0].get_legend().get_texts()) == 20


def test_words_as_levels_stand_by_their_number_of_parts(scores: pd.DataFrame) -> None:
    words = {1.0: "image+text+speech", 0.1: "image+text", 0.5: "image+text+speech+sound"}
    scores["data.modalities"] = scores["data.pairs"].map(words)
    drawn = views.level_curves(scores, axis="data.modalities", metric="mrr", by="variant")
    np.testing.assert_allclose(part(drawn, hv.Curve)[0].data["value"], [0.215, 0.015, 0.415])


def test_whole_numbers_stand_by_size(scores: pd.DataFrame) -> None:
    scores["training.batch_size"] = scores["data.pairs"].map({1.0: 128, 0.1: 64, 0.5: 512})
    drawn = views.level_curves(scores, axis="training.batch_size", metric="mrr", by="variant")
    ticks = hv.render(drawn, backend="matplotlib").axes[0].get_xticklabels()
    assert [t.get_text() for t in ticks] == ["64", "128", "512"]


def test_association_states_its_correlation() -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(np.arange(8) + 0.1 * rng.normal(size=(3, 8)), columns=list("abcdefgh"))
    y = -x.drop(columns="h") + 0.1
    drawn = views.association_plot(x, y, xlabel="Procrustes distance", ylabel="recall@10")
    dots = part(drawn, hv.Points)[0].data
    assert dots["method"].tolist() == list("abcdefg")
    np.testing.assert_allclose(dots["y"], y.mean())
    found = stats.correlation(x, y)
    assert f"rho = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" in title(drawn)
    assert "7 methods x 3 seeds" in title(drawn)
    assert sorted(label for p in part(drawn, hv.Labels) for label in p.data["label"]) == list("abcdefg")


def test_names_hide_neither_each_other_nor_dots() -> None:
    rng = np.random.default_rng(0)
    x, y = np.concatenate([rng.normal(size=(2, 40)), [[9.0], [9.0]]], axis=1)
    names = [f"method_{i}" for i in range(40)] + ["far away"]
    placed = place_labels(x, y, names, frame=(620, 420))
    assert 3 < len(placed) < 41
    assert placed["label"].is_unique
    assert placed.iloc[0].tolist() == [pytest.approx(9.0, abs=0.5), 9.0, "far away", "right"], (
        "outliers go first, inward"
    )
    fig = plt.figure(figsize=(6.2, 4.2), dpi=100)
    axes = fig.add_axes((0.15, 0.15, 0.7, 0.75))
    axes.margins(0.12)
    axes.plot(x, y, "o", markersize=6)
    texts = [axes.text(r.x, r.y, r.label, size=8, ha=r.side, va="center") for r in placed.itertuples()]
    boxes = [t.get_window_extent(fig.canvas.get_renderer()) for t in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    dots = axes.transData.transform(np.column_stack([x, y]))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    plt.close(fig)
    assert place_labels(np.zeros(1), np.zeros(1), ["one"], frame=(620, 420))["label"].tolist() == ["one"]
