"""The training loop: schedule, early stopping, best weights, repeatability, and what it says when it cannot go on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit.config import TrainingConfig
from labkit.losses import info_nce
from labkit.metrics.retrieval import recall_at_10
from labkit.train import DivergedError, fit, validation_score
from labkit.types import Embeddings


class Scripted(nn.Module):
    """One weight that counts epochs; its embeddings score what `scores` says for the epoch."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.scores, self.epoch, self.sizes, self.modes = scores, 0, [], []

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        self.sizes.append(len(batch))
        self.modes.append(self.training)
        return {"line": -self.weight}

    def after_step(self, batch: Embeddings) -> None:
        pass

    def embed(self, data: Embeddings) -> Embeddings:
        """A share of the samples coincides with its partner, the rest is opposite to it."""
        self.modes.append(self.training)
        share = self.scores[min(self.epoch, len(self.scores) - 1)]
        self.epoch += 1
        n = len(data)
        sign = torch.where(torch.arange(n) < round(share * n), 1.0, -1.0)
        return data.with_z({"image": torch.eye(n), "text": torch.eye(n) * sign[:, None]})


class Linear(nn.Module):
    """Contrast with dropout and a penalty: what it learns depends on every random draw."""

    def __init__(self, width: tuple[int, int] = (20, 22)) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.maps = nn.ParameterList(0.1 * torch.randn(d, 8, generator=generator) for d in width)

    def after_step(self, batch: Embeddings) -> None:
        pass

    def embed(self, data: Embeddings) -> Embeddings:
        return data.with_z({m: z @ w for (m, z), w in zip(data.z.items(), self.maps, strict=True)})

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        x, y = (nn.functional.dropout(z, 0.3, self.training) for z in self.embed(batch).z.values())
        return {"contrast": info_nce(x, y, temperature=0.2), "size": 0.01 * x.square().mean()}


def train(module: Any, data: Embeddings, *, seed: int = 0, log=None, **changes: Any):
    config = TrainingConfig(**{"epochs": 5, "batch_size": 32, "patience": 50, **changes})
    return fit(module, module, (data, data), config, seed=seed, log=log)


def test_the_weights_of_the_best_epoch_are_restored(shared_latent):
    data, weights = shared_latent(60), []
    module = Scripted([0.2, 0.5, 0.9, 0.4, 0.9, 0.1])
    fitted = train(module, data, epochs=6, log=lambda _: weights.append(module.weight.item()))
    assert len(set(weights)) == 6
    assert module.weight.item() == weights[2], "the first of equally good epochs"
    assert (fitted.best_epoch, fitted.best_score, fitted.epochs) == (3, pytest.approx(0.9, abs=0.02), 6)
    assert not module.training


def test_training_stops_after_patience_epochs_without_a_better_score(shared_latent):
    module = Scripted([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    fitted = train(module, shared_latent(60), epochs=50, patience=3)
    assert (fitted.best_epoch, fitted.epochs) == (2, 5)
    assert fitted.steps == 5 * (60 // 32)


def test_batches_are_drawn_in_training_mode_and_scores_in_evaluation_mode(shared_latent):
    module = Scripted([0.5])
    train(module, shared_latent(64), epochs=2)
    assert module.modes == [True, True, False] * 2


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(64, 32, [32, 32]), (65, 32, [33, 32]), (9, 2, [3, 2, 2, 2]), (20, 64, [20]), (3, 2, [3]), (33, 16, [17, 16])],
)
def test_an_epoch_is_cut_into_equal_steps_of_at_least_the_batch_size(shared_latent, n, batch_size, sizes):
    module = Scripted([0.5])
    fitted = train(module, shared_latent(n), epochs=1, batch_size=batch_size)
    assert module.sizes == sizes
    assert fitted.steps == len(sizes)


@pytest.mark.parametrize(("warmup", "warm"), [(0.25, 5), (0.0, 1)])
def test_the_learning_rate_warms_up_and_decays_as_a_cosine_to_zero(shared_latent, warmup, warm):
    records: list = []
    train(Scripted([0.5]), shared_latent(40), epochs=20, warmup=warmup, learning_rate=0.1, log=records.append)
    rates = [r["learning_rate"] for r in records]  # after each step, so that of the next
    expected = [0.1 * min(1.0, (s + 1) / warm) for s in range(1, warm)]
    expected += [0.05 * (1 + math.cos(math.pi * (s - warm) / (20 - warm))) for s in range(warm, 21)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert rates[-1] == 0
    assert max(rates) == pytest.approx(0.1)


def test_a_record_a_epoch(shared_latent):
    records: list = []
    data, module = shared_latent(70), Linear()
    train(module, data, epochs=3, log=records.append)
    names = {"step", "epoch", "contrast", "size", "validation", "learning_rate", "seconds", "step_seconds"}
    names |= {"peak_memory", "effective_rank", "embedding_std"}
    assert [set(r) for r in records] == [names] * 3
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 2), (2, 4), (3, 6)]
    assert all(math.isfinite(v) for r in records for v in r.values())
    assert records[0]["seconds"] < records[-1]["seconds"]
    assert sum(2 * r["step_seconds"] for r in records) < records[-1]["seconds"], "validation takes time as well"
    best = max(r["validation"] for r in records)
    assert validation_score(module.embed(data)) == pytest.approx(best)


def test_the_loss_falls_and_the_score_rises(shared_latent):
    records: list = []
    train(Linear(), shared_latent(128), epochs=20, learning_rate=0.02, log=records.append)
    assert records[-1]["contrast"] < 0.7 * records[0]["contrast"]
    assert records[-1]["validation"] > records[0]["validation"] + 0.2


def test_equal_seeds_give_equal_weights_whatever_the_global_state(shared_latent):
    data, found = shared_latent(70), []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        module = Linear()
        torch.manual_seed(state)
        before = torch.get_rng_state()
        train(module, data, seed=seed)
        assert torch.get_rng_state().equal(before)
        found.append(module.maps[0].detach())
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_gradients_are_clipped(shared_latent):
    class Steep(Scripted):
        def terms(self, batch):
            return {"steep": -1e6 * self.weight}

    module = Steep([0.5])
    train(module, shared_latent(64), epochs=1, gradient_clip=0.5)
    assert module.weight.grad is not None
    assert module.weight.grad.norm() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_term_is_named(shared_latent, bad):
    class Bad(Scripted):
        def terms(self, batch):
            return {"good": self.weight, "rotten": self.weight + bad}

    with pytest.raises(DivergedError, match=f"loss term 'rotten' is {bad}; lower learning_rate"):
        train(Bad([0.5]), shared_latent(40))


def test_a_diverged_gradient_is_told_before_it_spoils_the_weights(shared_latent):
    class Kink(Scripted):
        def terms(self, batch):
            return {"root": self.weight.abs().sqrt()}  # infinite slope at its start, 0

    module = Kink([0.5])
    with pytest.raises(DivergedError, match="the gradient of root is"):
        train(module, shared_latent(40))
    assert module.weight.isfinite()


def test_batches_without_any_pair_are_passed_over(shared_latent):
    class Rare(Linear):
        def terms(self, batch):
            return super().terms(batch) if "thing0" in batch.key else {}

    records: list = []
    train(Rare(), shared_latent(64), epochs=2, batch_size=16, log=records.append)
    full: list = []
    train(Rare(), shared_latent(16), epochs=1, batch_size=16, log=full.append)
    assert records[0]["contrast"] == pytest.approx(full[0]["contrast"], rel=0.4), "one step, not a quarter of it"


def test_training_samples_without_any_pair_are_refused(shared_latent):
    class Lonely(Scripted):
        def terms(self, batch):
            return {}

    with pytest.raises(ValueError, match=r"no batch has two samples with two of \['image', 'text'\]"):
        train(Lonely([0.5]), shared_latent(40))


def test_the_validation_score_is_the_mean_recall_at_10_over_directions(shared_latent):
    data = shared_latent(60, 3, missing=0.3)
    shared = data.with_z({m: z[:, :20] for m, z in data.z.items()})
    scores = [s.value for s in recall_at_10(shared, shared)]
    assert len(scores) == 6
    assert validation_score(shared) == pytest.approx(sum(scores) / 6)


def test_validation_samples_without_any_pair_are_refused(shared_latent):
    data = shared_latent(20)
    here = torch.arange(20) < 10
    apart = data.with_z({m: z[:, :20] for m, z in data.z.items()}, {"image": here, "text": ~here})
    with pytest.raises(ValueError, match=r"no validation sample has two of \['image', 'text'\]"):
        validation_score(apart)
