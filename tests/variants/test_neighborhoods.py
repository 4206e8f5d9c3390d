"""Lists of neighbors give what a search of the batch gives, and say so where they cannot."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import TrainingConfig
from labkit.geometry import knn
from labkit.variants._neighborhoods import Neighborhoods
from labkit.variants._trained import Pair, Trained


class Recorder(Trained):
    """Keeps the neighbor sets that it finds while it trains, and the rows they are of."""

    seen: ClassVar[list[tuple[Pair, tuple[torch.Tensor, torch.Tensor]]]] = []

    def pair_terms(self, pair):
        self.seen.append((pair, pair.neighbors(5)))
        return {"size": pair.x.square().mean()}


def test_listed_neighbors_are_those_of_the_batch(shared_latent, device):
    data = shared_latent(200, missing=0.3).to(device)
    near = Neighborhoods(data)
    for batch in torch.randperm(200, generator=torch.Generator().manual_seed(0)).split(100):
        both = (data.present["image"] & data.present["text"]).cpu()[batch]
        rows = near.rows(data.key[batch.numpy()])
        assert rows is not None
        assert rows.cpu().equal(batch)
        for m in data.modalities:
            listed = near.among(m, rows[both], 5)
            assert listed is not None
            assert listed.equal(knn(data.z[m][batch[both]], 5))


def test_samples_of_other_data_are_not_listed(shared_latent):
    assert Neighborhoods(shared_latent(20)).rows(np.array(["thing3", "nobody"])) is None


def test_lists_that_end_too_early_say_nothing(shared_latent):
    near = Neighborhoods(shared_latent(400))
    assert near.among("image", torch.arange(400), 5) is not None, "makes lists for batches of everything"
    assert near.among("image", torch.arange(20), 5) is None


def test_lists_beyond_the_memory_are_not_made(shared_latent, monkeypatch):
    data = shared_latent(100)
    monkeypatch.setattr("labkit.variants._neighborhoods.LARGEST", 100)
    assert Neighborhoods(data).among("image", torch.arange(50), 5) is None


def test_lists_are_the_same_in_blocks(shared_latent, monkeypatch):
    data, rows = shared_latent(100), torch.arange(100)
    whole = Neighborhoods(data).among("image", rows, 5)
    monkeypatch.setattr("labkit.variants._neighborhoods.LARGEST", 100 * 30)  # the lists of 20 fit, not the 100 x 100
    assert whole is not None
    blocks = Neighborhoods(data).among("image", rows, 5)
    assert blocks is not None
    assert blocks.equal(whole)


@pytest.mark.parametrize("batch_size", [20, 64])
def test_training_uses_the_lists_and_forgets_them(shared_latent, batch_size):
    Recorder.seen.clear()
    data = shared_latent(150, 3, missing=0.2)
    training = TrainingConfig(epochs=2, batch_size=batch_size)
    aligner = Recorder({"dim": 8}, training=training).fit(data, data)
    assert aligner._neighborhoods is None
    assert len(Recorder.seen) == 2 * 3 * (150 // batch_size)
    for pair, found in Recorder.seen:
        assert pair.near is not None
        for index, raw in zip(found, (pair.raw_x, pair.raw_y), strict=True):
            assert index.equal(knn(raw, 5))


def test_a_training_with_lists_is_the_same(shared_latent, monkeypatch):
    data = shared_latent(150, 3, missing=0.2)
    trained = []
    for _ in range(2):
        gotma = variants.get("gotma")({"dim": 8, "neighbors": 4}, training=TrainingConfig(epochs=2, batch_size=64))
        trained.append(gotma.fit(data, data).embed(data))
        monkeypatch.setattr(Neighborhoods, "among", lambda *_: None)
    for m in data.modalities:
        assert trained[0].z[m].equal(trained[1].z[m])
