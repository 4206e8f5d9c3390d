"""Sheets of attacked pictures, and budgets on the axis of curves."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from labkit import views
from labkit.views.examples import GAP, LABEL, TITLE


def example(name: str = "clip", side: int = 40, strength: float = 0.004) -> views.AttackExample:
    picture = np.full((side, side, 3), [0.2, 0.5, 0.8])
    change = strength * (np.indices((side, side)).sum(axis=0)[..., None] % 2 * 2.0 - 1) * np.ones(3)
    return views.AttackExample(name, "rank 1 to 90", picture, change)


def test_the_change_is_amplified_about_gray_and_added():
    """0.004 fits 64 times below one half: 0.5 +- 0.256, that is levels 62 and 193."""
    sheet = views.attack_sheet([example(), example("gotma", strength=0.2)])
    assert sheet.size == (LABEL + 3 * (40 + GAP), 2 * (40 + TITLE))
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    at = lambda row, column: pixels[row * (40 + TITLE) + TITLE :, LABEL + column * (40 + GAP) :][:40, :40]
    assert np.abs(at(0, 0) - np.round(255 * np.array([0.2, 0.5, 0.8]))).max() <= 4
    levels = at(0, 1)[0, :2, 0]
    assert sorted(levels.tolist()) == pytest.approx([62, 193], abs=4)
    assert sorted(at(1, 1)[0, :2, 0].tolist()) == pytest.approx([255 * 0.1, 255 * 0.9], abs=4), "twice"
    assert sorted(at(1, 2)[0, :2, 0].tolist()) == pytest.approx([0, 255 * 0.4], abs=4)


def test_no_change_and_no_examples():
    assert views.attack_sheet([example(strength=0.0)]).size[0] == LABEL + 3 * (40 + GAP)
    with pytest.raises(ValueError, match="pictures of one shape"):
        views.attack_sheet([example(), example(side=50)])
    with pytest.raises(ValueError, match=r"the change must have the picture's shape \(4, 4, 3\); got \(4, 5, 3\)"):
        views.AttackExample("clip", "", np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))


def levels(**more) -> pd.DataFrame:
    rows = []
    for norm, scale in (("linf", 0.5), ("l2", 16)):
        for method in ("clip", "gotma"):
            for s in (0.0, 1.0, 3.0):
                curve = {"corruption": f"pgd_{norm}_pixels", "corrupted": "image", "method": method, "severity": s}
                values = {"value": 0.6 - 0.1 * s, "low": 0.5 - 0.1 * s, "high": 0.7 - 0.1 * s}
                about = {"interval": "95% bootstrap", "seeds": 1, "n": 60, "radius": scale * s, "unit": "levels"}
                rows.append({**curve, **values, **about})
    return pd.DataFrame(rows).assign(**more)


def test_curves_of_attacks_have_their_budgets_on_the_axis():
    drawn = views.robustness_panels(levels(), metric="recall_at_10", family="adversarial")
    panels = list(drawn)
    assert len(panels) == 2
    ticks = [hv.Store.lookup_options("bokeh", panel, "plot").kwargs for panel in panels]
    assert {t["xlabel"] for t in ticks} == {"budget (levels)"}
    assert [label for _, label in ticks[0]["xticks"]] == ["0", "16", "48"]
    assert [label for _, label in ticks[1]["xticks"]] == ["0", "0.5", "1.5"]
    assert "against budget" in hv.Store.lookup_options("bokeh", drawn, "plot").kwargs["title"]


def test_attacks_are_of_one_family():
    assert {views.robustness_plots.family_of(n) for n in ("pgd_linf_pixels", "apgd_l2_features_targeted", "fgsm")} == {
        "adversarial"
    }
    assert views.robustness_plots.family_of("pgdx_linf") == "other"
