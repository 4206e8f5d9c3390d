"""The baselines that learn from labels: unimodal, concat, attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labkit import variants
from labkit.config import ConfigError, TrainingConfig
from labkit.data.pairing import unpair
from labkit.types import Embeddings

NAMES = ("unimodal", "concat", "attention")
SHORT = TrainingConfig(epochs=2, batch_size=64)
LONG = TrainingConfig(epochs=60, batch_size=64, learning_rate=0.01, weight_decay=0.01, patience=60)

pytestmark = pytest.mark.filterwarnings("ignore::labkit.train.CollapseWarning")  # two epochs leave posteriors alike


def fitted(name: str, data: Embeddings, options=None, training=SHORT):
    return variants.get(name)({"dim": 8, "dropout": 0.0, **(options or {})}, training=training).fit(data, data)


def rows(aligner, data: Embeddings) -> dict[str, np.ndarray]:
    """Heads in float64 numpy."""
    with torch.no_grad():
        return {m: v.double().numpy() for m, v in aligner.network.project(data, normalize=False).items()}


def cross_entropy(logits: np.ndarray, label: int) -> float:
    return float(np.log(np.exp(logits).sum()) - logits[label])


def weights(module) -> dict[str, np.ndarray]:
    return {k: v.double().numpy() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_embedding_is_the_root_of_a_posterior(name, shared_latent):
    data = shared_latent(60, 3)
    aligner = fitted(name, data)
    logits = aligner.logits(aligner.network.project(data, normalize=False))
    for m, z in aligner.embed(data).z.items():
        assert z.shape == (60, 2)
        odds = (z[:, 1] / z[:, 0]).square().log()
        assert odds.allclose((logits[m][:, 1] - logits[m][:, 0]).detach(), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_unlabeled_samples_teach_nothing(name, shared_latent):
    data = shared_latent(60, missing=0.3)
    aligner = fitted(name, data)
    label = data.label.clone()
    label[40:] = -1
    partly = Embeddings(key=data.key, z=data.z, present=data.present, label=label)
    assert aligner.terms(partly)["task"].isclose(aligner.terms(data.take(range(40)))["task"], rtol=1e-5)
    assert aligner.terms(partly.take(range(40, 60))) == {}


@pytest.mark.parametrize("name", NAMES)
def test_samples_without_any_item_teach_nothing(name, shared_latent):
    data = shared_latent(60)
    aligner = fitted(name, data)
    empty = data.with_z(data.z, {m: torch.arange(60) < 40 for m in data.modalities})
    value = aligner.terms(empty)["task"]
    assert value.isclose(aligner.terms(data.take(range(40)))["task"], rtol=1e-5)
    value.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in aligner.network.parameters() if p.grad is not None)


def test_unimodal_is_one_softmax_regression_per_modality(shared_latent):
    data = shared_latent(40, missing=0.3)
    aligner = fitted("unimodal", data)
    z, own = rows(aligner, data), weights(aligner.network.extra["classifier"])
    means = []
    for m in data.modalities:
        logits = z[m] @ own[f"{m}.weight"].T + own[f"{m}.bias"]
        means.append(
            np.mean([cross_entropy(logits[i], int(data.label[i])) for i in data.present[m].nonzero().flatten()])
        )
    assert aligner.terms(data)["task"].item() == pytest.approx(np.mean(means), rel=1e-5)
    apart = aligner.terms(unpair(data, 0, seed=0))["task"]
    assert apart.item() == pytest.approx(np.mean(means), rel=1e-5), "it must not know the pairs"


def test_unimodal_classifies_as_well_as_logistic_regression(shared_latent):
    data = shared_latent(600)
    train, test = data.take(range(400)), data.take(range(400, 600))
    shared = fitted("unimodal", train, training=LONG).embed(test)
    for m in data.modalities:
        peer = LogisticRegression(max_iter=1000).fit(train.z[m], train.label)
        accuracy = float((shared.z[m].argmax(dim=1) == test.label).double().mean())
        assert accuracy > max(0.85, peer.score(test.z[m], test.label) - 0.05)


def test_concat_is_one_linear_map_of_the_heads_side_by_side(shared_latent):
    data = shared_latent(40, 3, missing=0.3)
    aligner = fitted("concat", data)
    z, own = rows(aligner, data), weights(aligner.network.extra["classifier"])
    losses = []
    for i in range(40):
        side = np.concatenate([z[m][i] * bool(data.present[m][i]) for m in data.modalities])
        losses.append(cross_entropy(own["classes.weight"] @ side + own["classes.bias"], int(data.label[i])))
    assert aligner.terms(data)["task"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    alone = aligner.logits(aligner.network.project(data, normalize=False))
    for i, m in enumerate(data.modalities):
        expected = z[m] @ own["classes.weight"][:, 8 * i : 8 * i + 8].T + own["classes.bias"]
        assert np.allclose(alone[m].detach().numpy(), expected, atol=1e-4)


def test_attention_reads_the_items_of_one_sample(shared_latent):
    data = shared_latent(20, 3, missing=0.4)
    aligner = fitted("attention", data, {"attention_heads": 2})
    z, module = rows(aligner, data), aligner.network.extra["classifier"].double()
    losses = []
    for i in range(20):  # each sample by itself, and without the modalities that it lacks
        here = {m: torch.as_tensor(z[m][i : i + 1]) for m in data.modalities if data.present[m][i]}
        logits = module.classes(module.fusion(here))[0].detach().numpy()
        losses.append(cross_entropy(logits, int(data.label[i])))
    module.float()
    assert aligner.terms(data)["task"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert np.std(losses) > 0.01


def test_attention_heads_must_divide_the_dimension():
    with pytest.raises(ConfigError, match="attention_heads is 3, which does not divide dim, 128"):
        variants.get("attention")({"attention_heads": 3})
