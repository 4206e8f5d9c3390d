"""CSA against the weighted sum of its formula, the SVD of whitened covariances and MAXVAR by samples."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from labkit.variants import get
from labkit.variants.cca import maxvar
from labkit.variants.csa import canonical


def centered(data):
    present = data.present
    z = {m: v.double() for m, v in data.z.items()}
    return {m: (v - v[present[m]].mean(dim=0)) * present[m][:, None] for m, v in z.items()}, present


def inverse_root(x: np.ndarray, ridge: float) -> np.ndarray:
    covariance = x.T @ x / len(x)
    shift = ridge * np.trace(covariance) / len(covariance)
    return scipy.linalg.fractional_matrix_power(covariance + shift * np.eye(len(covariance)), -0.5)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_product_of_embeddings_is_the_weighted_sum_of_canonical_correlations(shared_latent, ridge):
    data = shared_latent(200, noise=2.0)
    found = get("csa")({"dim": 6, "ridge": ridge}).fit(data, data).embed(data)
    x, y = (v.numpy() for v in centered(data)[0].values())
    root_x, root_y = inverse_root(x, ridge), inverse_root(y, ridge)
    u, rho, vh = np.linalg.svd(root_x @ (x.T @ y / len(x)) @ root_y)
    variates_x, variates_y = x @ root_x @ u[:, :6], y @ root_y @ vh[:6].T
    for i, j in ((0, 0), (3, 17), (150, 2)):
        a = variates_x[i] / np.linalg.norm(variates_x[i])
        b = variates_y[j] / np.linalg.norm(variates_y[j])
        expected = sum(rho[k] * a[k] * b[k] for k in range(6))
        assert float(found.z["image"][i] @ found.z["text"][j]) == pytest.approx(expected, abs=1e-5)


def test_the_variates_of_three_complete_modalities_are_those_of_maxvar(shared_latent):
    x, present = centered(shared_latent(200, 3, noise=2.0))
    directions, rho = canonical(x, present, dim=5, ridge=0.0)
    expected, eigenvalues = maxvar(x, present, dim=5, ridge=1e-12)
    assert rho.numpy() == pytest.approx((3 * eigenvalues.numpy() - 1) / 2, abs=1e-5)
    for m in x:
        for k in range(5):
            ours, theirs = ((x[m] @ d[m])[:, k].numpy() for d in (directions, expected))
            assert abs(np.corrcoef(ours, theirs)[0, 1]) == pytest.approx(1, abs=1e-5)


def test_it_is_the_same_whatever_the_order_of_two_modalities(shared_latent):
    data = shared_latent(120, noise=1.0)
    swapped = data.select(["text", "image"])
    first, second = (get("csa")().fit(d, d).embed(d) for d in (data, swapped))
    products = [e.z["image"] @ e.z["text"].T for e in (first, second)]
    assert products[0].allclose(products[1], atol=1e-5)


def test_coordinates_that_do_not_correlate_weigh_little(generator):
    shared = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    x, y = (torch.cat([shared, torch.randn(4000, 3, generator=generator, dtype=torch.float64)], dim=1) for _ in "ab")
    present = {m: torch.ones(4000, dtype=torch.bool) for m in "ab"}
    _, rho = canonical({"a": x - x.mean(dim=0), "b": y - y.mean(dim=0)}, present, dim=4, ridge=0.0)
    assert rho[0] == pytest.approx(1, abs=1e-3)
    assert (rho[1:] < 0.1).all()
