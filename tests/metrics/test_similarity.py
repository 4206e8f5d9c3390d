"""Similarities of spaces: SciPy, explicit Gram matrices, invariances, and the table of blind spots."""

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

from labkit.metrics import (
    METRICS,
    centroid_gap,
    cosine_similarity,
    linear_cka,
    paired_distance,
    procrustes_disparity,
    rankme,
    recall_at_k,
    sphere_uniformity,
)
from labkit.types import Embeddings


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed))[0]


def hsic_u_from_gram(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, literally."""
    n = len(x)
    k, l = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    cross = one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + cross - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


@pytest.mark.parametrize(("n", "d", "e"), [(4, 3, 2), (30, 5, 50), (60, 8, 8)])
def test_debiased_cka_is_song_et_al(n, d, e, device):
    x, y = normal(n, d), normal(n, e, seed=3) + 5
    y[:, 0] += x[:, 0]
    own = hsic_u_from_gram(x.numpy(), x.numpy()) * hsic_u_from_gram(y.numpy(), y.numpy())
    expected = hsic_u_from_gram(x.numpy(), y.numpy()) / np.sqrt(own)
    assert linear_cka(x.to(device), y.to(device)) == pytest.approx(expected, abs=1e-10)


def test_biased_cka_is_centered_gram_alignment():
    x, y = normal(20, 5), normal(20, 7, seed=2) + 1
    center = np.eye(20) - 1 / 20
    k, l = (center @ z.numpy() @ z.numpy().T @ center for z in (x, y))
    expected = np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))
    assert linear_cka(x, y, debiased=False) == pytest.approx(expected, abs=1e-12)


def test_debiasing_matters_when_dimensions_exceed_samples():
    """Independent Gaussians, n = 50, d = 500: the biased form calls them similar."""
    pairs = [(normal(50, 500, seed=2 * s), normal(50, 500, seed=2 * s + 1)) for s in range(20)]
    assert np.mean([linear_cka(x, y, debiased=False) for x, y in pairs]) == pytest.approx(0.91, abs=0.01)
    assert np.mean([linear_cka(x, y) for x, y in pairs]) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_invariances(debiased):
    x, y = normal(40, 6), normal(40, 9, seed=5)
    y[:, :6] += x
    value = linear_cka(x, y, debiased=debiased)
    moved = 3 * y @ rotation(9) + 100
    assert linear_cka(x, moved, debiased=debiased) == pytest.approx(value, abs=1e-9)
    assert linear_cka(y, x, debiased=debiased) == pytest.approx(value, abs=1e-12)
    assert linear_cka(x, 2 * x @ rotation(6) - 1, debiased=debiased) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_space_is_dissimilar_not_undefined(dtype):
    x = normal(30, 5).to(dtype)
    constant = torch.full((30, 5), 0.1, dtype=dtype) * (1 + torch.finfo(dtype).eps * normal(30, 1).sign().to(dtype))
    assert linear_cka(x, constant) == linear_cka(constant, constant) == 0
    assert linear_cka(x, constant, debiased=False) == 0
    assert procrustes_disparity(x, constant) == 1
    outlier = torch.zeros(30, 5, dtype=dtype)
    outlier[0] = 1  # off-diagonal similarities are all equal: HSIC_u of it is 0
    assert linear_cka(outlier, outlier) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_procrustes_is_scipys_disparity(dtype):
    """SciPy needs equal dimensions: zero-padding the smaller space is ours."""
    x, y = normal(30, 6).numpy().astype(dtype), normal(30, 4, seed=4).numpy().astype(dtype)
    expected = scipy_procrustes(x.astype(np.float64), np.pad(y, ((0, 0), (0, 2))).astype(np.float64))[2]
    assert procrustes_disparity(x, y) == pytest.approx(expected, abs=1e-10)
    assert procrustes_disparity(y, x) == pytest.approx(expected, abs=1e-10)


def test_procrustes_is_zero_for_a_similar_copy(device):
    x = normal(30, 6).to(device)
    assert procrustes_disparity(x, -2 * x @ rotation(6).to(device) + 7) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_cosine_similarity_is_scikit_learns(dtype, tolerance, device):
    x, y = (5 * normal(20, 6)).to(dtype), normal(30, 6, seed=2).to(dtype)
    x[3] = 0
    expected = sklearn_cosine(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(cosine_similarity(x.to(device), y.to(device)).cpu(), expected, atol=tolerance)


def test_gap_of_separated_cones():
    x = torch.tensor([[2.0, 0.0], [5.0, 0.0]])
    assert centroid_gap(x, -x) == pytest.approx(2)
    assert centroid_gap(x, 3 * x) == 0
    assert centroid_gap(x, torch.tensor([[0.0, 9.0]])) == pytest.approx(np.sqrt(2))


def test_paired_distance_is_two_minus_two_cosines():
    x, y = normal(20, 5), normal(20, 5, seed=2)
    torch.testing.assert_close(paired_distance(x, y), 2 - 2 * torch.cosine_similarity(x, y))


def test_uniformity_against_scipy_and_limits():
    x = normal(25, 4)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    assert sphere_uniformity(x) == pytest.approx(np.log(np.mean(np.exp(-2 * pdist(unit) ** 2))))
    assert sphere_uniformity(torch.ones(10, 3)) == pytest.approx(0, abs=1e-12)
    assert sphere_uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)
    assert sphere_uniformity(normal(400, 512)) == pytest.approx(-4, abs=0.05)


def test_rankme_known_values():
    assert rankme(torch.eye(7)) == pytest.approx(7)
    assert rankme(torch.ones(20, 5)) == pytest.approx(1)
    assert rankme(torch.zeros(3, 3)) == 0
    share = np.array([3, 1]) / 4
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_table_of_blind_spots():
    """What each measure sees of a rotated, shuffled or shifted copy: no single one is enough."""
    n, d = 200, 10
    x = normal(n, d)
    copies = {
        "identical": x,
        "rotated": x @ rotation(d),
        "shuffled": x[torch.randperm(n, generator=torch.Generator().manual_seed(2))],
        "shifted": x + 2 * torch.eye(d, dtype=x.dtype)[0],
    }
    paired = torch.eye(n, dtype=torch.bool)
    table = {
        name: (
            linear_cka(x, y, debiased=False),
            linear_cka(x, y),
            procrustes_disparity(x, y),
            centroid_gap(x, y),
            recall_at_k(cosine_similarity(x, y), paired, 1).mean().item(),
        )
        for name, y in copies.items()
    }
    assert table["identical"] == pytest.approx((1, 1, 0, 0, 1), abs=1e-9)
    cka, debiased, disparity, gap, recall = table["rotated"]
    assert (cka, debiased, disparity) == pytest.approx((1, 1, 0), abs=1e-9)  # blind
    assert gap < 0.15  # nearly blind
    assert recall < 0.05
    cka, debiased, disparity, gap, recall = table["shuffled"]
    assert cka == pytest.approx(d / n, abs=0.05)
    assert debiased == pytest.approx(0, abs=0.03)
    assert disparity > 0.9
    assert gap == pytest.approx(0, abs=1e-9)  # blind
    assert recall < 0.05
    cka, debiased, disparity, gap, recall = table["shifted"]
    assert (cka, debiased, disparity) == pytest.approx((1, 1, 0), abs=1e-9)  # blind
    assert gap > 0.4
    assert recall < 0.95


@pytest.mark.parametrize("measure", [linear_cka, procrustes_disparity, paired_distance])
def test_rows_must_match(measure):
    with pytest.raises(ValueError, match="got 10 and 9 rows"):
        measure(normal(10, 3), normal(9, 3))


@pytest.mark.parametrize("measure", [linear_cka, procrustes_disparity])
def test_too_few_samples_are_refused(measure):
    with pytest.raises(ValueError, match="needs at least"):
        measure(normal(1, 3), normal(1, 3))


@pytest.mark.parametrize("measure", [centroid_gap, paired_distance, cosine_similarity])
def test_dimensions_must_match(measure):
    with pytest.raises(ValueError, match="one dimension; got 3 and 4"):
        measure(normal(5, 3), normal(5, 4))


@pytest.mark.parametrize("bad", [torch.ones(4), torch.ones(4, 2, dtype=torch.int64), torch.full((4, 2), torch.nan)])
def test_only_finite_matrices_are_measured(bad):
    with pytest.raises(ValueError, match="x "):
        rankme(bad)


def test_registered_pairs_use_samples_with_both():
    x, y = normal(30, 4), normal(30, 4, seed=9)
    both = torch.arange(30) < 20
    data = Embeddings(key=np.arange(30), z={"image": x, "text": y}, present={"text": both})
    for name, measure in {
        "cka": linear_cka,
        "procrustes": procrustes_disparity,
        "modality_gap": centroid_gap,
    }.items():
        (score,) = METRICS.get(name)(data, data)
        assert score.value == pytest.approx(measure(x[:20], y[:20])), name
        assert score.n == 20
