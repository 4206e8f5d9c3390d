"""One number per seed: the mean over directions that all methods have, and nothing else."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from labkit.stats import along, method_column, per_seed

DIRECTIONS = [("image", "text"), ("text", "image")]


def scores(**changes: object) -> pd.DataFrame:
    """value = 10 variant + seed + 0.1 direction, and rows that must not count."""
    rows = []
    for (i, variant), seed, (j, (source, target)) in product(enumerate("ab"), range(3), enumerate(DIRECTIONS)):
        row = {"run": f"{variant}{seed}", "variant": variant, "seed": seed, "metric": "mrr", "source": source,
               "target": target, "split": "test", "corrupted": "", "corruption": "none", "severity": 0.0,
               "corruption_seed": 0, "step": "final", "value": 10 * i + seed + 0.1 * j, "n": 20 + seed,
               "higher_is_better": True, **changes}  # fmt: skip
        decoys = ({"metric": "recall_at_1"}, {"split": "validation"}, {"step": "7"},
                  {"corruption": "noise", "severity": 2.0, "corrupted": "image"})  # fmt: skip
        rows += [row, *(row | decoy | {"value": 99.0} for decoy in decoys)]
    return pd.DataFrame(rows)


def test_mean_over_directions_by_hand() -> None:
    values = per_seed(scores(), metric="mrr")
    np.testing.assert_allclose(values["a"], [0.05, 1.05, 2.05])
    np.testing.assert_allclose(values["b"], [10.05, 11.05, 12.05])
    assert values.attrs == {"n": 20, "higher_is_better": True}


def test_one_direction() -> None:
    values = per_seed(scores(), metric="mrr", directions=[("text", "image")])
    np.testing.assert_allclose(values["a"], [0.1, 1.1, 2.1])


def test_corrupted_rows_when_asked() -> None:
    values = per_seed(scores(), metric="mrr", where={"corruption": "noise", "severity": 2.0})
    assert (values == 99.0).all(axis=None)


def test_cells_of_a_study_are_the_methods() -> None:
    table = scores().assign(cell=lambda t: t["variant"] + " tuned")
    assert method_column(table) == "cell"
    assert list(per_seed(table, metric="mrr").columns) == ["a tuned", "b tuned"]
    both = per_seed(table, metric="mrr", by=["variant", "cell"])
    assert list(both.columns) == [("a", "a tuned"), ("b", "b tuned")]


def test_cells_along_an_axis() -> None:
    cells = {0: "a, pairs=1", 1: "a, pairs=0.5, unpaired=dropped", 2: "a without RC, pairs=0.5"}
    table = scores().assign(cell=lambda t: t["seed"].map(cells), **{"data.pairs": lambda t: t["seed"].map({0: 1.0})})
    assert along(table, "data.pairs")["method"].unique().tolist() == ["a", "a, unpaired=dropped", "a without RC"]
    dropped = along(table.assign(**{"data.unpaired": "dropped"}), "data.unpaired")
    assert dropped["method"].unique().tolist() == ["a, pairs=0.5"]
    for other in (table, scores()):
        with pytest.raises(ValueError, match="no cell varies 'options.epsilon'"):
            along(other, "options.epsilon")


def test_a_method_without_a_direction_is_not_compared_over_the_others() -> None:
    table = scores()
    gone = (table["variant"] == "b") & (table["seed"] == 1) & (table["source"] == "text")
    values = per_seed(table[~gone], metric="mrr")
    assert np.isnan(values.loc[1, "b"])
    assert values.loc[1, "a"] == pytest.approx(1.05)


def test_errors_name_what_is_there() -> None:
    table = scores()
    with pytest.raises(ValueError, match="no scores of 'recall'; metrics are mrr, recall_at_1"):
        per_seed(table, metric="recall")
    with pytest.raises(ValueError, match="no scores of 'mrr' from image to audio with variant 'a'"):
        per_seed(table, metric="mrr", where={"variant": "a"}, directions=[("image", "audio")])
    with pytest.raises(ValueError, match=r"lacks the columns \['data.pairs'\]"):
        per_seed(table, metric="mrr", where={"data.pairs": 0.5})
    with pytest.raises(ValueError, match="two runs with variant 'a' have seed 0"):
        per_seed(pd.concat([table, table.assign(run="other")]), metric="mrr")
