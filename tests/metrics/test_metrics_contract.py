"""What every registered metric keeps, run over the registry: a new metric is tested from its first day."""

import inspect
import math

import numpy as np
import pytest
import torch

from labkit.metrics import METRICS
from labkit.types import Embeddings, Score

NAMES = ["image", "text", "speech_fr", "speech_es"]
RANGE = {  # any finite value where nothing is said
    "label_accuracy": (0, 1),
    "recall_at_1": (0, 1),
    "recall_at_5": (0, 1),
    "recall_at_10": (0, 1),
    "mrr": (0, 1),
    "ndcg_at_10": (0, 1),
    "median_rank": (1, 60),
    "neighborhood_preservation": (-1, 1),
    "neighborhood_kept": (-1, 1),
    "cka": (-1, 1),
    "procrustes": (0, 1),
    "modality_gap": (0, 2),
    "alignment": (0, 4),
    "uniformity": (-8, 0),
    "effective_rank": (1, 16),
}
CENTER = {"median_rank": np.nanmedian}  # the mean of per_point elsewhere


def sample(modalities: int, *, seed: int = 0, n: int = 60, missing: float = 0.3) -> tuple[Embeddings, Embeddings]:
    """Partly related modalities, 30 % missing, captions shared by two samples; the aligned and the raw space."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 16, generator=generator, dtype=torch.float64)
    names = NAMES[:modalities]
    noise = {m: torch.randn(n, 16, generator=generator, dtype=torch.float64) for m in names}
    raw = Embeddings(
        key=np.array([f"thing{i}" for i in range(n)]),
        z={m: torch.randn(n, 20 + j, generator=generator, dtype=torch.float64) for j, m in enumerate(names)},
        present={m: torch.rand(n, generator=generator) >= missing for m in names},
        group=torch.arange(n) // 2,
        label=(common[:, :4].sum(dim=1) > 0).long(),
    )
    return raw.with_z({m: common + noise[m] for m in names}), raw


def scores_of(name: str, aligned: Embeddings, raw: Embeddings) -> dict[tuple[str, str], Score]:
    scores = METRICS.get(name)(aligned, raw)
    by_pair = {(score.source, score.target): score for score in scores}
    assert len(by_pair) == len(scores), "a pair is scored twice"
    return by_pair


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_scores_are_finite_complete_and_in_range(name, modalities, device):
    aligned, raw = (e.to(device) for e in sample(modalities))
    by_pair = scores_of(name, aligned, raw)
    assert by_pair
    low, high = RANGE.get(name, (-math.inf, math.inf))
    for (source, target), score in by_pair.items():
        assert score.name == name
        assert math.isfinite(score.value)
        assert low <= score.value <= high
        assert score.chance is None or low <= score.chance <= high
        assert source in aligned.modalities
        assert target in (*aligned.modalities, "")
        assert source != target
        assert 0 < score.n <= len(aligned)
        if score.per_point is not None:
            check_per_point(score, aligned)


def check_per_point(score: Score, aligned: Embeddings) -> None:
    assert score.per_point is not None
    points = score.per_point.numpy()
    assert points.shape == (len(aligned),)
    assert np.isfinite(points).sum() == score.n
    assert score.value == pytest.approx(CENTER.get(score.name, np.nanmean)(points), abs=1e-12)
    assert np.isnan(points[~aligned.present[score.source].cpu().numpy()]).all()


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_all_pairs_or_all_modalities_are_covered(name, modalities):
    by_pair = scores_of(name, *sample(modalities))
    pairs = modalities * (modalities - 1)
    assert len(by_pair) in {pairs, pairs // 2, modalities}
    covered = {m for pair in by_pair for m in pair} - {""}
    assert covered == set(NAMES[:modalities])


@pytest.mark.parametrize("name", list(METRICS))
def test_order_of_the_samples_does_not_matter(name):
    aligned, raw = sample(3)
    order = np.random.default_rng(0).permutation(len(aligned))
    moved = scores_of(name, aligned.take(order), raw.take(order))
    for pair, score in scores_of(name, aligned, raw).items():
        assert moved[pair].value == pytest.approx(score.value, abs=1e-9)
        assert moved[pair].chance == pytest.approx(score.chance)
        if score.per_point is not None:
            torch.testing.assert_close(moved[pair].per_point, score.per_point[order], equal_nan=True)


@pytest.mark.parametrize("name", list(METRICS))
def test_absent_rows_have_no_influence(name):
    """Adding samples in which everything is absent changes nothing."""
    aligned, raw = sample(2)
    n = len(aligned)
    empty = {m: torch.zeros(5, dtype=torch.bool) for m in aligned.modalities}

    def padded(data: Embeddings) -> Embeddings:
        return Embeddings(
            key=np.concatenate([data.key, [f"absent{i}" for i in range(5)]]),
            z={m: torch.cat([z, z[:5] * 0 + 9]) for m, z in data.z.items()},
            present={m: torch.cat([p, empty[m]]) for m, p in data.present.items()},
            group=torch.cat([data.groups, torch.arange(5)]),
            label=torch.cat([data.label, torch.zeros(5, dtype=torch.long)]),
        )

    more = scores_of(name, padded(aligned), padded(raw))
    for pair, score in scores_of(name, aligned, raw).items():
        assert more[pair].value == pytest.approx(score.value, abs=1e-12)
        assert more[pair].n == score.n
        assert more[pair].chance == pytest.approx(score.chance)
        if score.per_point is not None:
            torch.testing.assert_close(more[pair].per_point[:n], score.per_point, equal_nan=True)
            assert more[pair].per_point[n:].isnan().all()


@pytest.mark.parametrize("name", list(METRICS))
def test_float32_and_float64_agree(name):
    aligned, raw = sample(2)
    single = scores_of(name, aligned.to(dtype=torch.float32), raw.to(dtype=torch.float32))
    for pair, score in scores_of(name, aligned, raw).items():
        assert single[pair].value == pytest.approx(score.value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", list(METRICS))
def test_input_is_left_as_it_was(name):
    aligned, raw = sample(2)
    before = {(i, m): z.clone() for i, e in enumerate((aligned, raw)) for m, z in e.z.items()}
    METRICS.get(name)(aligned, raw)
    for i, e in enumerate((aligned, raw)):
        for m, z in e.z.items():
            assert torch.equal(z, before[i, m])


@pytest.mark.parametrize("name", list(METRICS))
def test_modality_absent_everywhere_is_left_out(name):
    aligned, raw = sample(3)
    present = aligned.present | {"text": torch.zeros(len(aligned), dtype=torch.bool)}
    by_pair = scores_of(name, aligned.with_z(aligned.z, present), raw.with_z(raw.z, present))
    assert by_pair
    assert all("text" not in pair for pair in by_pair)


@pytest.mark.parametrize("name", list(METRICS))
def test_better_alignment_scores_better_than_none(name):
    """The direction flag agrees with what the metric does (monitors of one modality do not compare)."""
    aligned, raw = sample(2, missing=0)
    image = aligned.z["image"]
    shuffled = aligned.with_z({"image": image, "text": aligned.z["text"].flip(0) - 2})
    good = aligned.with_z({"image": image, "text": image + 0.1 * aligned.z["text"]})
    pairs = [pair for pair in scores_of(name, aligned, raw) if pair[1]]
    best, worst = scores_of(name, good, raw), scores_of(name, shuffled, raw)
    for pair in pairs:
        assert (best[pair].value > worst[pair].value) == best[pair].higher_is_better
        if best[pair].chance is not None:
            assert (best[pair].value > best[pair].chance) == best[pair].higher_is_better


@pytest.mark.parametrize("name", list(METRICS))
def test_signature_and_docstring(name):
    metric = METRICS.get(name)
    assert list(inspect.signature(metric).parameters) == ["aligned", "raw"]
    documentation = inspect.getdoc(metric)
    assert documentation
    assert "higher is better" in documentation or "lower is better" in documentation
    assert ("higher is better" in documentation) == next(iter(scores_of(name, *sample(2)).values())).higher_is_better
