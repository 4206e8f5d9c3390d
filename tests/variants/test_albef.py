"""ALBEF: its three losses by their formulas, teacher and queue over the steps, a training that continues exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from labkit import variants
from labkit.config import TrainingConfig
from labkit.losses import distilled_info_nce, info_nce
from labkit.train import Checkpoint, checkpoint

SHORT = TrainingConfig(epochs=2, batch_size=32)


def fitted(data, training=SHORT, **options):
    return variants.get("albef")({"dim": 8, "dropout": 0.0, **options}, training=training).fit(data, data)


def test_without_teacher_and_queue_its_contrast_is_that_of_clip(shared_latent):
    data = shared_latent(40, 3, missing=0.3, group_size=2)
    aligner = fitted(data, alpha=0.0, queue=0, w_matching=0.0, w_masked=0.0)
    slow = aligner.network.extra["slow"]
    slow.heads.load_state_dict(aligner.network.heads.state_dict())
    z = aligner.embed(data).z
    values = []
    for a, b in (("image", "text"), ("image", "speech_fr"), ("text", "speech_fr")):
        both = data.present[a] & data.present[b]
        t = aligner.network.temperature
        values.append(info_nce(z[a][both], z[b][both], temperature=t, group=data.groups[both]))
    terms = aligner.terms(data)
    assert set(terms) == {"contrastive"}
    assert terms["contrastive"].item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-4)


def test_the_contrast_is_with_slow_features_and_the_queue(shared_latent):
    data = shared_latent(40, missing=0.3, group_size=2)
    aligner = fitted(data, queue=25, w_contrastive=2.0)
    slow, queue = aligner.network.extra["slow"], aligner.network.extra["queue"]
    x, y, group = queue.both("image", "text")
    assert 0 < len(x) < 25, "some queued samples lack an item"
    both = data.present["image"] & data.present["text"]
    z = aligner.embed(data).z
    expected = distilled_info_nce(
        z["image"][both],
        z["text"][both],
        torch.cat([slow.project("image", data.z["image"][both]), x]),
        torch.cat([slow.project("text", data.z["text"][both]), y]),
        alpha=0.4,
        temperature=aligner.network.temperature,
        group=torch.cat([data.groups[both], group]),
    )
    assert aligner.terms(data)["contrastive"].item() == pytest.approx(2 * expected.item(), rel=1e-4)


def test_after_a_step_the_slow_heads_follow_and_the_batch_is_queued(shared_latent):
    data = shared_latent(32, group_size=2)
    aligner = fitted(data, momentum=0.5, queue=40)
    slow, queue = aligner.network.extra["slow"], aligner.network.extra["queue"]
    before, steps = slow.heads["text"].linear.weight.clone(), int(slow.steps)
    aligner.network.heads["text"].linear.weight.data += 1
    aligner.after_step(data)
    assert int(slow.steps) == steps + 1
    assert slow.heads["text"].linear.weight.allclose((before + aligner.network.heads["text"].linear.weight) / 2)
    at = torch.arange(int(queue.pushed) - 32, int(queue.pushed)) % 40
    assert queue.z[1, at].allclose(slow.project("text", data.z["text"]))
    assert queue.group[at].equal(data.groups)


def test_soft_targets_grow_over_the_first_epoch(shared_latent):
    data, seen = shared_latent(100), []
    albef = variants.get("albef")({"dim": 8, "alpha": 0.4}, training=TrainingConfig(epochs=2, batch_size=25))
    step = albef.after_step
    albef.after_step = lambda batch: (seen.append(albef.alpha), step(batch))  # type: ignore[method-assign]
    albef.fit(data, data)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])


def test_masked_features_are_predicted_from_the_rest_and_the_partner(shared_latent):
    data = shared_latent(30)
    aligner = fitted(data, masking=0.4)
    head, decoder = aligner.network.heads["image"], aligner.network.extra["decoder"]["image"]
    fusion = aligner.network.extra["matching"].fusion
    raw, partner = data.z["image"], aligner.embed(data).z["text"]
    torch.manual_seed(7)
    found = aligner.masked("image", raw, {"text": partner})
    torch.manual_seed(7)
    hidden = torch.rand(raw.shape) < 0.4
    errors = []
    for i in range(30):
        seen = raw[i].clone()
        seen[hidden[i]] = head.mean[hidden[i]]
        row = F.normalize(head(seen[None]), dim=1)
        guess = decoder(fusion({"image": row, "text": partner[[i]]}))[0]
        truth = (raw[i] - head.mean) / head.scale
        errors += [(guess[k] - truth[k]).item() ** 2 for k in hidden[i].nonzero().flatten().tolist()]
    assert found.item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_what_is_hidden_is_not_seen_and_can_be_learned(shared_latent):
    data = shared_latent(200)
    records: list = []
    training = TrainingConfig(epochs=40, batch_size=50, learning_rate=0.01, patience=40)
    albef = variants.get("albef")({"dim": 16, "dropout": 0.0, "w_masked": 1.0}, training=training, log=records.append)
    albef.fit(data, data)
    assert records[0]["masked"] > 0.8, "the means explain nothing"
    assert records[-1]["masked"] < 0.6
    assert records[-1]["matching"] < 0.8 * records[0]["matching"]
    torch.manual_seed(3)
    hidden = torch.rand(data.z["image"].shape) < albef.options.masking
    partner = {"text": albef.embed(data).z["text"]}
    seen: list[torch.Tensor] = []
    handle = albef.network.heads["image"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(3)
    albef.masked("image", data.z["image"], partner)
    handle.remove()
    mean = albef.network.heads["image"].mean.expand_as(seen[0])
    assert seen[0][hidden].equal(mean[hidden])
    assert seen[0][~hidden].equal(data.z["image"][~hidden])


def test_masking_and_the_weights_change_the_result(shared_latent):
    data = shared_latent(80)
    base = fitted(data).embed(data).z["image"]
    for options in ({"masking": 0.8}, {"w_masked": 0.0}, {"w_matching": 0.0}, {"queue": 0}, {"alpha": 0.0}):
        assert not fitted(data, **options).embed(data).z["image"].allclose(base, atol=1e-5), options


def test_every_term_reaches_every_head_and_none_the_teacher(shared_latent):
    data = shared_latent(40, 3, missing=0.2)
    aligner = fitted(data)
    for term, value in aligner.terms(data).items():
        aligner.network.zero_grad()
        value.backward(retain_graph=True)
        for m, head in aligner.network.heads.items():
            assert float(head.linear.weight.grad.abs().max()) > 1e-7, f"{term} of {m}"
        assert all(p.grad is None for p in aligner.network.extra["slow"].parameters())


def test_only_the_heads_are_kept_and_nothing_is_built_that_no_weight_asks_for(shared_latent, tmp_path):
    data = shared_latent(40)
    aligner = fitted(data, w_matching=0.0, w_masked=0.0)
    assert set(aligner.network.extra) == {"slow", "queue"}
    aligner.save(tmp_path)
    again = variants.load(tmp_path)
    assert again.embed(data).z["text"].equal(aligner.embed(data).z["text"])


@pytest.mark.parametrize("name", ["albef", "gram"])
def test_a_training_that_was_cut_off_ends_with_the_same_numbers(name, shared_latent, tmp_path, monkeypatch):
    """Queue, slow heads, their count and the random state of negatives and masks come back from the checkpoint."""
    monkeypatch.setattr(checkpoint, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    data, training = shared_latent(70, 3, missing=0.2), TrainingConfig(epochs=6, batch_size=20, patience=6)

    def train(path, stop_after=99):
        def log(values):
            if values["epoch"] > stop_after:
                raise KeyboardInterrupt

        kept = None if path is None else Checkpoint(path)
        aligner = variants.get(name)({"dim": 8}, training=training, log=log, checkpoint=kept)
        try:
            return aligner.fit(data, data)
        except KeyboardInterrupt:
            return aligner

    whole = train(None).network.state_dict()
    train(tmp_path / "training.safetensors", stop_after=3)
    resumed = train(tmp_path / "training.safetensors")
    assert resumed.fitted.earlier_seconds > 0
    for key, value in resumed.network.state_dict().items():
        assert value.equal(whole[key]), key
