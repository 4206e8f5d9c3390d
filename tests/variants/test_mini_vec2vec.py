"""mini-vec2vec: the exchange of two against brute force, and unpaired halves of turned clusters."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from labkit.metrics.retrieval import recall_at_1
from labkit.types import Embeddings
from labkit.variants import get
from labkit.variants._unpaired import rotation, shuffled
from labkit.variants.mini_vec2vec import MiniVec2Vec, assign, exchange_gains


def symmetric(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made + made.mT


def test_the_gain_of_an_exchange_is_the_difference_of_two_sums():
    a, b = symmetric(2, 5), symmetric(2, 5, seed=1)
    gains = exchange_gains(a, b)
    for r in range(2):
        for s in range(5):
            for t in range(5):
                order = list(range(5))
                order[s], order[t] = t, s
                expected = (a[r] * b[r][order][:, order]).sum() - (a[r] * b[r]).sum()
                assert float(gains[r, s, t]) == pytest.approx(float(expected), abs=1e-12)


def test_the_assignment_is_the_best_of_all_permutations():
    a, b = symmetric(4, 6), symmetric(4, 6, seed=1)
    found = assign(a, b, starts=30, random=np.random.default_rng(0))
    for r in range(4):
        value = float((a[r] * b[r][found[r]][:, found[r]]).sum())
        best = max(float((a[r] * b[r][list(p)][:, list(p)]).sum()) for p in permutations(range(6)))
        assert value == pytest.approx(best)


def test_a_permuted_matrix_is_put_right():
    a = symmetric(3, 20)
    orders = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(s)) for s in range(3)])
    b = torch.stack([m[o][:, o] for m, o in zip(a, orders, strict=True)])
    found = assign(a, b, starts=30, random=np.random.default_rng(0))
    assert orders.gather(1, found).equal(torch.arange(20).expand(3, 20))


@pytest.fixture(scope="module")
def halves() -> tuple[Embeddings, Embeddings]:
    """1200 items of 30 clusters, half seen in one modality and half, turned, in the other; 200 pairs to test."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(30, 16, generator=generator).double()
    which = torch.multinomial(torch.rand(30, generator=generator) + 0.2, 1400, replacement=True, generator=generator)
    x = centers[which] + 0.3 * torch.randn(1400, 16, generator=generator)
    y = x @ torch.linalg.qr(torch.randn(16, 16, generator=generator).double()).Q
    data = Embeddings(key=np.arange(1400).astype(str), z={"a": x, "b": y})
    train = data.take(range(1200))
    left = torch.arange(1200) < 650
    return train.with_z(train.z, {"a": left, "b": ~left}), data.take(range(1200, 1400))


def test_it_recovers_a_rotation_from_halves_without_a_pair(halves):
    train, test = halves
    shared = MiniVec2Vec({"dim": 16, "repeats": 20}).fit(train, test).embed(test)
    assert float((shared.z["a"] * shared.z["b"]).sum(dim=1).mean()) > 0.95
    assert all(score.value > 0.9 for score in recall_at_1(shared, shared))


def test_the_order_of_the_training_items_is_never_used(shared_latent):
    data = shared_latent(90)
    generator = torch.Generator().manual_seed(3)
    other = data.with_z({m: v[torch.randperm(90, generator=generator)] for m, v in data.z.items()})
    first, second = (MiniVec2Vec({"dim": 8, "repeats": 3}).fit(d, d).embed(data) for d in (data, other))
    for m in data.modalities:
        assert first.z[m].allclose(second.z[m], atol=1e-5)


def test_clouds_are_shuffled_independently_of_the_order_they_come_in(generator):
    rows = torch.randn(50, 3, generator=generator)
    other = rows[torch.randperm(50, generator=generator)]
    first, second, third = (
        shuffled(z, np.random.default_rng([0, stream])) for z, stream in ((rows, 0), (other, 0), (rows, 1))
    )
    assert first.equal(second)
    assert not first.equal(third)
    assert not first.equal(rows)
    assert first.sort(dim=0).values.equal(rows.sort(dim=0).values)


def test_the_rotation_is_the_orthogonal_map_that_was_applied(generator):
    x = torch.randn(30, 4, generator=generator)
    q = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert rotation(x, x @ q).allclose(q, atol=1e-5)


def test_its_alias():
    assert get("mini-vec2vec") is MiniVec2Vec
