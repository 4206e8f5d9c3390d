"""The trained variants: which samples each term sees, how terms add up, GOTMA's task, and a fit on real data."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch

from labkit import data as datasets
from labkit import variants
from labkit.config import ConfigError, TrainingConfig
from labkit.encoders.heads import LinearHead
from labkit.losses import info_nce, rc, rma_isometric, sinkhorn_divergence, vicreg
from labkit.metrics.retrieval import recall_at_10
from labkit.variants._trained import Network, Pair, Trained

LONG = TrainingConfig(epochs=40, batch_size=64, learning_rate=0.05, weight_decay=0.0, patience=40)
SHORT = TrainingConfig(epochs=2, batch_size=64)


def fitted(name: str, data, options=None, training=SHORT):
    return variants.get(name)({"dim": 8, **(options or {})}, training=training).fit(data, data)


class Recorder(Trained):
    """Keeps the pairs that it is shown."""

    seen: ClassVar[list[Pair]] = []

    def pair_terms(self, pair):
        self.seen.append(pair)
        return {"contrastive": info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)}


def test_a_pair_has_the_samples_of_both_and_the_clouds_of_each(shared_latent):
    data = shared_latent(60, 3, missing=0.4, group_size=2)
    Recorder.seen.clear()
    aligner = Recorder({"dim": 8}, training=TrainingConfig(epochs=1)).fit(data, data)
    Recorder.seen.clear()
    aligner.terms(data)
    names = [("image", "text"), ("image", "speech_fr"), ("text", "speech_fr")]
    shared = aligner.embed(data)
    for (a, b), pair in zip(names, Recorder.seen, strict=True):
        both = data.present[a] & data.present[b]
        assert pair.x.allclose(shared.z[a][both])
        assert pair.y.allclose(shared.z[b][both])
        assert pair.cloud_x.allclose(shared.z[a][data.present[a]])
        assert pair.cloud_y.allclose(shared.z[b][data.present[b]])
        assert pair.raw_y.equal(data.z[b][both])
        assert pair.group.equal(data.groups[both])


def test_terms_are_means_over_the_pairs(shared_latent):
    data = shared_latent(60, 3)
    aligner = fitted("clip", data)
    shared = aligner.embed(data)
    tau = aligner.network.temperature
    values = [
        info_nce(shared.z[a], shared.z[b], temperature=tau)
        for a, b in [("image", "text"), ("image", "speech_fr"), ("text", "speech_fr")]
    ]
    assert aligner.terms(data)["contrastive"].item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ot", {"w_contrastive": 2.0, "w_ot": 3.0}),
        ("rma", {"w_retrieve": 2.0, "w_ot": 3.0, "w_rma": 4.0}),
        ("gotma", {"w_cl": 2.0, "w_ot": 3.0, "w_rc": 4.0}),
        ("vicreg", {"w_invariance": 2.0, "w_variance": 3.0, "w_covariance": 4.0}),
    ],
)
def test_the_loss_of_a_variant_is_its_stated_sum(name, options, shared_latent):
    data = shared_latent(50, missing=0.3)
    aligner = fitted(name, data, {**options, "epsilon": 0.1, "neighbors": 5} if name != "vicreg" else options)
    z = aligner.network.project(data, normalize=name != "vicreg")
    both = data.present["image"] & data.present["text"]
    x, y = z["image"][both], z["text"][both]
    clouds = (z["image"][data.present["image"]], z["text"][data.present["text"]])
    raw = torch.nn.functional.normalize(data.z["image"][both], dim=1), data.z["text"][both]
    near = {"neighbors_x": nearest(raw[0], 5), "neighbors_y": nearest(raw[1], 5)}
    expected = {
        "ot": lambda: 2 * contrast(x, y, aligner) + 3 * sinkhorn_divergence(*clouds, epsilon=0.1),
        "rma": lambda: (
            2 * contrast(x, y, aligner)
            + 3 * sinkhorn_divergence(*clouds, epsilon=0.1)
            + 4 * rma_isometric(x, y, **near)
        ),
        "gotma": lambda: (
            2 * contrast(x, y, aligner) + 3 * sinkhorn_divergence(*clouds, epsilon=0.1) + 4 * rc(x, y, **near)
        ),
        "vicreg": lambda: vicreg(x, y, invariance=2.0, variance=3.0, covariance=4.0),
    }[name]()
    assert sum(aligner.terms(data).values()).item() == pytest.approx(expected.item(), rel=1e-4)


def contrast(x, y, aligner):
    return info_nce(x, y, temperature=aligner.network.temperature)


def nearest(z, k):
    unit = torch.nn.functional.normalize(z, dim=1)
    return (unit @ unit.T).fill_diagonal_(-2).topk(k, dim=1).indices


def test_the_temperature_is_learned_and_kept_in_range(shared_latent):
    assert Network(0.07).temperature.item() == pytest.approx(0.07)
    assert Network(1e-9).temperature.item() == pytest.approx(0.01)
    assert Network(50.0).temperature.item() == pytest.approx(1.0)
    assert fitted("clip", shared_latent(60)).network.temperature.item() != pytest.approx(0.07, abs=1e-6)


def test_unpaired_items_move_the_transport_term_only(shared_latent):
    data = shared_latent(60)
    halves = {"image": torch.arange(60) < 40, "text": torch.arange(60) >= 20}
    unpaired = data.with_z(data.z, halves)
    aligner = fitted("ot", data)
    shifted = unpaired.with_z({**unpaired.z, "text": unpaired.z["text"] + 5.0 * (torch.arange(60) >= 40)[:, None]})
    before, after = aligner.terms(unpaired), aligner.terms(shifted)
    assert before["contrastive"].equal(after["contrastive"])
    assert not before["ot"].isclose(after["ot"])


def test_a_batch_without_pairs_has_the_terms_of_clouds_alone(shared_latent):
    data = shared_latent(60)
    alone = data.with_z(data.z, {"image": torch.arange(60) < 30, "text": torch.arange(60) >= 30})
    assert fitted("clip", data).terms(alone) == {}
    assert set(fitted("gotma", data).terms(alone)) == {"ot"}, "which needs none"


def test_task_term_needs_labels(shared_latent):
    data = shared_latent(60)
    unknown = data.with_z(data.z)
    object.__setattr__(unknown, "label", torch.full((60,), -1))
    with pytest.raises(ValueError, match="w_task is positive but the training samples have no labels"):
        fitted("gotma", unknown, {"w_task": 1.0})


def test_task_term_learns_the_labels_and_ignores_unlabeled_samples(shared_latent):
    data = shared_latent(120, missing=0.3)
    label = data.label.clone()
    label[60:] = -1
    object.__setattr__(data, "label", label)
    records: list = []
    gotma = variants.get("gotma")({"w_task": 10.0, "dim": 8, "dropout": 0.0}, training=LONG, log=records.append)
    aligner = gotma.fit(data, data)
    assert records[-1]["task"] < 0.5 * 10.0 * math.log(2), "half the entropy of an uninformed classifier"
    term = aligner.terms(data)["task"]
    assert aligner.terms(data.take(range(60)))["task"].isclose(term, rtol=1e-4)
    assert "task" not in aligner.terms(data.take(range(60, 120)))


def test_task_term_is_the_cross_entropy_of_the_mean_embedding(shared_latent):
    data = shared_latent(20, missing=0.4)
    aligner = fitted("gotma", data, {"w_task": 3.0})
    shared, head = aligner.embed(data), aligner.network.extra["task"]
    losses = []
    for i in range(20):
        here = [shared.z[m][i] for m in data.modalities if data.present[m][i]]
        logits = head(torch.stack(here).mean(dim=0))
        losses.append(-logits.log_softmax(dim=0)[data.label[i]])
    assert aligner.terms(data)["task"].item() == pytest.approx(3 * torch.stack(losses).mean().item(), rel=1e-4)


def test_an_aligner_with_a_task_loads_and_embeds_alike(shared_latent, tmp_path):
    data = shared_latent(60)
    aligner = fitted("gotma", data, {"w_task": 1.0})
    aligner.save(tmp_path)
    again = variants.load(tmp_path)
    assert again.options.w_task == 1.0
    assert again.embed(data).z["text"].equal(aligner.embed(data).z["text"])


@pytest.mark.parametrize(
    ("name", "weight"), [("ot", "w_contrastive"), ("rma", "w_retrieve"), ("gotma", "w_cl"), ("vicreg", "w_variance")]
)
def test_what_a_constant_map_would_minimize_is_refused_unless_it_is_asked_for(name, weight, shared_latent):
    data, found = shared_latent(60), {}
    with pytest.raises(ConfigError, match=f"variant '{name}': {weight} is 0.*allow_collapse"):
        variants.get(name)({weight: 0})
    for value in (0.0, 1.0):
        aligner = fitted(name, data, {weight: value, "allow_collapse": True})
        for head in aligner.network.heads.values():
            head.linear.weight.data *= 1e-3
            torch.nn.init.ones_(head.linear.bias)
        found[value] = sum(aligner.terms(data).values()).item()
    assert -1e-6 < found[0.0] < 0.1  # a divergence of equal clouds is zero up to rounding
    assert found[1.0] > 0.5


def test_a_head_standardizes_with_the_present_rows_only():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [1000.0, -1000.0]])
    head = LinearHead(features, torch.tensor([True, True, False]), dim=4, dropout=0.5).eval()
    assert head.mean.tolist() == [2.0, 5.0]
    assert head.scale.tolist() == [pytest.approx(2**0.5), 1.0]  # a constant feature is left unscaled
    expected = head.linear(torch.tensor([[(7 - 2) / 2**0.5, 1.0]]))
    assert head(torch.tensor([[7.0, 6.0]])).allclose(expected)
    with pytest.raises(ValueError, match="at least 2 training samples with the modality; got 1"):
        LinearHead(features, torch.tensor([True, False, False]), dim=4, dropout=0.5)


def test_clip_learns_real_pairs():
    stamps = datasets.load("stamps", modalities=("image", "text", "speech_fr"))
    parts = {name: stamps.take(rows) for name, rows in datasets.split(stamps, 0).items()}
    aligner = variants.get("clip")(training=TrainingConfig(epochs=20)).fit(parts["train"], parts["validation"])
    shared = aligner.embed(parts["test"])
    found = {(s.source, s.target): s.value for s in recall_at_10(shared, shared)}
    assert found["image", "text"] >= 0.45
    assert found["speech_fr", "text"] >= 0.3
