"""Robustness and training curves against numbers worked out by hand."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from labkit import views
from labkit.views.colors import VARIANT

COMMON = {
    "metric": "recall_at_10", "split": "test", "step": "final", "n": 40, "interval": "95% bootstrap over groups",
    "higher_is_better": True, "chance": 0.1,
}  # fmt: skip


def _rows(variant: str, seed: int, slope: float, draws: int = 2) -> list[dict]:
    """Two directions: text -> image scores .2 more; the draws of a corruption lie .01 around their mean."""
    rows = []
    for source, target, extra in (("image", "text", 0.0), ("text", "image", 0.2)):
        clean = 0.5 + extra + 0.02 * seed
        base = {
            **COMMON,
            "variant": variant,
            "run": f"{variant}-{seed}",
            "seed": seed,
            "source": source,
            "target": target,
        }

        def row(value, base=base, **where):
            return {**base, "value": value, "low": value - 0.05, "high": value + 0.05, **where}

        rows.append(row(clean, corruption="none", corrupted="", severity=0.0, corruption_seed=0))
        for severity in (1.0, 2.0):
            for draw in range(draws):
                value = clean - slope * severity + 0.01 * (2 * draw - 1)
                where = {"corruption": "noise", "corrupted": "image", "severity": severity, "corruption_seed": draw}
                rows.append(row(value, **where))
    return rows


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [r for seed in range(3) for v, slope in (("clip", 0.1), ("cca", 0.2)) for r in _rows(v, seed, slope)]
    return pd.DataFrame(rows)


def test_mean_over_draws_and_seeds_of_one_direction(scores):
    table = views.curve_table(scores, metric="recall_at_10", corruption="noise", source="image", target="text")
    clip = table[table["variant"] == "clip"]
    assert clip["severity"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(clip["value"], [0.52, 0.42, 0.32])
    assert (clip["seeds"] == 3).all()
    assert (clip["n"] == 40).all()
    np.testing.assert_allclose(clip["chance"], 0.1)


def test_band_is_the_t_interval_of_the_seeds(scores):
    table = views.curve_table(scores, metric="recall_at_10", corruption="noise", source="image", target="text")
    start = table[(table["variant"] == "clip") & (table["severity"] == 0)].iloc[0]
    low, high = stats.t.interval(0.95, 2, loc=0.52, scale=stats.sem([0.5, 0.52, 0.54]))
    assert (start["low"], start["high"]) == pytest.approx((low, high))
    assert start["interval"] == "95% t over 3 seeds"


def test_mean_over_directions_starts_at_the_clean_mean_of_the_same_directions(scores):
    odd = {**_rows("clip", 0, 0.1)[0], "source": "audio", "value": 99.0}  # was never corrupted: no part of the curve
    table = views.curve_table(pd.concat([scores, pd.DataFrame([odd])]), metric="recall_at_10", corruption="noise")
    clip = table[table["variant"] == "clip"]
    np.testing.assert_allclose(clip["value"], [0.62, 0.52, 0.42])


def test_one_seed_has_the_interval_of_its_samples(scores):
    one = scores[scores["seed"] == 0]
    table = views.curve_table(one, metric="recall_at_10", corruption="noise", source="image", target="text")
    start = table[(table["variant"] == "cca") & (table["severity"] == 0)].iloc[0]
    assert (start["low"], start["high"]) == pytest.approx((0.45, 0.55))
    assert start["interval"] == "95% bootstrap over groups, 1 seed"


def test_one_seed_over_directions_claims_no_interval(scores):
    table = views.curve_table(scores[scores["seed"] == 0], metric="recall_at_10", corruption="noise")
    assert table["low"].isna().all()
    assert set(table["interval"]) == {"none: 1 seed"}


def test_what_is_not_there_is_named(scores):
    with pytest.raises(ValueError, match="noise"):
        views.curve_table(scores, metric="recall_at_10", corruption="fog")
    with pytest.raises(ValueError, match="speech"):
        views.curve_table(scores, metric="recall_at_10", corruption="noise", corrupted="speech")


def test_title_says_what_the_band_is(scores):
    drawn = views.robustness_curves(scores, corruption="noise", corrupted="image", source="image", target="text")
    title = hv.Store.lookup_options("bokeh", drawn, "plot").kwargs["title"]
    for part in ("recall@10", "noise of image", "image → text", "95% t over 3 seeds", "n = 40"):
        assert part in title


@pytest.mark.parametrize("current", ["matplotlib", "bokeh"])
def test_matplotlib_draws_bands_and_lines_in_the_color_of_their_variant(scores, current):
    before = hv.Store.current_backend
    hv.Store.set_current_backend(current)
    try:
        drawn = views.robustness_curves(scores, corruption="noise")
        axes = hv.render(drawn, backend="matplotlib").axes[0]
    finally:
        hv.Store.set_current_backend(before)
    wanted = {VARIANT["clip"], VARIANT["cca"]}
    assert {to_hex(c.get_facecolor()[0]) for c in axes.collections} == wanted
    assert {to_hex(line.get_color()) for line in axes.lines if line.get_label() in ("clip", "cca")} == wanted


def test_bokeh_draws_one_line_per_variant_and_chance(scores):
    figure = hv.render(views.robustness_curves(scores, corruption="noise"), backend="bokeh")
    assert {item.label.value for item in figure.legend[0].items} == {"chance", "clip", "cca"}


def test_training_curve_draws_each_loss_term_and_the_validation():
    steps = np.arange(1, 6)
    history = pd.DataFrame(
        {"step": steps, "contrastive": 1 / steps, "transport": 2 / steps, "learning_rate": 0.1, "validation": steps / 9}
    )
    layout = views.training_curve(history)
    curves = [curve for panel in layout for curve in panel]
    assert [curve.label for curve in curves] == ["contrastive", "transport", "validation"]
    np.testing.assert_allclose(curves[1].dimension_values(1), 2 / steps)
    assert len(hv.render(layout, backend="matplotlib").axes) == 2


def test_training_history_without_steps_is_refused():
    with pytest.raises(ValueError, match="step"):
        views.training_curve(pd.DataFrame({"epoch": [1, 2]}))
