"""MISA and ShaSpec: their terms by hand, which head each term reaches, labels and missing items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import ConfigError, TrainingConfig
from labkit.types import Embeddings

SHORT = TrainingConfig(epochs=2, batch_size=40, learning_rate=0.02)
WEIGHTS = {
    "misa": {"w_contrastive": 2.0, "w_similarity": 3.0, "w_difference": 4.0, "w_reconstruction": 5.0, "w_task": 6.0},
    "shaspec": {"w_contrastive": 2.0, "w_shared": 3.0, "w_specific": 4.0, "w_task": 5.0},
}
OWN = {"misa": "private", "shaspec": "specific"}


def fitted(name, data, options=None):
    return variants.get(name)({"dim": 6, "dropout": 0.0, **(options or {})}, training=SHORT).fit(data, data)


def numbers(layer):
    return [p.detach().double().numpy() for p in (layer.weight, layer.bias)]


def affine(layer, x):
    weight, bias = numbers(layer)
    return x @ weight.T + bias


def standardized(head, features):
    return (features.double().numpy() - head.mean.double().numpy()) / head.scale.double().numpy()


def cross_entropy(logits, target):
    return np.mean([np.log(np.exp(row - row[t]).sum()) for row, t in zip(logits, target, strict=True)])


def contrast(x, y, temperature):
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    s, itself = x @ y.T / temperature, range(len(x))
    return (cross_entropy(s, itself) + cross_entropy(s.T, itself)) / 2


class Views:
    """Shared and own features of each modality in float64, and who has them."""

    def __init__(self, aligner, data, own) -> None:
        network = aligner.network
        self.x = {m: standardized(network.heads[m], data.z[m]) for m in data.modalities}
        self.shared = {m: affine(network.heads[m].linear, self.x[m]) for m in data.modalities}
        self.own = {m: affine(network.extra[own][m].linear, self.x[m]) for m in data.modalities}
        self.here = {m: data.present[m].numpy() for m in data.modalities}
        self.pairs = list(itertools.combinations(data.modalities, 2))
        self.label = data.label.numpy()
        self.temperature = network.temperature.item()

    def contrastive(self):
        both = {(a, b): self.here[a] & self.here[b] for a, b in self.pairs}
        return np.mean([contrast(self.shared[a][r], self.shared[b][r], self.temperature) for (a, b), r in both.items()])

    def mean_shared(self, i):
        return np.mean([self.shared[m][i] for m in self.shared if self.here[m][i]], axis=0)


def moments(x, y, orders=5):
    total = np.linalg.norm(x.mean(0) - y.mean(0))
    for k in range(2, orders + 1):
        total += np.linalg.norm(((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0))
    return total


def overlap(x, y):
    x, y = (z - z.mean(0) for z in (x, y))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return np.mean([(x[:, i] @ y[:, j]) ** 2 for i in range(x.shape[1]) for j in range(y.shape[1])])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_terms_of_misa_are_their_formulas(modalities, shared_latent):
    data = shared_latent(40, modalities, missing=0.3)
    aligner = fitted("misa", data, WEIGHTS["misa"])
    v, extra = Views(aligner, data, "private"), aligner.network.extra
    clouds = {m: v.shared[m][v.here[m]] for m in v.shared}
    from_private = [overlap(clouds[m], v.own[m][v.here[m]]) for m in clouds]
    between = [overlap(*(v.own[m][v.here[a] & v.here[b]] for m in (a, b))) for a, b in v.pairs]
    rebuilt = {m: affine(extra["decoder"][m], v.shared[m] + v.own[m]) for m in clouds}
    errors = [((rebuilt[m] - v.x[m]) ** 2)[v.here[m]].mean() for m in clouds]
    read = [np.concatenate([v.mean_shared(i), *(v.own[m][i] * v.here[m][i] for m in clouds)]) for i in range(40)]
    expected = {
        "contrastive": 2 * v.contrastive(),
        "similarity": 3 * np.mean([moments(sigmoid(clouds[a]), sigmoid(clouds[b])) for a, b in v.pairs]),
        "difference": 4 * (np.mean(from_private) + np.mean(between)),
        "reconstruction": 5 * np.mean(errors),
        "task": 6 * cross_entropy(affine(extra["task"], np.stack(read)), v.label),
    }
    assert {k: t.item() for k, t in aligner.terms(data).items()} == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_terms_of_shaspec_are_their_formulas(modalities, shared_latent):
    data = shared_latent(40, modalities, missing=0.3)
    aligner = fitted("shaspec", data, WEIGHTS["shaspec"])
    v, extra = Views(aligner, data, "specific"), aligner.network.extra
    v.shared = {m: z / np.linalg.norm(z, axis=1, keepdims=True) for m, z in v.shared.items()}
    apart = [np.abs(v.shared[a] - v.shared[b])[v.here[a] & v.here[b]].sum(axis=1).mean() for a, b in v.pairs]
    told = [
        cross_entropy(affine(extra["modality"], v.own[m][v.here[m]]), [i] * v.here[m].sum())
        for i, m in enumerate(v.own)
    ]
    fused = []
    for i in range(40):
        parts = [
            affine(extra["fusion"], np.concatenate([v.shared[m][i], v.own[m][i]])) + v.shared[m][i]
            if v.here[m][i]
            else v.mean_shared(i)
            for m in v.shared
        ]
        fused.append(np.concatenate(parts))
    expected = {
        "contrastive": 2 * v.contrastive(),
        "shared": 3 * np.mean(apart) / 6**0.5,
        "specific": 4 * np.mean(told),
        "task": 5 * cross_entropy(affine(extra["task"], np.stack(fused)), v.label),
    }
    assert {k: t.item() for k, t in aligner.terms(data).items()} == pytest.approx(expected, rel=2e-4)


REACHES = {  # term -> whether it moves the shared heads, the heads of each modality's own
    "misa": {
        "contrastive": (True, False),
        "similarity": (True, False),
        "difference": (True, True),
        "reconstruction": (True, True),
        "task": (True, True),
    },
    "shaspec": {
        "contrastive": (True, False),
        "shared": (True, False),
        "specific": (False, True),
        "task": (True, True),
    },
}


@pytest.mark.parametrize("name", list(REACHES))
def test_each_term_moves_the_heads_that_it_is_about(name, shared_latent):
    data = shared_latent(40, 3, missing=0.3)
    aligner = fitted(name, data, WEIGHTS[name])
    network = aligner.network
    heads = [network.heads["text"].linear.weight, network.extra[OWN[name]]["text"].linear.weight]
    terms = aligner.terms(data)
    assert terms.keys() == REACHES[name].keys()
    for term, expected in REACHES[name].items():
        found = torch.autograd.grad(terms[term], heads, retain_graph=True, allow_unused=True)
        assert tuple(g is not None and bool(g.norm() > 0) for g in found) == expected, term


@pytest.mark.parametrize("name", list(REACHES))
def test_a_weight_of_0_leaves_its_term_out(name, shared_latent):
    data = shared_latent(40)
    for weight, term in zip(WEIGHTS[name], REACHES[name], strict=True):
        found = set(fitted(name, data, {weight: 0.0, "allow_collapse": True}).terms(data))
        assert set(REACHES[name]) - found == {term}


@pytest.mark.parametrize("name", list(REACHES))
def test_without_labels_there_is_no_task_and_with_some_only_those_count(name, shared_latent):
    data = shared_latent(40)
    unlabeled = Embeddings(key=data.key, z=data.z)
    assert "task" not in fitted(name, unlabeled).terms(unlabeled)
    aligner = fitted(name, data)
    assert "task" not in aligner.terms(unlabeled)
    some = Embeddings(key=data.key, z=data.z, label=torch.where(torch.arange(40) < 25, data.label, -1))
    few = data.take(range(25))
    assert aligner.terms(some)["task"].item() == pytest.approx(aligner.terms(few)["task"].item(), rel=1e-5)


@pytest.mark.parametrize("name", list(REACHES))
def test_only_the_shared_heads_are_needed_to_embed(name, shared_latent, tmp_path):
    data = shared_latent(40, 3, missing=0.3)
    aligner = fitted(name, data)
    aligner.save(tmp_path)
    again = variants.load(tmp_path)
    assert not any(k.startswith("extra") for k in again.network.state_dict())
    assert all(again.embed(data).z[m].equal(aligner.embed(data).z[m]) for m in data.modalities)


@pytest.mark.parametrize("name", list(REACHES))
def test_the_published_objective_may_collapse_and_says_so(name):
    with pytest.raises(ConfigError, match="w_contrastive is 0, so the map may collapse"):
        variants.get(name)({"w_contrastive": 0})
    assert variants.get(name)({"w_contrastive": 0, "allow_collapse": True}).options.w_contrastive == 0


def test_mac_is_another_name_of_misa():
    assert variants.get("mac") is variants.get("misa")
