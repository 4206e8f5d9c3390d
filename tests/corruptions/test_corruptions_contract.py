"""What every registered corruption keeps, run over the registry, and what each one states of its strength."""

from __future__ import annotations

import inspect

import pytest
import torch
from scipy.stats import binomtest

from labkit.corruptions import CORRUPTIONS, SEVERITIES, context
from labkit.data.missing import weights_by_label
from labkit.types import Embeddings

NAMES = list(CORRUPTIONS)


@pytest.fixture
def data(shared_latent) -> Embeddings:
    """Three modalities, 20 % of the items missing."""
    return shared_latent(400, 3, missing=0.2)


def corrupted(name: str, data: Embeddings, severity: int, *, modality: str = "text", seed: int = 0) -> Embeddings:
    return CORRUPTIONS.get(name)(data, modality, severity, context(data, seed))


def harm(clean: Embeddings, changed: Embeddings) -> float:
    """Mean squared change of the vectors, a lost item counting with its whole vector."""
    return float((clean.z["text"] - changed.z["text"]).square().mean())


def same(first: Embeddings, second: Embeddings, modality: str) -> bool:
    return first.z[modality].equal(second.z[modality]) and first.present[modality].equal(second.present[modality])


@pytest.mark.parametrize("name", NAMES)
def test_severity_0_changes_nothing(name, data, device):
    there = data.to(device)
    changed = corrupted(name, there, 0)
    assert all(same(changed, there, m) for m in data.modalities)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", SEVERITIES[1:])
def test_only_the_named_modality_changes_and_the_absent_stays_absent(name, severity, data, device):
    there = data.to(device)
    changed = corrupted(name, there, severity)
    assert not same(changed, there, "text")
    assert same(changed, there, "image")
    assert same(changed, there, "speech_fr")
    assert not (changed.present["text"] & ~there.present["text"]).any()
    assert (changed.z["text"][~changed.present["text"]] == 0).all()
    assert (changed.key == data.key).all()
    assert changed.groups.equal(there.groups)
    assert changed.z["text"].dtype == there.z["text"].dtype


@pytest.mark.parametrize("name", NAMES)
def test_harm_grows_with_severity(name, data):
    amounts = [harm(data, corrupted(name, data, severity)) for severity in SEVERITIES]
    assert amounts[0] == 0
    assert all(later > 1.02 * earlier for earlier, later in zip(amounts, amounts[1:], strict=False)), amounts


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_results_and_others_differ(name, data):
    assert same(corrupted(name, data, 3), corrupted(name, data, 3), "text")
    assert not same(corrupted(name, data, 3), corrupted(name, data, 3, seed=1), "text")
    again = CORRUPTIONS.get(name)(data, "text", 3, context(data, 7).seeded(0))
    assert same(corrupted(name, data, 3), again, "text")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [-1, 6, 2.5])
def test_a_severity_outside_0_to_5_is_refused(name, severity, data):
    with pytest.raises(ValueError, match=rf"severity must be one of \(0, 1, 2, 3, 4, 5\); got {severity}"):
        corrupted(name, data, severity)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_modality_is_refused(name, data):
    with pytest.raises(ValueError, match=r"no modality \['txt'\] in these embeddings"):
        corrupted(name, data, 1, modality="txt")


@pytest.mark.parametrize("name", NAMES)
def test_its_levels_are_documented(name):
    text = inspect.getdoc(CORRUPTIONS.get(name)) or ""
    assert "at severity 0..5" in text
    levels = inspect.getmodule(CORRUPTIONS.get(name)).LEVELS
    assert len(levels) == len(SEVERITIES)
    for value in levels:
        assert f"{value:g}".lstrip("0") in text


def test_the_context_knows_the_present_rows_only(data):
    known = context(data)
    rows = data.z["text"][data.present["text"]]
    assert known.mean["text"].allclose(rows.mean(dim=0))
    assert known.scale["text"].allclose(rows.std(dim=0))


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.5), (2, 1.0), (5, 3.0)])
def test_noise_is_in_units_of_each_feature(severity, sigma, data):
    stretched = data.with_z({**data.z, "text": data.z["text"] * torch.logspace(-2, 2, 22)})
    there = stretched.present["text"]
    noise = (corrupted("feature_noise", stretched, severity).z["text"] - stretched.z["text"])[there]
    relative = noise.std(dim=0) / stretched.z["text"][there].std(dim=0)
    assert relative.numpy() == pytest.approx([sigma] * 22, rel=0.15)
    assert relative.mean().item() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.2), (3, 0.6), (5, 0.9)])
def test_masked_features_become_their_training_mean(severity, share, data):
    changed, known = corrupted("feature_masking", data, severity), context(data)
    there = data.present["text"]
    lost = changed.z["text"][there] != data.z["text"][there]
    assert lost.float().mean().item() == pytest.approx(share, abs=0.02)
    assert changed.z["text"][there][lost].equal(known.mean["text"].expand(int(there.sum()), -1)[lost])


@pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (3, 0.3), (5, 0.5)])
def test_missing_items_are_lost_at_random(severity, share, data):
    there = data.present["text"]
    lost = there & ~corrupted("missing_modality", data, severity).present["text"]
    assert binomtest(int(lost.sum()), int(there.sum()), share).pvalue > 1e-3


@pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (3, 0.3), (5, 0.5)])
def test_items_missing_by_label_are_lost_at_the_rate_of_their_class(severity, share, shared_latent):
    many = shared_latent(3000, 3, missing=0.2)
    label = torch.arange(3000) % 7 % 4  # two classes twice as large as the others
    many = Embeddings(key=many.key, z=many.z, present=many.present, label=label)
    there, weight = many.present["text"], weights_by_label(many, "text")
    lost = there & ~corrupted("missing_by_label", many, severity).present["text"]
    assert abs(int(lost.sum()) / int(there.sum()) - share) < 0.04
    for code in range(4):
        rows = there & (label == code)
        rate = share * float(weight[rows][0])
        assert binomtest(int(lost[rows].sum()), int(rows.sum()), rate).pvalue > 1e-3, code


def test_draws_are_nested_in_severity(data):
    """What is lost at one severity is lost at the next, so that a sample's curve is one story."""
    for earlier, later in zip(SEVERITIES, SEVERITIES[1:], strict=False):
        for name in ("feature_masking", "missing_modality", "missing_by_label"):
            a, b = (corrupted(name, data, s).z["text"] != data.z["text"] for s in (earlier, later))
            assert not (a & ~b).any()
