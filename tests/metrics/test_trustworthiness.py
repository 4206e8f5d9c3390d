"""Trustworthiness and continuity against scikit-learn and limits."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from labkit.metrics import continuity, trustworthiness


@pytest.mark.parametrize("k", [1, 5, 24])
def test_mean_is_scikit_learns(k, device, generator):
    x = torch.randn(50, 8, generator=generator, dtype=torch.float64)
    picture = torch.as_tensor(PCA(2).fit_transform(x.numpy()))
    per_point = trustworthiness(x.to(device), picture.to(device), k)
    assert per_point.shape == (50,)
    expected = sklearn_trustworthiness(x.numpy(), picture.numpy(), n_neighbors=k)
    assert per_point.mean().item() == pytest.approx(expected, abs=1e-12)
    expected = sklearn_trustworthiness(picture.numpy(), x.numpy(), n_neighbors=k)
    assert continuity(x.to(device), picture.to(device), k).mean().item() == pytest.approx(expected, abs=1e-12)


def test_per_point_matches_loops(generator):
    n, k = 20, 4
    x, picture = torch.randn(n, 5, generator=generator), torch.randn(n, 2, generator=generator)
    values = trustworthiness(x, picture, k)
    for i in range(n):
        by_data, by_picture = (
            sorted((j for j in range(n) if j != i), key=lambda j, z=z: float((z[i] - z[j]).norm()))
            for z in (x, picture)
        )
        intruders = set(by_picture[:k]) - set(by_data[:k])
        penalty = sum(by_data.index(j) + 1 - k for j in intruders)
        assert values[i].item() == pytest.approx(1 - 2 * penalty / (k * (2 * n - 3 * k - 1)))


def test_limits(generator):
    x = torch.randn(300, 2, generator=generator)
    assert (trustworthiness(x, 3 * x + 1, 10) == 1).all()
    assert (continuity(x, 3 * x + 1, 10) == 1).all()
    noise = torch.randn(300, 2, generator=generator)
    assert trustworthiness(x, noise, 10).mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_worst_picture_of_a_point_has_no_trust():
    """The k farthest points of the data drawn as the nearest: exactly 0, the lower end of the range."""
    line = np.arange(21.0)[:, None]
    drawn = np.where(line == 0, 100, line)
    values = trustworthiness(line, drawn, 4)
    assert values[0].item() == pytest.approx(0, abs=1e-12)
    assert (values <= 1).all()


def test_blocks_of_points_change_nothing(monkeypatch, generator):
    x, picture = torch.randn(30, 5, generator=generator), torch.randn(30, 2, generator=generator)
    whole = trustworthiness(x, picture, 3)
    monkeypatch.setattr(
        "labkit.metrics.projection.blocks", lambda rows, _: (slice(i, i + 7) for i in range(0, rows, 7))
    )
    torch.testing.assert_close(trustworthiness(x, picture, 3), whole)


def test_a_torn_point_loses_trust_alone():
    """A line laid out truly, except that its first point is drawn among the last ones."""
    line = np.arange(40.0)[:, None]
    drawn = line.copy()
    drawn[0] = 39.5
    values = trustworthiness(line, drawn, 3)
    assert values.argmin() == 0
    assert values[0] < 0.1
    assert (values[5:35] == 1).all()


@pytest.mark.parametrize("k", [0, 5])
def test_k_must_be_below_half(k, generator):
    x = torch.randn(10, 3, generator=generator)
    with pytest.raises(ValueError, match="below n / 2 = 5"):
        trustworthiness(x, x, k)
