"""Neighborhood overlap against sets of neighbors, enumeration of ties and known values."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from labkit.metrics import METRICS, neighborhood_overlap
from labkit.types import Embeddings


def rotation(d: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def pair(x: torch.Tensor, y: torch.Tensor, **fields) -> Embeddings:
    return Embeddings(key=np.arange(len(x)), z={"image": x, "text": y}, **fields)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 10, 39])
def test_matches_sets_of_neighbors(k, dtype, device, generator):
    x = torch.randn(40, 6, generator=generator, dtype=dtype)
    y = x[:, :4] + 0.5 * torch.randn(40, 4, generator=generator, dtype=dtype)
    neighbors = [
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(z.numpy()).kneighbors(return_distance=False)
        for z in (x, y)
    ]
    expected = [len(set(a) & set(b)) / k for a, b in zip(*neighbors, strict=True)]
    overlap = neighborhood_overlap(x.to(device), y.to(device), k)
    assert overlap.device.type == device.type
    assert overlap.tolist() == pytest.approx(expected)


def test_ties_count_their_expectation_over_independent_draws():
    """Rays 0..5 with twins: every way to draw the k-th neighbor among tied ones, in both spaces."""
    x = torch.tensor([[1.0, 0], [1, 1], [1, 1], [1, -1], [0, 1], [-1, 0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, -1], [1, 0.2], [-1, 0]], dtype=torch.float64)
    for k in range(1, 6):
        drawn = [possible_neighbors(z, 0, k) for z in (x, y)]
        expected = np.mean([len(a & b) / k for a, b in itertools.product(*drawn)])
        assert neighborhood_overlap(x, y, k)[0].item() == pytest.approx(expected)


def possible_neighbors(x: torch.Tensor, query: int, k: int) -> list[set[int]]:
    unit = x / x.norm(dim=1, keepdim=True)
    similarity = (unit @ unit[query]).round(decimals=9)
    others = [j for j in range(len(x)) if j != query]
    choices = []
    for chosen in itertools.combinations(others, k):
        rest = [j for j in others if j not in chosen]
        if not rest or similarity[list(chosen)].min() >= similarity[rest].max():
            choices.append(set(chosen))
    return choices


def test_known_values(generator):
    x = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    name = "neighborhood_preservation"
    (same,) = METRICS.get(name)(data := pair(x, 2 * x @ rotation(8, generator)), data)
    assert same.value == pytest.approx(1)
    assert same.n == 60
    (constant,) = METRICS.get(name)(data := pair(x * 0 + 1, x * 0 + 2), data)
    assert constant.value == pytest.approx(0, abs=1e-12)


def test_unrelated_spaces_are_at_chance():
    values = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 50, 6, generator=generator)
        values.append(neighborhood_overlap(x, y, 10).mean().item())
    assert np.mean(values) == pytest.approx(10 / 49, abs=4 * np.std(values) / np.sqrt(60))


def test_only_samples_with_both_are_neighbors(generator):
    x = torch.randn(40, 5, generator=generator)
    y = x + 0.3 * torch.randn(40, 5, generator=generator)
    both = torch.arange(40) % 4 > 0
    (score,) = METRICS.get("neighborhood_preservation")(data := pair(x, y, present={"text": both}), data)
    chance = 10 / 29
    expected = (neighborhood_overlap(x[both], y[both], 10) - chance) / (1 - chance)
    torch.testing.assert_close(score.per_point[both], expected)
    assert score.per_point[~both].isnan().all()
    assert score.n == 30


def test_kept_compares_each_modality_with_its_encoder(generator):
    raw = pair(torch.randn(40, 9, generator=generator), torch.randn(40, 7, generator=generator))
    turned = raw.z["text"] @ rotation(7, generator).float()
    aligned = raw.with_z({"image": torch.randn(40, 7, generator=generator), "text": turned})
    image, text = METRICS.get("neighborhood_kept")(aligned, raw)
    assert (image.source, text.source) == ("image", "text")
    assert text.value == pytest.approx(1)
    assert abs(image.value) < 0.15


def test_kept_counts_samples_the_encoder_saw(generator):
    """A method may fill in absent samples; there is nothing of theirs to keep."""
    seen = torch.arange(40) < 25
    raw = pair(*torch.randn(2, 40, 5, generator=generator), present={"text": seen})
    filled = raw.with_z(
        raw.z | {"text": torch.where(seen[:, None], raw.z["text"], torch.ones(5))},
        present={m: torch.ones(40, dtype=torch.bool) for m in raw.modalities},
    )
    _, text = METRICS.get("neighborhood_kept")(filled, raw)
    assert text.n == 25
    assert text.value == pytest.approx(1)


def test_kept_refuses_other_samples(generator):
    raw = pair(*torch.randn(2, 20, 4, generator=generator))
    with pytest.raises(ValueError, match="same samples"):
        METRICS.get("neighborhood_kept")(raw.take(np.arange(20)[::-1]), raw)
    with pytest.raises(ValueError, match="no modality"):
        METRICS.get("neighborhood_kept")(raw, raw.select(["image"]))


@pytest.mark.parametrize(("n", "scores"), [(11, 0), (12, 1)])
def test_too_few_samples_have_no_score(n, scores, generator):
    data = pair(*torch.randn(2, n, 4, generator=generator))
    assert len(METRICS.get("neighborhood_preservation")(data, data)) == scores


@pytest.mark.parametrize("k", [0, 20])
def test_k_outside_the_samples_is_refused(k, generator):
    x = torch.randn(20, 3, generator=generator)
    with pytest.raises(ValueError, match="between 1 and n - 1 = 19"):
        neighborhood_overlap(x, x, k)
