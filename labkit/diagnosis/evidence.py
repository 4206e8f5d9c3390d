"""The numbers of one pair of modalities as the rules of `labkit.diagnosis.findings` read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from labkit.stats import holm

LEVEL = 0.05  # of the p-values of the pairing, after Holm
APART_LEVEL = 0.02  # of two-sample tests: one in fifty pairs of halves is called different
SAME = 0.1  # of the distance of halves, from which two clouds are the same points
# times the lower half of the band of two samples: copies in any order are 1.6 to 2.5 below its mean, halves up to 1.1
BELOW = 1.4
AGAINST = {"shuffles": "shuffled rows", "pooled": "two samples of one cloud", "halves": "halves of one cloud"}
# measures of the pairing that the rules rest on: coordinates up to rotation, all distances, near distances
PAIRED = ("procrustes", "cka", "mutual_knn")


class Evidence:
    """Measures of one pair and the descriptions of its two clouds.

    Args:
        clouds: table of clouds.
        measures: rows of the table of measures that belong to the pair.
        shared: whether both modalities live in one space.
    """

    def __init__(self, clouds: pd.DataFrame, measures: pd.DataFrame, shared: bool) -> None:
        self.shared = shared
        self.source, self.target = (str(measures[c].iloc[0]) for c in ("source", "target"))
        self._measures = {row["measure"]: row for row in measures.to_dict("records")}
        self._clouds = {(row["modality"], row["measure"]): row for row in clouds.to_dict("records")}
        paired = [m for m in PAIRED if not math.isnan(self.number(m, "p"))]
        adjusted = holm(np.array([self.number(m, "p") for m in paired])) if paired else []
        self.adjusted = dict(zip(paired, map(float, adjusted), strict=True))

    def number(self, measure: str, column: str = "value") -> float:
        """A number of a measure, NaN if it was not measured or refused."""
        return float(self._measures.get(measure, {}).get(column, math.nan))

    def cloud(self, modality: str, measure: str) -> dict[str, Any] | None:
        """The row of one cloud's measure, None if it was not measured or refused."""
        row = self._clouds.get((modality, measure))
        return None if row is None or math.isnan(row["value"]) else row

    def agreement(self, measure: str) -> float:
        """0 at the level of shuffled rows, 1 at the best value (1 for similarities, 0 for distances); NaN unknown."""
        value, chance = self.number(measure), self.number(measure, "reference_mean")
        if math.isnan(value) or math.isnan(chance):
            return math.nan
        if self._measures[measure]["higher_is_better"]:
            return (value - chance) / (1 - chance) if chance < 1 else 0.0
        return 1 - value / chance if chance > 0 else 0.0

    @property
    def related(self) -> bool:
        """Whether any measure of the pairing is beyond shuffled rows, all of them taken into account (Holm)."""
        return any(p <= LEVEL for p in self.adjusted.values())

    @property
    def decidable(self) -> bool:
        """Whether there were shuffles enough for any p-value to count as small after the correction."""
        most = max((self.number(m, "n_reference") for m in self.adjusted), default=0)
        return len(self.adjusted) / (1 + most) <= LEVEL

    def differs(self, measure: str) -> bool:
        """Whether the clouds differ more than two samples of one cloud do; False also if it was not measured.

        Halves of one cloud are too few and too alike for a p-value: there the mean has to be beyond their band.
        """
        row = self._measures.get(measure)
        if row is None or row["reference"] != "halves":
            return self.number(measure, "p") <= APART_LEVEL
        end = row["reference_low"] if row["higher_is_better"] else row["reference_high"]
        return (row["compared"] < end) if row["higher_is_better"] else (row["compared"] > end)

    def same_points(self, measure: str) -> bool:
        """Whether the clouds are closer than two samples of one distribution are; for distances."""
        value, mean, low = (self.number(measure, c) for c in ("value", "reference_mean", "reference_low"))
        if self._measures[measure]["reference"] == "halves":
            return value <= SAME * mean  # halves are smaller samples: a little closer means nothing
        return mean - value > BELOW * (mean - low)

    def has(self, *measures: str) -> bool:
        """Whether all of these were measured."""
        return not any(math.isnan(self.number(m)) for m in measures)

    def said(self, *measures: str, whole: bool = False) -> str:
        """The measures that there are, each with its reference, in words.

        Args:
            measures: names.
            whole: give the value on all rows, not the one on samples of the reference's size.
        """
        return ", ".join(self._said(m, "value" if whole else "compared") for m in measures if self.has(m))

    def _said(self, measure: str, column: str) -> str:
        row = self._measures[measure]
        band = f"{row['reference_low']:.3g} to {row['reference_high']:.3g}"
        return f"{measure} {row[column]:.3g} ({AGAINST[row['reference']]}: {band})"
