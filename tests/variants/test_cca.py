"""MAXVAR CCA against scikit-learn, the SVD of the whitened cross-covariance and a dense generalized eigenproblem."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.cross_decomposition import CCA as SklearnCCA

from labkit.variants import get
from labkit.variants.cca import maxvar

NO_RIDGE = 1e-12


def centered(data, *, missing: bool = False):
    present = data.present if missing else {m: torch.ones(len(data), dtype=torch.bool) for m in data.z}
    rows = {m: v.double() for m, v in data.z.items()}
    return {m: (v - v[present[m]].mean(dim=0)) * present[m][:, None] for m, v in rows.items()}, present


def whitened_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Singular values of Cxx^-1/2 Cxy Cyy^-1/2, through orthonormal bases of the column spaces."""
    return scipy.linalg.svdvals(scipy.linalg.orth(x).T @ scipy.linalg.orth(y))


def objective(x, present, consensus: np.ndarray) -> float:
    """Sum over modalities of the squared distance of the consensus to the modality's column space."""
    total = 0.0
    for m, rows in x.items():
        here = present[m].numpy()
        a, g = rows.numpy()[here], consensus[here]
        total += float(np.square(g - a @ np.linalg.lstsq(a, g, rcond=None)[0]).sum())
    return total


def test_two_complete_modalities_give_the_canonical_correlations(shared_latent):
    x, present = centered(shared_latent(200, noise=2.0))
    directions, eigenvalues = maxvar(x, present, dim=8, ridge=NO_RIDGE)
    rho = whitened_correlations(x["image"].numpy(), x["text"].numpy())[:8]
    assert eigenvalues.numpy() == pytest.approx((1 + rho) / 2, abs=1e-6)
    variates = [(x[m] @ directions[m]).numpy() for m in x]
    found = [np.corrcoef(variates[0][:, k], variates[1][:, k])[0, 1] for k in range(8)]
    assert found == pytest.approx(list(rho), abs=1e-6)


def test_the_canonical_variates_are_those_of_scikit_learn(shared_latent):
    x, present = centered(shared_latent(200, noise=2.0))
    directions, _ = maxvar(x, present, dim=2, ridge=NO_RIDGE)
    model = SklearnCCA(n_components=2, scale=False, max_iter=5000, tol=1e-12)
    theirs = model.fit_transform(x["image"].numpy(), x["text"].numpy())
    for m, other in zip(x, theirs, strict=True):
        ours = (x[m] @ directions[m]).numpy()
        for k in range(2):
            assert abs(np.corrcoef(ours[:, k], other[:, k])[0, 1]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("missing", [False, True])
def test_three_modalities_solve_the_dense_eigenproblem(shared_latent, missing):
    x, present = centered(shared_latent(90, 3, noise=2.0, missing=0.3), missing=missing)
    n, dim = 90, 5
    directions, eigenvalues = maxvar(x, present, dim=dim, ridge=NO_RIDGE)
    projectors = sum(a.numpy() @ np.linalg.pinv(a.numpy()) for a in x.values())
    counts = np.diag(sum(p.numpy().astype(float) for p in present.values()))
    values, vectors = scipy.linalg.eigh(projectors, counts, subset_by_index=[n - dim, n - 1])
    assert eigenvalues.numpy() == pytest.approx(values[::-1], abs=1e-6)
    # the directions are the regressions on the consensus, which solves the stated objective
    consensus = vectors[:, ::-1]
    for m in x:
        best = np.linalg.lstsq(x[m].numpy(), np.where(present[m].numpy()[:, None], consensus, 0), rcond=None)[0]
        ours = (x[m] @ directions[m]).numpy()
        theirs = x[m].numpy() @ best
        assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-6)
    least = objective(x, present, consensus)
    assert least == pytest.approx(dim - eigenvalues.sum().item(), abs=1e-6)
    rng = np.random.default_rng(0)
    for scale in (0.01, 1.0):
        other = consensus + scale * rng.normal(size=consensus.shape) / np.sqrt(n)
        root = scipy.linalg.sqrtm(other.T @ counts @ other).real
        assert objective(x, present, other @ np.linalg.inv(root)) > least


def test_an_invertible_map_of_a_modality_changes_nothing_without_ridge(shared_latent):
    data = shared_latent(200, noise=1.0)
    torch.manual_seed(0)
    bent = data.with_z({**data.z, "text": data.z["text"] @ torch.randn(22, 22) + 3})
    options = {"dim": 6, "components": 64, "ridge": 0.0}
    first, second = (get("cca")(options).fit(d, d).embed(d) for d in (data, bent))
    for m in data.modalities:
        assert first.z[m].allclose(second.z[m], atol=1e-3)


def test_ridge_shrinks_the_eigenvalues(shared_latent):
    x, present = centered(shared_latent(100, 3, noise=1.0))
    plain, ridged = (maxvar(x, present, dim=5, ridge=r)[1] for r in (0.0, 0.3))
    assert (ridged < plain).all()
    assert ridged.diff().le(0).all()
    assert ((ridged > 0) & (plain < 1)).all()


def test_more_coordinates_than_the_data_has_are_zero(shared_latent):
    data = shared_latent(40)
    shared = get("cca")({"dim": 100, "components": 30}).fit(data, data).embed(data)
    assert shared.z["image"].shape == (40, 100)
    assert (shared.z["image"][:, 60:] == 0).all()
