"""Retrieval from two modalities to a third, against loops over queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.metrics import tasks
from labkit.metrics.retrieval import chance_recall_at_k
from labkit.types import Embeddings, Score

N = 40
NAMES = ("image", "text", "speech_fr")


def made(*, seed: int = 0, names: tuple[str, ...] = NAMES) -> Embeddings:
    random = np.random.default_rng(seed)
    common = random.normal(size=(N, 6))
    z = {m: torch.from_numpy(common + 1.5 * random.normal(size=(N, 6))) for m in names}
    return Embeddings(key=np.arange(N), z=z, group=torch.arange(N) // 2)


def judged(test: Embeddings, asked: dict[str, torch.Tensor] | None = None, *, train: Embeddings | None = None):
    found = tasks.fit("fused_retrieval", train or made(seed=9, names=test.modalities), made(seed=8))(test, asked)
    return {(s.name, s.source, s.target): s for s in found}


def unit(x: torch.Tensor) -> np.ndarray:
    return (x / x.norm(dim=1, keepdim=True)).numpy()


def first_ranks(similarity: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Rank of the best item of the query's group; there are no ties."""
    ranks = []
    for i, row in enumerate(similarity):
        order = np.argsort(-row)
        ranks.append(1 + next(r for r, j in enumerate(order) if group[j] == group[i]))
    return np.array(ranks)


def test_equals_averaging_the_similarities_of_two_questions():
    test = made()
    a, b, c = (unit(test.z[m]) for m in NAMES)
    rank = first_ranks(a @ c.T + b @ c.T, test.groups.numpy())
    found = judged(test)
    recall = found["fused_recall_at_10", "image+text", "speech_fr"]
    np.testing.assert_array_equal(recall.per_point.numpy(), rank <= 10)
    assert found["fused_mrr", "image+text", "speech_fr"].value == pytest.approx(np.mean(1 / rank))
    assert recall.chance == pytest.approx(chance_recall_at_k(torch.full((N,), 2), N, 10))


def test_every_two_modalities_ask_every_third():
    directions = {key[1:] for key in judged(made(names=(*NAMES, "speech_es")))}
    assert len(directions) == 12
    assert {t for s, t in directions if s == "image+text"} == {"speech_fr", "speech_es"}
    assert judged(made(names=NAMES[:2])) == {}


def test_an_absent_item_does_not_ask():
    test = made()
    gone = test.with_z(test.z, {**test.present, "image": torch.zeros(N, dtype=torch.bool)})
    score: Score = judged(gone, test.present)["fused_mrr", "image+text", "speech_fr"]
    rank = first_ranks(unit(test.z["text"]) @ unit(test.z["speech_fr"]).T, test.groups.numpy())
    assert score.value == pytest.approx(np.mean(1 / rank))
    assert score.n == N


def test_two_absent_items_ask_at_chance():
    test = made()
    nobody = torch.zeros(N, dtype=torch.bool)
    gone = test.with_z(test.z, {**test.present, "image": nobody, "text": nobody})
    score = judged(gone, test.present)["fused_recall_at_10", "image+text", "speech_fr"]
    assert score.value == pytest.approx(score.chance)


def test_an_absent_target_is_stood_in_for_by_the_mean_training_item():
    train, test = made(seed=9), made()
    here = torch.arange(N) >= 15
    gone = test.with_z(test.z, {**test.present, "speech_fr": here})
    target = torch.where(here[:, None], test.z["speech_fr"], train.z["speech_fr"].mean(dim=0))
    stood_in = made().with_z({**test.z, "speech_fr": target})
    found, expected = judged(gone, test.present, train=train), judged(stood_in, train=train)
    for key, score in expected.items():
        if key[2] == "speech_fr":
            assert found[key].value == pytest.approx(score.value)


def test_a_second_question_helps():
    test = made()
    both = judged(test)["fused_mrr", "image+text", "speech_fr"].value
    c, groups = unit(test.z["speech_fr"]).T, test.groups.numpy()
    alone = [np.mean(1 / first_ranks(unit(test.z[m]) @ c, groups)) for m in ("image", "text")]
    assert both > max(alone)
