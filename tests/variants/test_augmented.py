"""Augmented features and the four variants that see them: formulas by hand, what is off at 0, exact continuation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import TrainingConfig
from labkit.train import Checkpoint
from labkit.train import checkpoint as checkpoints
from labkit.variants._augment import augment

NAMES = ("brownian", "consistency", "cyclip", "separation")
SHORT = TrainingConfig(epochs=3, batch_size=40, learning_rate=0.02)
PLAIN = {"dim": 6, "dropout": 0.0}


def fitted(name, data, options=None, **keywords):
    aligner = variants.get(name)({**PLAIN, **(options or {})}, training=SHORT, **keywords)
    return aligner.fit(data, data)


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def cross_entropy(similarity, group, temperature):
    """Symmetric InfoNCE by a loop over the rows."""
    total = 0.0
    for s in (similarity, similarity.T):
        for j, row in enumerate(s / temperature):
            log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
            total -= log_p[group == group[j]].mean()
    return total / (2 * len(similarity))


class ByHand:
    """The loss in float64 numpy, with the draws of the variant: one view per modality, in order, absent items too."""

    def __init__(self, aligner, data) -> None:
        self.o, self.network, self.data = aligner.options, aligner.network, data
        self.temperature = aligner.network.temperature.item()
        self.group = data.groups.numpy()
        self.here = {m: data.present[m].numpy() for m in data.modalities}
        self.view = {m: self.draw(m) for m in data.modalities}

    def draw(self, m):
        features = self.data.z[m].double().numpy()
        noise = torch.randn(features.shape).double().numpy()
        kept = torch.rand(features.shape).numpy() >= self.o.masking
        mean, scale = (v.double().numpy() for v in (self.network.heads[m].mean, self.network.heads[m].scale))
        return mean + kept * (features - mean + self.o.noise * scale * noise)

    def through(self, head, features):
        mean, scale = head.mean.double().numpy(), head.scale.double().numpy()
        weight, bias = (p.detach().double().numpy() for p in (head.linear.weight, head.linear.bias))
        return unit(((features - mean) / scale) @ weight.T + bias)

    def z(self, m, rows, own=False):
        return self.through(self._head(m, own), self.data.z[m].double().numpy()[rows])

    def seen(self, m, rows, own=False):
        return self.through(self._head(m, own), self.view[m][rows])

    def _head(self, m, own):
        return (self.network.extra["own"] if own else self.network.heads)[m]

    def pairs(self):
        for a, b in itertools.combinations(self.data.modalities, 2):
            rows = self.here[a] & self.here[b]
            yield a, b, rows, self.z(a, rows), self.z(b, rows)

    def contrastive(self):
        return np.mean([cross_entropy(x @ y.T, self.group[r], self.temperature) for *_, r, x, y in self.pairs()])

    def in_modal(self):
        values = []
        for m, rows in self.here.items():
            similarity = self.z(m, rows) @ self.seen(m, rows).T
            values.append(cross_entropy(similarity, self.group[rows], self.temperature))
        return np.mean(values)

    def consistency(self):
        return np.mean([((x @ y.T - y @ x.T) ** 2 + (x @ x.T - y @ y.T) ** 2).mean() for *_, x, y in self.pairs()])

    def augmented(self):
        values = []
        for a, b, rows, x, y in self.pairs():
            x1, y1 = self.seen(a, rows), self.seen(b, rows)
            total = ((x @ x.T - x1 @ x1.T) ** 2 + (y @ y.T - y1 @ y1.T) ** 2).mean()
            values.append(total + np.mean([(x[j] @ y[j] - x1[j] @ y1[j]) ** 2 for j in range(len(x))]))
        return np.mean(values)

    def bridge(self):
        values = []
        for a, b, rows, x, y in self.pairs():
            for m, first, second in ((a, x, y), (b, y, x)):
                middle = unit(self.o.time * first + (1 - self.o.time) * second)
                values.append(((self.seen(m, rows) - middle) ** 2).sum(axis=1).mean())
        return np.mean(values)

    def separation(self):
        own = {m: self.z(m, rows, own=True) for m, rows in self.here.items()}
        seen = {m: self.seen(m, rows, own=True) for m, rows in self.here.items()}
        values = []
        for m, rows in self.here.items():
            orthogonal = np.mean([(u @ v) ** 2 for u, v in zip(self.z(m, rows), own[m], strict=True)])
            contrast = cross_entropy(own[m] @ seen[m].T, np.arange(len(own[m])), self.temperature)
            others = itertools.permutations(own[m], 2)
            values.append(
                orthogonal + contrast + np.log(np.mean([np.exp(-2 * ((u - v) ** 2).sum()) for u, v in others]))
            )
        return np.mean(values)


TERMS = {
    "brownian": ({"w_bridge": 3.0, "time": 0.3}, {"bridge": 3.0}),
    "consistency": ({"w_consistency": 3.0, "w_augmented": 4.0}, {"consistency": 3.0, "augmented": 4.0}),
    "cyclip": ({"w_consistency": 3.0}, {"consistency": 3.0}),
    "separation": ({"w_separation": 3.0}, {"separation": 3.0}),
}


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_terms_are_their_formulas(name, modalities, shared_latent):
    """Means over pairs or over modalities: with three of them the weights mean the same."""
    data = shared_latent(40, modalities, missing=0.3, group_size=2)
    options, weights = TERMS[name]
    aligner = fitted(name, data, {**options, "w_contrastive": 2.0, "w_in_modal": 0.5, "noise": 0.4, "masking": 0.3})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = {k: v.item() for k, v in aligner.terms(data).items()}
        torch.manual_seed(3)
        by_hand = ByHand(aligner, data)
    expected = {"contrastive": 2 * by_hand.contrastive(), "in_modal": by_hand.in_modal() / 2}
    expected |= {term: weight * getattr(by_hand, term)() for term, weight in weights.items()}
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-5)


def test_a_view_has_the_declared_noise_and_losses():
    x = 5 + 3 * torch.randn(400, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, scale = x.mean(dim=0), x.std(dim=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masked = augment(x, mean=mean, scale=scale, noise=0.0, masking=0.3)
        noisy = augment(x, mean=mean, scale=scale, noise=0.5, masking=0.0)
    lost = masked == mean.expand_as(x)
    assert lost.double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert masked[~lost].allclose(x[~lost])
    assert ((noisy - x) / scale).std().item() == pytest.approx(0.5, rel=0.02)
    assert abs(((noisy - x) / scale).mean().item()) < 0.01


def test_a_view_of_strength_0_is_the_item_itself():
    x, state = torch.randn(5, 3), torch.get_rng_state()
    assert augment(x, mean=x.mean(0), scale=x.std(0), noise=0.0, masking=0.0) is x
    assert torch.get_rng_state().equal(state)


def test_views_of_strength_0_ask_for_nothing(shared_latent):
    """The consistency of items with themselves: trained with and without, the embeddings are the same."""
    data = shared_latent(80, 3)
    off = {"noise": 0.0, "masking": 0.0, "w_in_modal": 0.0}
    z = [fitted("consistency", data, {**o, "w_augmented": w}).embed(data).z for o, w in ((off, 30), (off, 0))]
    assert all(z[0][m].allclose(z[1][m], atol=1e-6) for m in data.modalities)
    seen = fitted("consistency", data, {**off, "w_augmented": 30, "noise": 0.5}).embed(data).z
    assert not seen["image"].allclose(z[0]["image"], atol=1e-3)


def test_items_without_partners_are_contrasted_with_their_views(shared_latent):
    data = shared_latent(40)
    aligner = fitted("brownian", data)
    alone = data.with_z(data.z, {"image": torch.arange(40) < 20, "text": torch.arange(40) >= 20})
    terms = aligner.terms(alone)
    assert set(terms) == {"in_modal"}
    (gradient,) = torch.autograd.grad(terms["in_modal"], [aligner.network.heads["text"].linear.weight])
    assert gradient.norm() > 0


def test_features_of_its_own_are_moved_by_the_separation_alone_and_left_behind(shared_latent, tmp_path):
    data = shared_latent(40)
    aligner = fitted("separation", data)
    own, shared = (h["image"].linear.weight for h in (aligner.network.extra["own"], aligner.network.heads))
    for name, value in aligner.terms(data).items():
        to_own, to_shared = torch.autograd.grad(value, [own, shared], retain_graph=True, allow_unused=True)
        assert to_shared.norm() > 0
        assert (to_own is not None) == (name == "separation")
    aligner.save(tmp_path)
    again = variants.load(tmp_path)
    assert not any(k.startswith("extra") for k in again.network.state_dict())
    assert again.embed(data).z["text"].equal(aligner.embed(data).z["text"])


@pytest.mark.parametrize("name", ["consistency", "separation"])
def test_an_interrupted_training_draws_the_same_views(name, shared_latent, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FIRST_SECONDS", 0.0)
    data = shared_latent(80)
    whole = fitted(name, data).embed(data).z

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(name, data, log=stop, checkpoint=Checkpoint(tmp_path / "training"))
    assert (tmp_path / "training").is_file()
    again = fitted(name, data, checkpoint=Checkpoint(tmp_path / "training"))
    assert all(again.embed(data).z[m].equal(whole[m]) for m in data.modalities)
