"""Retrieval against enumeration of every order, loops, scikit-learn and Monte Carlo."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from labkit.metrics import METRICS, ndcg_at_k, rank_of_first, recall_at_k, reciprocal_rank
from labkit.metrics.retrieval import (
    chance_median_rank,
    chance_ndcg_at_k,
    chance_recall_at_k,
    chance_reciprocal_rank,
)
from labkit.types import Embeddings

RETRIEVAL = ["recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10", "median_rank"]


def of_ranking(ranked: np.ndarray, k: int) -> dict[str, float]:
    """The measures of one strictly ordered list of relevances, from their definitions."""
    first = int(np.flatnonzero(ranked)[0]) + 1
    dcg = sum(1 / np.log2(r + 1) for r, hit in enumerate(ranked, 1) if hit and r <= k)
    ideal = sum(1 / np.log2(r + 1) for r in range(1, min(k, int(ranked.sum())) + 1))
    return {"recall": float(first <= k), "rank": first, "reciprocal": 1 / first, "ndcg": dcg / ideal}


def measured(similarity, relevant, k) -> dict[str, torch.Tensor]:
    return {
        "recall": recall_at_k(similarity, relevant, k),
        "rank": rank_of_first(similarity, relevant),
        "reciprocal": reciprocal_rank(similarity, relevant),
        "ndcg": ndcg_at_k(similarity, relevant, k),
    }


def mean_over_orders(similarity: np.ndarray, relevant: np.ndarray, k: int) -> dict[str, float]:
    """Exact expectation: all m! ways to break the ties of one query."""
    outcomes = []
    for order in itertools.permutations(range(len(similarity))):
        order = np.array(order)
        outcomes.append(of_ranking(relevant[order[np.argsort(-similarity[order], kind="stable")]], k))
    return {name: float(np.mean([outcome[name] for outcome in outcomes])) for name in outcomes[0]}


@settings(max_examples=40, deadline=None)
@given(
    levels=st.lists(st.integers(0, 2), min_size=2, max_size=6),
    hits=st.integers(1, 2**6 - 1),
    k=st.integers(1, 8),
)
def test_ties_score_their_expectation_over_all_orders(levels, hits, k):
    similarity = np.array(levels, dtype=float)
    relevant = np.array([bool(hits >> j & 1) for j in range(len(levels))])
    if not relevant.any():
        relevant[0] = True
    expected = mean_over_orders(similarity, relevant, k)
    for name, value in measured(similarity[None], relevant[None], k).items():
        assert value.item() == pytest.approx(expected[name], abs=1e-10), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5, 10, 100])
def test_matches_loops_on_random_rankings(k, dtype, device, generator):
    similarity = torch.randn(30, 40, generator=generator, dtype=dtype)
    relevant = torch.rand(30, 40, generator=generator) < 0.1
    relevant[:, 7] |= ~relevant.any(dim=1)
    results = measured(similarity.to(device), relevant.to(device), k)
    for i in range(30):
        expected = of_ranking(relevant[i][similarity[i].argsort(descending=True)].numpy(), k)
        for name, values in results.items():
            assert values.device.type == device.type
            assert values[i].item() == pytest.approx(expected[name], abs=1e-12), name


def test_agrees_with_scikit_learn(generator):
    similarity = torch.randn(50, 60, generator=generator)
    coarse = similarity.round(decimals=1)  # with ties
    relevant = torch.rand(50, 60, generator=generator) < 0.15
    relevant[:, 0] |= ~relevant.any(dim=1)
    for scores in (similarity, coarse):
        expected = ndcg_score(relevant.numpy(), scores.numpy(), k=10)
        assert ndcg_at_k(scores, relevant, 10).mean().item() == pytest.approx(expected, abs=1e-10)
    single = torch.eye(50, 60, dtype=torch.bool)  # with one relevant item, average precision is the reciprocal rank
    expected = label_ranking_average_precision_score(single.numpy(), similarity.numpy())
    assert reciprocal_rank(similarity, single).mean().item() == pytest.approx(expected, abs=1e-12)


def test_query_with_nothing_relevant_is_nan():
    similarity = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    relevant = torch.tensor([[True, False], [False, False]])
    for name, values in measured(similarity, relevant, 1).items():
        assert values[0] == 1, name
        assert values[1].isnan(), name


@pytest.mark.parametrize(
    ("similarity", "relevant", "k", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), 0, "k must be at least 1"),
        (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool), 1, "shape"),
        (torch.zeros(2, 3), torch.zeros(2, 3), 1, "booleans"),
        (torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool), 1, "gallery"),
        (torch.full((2, 3), torch.nan), torch.ones(2, 3, dtype=torch.bool), 1, "NaN"),
    ],
)
def test_bad_input_is_refused(similarity, relevant, k, message):
    with pytest.raises(ValueError, match=message):
        recall_at_k(similarity, relevant, k)


@pytest.mark.parametrize(("gallery", "relevant"), [(1, 1), (6, 1), (7, 1), (7, 2), (6, 3), (8, 8)])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_chance_is_the_mean_over_all_rankings(gallery, relevant, k):
    places = [np.isin(np.arange(gallery), chosen) for chosen in itertools.combinations(range(gallery), relevant)]
    outcomes = [of_ranking(ranked, k) for ranked in places]
    one = torch.tensor([relevant])
    mean = {name: np.mean([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    assert chance_recall_at_k(one, gallery, k) == pytest.approx(mean["recall"], abs=1e-12)
    assert chance_reciprocal_rank(one, gallery) == pytest.approx(mean["reciprocal"], abs=1e-12)
    assert chance_ndcg_at_k(one, gallery, k) == pytest.approx(mean["ndcg"], abs=1e-12)
    assert chance_median_rank(one, gallery) == np.median([outcome["rank"] for outcome in outcomes])


@pytest.mark.parametrize("name", RETRIEVAL)
def test_chance_by_monte_carlo_with_mixed_group_sizes(name):
    """Independent embeddings rank at random; groups of 1, 2 and 5 give the queries different numbers of hits."""
    group = torch.repeat_interleave(torch.arange(20), torch.tensor([1] * 8 + [2] * 8 + [5] * 4))
    values, chances = [], set()
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        z = {m: torch.randn(len(group), 64, generator=generator) for m in ("image", "text")}
        data = Embeddings(key=np.arange(len(group)), z=z, group=group)
        scores = METRICS.get(name)(data, data)
        values += [score.value for score in scores]
        chances |= {score.chance for score in scores}
    (chance,) = chances
    slack = 0.5 if name == "median_rank" else 0  # the median of 44 whole ranks is itself slightly biased
    assert abs(np.mean(values) - chance) < 4 * np.std(values) / np.sqrt(len(values)) + slack


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RETRIEVAL)
def test_collapsed_embedding_scores_chance(name, dtype, device, generator):
    """One direction, many lengths: every item ties, so the expected value is that of a random order."""
    n = 101
    length = 2.0 ** torch.randint(-5, 5, (n, 1), generator=generator)
    z = {m: length * torch.randn(32, generator=generator, dtype=dtype) for m in ("image", "text")}
    data = Embeddings(key=np.arange(n), z=z).to(device)
    for score in METRICS.get(name)(data, data):
        assert score.value == pytest.approx(score.chance, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_errors_tie(dtype):
    """Unit roundoff on one vector: rankings of the noise would give other values than chance."""
    values = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        noise = 1 + torch.finfo(dtype).eps * torch.randn(200, 32, generator=generator, dtype=dtype).sign()
        z = noise * torch.randn(32, generator=generator, dtype=dtype)
        data = Embeddings(key=np.arange(200), z={"image": z, "text": z})  # the noise itself would be matched
        values += [score.value for score in METRICS.get("recall_at_1")(data, data)]
    assert np.median(values) == pytest.approx(1 / 200)


@pytest.mark.parametrize("name", RETRIEVAL)
def test_perfect_alignment_scores_best(name, generator):
    z = torch.randn(40, 16, generator=generator)
    data = Embeddings(key=np.arange(40), z={"image": z, "text": 3 * z})
    for score in METRICS.get(name)(data, data):
        assert score.value == 1
        assert score.n == 40


def test_any_member_of_the_group_counts_and_absent_ones_do_not():
    axes = torch.eye(4)
    data = Embeddings(
        key=np.arange(4),
        z={"image": axes, "text": axes[[1, 0, 2, 3]]},
        present={"text": torch.tensor([True, True, True, False])},
        group=torch.tensor([0, 0, 1, 2]),
    )
    forward, backward = METRICS.get("recall_at_1")(data, data)
    assert (forward.source, forward.target, forward.n, forward.value) == ("image", "text", 3, 1.0)
    assert forward.per_point[:3].tolist() == [1, 1, 1]
    assert forward.per_point[3].isnan()  # its only partner is absent
    assert (backward.source, backward.target, backward.n, backward.value) == ("text", "image", 3, 1.0)
    alone = Embeddings(key=data.key, z=data.z, present=data.present)
    forward, _ = METRICS.get("recall_at_1")(alone, alone)
    assert forward.per_point[:3].tolist() == [0, 0, 1]


def test_gallery_smaller_than_k_is_found_whole():
    data = Embeddings(key=np.arange(3), z={"image": torch.eye(3), "text": torch.eye(3)[[1, 2, 0]]})
    for score in METRICS.get("recall_at_10")(data, data):
        assert score.value == score.chance == 1


def test_direction_without_partners_has_no_score(generator):
    first = torch.arange(10) < 5
    data = Embeddings(
        key=np.arange(10),
        z={m: torch.randn(10, 4, generator=generator) for m in ("image", "text")},
        present={"image": first, "text": ~first},
    )
    assert METRICS.get("mrr")(data, data) == []


def test_blocks_of_queries_change_nothing(monkeypatch, generator):
    data = Embeddings(key=np.arange(50), z={m: torch.randn(50, 8, generator=generator) for m in ("image", "text")})
    whole = METRICS.get("mrr")(data, data)
    monkeypatch.setattr("labkit.metrics.retrieval.blocks", lambda rows, _: (slice(i, i + 7) for i in range(0, rows, 7)))
    for one, other in zip(METRICS.get("mrr")(data, data), whole, strict=True):
        torch.testing.assert_close(one.per_point, other.per_point)


def test_modalities_of_different_dimension_are_refused(generator):
    z = {"image": torch.randn(5, 4, generator=generator), "text": torch.randn(5, 3, generator=generator)}
    data = Embeddings(key=np.arange(5), z=z)
    with pytest.raises(ValueError, match="one dimension for all modalities.*align"):
        METRICS.get("recall_at_1")(data, data)
