"""SOTAlign: its teachers are the closed forms, and its coupling term is that of the formula."""

from __future__ import annotations

import numpy as np
import ot as pot
import pytest
from torch import nn

from labkit.config import TrainingConfig
from labkit.data.pairing import unpair
from labkit.metrics.retrieval import recall_at_10
from labkit.variants import get, load
from labkit.variants.sotalign import TEACHERS, SOTAlign

OPTIONS = {"dim": 16, "dropout": 0.1, "teacher_dim": 8, "epsilon": 0.2, "target_epsilon": 0.2}


@pytest.mark.parametrize("teacher", sorted(TEACHERS))
def test_the_teacher_is_the_closed_form_on_the_pairs(teacher, shared_latent):
    data = unpair(shared_latent(120, 3), 0.4, seed=0)
    quick = TrainingConfig(epochs=1, batch_size=60)
    made = SOTAlign(OPTIONS | {"teacher": teacher}, training=quick).fit(data, data).network.extra["teacher"]
    assert isinstance(made, nn.ModuleDict)
    expected = get(teacher)({"dim": 8}).fit(data, data).embed(data)
    some = {m: data.present[m].nonzero().flatten()[:20] for m in data.modalities}
    rows = {m: made[m](data.z[m][some[m]]) for m in data.modalities}
    for a, b in (("image", "text"), ("speech_fr", "image")):
        assert (rows[a] @ rows[b].T).allclose(expected.z[a][some[a]] @ expected.z[b][some[b]].T, atol=1e-4)


def test_the_term_is_the_divergence_of_two_couplings(shared_latent):
    data = shared_latent(60)
    aligner = SOTAlign(OPTIONS | {"teacher": "procrustes"}, training=TrainingConfig(epochs=2, batch_size=30))
    aligner.fit(data, data)
    own = aligner.embed(data).z
    theirs = get("procrustes")({"dim": 8}).fit(data, data).embed(data).z
    weights = np.full(60, 1 / 60)
    plan, wanted = (
        pot.sinkhorn(weights, weights, -(z["image"] @ z["text"].T).double().numpy(), 0.2, stopThr=1e-9)
        for z in (own, theirs)
    )
    expected = float((wanted * np.log(wanted / plan)).sum())
    assert float(aligner.terms(data)["klot"].detach()) == pytest.approx(expected, rel=0.02)


def test_the_teacher_makes_up_for_batches_in_which_pairs_are_rare(shared_latent):
    """From the same items, a few of them paired: with its term, and without."""
    data = shared_latent(700, noise=0.5)
    train, validation, test = data.take(range(400)), data.take(range(400, 500)), data.take(range(500, 700))
    few = unpair(train, 20, seed=0)
    scores = []
    for w_klot in (0.0, 1.0):
        options = OPTIONS | {"dropout": 0.5, "w_klot": w_klot}
        aligner = SOTAlign(options, training=TrainingConfig(epochs=15, batch_size=128)).fit(few, validation)
        shared = aligner.embed(test)
        scores.append(np.mean([score.value for score in recall_at_10(shared, shared)]))
    assert scores[1] > scores[0] + 0.05


def test_the_teacher_is_left_behind_when_it_is_saved(shared_latent, tmp_path):
    data = shared_latent(60)
    aligner = SOTAlign(OPTIONS, training=TrainingConfig(epochs=1, batch_size=30)).fit(data, data)
    aligner.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, SOTAlign)
    assert "teacher" not in again.network.extra
    assert again.embed(data).z["text"].equal(aligner.embed(data).z["text"])


def test_without_pairs_there_is_no_teacher(shared_latent):
    data = unpair(shared_latent(60), 0, seed=0)
    with pytest.raises(ValueError, match="add paired samples"):
        SOTAlign(OPTIONS).fit(data, data)
