"""The dot-and-interval plot shows the numbers of its table."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from labkit import views


@pytest.fixture
def board() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": [1, 2, 3], "variant": ["clip", "cca", "identity"], "value": [0.5, 0.4, 0.1],
            "low": [0.4, 0.3, np.nan], "high": [0.6, 0.5, np.nan],
            "interval": ["95% t over 3 seeds", "95% t over 3 seeds", "none: 1 seed"],
            "seeds": [3, 3, 1], "n": [40, 41, 40], "chance": 0.08, "higher_is_better": True,
        }
    )  # fmt: skip


def _parts(drawn: hv.Overlay) -> dict[type, hv.Element]:
    return {type(part): part for part in drawn}


def test_best_is_on_top_and_intervals_are_where_the_table_says(board):
    parts = _parts(views.leaderboard_plot(board))
    dots = parts[hv.Points].data
    assert dots["variant"].tolist() == ["clip", "cca", "identity"]
    assert dots["y"].is_monotonic_decreasing
    assert dots["value"].tolist() == [0.5, 0.4, 0.1]
    lines = parts[hv.Segments].data
    assert lines[["low", "high"]].to_numpy().tolist() == [[0.4, 0.6], [0.3, 0.5]]  # no interval, no line
    assert parts[hv.VLine].data == pytest.approx(0.08)


def test_names_stand_at_their_dots(board):
    axes = hv.render(views.leaderboard_plot(board), backend="matplotlib").axes[0]
    names = dict(zip(axes.get_yticks(), (t.get_text() for t in axes.get_yticklabels()), strict=True))
    assert names == {3: "clip", 2: "cca", 1: "identity"}


def test_title_states_interval_sizes_and_direction(board):
    drawn = views.leaderboard_plot(board, metric="recall_at_10", direction="image → text")
    title = hv.render(drawn, backend="bokeh").title.text
    for part in ("recall@10", "image → text", "95% t over 3 seeds", "none: 1 seed", "n = 40-41", "chance"):
        assert part in title


def test_no_chance_no_line(board):
    assert hv.VLine not in _parts(views.leaderboard_plot(board.assign(chance=np.nan)))


def test_empty_or_incomplete_boards_are_refused(board):
    with pytest.raises(ValueError, match="rows"):
        views.leaderboard_plot(board.iloc[:0])
    with pytest.raises(ValueError, match="interval"):
        views.leaderboard_plot(board.drop(columns="interval"))
