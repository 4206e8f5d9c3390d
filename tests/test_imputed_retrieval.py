"""Retrieval where items are lost, against enumeration: every imputation, with ties and several relevant items."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch

from labkit import imputation
from labkit.conditions import Condition, Conditions, canonical
from labkit.evaluate import curves
from labkit.imputation import IMPUTATIONS
from labkit.types import Embeddings

NAMES = ("image", "text", "sound")
K = 10


class AsItIs:
    """The shared space is the one of the features."""

    def embed(self, data: Embeddings) -> Embeddings:
        return data


def made(n: int, seed: int) -> Embeddings:
    """Unit vectors along few axes, so that many tie; groups of one to four; some lack items from the start."""
    random = np.random.default_rng(seed)
    axis = random.integers(5, size=n)
    z = {m: np.eye(5)[np.where(random.random(n) < 0.3, random.integers(5, size=n), axis)] for m in NAMES}
    present = random.random((n, 3)) < 0.85
    present[np.arange(n), random.integers(3, size=n)] = True
    return Embeddings(
        key=np.array([f"{seed}-{i}" for i in range(n)]),
        z={m: torch.from_numpy(v).float() for m, v in z.items()},
        present={m: torch.from_numpy(present[:, i]) for i, m in enumerate(NAMES)},
        label=torch.from_numpy(axis % 3),
        group=torch.from_numpy(random.integers(n // 2, size=n)),
    )


TRAIN, TEST = made(50, seed=0), made(44, seed=1)


def vector(samples: Embeddings, i: int, m: str, asked: tuple[str, str], how: imputation.Imputation) -> np.ndarray:
    """The item of a sample, or what stands in for it, one sample at a time."""
    if samples.present[m][i]:
        return samples.z[m][i].double().numpy()
    (third,) = set(NAMES) - set(asked)
    if how.translate is not None and samples.present[third][i]:
        found = how.translate(third, m, samples.z[third][i][None])[0].double()
        if found.norm() > 0:
            return (found / found.norm()).numpy()
    return how.constant[m].double().numpy()


def expected(similar: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Recall@10 and reciprocal rank of one query, as probabilities over the orders of the ties."""
    above = 0
    for value in sorted(set(similar), reverse=True):
        tied, hits = int((similar == value).sum()), int((similar == value)[relevant].sum())
        if not hits:
            above += tied
            continue
        left = min(max(K - above, 0), tied)
        recall = 1 - comb(tied - hits, left) / comb(tied, left)
        first = [comb(tied - place, hits - 1) / comb(tied, hits) for place in range(1, tied + 1)]
        return recall, sum(p / (above + place) for place, p in enumerate(first, start=1))
    raise AssertionError("nothing relevant")


@pytest.mark.parametrize("lost", ["missing_modality", "missing_by_label"])
@pytest.mark.parametrize("name", list(IMPUTATIONS))
def test_scores_are_those_of_enumeration(name: str, lost: str) -> None:
    condition = Condition(canonical(f"{lost}+{name}"), "image", 5)
    conditions = Conditions(TRAIN, TEST, seed=2)
    found = curves(AsItIs(), TRAIN, conditions, [condition], resamples=100, seed=2).scores
    samples, asked = conditions(condition).samples, TEST.present
    gone = asked["image"] & ~samples.present["image"]
    assert 8 < int(gone.sum()) < 30
    if name == "drop":
        asked = {m: there & ~gone for m, there in asked.items()}
    how, group, ties = imputation.fit(name, TRAIN), TEST.groups.numpy(), 0
    for source, target in (("image", "text"), ("text", "image"), ("image", "sound"), ("sound", "image")):
        here = [
            np.stack([vector(samples, i, m, (source, target), how) for i in range(len(TEST))]) for m in (source, target)
        ]
        unit = [v / np.linalg.norm(v, axis=1, keepdims=True).clip(min=1e-12) for v in here]
        gallery = asked[target].nonzero().flatten().numpy()
        values = []
        for i in asked[source].nonzero().flatten().tolist():
            relevant = group[gallery] == group[i]
            if relevant.any():
                similar = np.round(unit[1][gallery] @ unit[0][i], 5)
                ties += len(similar) - len(set(similar))
                values.append(expected(similar, relevant))
        rows = found[(found["source"] == source) & (found["target"] == target)].set_index("metric")
        assert rows.loc[["recall_at_10", "mrr"], "value"].to_list() == pytest.approx(np.mean(values, axis=0), abs=1e-4)
        assert set(rows["n"]) == {len(values)}
    assert ties > 1000
