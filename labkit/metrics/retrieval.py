"""Cross-modal retrieval: recall@k, mean reciprocal rank, NDCG@10 and median rank, in every direction.

Each sample of the source modality queries all present samples of the target modality by cosine similarity;
everything of the query's group is relevant (several captions or twins of one thing), one hit suffices for recall.
Ties are scored by their expectation over random orders (McSherry & Najork 2008), so a constant embedding scores
exactly chance. Chance is the exact expectation over random rankings of m items with R relevant ones.
The functions of (similarity [n m], relevant [n m]) serve any gallery; queries with nothing relevant get NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.metrics import METRICS
from labkit.metrics.pairs import Array, blocks, cosine_similarity, ordered_pairs, rows_with, spread
from labkit.types import Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

PerQuery = Callable[[Tensor, Tensor], Tensor]
Chance = Callable[[Tensor, int], float]


class FirstHit(NamedTuple):
    """Where the best relevant item of each query stands.

    Attributes:
        above: number of items ranked strictly before it.
        tied: size of its tie, itself included.
        relevant_tied: relevant ones among them.
    """

    above: Int[Tensor, " n"]
    tied: Int[Tensor, " n"]
    relevant_tied: Int[Tensor, " n"]


def recall_at_k(similarity: Float[Array, "n m"], relevant: Bool[Array, "n m"], k: int) -> Float[Tensor, " n"]:
    """Whether at least one relevant item is among the k most similar; its probability where ties decide.

    With a items strictly before the best relevant one, which ties with t items of which p are relevant, and
    r = min(max(k - a, 0), t) places left: `1 - C(t - p, r) / C(t, r)`. The whole gallery counts as found if
    k >= m. Range [0, 1], higher is better; NaN for queries with nothing relevant.

    Raises:
        ValueError: k < 1, shapes that differ, NaN similarities, `relevant` not boolean.
    """
    _check_k(k)
    similarity, relevant = _check(similarity, relevant)
    hit = _first_hit(similarity, relevant)
    left = torch.minimum((k - hit.above).clamp(min=0), hit.tied)
    found = 1 - _choose_ratio(hit.tied, hit.relevant_tied, left)
    return _only_answerable(found, relevant)


def rank_of_first(similarity: Float[Array, "n m"], relevant: Bool[Array, "n m"]) -> Float[Tensor, " n"]:
    """Rank (from 1) of the first relevant item, expected over random orders of ties: `a + (t + 1) / (p + 1)`.

    Range [1, m], lower is better; NaN for queries with nothing relevant.

    Raises:
        ValueError: shapes that differ, NaN similarities, `relevant` not boolean.
    """
    similarity, relevant = _check(similarity, relevant)
    hit = _first_hit(similarity, relevant)
    return _only_answerable(hit.above + (hit.tied + 1).double() / (hit.relevant_tied + 1), relevant)


def reciprocal_rank(similarity: Float[Array, "n m"], relevant: Bool[Array, "n m"]) -> Float[Tensor, " n"]:
    """1 / rank of the first relevant item, expected over random orders of ties.

    `sum_r C(t - r, p - 1) / C(t, p) / (a + r)` with a, t, p as in `recall_at_k`. Range (0, 1], higher is better;
    NaN for queries with nothing relevant.

    Raises:
        ValueError: shapes that differ, NaN similarities, `relevant` not boolean.
    """
    similarity, relevant = _check(similarity, relevant)
    hit = _first_hit(similarity, relevant)
    value = 1 / (hit.above + 1).double()
    mixed = hit.tied > hit.relevant_tied.clamp(min=1)  # elsewhere the first of the tie is relevant for sure
    if bool(mixed.any()):
        place = torch.arange(1, int(hit.tied[mixed].max()) + 1, device=value.device)
        chance = _first_place(hit.tied[mixed, None], hit.relevant_tied[mixed, None], place)
        value[mixed] = (chance / (hit.above[mixed, None] + place)).sum(dim=1)
    return _only_answerable(value, relevant)


def ndcg_at_k(similarity: Float[Array, "n m"], relevant: Bool[Array, "n m"], k: int) -> Float[Tensor, " n"]:
    """Normalized discounted cumulative gain of the first k items with binary relevance.

    `DCG@k / ideal DCG@k`, `DCG@k = sum_{rank <= k} relevant / log2(rank + 1)` (Jarvelin & Kekalainen 2002, with
    the base-2 discount from the first rank on); items of a tie share the mean discount of the places they fill
    (as `sklearn.metrics.ndcg_score` does). Range [0, 1], higher is better; NaN for queries with nothing relevant.

    Raises:
        ValueError: k < 1, shapes that differ, NaN similarities, `relevant` not boolean.
    """
    _check_k(k)
    similarity, relevant = _check(similarity, relevant)
    gain = _cumulative_discount(similarity.shape[1], k, similarity.device)
    dcg = similarity.new_zeros(len(similarity), dtype=torch.float64)
    for rank, value in enumerate(similarity.topk(min(k, similarity.shape[1]), dim=1).values.T):
        tied = similarity == value[:, None]
        share = (tied & relevant).sum(dim=1).double() / tied.sum(dim=1)  # probability of a relevant item here
        dcg += share * (gain[rank + 1] - gain[rank])
    return _only_answerable(dcg / gain[relevant.sum(dim=1)], relevant)


def chance_recall_at_k(relevant: Int[Tensor, " n"], gallery: int, k: int) -> float:
    """Expected recall@k of random rankings, averaged over queries with `relevant` >= 1 items each.

    `1 - C(m - R, k) / C(m, k)`, the hypergeometric probability of at least one hit.
    """
    size = torch.full_like(relevant, gallery)
    return float((1 - _choose_ratio(size, relevant, size.clamp(max=k))).mean())


def chance_reciprocal_rank(relevant: Int[Tensor, " n"], gallery: int) -> float:
    """Expected reciprocal rank of random rankings: `sum_r C(m - r, R - 1) / C(m, R) / r`, averaged over queries."""
    each, count = relevant.unique(return_counts=True)
    place = torch.arange(1, gallery + 1, device=relevant.device)
    expected = (_first_place(torch.full_like(each, gallery)[:, None], each[:, None], place) / place).sum(dim=1)
    return float((expected * count).sum() / count.sum())


def chance_ndcg_at_k(relevant: Int[Tensor, " n"], gallery: int, k: int) -> float:
    """Expected NDCG@k of random rankings, averaged over queries with `relevant` >= 1 items each.

    `(R / m) sum_{r <= k} 1 / log2(r + 1) / ideal DCG@k`: each rank holds a relevant item with probability R / m.
    """
    gain = _cumulative_discount(gallery, k, relevant.device)
    return float((relevant.double() / gallery * gain[-1] / gain[relevant]).mean())


def chance_median_rank(relevant: Int[Tensor, " n"], gallery: int) -> float:
    """Median of the first relevant item's rank when a random query is ranked at random.

    `P(rank <= r) = 1 - C(m - R, r) / C(m, r)`, averaged over queries; midway where the distribution is exactly
    one half on a stretch. With one relevant item: (m + 1) / 2.
    """
    each, count = relevant.unique(return_counts=True)
    size = torch.full_like(each, gallery)[:, None]
    place = torch.arange(1, gallery + 1, device=relevant.device)
    below = 1 - _choose_ratio(size, each[:, None], place[None, :])
    share = (below * count[:, None]).sum(dim=0) / count.sum()
    tolerance = 1e-9  # logarithms of factorials carry errors near 1e-12
    reached = (share < 0.5 - tolerance).sum() + 1
    passed = (share <= 0.5 + tolerance).sum() + 1
    return float(reached + passed) / 2


@METRICS.register("recall_at_1")
def recall_at_1(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Share of queries whose most similar target is of their group (`recall_at_k`); [0, 1], higher is better."""
    return _scores(aligned, [_recall(1)])


@METRICS.register("recall_at_5")
def recall_at_5(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Share of queries with a target of their group among the 5 most similar; [0, 1], higher is better."""
    return _scores(aligned, [_recall(5)])


@METRICS.register("recall_at_10")
def recall_at_10(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Share of queries with a target of their group among the 10 most similar; [0, 1], higher is better."""
    return _scores(aligned, [_recall(10)])


@METRICS.register("mrr", aliases=("mean_reciprocal_rank",))
def mrr(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Mean over queries of 1 / rank of the first target of their group (`reciprocal_rank`); higher is better."""
    return _scores(aligned, [_MRR])


@METRICS.register("ndcg_at_10")
def ndcg_at_10(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Mean over queries of NDCG@10, relevance being the same group (`ndcg_at_k`); [0, 1], higher is better."""
    of_ten = _Measure(
        "ndcg_at_10",
        lambda similarity, relevant: ndcg_at_k(similarity, relevant, 10),
        lambda relevant, gallery: chance_ndcg_at_k(relevant, gallery, 10),
    )
    return _scores(aligned, [of_ten])


@METRICS.register("median_rank")
def median_rank(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Median over queries of the rank of the first target of their group (`rank_of_first`); lower is better.

    `value` is the median of `per_point` (middle two averaged), not its mean.
    """
    return _scores(aligned, [_Measure("median_rank", rank_of_first, chance_median_rank, False, _median)])


def curve_scores(aligned: Embeddings, directions: Sequence[tuple[str, str]] | None = None) -> list[Score]:
    """`recall_at_10` and `mrr` from one ranking: the scores of robustness curves, which are made by the thousand.

    Args:
        aligned: samples of a shared space.
        directions: (source, target) pairs; all by default.
    """
    return _scores(aligned, [_recall(10), _MRR], directions)


class _Measure(NamedTuple):
    """What is measured of each query, and of all of them."""

    name: str
    per_query: PerQuery
    chance: Chance
    higher_is_better: bool = True
    center: Callable[[Tensor], Tensor] = torch.mean


_MRR = _Measure("mrr", reciprocal_rank, chance_reciprocal_rank)


def _recall(k: int) -> _Measure:
    return _Measure(
        f"recall_at_{k}",
        lambda similarity, relevant: recall_at_k(similarity, relevant, k),
        lambda relevant, gallery: chance_recall_at_k(relevant, gallery, k),
    )


def _scores(
    aligned: Embeddings, measures: Sequence[_Measure], directions: Sequence[tuple[str, str]] | None = None
) -> list[Score]:
    """One Score per direction in which some query has something to find, and measure."""
    scores = []
    for source, target in ordered_pairs(aligned):
        if directions is not None and (source, target) not in directions:
            continue
        x, y = aligned.z[source], aligned.z[target]
        group = aligned.groups.to(x.device)
        rows, gallery = rows_with(aligned, source), rows_with(aligned, target)
        _, code = group.unique(return_inverse=True)
        relevant = torch.bincount(code[gallery], minlength=len(group))[code[rows]]
        rows, relevant = rows[relevant > 0], relevant[relevant > 0]
        if len(rows) == 0:
            continue
        parts = []
        for at in (rows[block] for block in blocks(len(rows), len(gallery))):
            ranked = cosine_similarity(x[at], y[gallery]), group[at, None] == group[gallery]
            parts.append([measure.per_query(*ranked) for measure in measures])
        for measure, values in zip(measures, map(torch.cat, zip(*parts, strict=True)), strict=True):
            scores.append(
                Score(
                    name=measure.name,
                    value=float(measure.center(values)),
                    higher_is_better=measure.higher_is_better,
                    n=len(rows),
                    per_point=spread(values, rows, len(aligned)),
                    chance=measure.chance(relevant, len(gallery)),
                    source=source,
                    target=target,
                )
            )
    return scores


def _median(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    return values.quantile(0.5)  # unlike torch.median, averages the middle two


def _first_hit(similarity: Float[Tensor, "n m"], relevant: Bool[Tensor, "n m"]) -> FirstHit:
    best = similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    tied = similarity == best
    return FirstHit((similarity > best).sum(dim=1), tied.sum(dim=1), (tied & relevant).sum(dim=1))


def _log_choose(n: Tensor, k: Tensor) -> Float[Tensor, "..."]:
    """Logarithm of C(n, k) in float64; -inf where k is outside [0, n]."""
    n, k = n.double(), k.double()
    inside = (k >= 0) & (k <= n)
    k = torch.where(inside, k, 0.0)
    value = torch.lgamma(n.clamp(min=0) + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
    return value.masked_fill(~inside, -torch.inf)


def _choose_ratio(size: Tensor, relevant: Tensor, drawn: Tensor) -> Float[Tensor, "..."]:
    """C(size - relevant, drawn) / C(size, drawn): probability that none of the relevant ones is drawn."""
    return (_log_choose(size - relevant, drawn) - _log_choose(size, drawn)).exp()


def _first_place(size: Tensor, relevant: Tensor, place: Tensor) -> Float[Tensor, "..."]:
    """C(size - place, relevant - 1) / C(size, relevant): probability that the first relevant one is at `place`."""
    return (_log_choose(size - place, relevant - 1) - _log_choose(size, relevant)).exp()


def _cumulative_discount(m: int, k: int, device: torch.device) -> Float[Tensor, " m+1"]:
    """Sum of 1 / log2(rank + 1) over the first 0, 1, ..., m ranks, constant beyond rank k."""
    rank = torch.arange(1, m + 1, dtype=torch.float64, device=device)
    discount = torch.where(rank <= k, 1 / torch.log2(rank + 1), 0.0)
    return torch.cat([discount.new_zeros(1), discount.cumsum(dim=0)])


def _only_answerable(values: Float[Tensor, " n"], relevant: Bool[Tensor, "n m"]) -> Float[Tensor, " n"]:
    return values.double().masked_fill(~relevant.any(dim=1), torch.nan)


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")


def _check(similarity: Array, relevant: Array) -> tuple[Tensor, Tensor]:
    similarity = torch.as_tensor(similarity)
    relevant = torch.as_tensor(relevant, device=similarity.device)
    if similarity.ndim != 2 or similarity.shape[1] == 0:
        raise ValueError(f"similarity must have shape [queries, gallery >= 1]; got {tuple(similarity.shape)}")
    if relevant.shape != similarity.shape or relevant.dtype != torch.bool:
        raise ValueError(
            f"relevant must be booleans of similarity's shape {tuple(similarity.shape)}; "
            f"got {relevant.dtype} of shape {tuple(relevant.shape)}"
        )
    if bool(similarity.isnan().any()):
        raise ValueError("similarity has NaN values; a ranking needs numbers")
    return similarity, relevant
