"""Leaderboard and comparison on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from labkit.stats import compare, corrected_t_test, crossed_bootstrap, holm, leaderboard, paired_difference

WHERE = {"metric": "mrr", "source": "image", "target": "text"}
SEEDS = 3
N = 40


def results(means: dict[str, float], *, seeds: int = SEEDS, higher: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and their per-point values; also rows that must not count: corrupted, other splits, steps, targets."""
    rng = np.random.default_rng(0)
    scores, fields = [], []
    for variant, mean in means.items():
        for seed in range(seeds):
            base = {"run": f"{variant}-{seed}", "variant": variant, "seed": seed, "source": "image", "target": "text",
                    "split": "test", "corrupted": "", "corruption": "none", "severity": 0.0}  # fmt: skip
            values = mean + 0.1 * rng.normal(size=N)
            row = base | {"metric": "mrr", "corruption_seed": 0, "step": "final", "value": values.mean(),
                          "low": mean - 1, "high": mean + 1, "n": N + seed, "interval": "95% bootstrap over groups",
                          "higher_is_better": higher, "chance": 0.1}  # fmt: skip
            decoys = ({"corruption": "noise", "severity": 1.0, "corrupted": "image"}, {"split": "validation"},
                      {"step": "10"}, {"target": "speech_fr"}, {"metric": "recall_at_1"})  # fmt: skip
            scores += [row, *(row | decoy | {"value": 99.0} for decoy in decoys)]
            point = pd.DataFrame({"key": [f"k{i}" for i in range(N)], "group": np.arange(N) // 2, "value": values})
            fields += [point.assign(**base), point.assign(**base | {"split": "validation", "value": 99.0})]
    return pd.DataFrame(scores), pd.concat(fields, ignore_index=True)


def test_best_first_with_intervals_over_seeds() -> None:
    scores, _ = results({"low": 0.2, "high": 0.8, "middle": 0.5})
    board = leaderboard(scores, **WHERE)
    assert board["variant"].tolist() == ["high", "middle", "low"]
    assert board["rank"].tolist() == [1, 2, 3]
    first = scores[(scores["variant"] == "high") & (scores["value"] < 2)]["value"]
    interval = stats.ttest_1samp(first, 0).confidence_interval(0.95)
    assert board.loc[0, ["value", "low", "high"]].tolist() == pytest.approx([first.mean(), interval.low, interval.high])
    assert board.loc[0, ["interval", "seeds", "n"]].tolist() == ["95% t over 3 seeds", 3, N]
    assert board.loc[0, "chance"] == pytest.approx(0.1)


def test_smaller_is_better_where_the_metric_says_so() -> None:
    scores, _ = results({"low": 0.2, "high": 0.8}, higher=False)
    assert leaderboard(scores, **WHERE)["variant"].tolist() == ["low", "high"]


def test_per_point_values_give_intervals_over_seeds_and_groups() -> None:
    scores, fields = results({"a": 0.2, "b": 0.8})
    fields = fields[~((fields["variant"] == "b") & (fields["seed"] == 1))]
    board = leaderboard(scores, fields, **WHERE).set_index("variant")
    interval = crossed_bootstrap(fields[(fields["variant"] == "a") & (fields["split"] == "test")])
    assert board.loc["a", ["value", "low", "high"]].tolist() == pytest.approx(
        [interval.value, interval.low, interval.high]
    )
    assert board.loc["a", "interval"] == "95% bootstrap over 3 seeds x 20 groups"
    assert board.loc["b", "interval"] == "95% t over 3 seeds", "seed 1 has no per-point values"


def test_one_seed_shows_its_own_interval() -> None:
    scores, _ = results({"a": 0.2}, seeds=1)
    board = leaderboard(scores, **WHERE)
    assert board.loc[0, "interval"] == "95% bootstrap over groups, 1 seed"
    assert board.loc[0, ["low", "high"]].tolist() == pytest.approx([-0.8, 1.2])


def test_cells_of_a_study_stand_for_themselves() -> None:
    scores, fields = results({"a": 0.2, "b": 0.8})
    cells = {"a": "clip", "b": "clip, epsilon=1"}
    scores, fields = (t.assign(cell=t["variant"].map(cells), variant="clip") for t in (scores, fields))
    assert leaderboard(scores, fields, **WHERE)["variant"].tolist() == ["clip, epsilon=1", "clip"]
    versus = compare(scores, fields, **WHERE, baseline="clip")
    assert versus["variant"].tolist() == ["clip, epsilon=1"]


def test_nothing_matches() -> None:
    scores, _ = results({"a": 0.2})
    board = leaderboard(scores, metric="nothing", source="image", target="text")
    assert board.empty
    assert "rank" in board
    assert leaderboard(scores.iloc[:0], **WHERE).empty


def test_undefined_values_come_last() -> None:
    scores, _ = results({"a": 0.2, "undefined": 0.9})
    scores.loc[scores["variant"] == "undefined", "value"] = np.nan
    assert leaderboard(scores, **WHERE)["variant"].tolist() == ["a", "undefined"]


def test_two_runs_of_one_seed_are_no_repeats() -> None:
    scores, _ = results({"a": 0.2})
    twice = pd.concat([scores, scores.assign(run="another")])
    with pytest.raises(ValueError, match="variant 'a' has 2 runs of seed 0 .*another"):
        leaderboard(twice, **WHERE)
    with pytest.raises(ValueError, match="2 runs of seed 0"):
        compare(twice, **WHERE, baseline="a")


def test_comparison_over_points() -> None:
    scores, fields = results({"clip": 0.5, "same": 0.5, "better": 0.8, "worse": 0.3})
    versus = compare(scores, fields, **WHERE, baseline="clip").set_index("variant")
    assert versus.index.tolist() == ["better", "same", "worse"]
    assert versus["p_holm"].tolist() == pytest.approx(holm(versus["p"].to_numpy()).tolist())
    test = fields[fields["split"] == "test"]
    expected = paired_difference(test[test["variant"] == "better"], test[test["variant"] == "clip"])
    row = versus.loc["better"]
    assert [row["difference"], row["low"], row["high"], row["p"]] == [
        expected.difference, expected.low, expected.high, expected.p,
    ]  # fmt: skip
    assert (row["seeds"], row["n"], row["baseline"]) == (3, 3 * N, "clip")
    assert versus.loc["better", "low"] > 0 > versus.loc["worse", "high"]
    assert versus.loc["same", "low"] < 0 < versus.loc["same", "high"]
    assert versus.loc["same", "p_holm"] > 0.05


def test_comparison_over_seeds() -> None:
    scores, _ = results({"clip": 0.5, "better": 0.8})
    versus = compare(scores, **WHERE, baseline="clip", test_share=0.25)
    clean = scores[scores["value"] < 2].pivot_table(index="seed", columns="variant", values="value")
    expected = corrected_t_test((clean["better"] - clean["clip"]).to_numpy(), test_share=0.25)
    assert versus.loc[0, ["difference", "low", "high", "p"]].tolist() == pytest.approx(
        [expected.mean, expected.low, expected.high, expected.p]
    )
    assert versus.loc[0, "kind"] == "95% t over 3 seeds, corrected for overlapping splits"


def test_what_cannot_be_compared_says_why() -> None:
    scores, fields = results({"clip": 0.5, "other": 0.8})
    moved = scores.assign(seed=scores["seed"].where(scores["variant"] == "clip", scores["seed"] + 100))
    row = compare(moved, **WHERE, baseline="clip").loc[0]
    assert np.isnan([row["difference"], row["p"], row["p_holm"]]).all()
    assert row["kind"] == "none: 0 seed(s) in common"
    without = compare(scores, fields[fields["variant"] == "clip"], **WHERE, baseline="clip").loc[0]
    assert "no point is in both" in without["kind"]
    with pytest.raises(ValueError, match=r"baseline 'cilp' .* variants are \['clip', 'other'\]"):
        compare(scores, **WHERE, baseline="cilp")


def test_a_baseline_alone() -> None:
    scores, fields = results({"clip": 0.5})
    assert compare(scores, fields, **WHERE, baseline="clip").empty
