"""What runs cost, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from labkit.stats import budget_scores, budget_table, per_seed


@pytest.fixture
def budgets() -> pd.DataFrame:
    rows = []
    for seed in range(3):
        about = {"seed": seed, "epochs": 20, "best_epoch": 12, "earlier_seconds": 0.0, "total_seconds": 99.0}
        rows.append(about | {"run": f"clip{seed}", "variant": "clip", "cell": "clip", "train_seconds": 2.0 + seed,
                             "train_steps": 200, "peak_memory": 300e6, "parameters": 1000})  # fmt: skip
        rows.append(about | {"run": f"cca{seed}", "variant": "cca", "cell": "cca", "train_seconds": 0.5, "epochs": 0,
                             "train_steps": 0, "peak_memory": 100e6, "parameters": 500})  # fmt: skip
    return pd.DataFrame(rows)


def test_means_by_hand(budgets: pd.DataFrame) -> None:
    table = budget_table(budgets, baseline="clip").set_index("variant")
    assert list(table.index) == ["cca", "clip"]
    clip = table.loc["clip"]
    assert clip[["epochs", "steps", "seconds", "step_ms", "peak_mb", "parameters", "times_baseline"]].tolist() == (
        pytest.approx([20, 200, 3.0, 15.0, 300, 1000, 1.0])
    )
    half = 4.302653 / np.sqrt(3)  # t of 2 degrees, standard deviation 1
    assert [clip["low"], clip["high"]] == pytest.approx([3 - half, 3 + half], abs=1e-5)
    assert (clip["interval"], clip["seeds"]) == ("95% t over 3 seeds", 3)
    assert np.isnan(table.loc["cca", "step_ms"]), "a closed form takes no steps"
    assert table.loc["cca", "times_baseline"] == pytest.approx(1 / 6)


def test_cells_are_apart_and_a_baseline_is_optional(budgets: pd.DataFrame) -> None:
    budgets["cell"] = budgets["variant"] + budgets["seed"].gt(0).map({True: " later", False: ""})
    table = budget_table(budgets)
    assert sorted(table["variant"]) == ["cca", "cca later", "clip", "clip later"]
    assert table["times_baseline"].isna().all()


def test_as_scores_they_can_be_compared(budgets: pd.DataFrame) -> None:
    seconds = per_seed(budget_scores(budgets), metric="train_seconds")
    assert (seconds["clip"] - seconds["cca"]).tolist() == pytest.approx([1.5, 2.5, 3.5])
    assert seconds.attrs == {"n": 1, "higher_is_better": False}
    steps = per_seed(budget_scores(budgets), metric="step_seconds")
    assert list(steps.columns) == ["clip"]
    assert steps["clip"].tolist() == pytest.approx([0.01, 0.015, 0.02])


def test_errors(budgets: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no budgets"):
        budget_table(budgets.iloc[:0])
    with pytest.raises(ValueError, match="no budget of baseline 'gram'; there are cca, clip"):
        budget_table(budgets, baseline="gram")
