"""Which rows of a study are compared: methods measured under everything, and what stands in for lost items."""

from __future__ import annotations

import pandas as pd
import pytest

from labkit import stats

NOISE, BLUR, LOST = ("noise", "image"), ("blur", "image"), ("missing_modality", "text")


def scores(measured: dict[str, list[tuple[str, str]]]) -> pd.DataFrame:
    rows = [(cell, corruption, corrupted, 3) for cell, curves in measured.items() for corruption, corrupted in curves]
    rows += [(cell, "none", "", 0) for cell in measured]
    return pd.DataFrame(rows, columns=["cell", "corruption", "corrupted", "severity"]).assign(variant="v")


def test_methods_with_the_most_curves_are_compared() -> None:
    table = scores({"a": [NOISE, BLUR], "b": [BLUR, NOISE, NOISE], "c": [LOST], "d": []})
    kept = stats.fully_measured(table)
    assert set(kept["cell"]) == {"a", "b"}, "a second draw of one curve is no second curve"
    assert set(kept["corruption"]) == {"none", "noise", "blur"}


def test_nothing_is_compared_where_nothing_is_corrupted() -> None:
    assert stats.fully_measured(scores({"a": [], "b": []})).empty


def test_what_stands_in_takes_the_place_of_the_method() -> None:
    names = ["missing_modality", "missing_modality+mean", "missing_by_label", "noise"]
    levels = pd.DataFrame({"corruption": names * 2, "method": ["clip"] * 4 + ["ot"] * 4, "value": range(8)})
    found = stats.by_imputation(levels, method="ot")
    assert found.values.tolist() == [["missing_modality", "others", 4], ["missing_modality", "mean", 5]]
    with pytest.raises(ValueError, match="no curves of 'cca' under missing_modality; methods are clip, ot"):
        stats.by_imputation(levels, method="cca")


def test_means_over_all_are_of_the_same_corruptions() -> None:
    rows = [("noise", "image", "a", 0, 0.2), ("blur", "image", "a", 0, 0.6), ("noise", "image", "a", 1, 0.4)]
    rows.append(("blur", "image", "a", 1, float("nan")))
    numbers = pd.DataFrame(rows, columns=["corruption", "corrupted", "method", "seed", "kept"])
    found = stats.over_all(numbers).set_index("seed")["kept"]
    assert found[0] == pytest.approx(0.4)
    assert pd.isna(found[1]), "a mean over fewer corruptions would be of something else"
