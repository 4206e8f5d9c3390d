"""Alternating diffusion on circles: one that both views share, and one of each view's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.types import Embeddings
from labkit.variants import get
from labkit.variants.alternating_diffusion import bistochastic, common_coordinates, gaussian, kernel_width


@pytest.fixture(scope="module")
def circles() -> tuple[Embeddings, dict[str, torch.Tensor]]:
    """Two views of 800 points: each sees a common angle and a private one, turned into general position."""
    generator = torch.Generator().manual_seed(0)
    angles = {m: 2 * torch.pi * torch.rand(800, generator=generator).double() for m in ("common", "image", "text")}
    z = {}
    for m in ("image", "text"):
        both = [f(angles[a]) * radius for a, radius in (("common", 1.0), (m, 1.0)) for f in (torch.cos, torch.sin)]
        turn = torch.linalg.qr(torch.randn(4, 4, generator=generator).double()).Q
        z[m] = torch.stack(both, dim=1) @ turn
    return Embeddings(key=np.arange(800).astype(str), z=z), angles


def explained(coordinates: torch.Tensor, angle: torch.Tensor) -> float:
    """Share of the variance of (cos, sin) of the angle that is linear in the coordinates."""
    target = torch.stack([angle.cos(), angle.sin()], dim=1)
    target = target - target.mean(dim=0)
    inputs = coordinates.double() - coordinates.double().mean(dim=0)
    fitted = inputs @ torch.linalg.lstsq(inputs, target).solution
    return float(fitted.square().sum() / target.square().sum())


def test_it_recovers_the_common_circle_and_suppresses_the_private_ones(circles):
    data, angles = circles
    train, test = data.take(range(600)), data.take(range(600, 800))
    rest = {m: a[600:] for m, a in angles.items()}
    aligner = get("alternating_diffusion")({"dim": 2, "steps": 0, "neighbors": 20, "ridge": 0.1}).fit(train, train)
    shared = aligner.embed(test)
    for m, other in (("image", "text"), ("text", "image")):
        assert explained(shared.z[m], rest["common"]) > 0.95
        assert explained(shared.z[m], rest[m]) < 0.1
        assert explained(shared.z[m], rest[other]) < 0.1


def test_one_modality_alone_does_not_tell_the_circles_apart(circles):
    """Control: the leading eigenvectors of either walk have both circles."""
    data, angles = circles
    for m in data.modalities:
        kernel = gaussian(data.z[m], data.z[m], kernel_width(data.z[m], 20))
        everyone = torch.ones(800, dtype=torch.bool)
        alone = common_coordinates({"x": kernel, "y": kernel}, {"x": everyone, "y": everyone}, dim=4, steps=0)
        assert explained(alone, angles["common"]) > 0.9
        assert explained(alone, angles[m]) > 0.9


def test_the_walk_is_the_mean_of_the_products_of_two_walks(generator):
    points = {m: torch.randn(12, 3, generator=generator, dtype=torch.float64) for m in "abc"}
    kernels = {m: gaussian(p, p, torch.tensor(4.0)) for m, p in points.items()}
    present = dict.fromkeys("abc", torch.ones(12, dtype=torch.bool))
    found = common_coordinates(kernels, present, dim=3, steps=1)
    walks = {m: bistochastic(k).numpy() for m, k in kernels.items()}
    walk = np.mean([walks[a] @ walks[b] for a in "abc" for b in "abc" if a != b], axis=0)
    assert walk.sum(axis=1) == pytest.approx(np.ones(12), abs=1e-6)
    for k, vector in enumerate(found.numpy().T):
        value = np.linalg.norm(vector) / np.sqrt(12)  # eigenvectors have mean square 1
        assert walk @ vector == pytest.approx(value * vector, abs=1e-6)
        assert value == pytest.approx(np.sort(np.linalg.eigvalsh(walk))[-2 - k], abs=1e-6)


def test_where_a_sample_lacks_a_modality_the_walk_stays(generator):
    points = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    here = torch.arange(10) < 7
    kernels = {m: gaussian(p, p, torch.tensor(4.0)) for m, p in (("a", points), ("b", points[:7]))}
    found = common_coordinates(kernels, {"a": torch.ones(10, dtype=torch.bool), "b": here}, dim=2, steps=1)
    step_b = np.eye(10)
    step_b[:7, :7] = bistochastic(kernels["b"])
    step_a = bistochastic(kernels["a"]).numpy()
    walk = (step_a @ step_b + step_b @ step_a) / 2
    for vector in found.numpy().T:
        assert walk @ vector == pytest.approx(np.linalg.norm(vector) / np.sqrt(10) * vector, abs=1e-6)


def test_a_kernel_is_made_bistochastic_by_a_diagonal_scaling(generator):
    points = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    kernel = gaussian(points, points, torch.tensor(0.5))
    walk = bistochastic(kernel)
    assert walk.allclose(walk.T, rtol=1e-12)
    assert walk.sum(dim=1).allclose(torch.ones(30, dtype=torch.float64), atol=1e-7)
    ratio = (walk / kernel).log()  # log of d_i d_j: of additive rank
    assert (ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0]).abs().max() < 1e-8


def test_what_is_far_from_everything_is_placed_like_what_is_nearest(shared_latent):
    data = shared_latent(60)
    aligner = get("alternating_diffusion")().fit(data, data)
    far = aligner.embed(data.with_z({m: 1e4 * v for m, v in data.z.items()}))
    for z in far.z.values():
        assert z.norm(dim=1).allclose(torch.ones(()), atol=1e-5)


def test_copies_have_a_kernel():
    rows = torch.tensor([[0.0, 1.0]] * 5 + [[3.0, 1.0]], dtype=torch.float64)
    kernel = gaussian(rows, rows, kernel_width(rows, 2))
    assert torch.isfinite(bistochastic(kernel)).all()
    assert kernel[0, 1] == 1


def test_its_alias():
    assert get("alternating-diffusion") is get("alternating_diffusion")
