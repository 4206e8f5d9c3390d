"""What becomes of one sample under a corruption: its place in the map, its neighbors, the rank of its partners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dashboards import live, robust
from dashboards.content import Content, stamp
from dashboards.live import Model
from dashboards.maps import Frame
from dashboards.robust import Curve
from labkit import stats
from labkit.store import StoreError
from labkit.views import words

NEAREST = 6


@dataclass(frozen=True)
class Moment:
    """What is shown: a sample's item at a severity."""

    row: int
    modality: str
    corruption: str
    severity: int


@dataclass(frozen=True, eq=False)
class Found:
    """What became of it.

    Attributes:
        shown: the corrupted item.
        place: in the map, None where there is no map.
        ranks: modality -> rank of the partner and how many things are ranked.
        near: modality -> nearest samples and their similarities.
    """

    shown: Any
    place: tuple[float, float] | None
    ranks: dict[str, tuple[int, int]]
    near: dict[str, tuple[np.ndarray, np.ndarray]]


def partner_rank(content: Content, row: int, vector: np.ndarray, target: str) -> tuple[int, int]:
    """Rank (from 1) of the first thing of the sample's own caption group, and how many are ranked.

    Ranked are the things of the sample's split that have the target; as in recall@10 of the curves.
    """
    split = content.points["split"].to_numpy()
    gallery = np.intersect1d(content.present(target), np.flatnonzero(split == split[row]))
    own = content.groups[gallery] == content.groups[row]
    similarity = content.similarities(vector, target, "final")[gallery]
    best = similarity[own].max(initial=-np.inf)
    return 1 + int((similarity[~own] > best).sum()), len(gallery)


def look(content: Content, model: Model, frame: Frame | None, moment: Moment) -> Found | str:
    """Runs beside the session: it touches no widget."""
    key = str(content.points["key"].iloc[moment.row])
    try:
        seen = model.corrupted(key, moment.modality, moment.corruption, moment.severity)
        place = None if frame is None else live.place(content, frame, seen.vector)
    except StoreError as error:
        return str(error)
    others = [m for m in content.modalities if m != moment.modality and moment.row in content.present(m)]
    ranks = {m: partner_rank(content, moment.row, seen.vector, m) for m in others}
    near = {m: content.most_similar(seen.vector, m, step="final", k=NEAREST) for m in content.modalities}
    return Found(seen.item, place, ranks, near)


def levels(content: Content, curve: Curve) -> pd.DataFrame:
    """Recall of the run at every severity, a row per direction from the corrupted modality, over its samples."""
    table = robust.samples(str(content.run.folder), stamp(content.run), curve)
    index = table.index.to_frame(index=False)
    own = (index["source"] == curve.corrupted).to_numpy()
    index["method"] = (index["source"] + " → " + index["target"]).map(words)
    table = table.set_axis(pd.MultiIndex.from_frame(index))[own]
    return stats.levels_over_samples(table).assign(chance=np.nan)
