"""GW matching on copies of a cloud: what it finds, and what it says where there is nothing to find."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.types import Embeddings
from labkit.variants._unpaired import UnmatchedWarning
from labkit.variants.gw_matching import Certificate, GWMatching


def copies(n: int = 120, d: int = 6, *, noise: float = 0.0, modalities: int = 2) -> Embeddings:
    """A cloud without symmetries and turned copies of it, in one order."""
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(n, d, generator=generator).double() * torch.linspace(2, 0.5, d)
    z = {"a": cloud}
    for m in "bcd"[: modalities - 1]:
        turn = torch.linalg.qr(torch.randn(d, d, generator=generator).double()).Q
        z[m] = 3 + 5 * (cloud @ turn + noise * torch.randn(n, d, generator=generator))
    return Embeddings(key=np.arange(n).astype(str), z=z)


def scrambled(data: Embeddings, seed: int = 7) -> Embeddings:
    """The same items, every modality in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    return data.with_z({m: v[torch.randperm(len(v), generator=generator)] for m, v in data.z.items()})


def cosines(aligner: GWMatching, data: Embeddings) -> torch.Tensor:
    shared = aligner.embed(data).z
    return torch.stack([(shared["a"] * z).sum(dim=1).min() for z in shared.values()])


@pytest.mark.parametrize("modalities", [2, 3])
def test_turned_copies_are_recovered_exactly_without_a_pair(modalities):
    data = copies(modalities=modalities)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnmatchedWarning)
        aligner = GWMatching({"dim": 6, "epsilon": 0.01}).fit(scrambled(data), data)
    assert (cosines(aligner, data) > 1 - 1e-4).all()
    for m in data.modalities[1:]:
        certificate = aligner.certificates[m]
        assert not certificate.doubtful
        assert certificate.left < 1e-3
        assert certificate.lower_bound <= certificate.distortion


def test_clouds_of_different_sizes_are_matched(tmp_path):
    data = copies(150, noise=0.1)
    part = data.with_z(data.z, {"a": torch.arange(150) < 130, "b": torch.arange(150) >= 15})
    aligner = GWMatching({"dim": 6}).fit(part, data)
    shared = aligner.embed(data).z
    assert float((shared["a"] * shared["b"]).sum(dim=1).mean()) > 0.95
    aligner.save(tmp_path)
    again = variants.load(tmp_path)
    assert isinstance(again, GWMatching)
    assert again.certificates == aligner.certificates


@pytest.mark.filterwarnings("ignore::labkit.variants._unpaired.UnmatchedWarning")
@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_the_order_of_the_training_items_is_never_used(noise):
    data = copies(80, noise=noise)
    first, second, third = (
        GWMatching({"dim": 6}).fit(d, data).embed(data) for d in (data, *map(scrambled, (data,) * 2))
    )
    for m in data.modalities:
        assert first.z[m].allclose(second.z[m], atol=1e-5)
        assert first.z[m].allclose(third.z[m], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_clouds_that_have_nothing_to_do_with_each_other_are_reported(seed):
    generator = torch.Generator().manual_seed(seed)
    z = {m: torch.randn(100, 6, generator=generator) for m in "ab"}
    data = Embeddings(key=np.arange(100).astype(str), z=z)
    aligner = GWMatching({"dim": 6})
    with pytest.warns(UnmatchedWarning, match="the matching of 'b' by distances alone is in doubt"):
        aligner.fit(data, data)
    assert aligner.certificates["b"].doubtful


def test_a_symmetric_cloud_has_other_matchings_that_are_as_good():
    """A regular polygon can be turned onto itself in many ways: there is no telling which was meant."""
    angle = 2 * torch.pi * torch.arange(24) / 24
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    data = Embeddings(key=np.arange(24).astype(str), z={"a": circle, "b": circle})
    aligner = GWMatching({"dim": 2, "starts": 8, "epsilon": 0.01})
    with pytest.warns(UnmatchedWarning, match=r"other matching\(s\) are about as good"):
        aligner.fit(data, data)
    assert aligner.certificates["b"].left < 0.05


def test_what_is_left_is_a_share_of_the_way_to_no_matching():
    assert Certificate(0.3, 0.1, 0.9, 0).left == pytest.approx(0.25)
    assert Certificate(0.1, 0.1, 0.1, 0).left == 0
    assert Certificate(0.11, 0.1, 0.9, 2).doubtful
    assert not Certificate(0.11, 0.1, 0.9, 0).doubtful


def test_its_alias():
    assert variants.get("gw-matching") is GWMatching
