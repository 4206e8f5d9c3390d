"""Generalized Procrustes against scipy and against rotations that are known."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from scipy.stats import ortho_group

from labkit.variants import get
from labkit.variants.procrustes import generalized_procrustes


def cloud(n: int = 60, d: int = 6, seed: int = 0) -> torch.Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z - z.mean(dim=0)


def rotation(d: int, seed: int) -> torch.Tensor:
    return torch.as_tensor(ortho_group.rvs(d, random_state=seed))


def everyone(n: int, names) -> dict[str, torch.Tensor]:
    return {m: torch.ones(n, dtype=torch.bool) for m in names}


def residual(rotated, present) -> float:
    """Squared distance to the consensus, the mean over the modalities that a sample has."""
    masked = {m: r * present[m][:, None] for m, r in rotated.items()}
    count = sum(p.double() for p in present.values()).clamp(min=1)[:, None]
    consensus = sum(masked.values()) / count
    return sum(float(((r - consensus) * present[m][:, None]).square().sum()) for m, r in rotated.items())


def test_two_modalities_are_the_orthogonal_procrustes_problem():
    a, b = cloud(seed=0), cloud(seed=1)
    q = generalized_procrustes({"a": a, "b": b}, everyone(60, "ab"), iterations=50)
    theirs, _ = scipy.linalg.orthogonal_procrustes(b.numpy(), a.numpy())
    assert (q["b"] @ q["a"].T).numpy() == pytest.approx(theirs, abs=1e-8)


def test_known_rotations_of_three_clouds_are_undone():
    z, turns = cloud(), {m: rotation(6, seed) for seed, m in enumerate("abc")}
    present = everyone(60, "abc")
    q = generalized_procrustes({m: z @ r for m, r in turns.items()}, present, iterations=50)
    for m in "abc":
        assert (q[m] @ q[m].T).allclose(torch.eye(6, dtype=torch.float64))
        assert (turns[m] @ q[m]).allclose(turns["a"] @ q["a"], atol=1e-9)


def test_known_rotations_are_undone_with_missing_rows():
    z, generator = cloud(), torch.Generator().manual_seed(3)
    present = {m: torch.rand(60, generator=generator) > 0.3 for m in "abc"}
    turns = {m: rotation(6, seed) for seed, m in enumerate("abc")}
    scores = {m: (z @ r) * present[m][:, None] for m, r in turns.items()}
    q = generalized_procrustes(scores, present, iterations=200)
    for m in "abc":
        assert (turns[m] @ q[m]).allclose(turns["a"] @ q["a"], atol=1e-4)


def test_the_residual_never_rises_with_the_iterations():
    generator = torch.Generator().manual_seed(0)
    present = {m: torch.rand(60, generator=generator) > 0.3 for m in "abc"}
    scores = {m: cloud(seed=i) * present[m][:, None] for i, m in enumerate("abc")}
    found = []
    for iterations in range(1, 8):
        q = generalized_procrustes(scores, present, iterations=iterations)
        found.append(residual({m: a @ q[m] for m, a in scores.items()}, present))
    assert all(later <= earlier + 1e-12 for earlier, later in zip(found, found[1:], strict=False))
    assert found[-1] < found[0]
    unturned = residual(scores, present)
    assert found[0] < unturned


def test_no_rotation_of_a_modality_brings_it_nearer_to_the_consensus():
    """At the optimum (A_m Q_m)^T G is symmetric and positive, G being the mean over what each sample has."""
    generator = torch.Generator().manual_seed(0)
    present = {m: torch.rand(60, generator=generator) > 0.4 for m in "abc"}
    z = cloud()
    scores = {m: (z @ rotation(6, i) + cloud(seed=i + 1)) * present[m][:, None] for i, m in enumerate("abc")}
    q = generalized_procrustes(scores, present, iterations=5000)
    rotated = {m: a @ q[m] for m, a in scores.items()}
    consensus = sum(rotated.values()) / sum(p.double() for p in present.values()).clamp(min=1)[:, None]
    for m in "abc":
        gain = rotated[m].T @ consensus
        assert gain.allclose(gain.T, atol=1e-3 * float(gain.norm()))
        assert torch.linalg.eigvalsh(gain + gain.T).min() > -1e-3


def test_rotated_copies_coincide_in_the_shared_space(shared_latent):
    data = shared_latent(80)
    turned = data.z["image"] @ rotation(20, 5).float() * 7 + 2
    copies = data.with_z({"image": data.z["image"], "text": turned})
    shared = get("procrustes")({"dim": 20}).fit(copies, copies).embed(copies)
    assert shared.z["image"].allclose(shared.z["text"], atol=1e-4)


def test_more_dimensions_than_the_data_has(shared_latent):
    data = shared_latent(80)
    shared = get("procrustes")({"dim": 50}).fit(data, data).embed(data)
    assert shared.z["text"].shape == (80, 50)
    assert shared.z["text"].norm(dim=1).allclose(torch.ones(80))
