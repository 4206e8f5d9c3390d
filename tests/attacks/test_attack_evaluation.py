"""Attacks on retrieval: success by plain loops, budgets, samples by themselves, seeds, transfer, and clear refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import attacks, variants
from labkit.attacks import Features, Outcome, Threat, evaluate_attack
from labkit.config import TrainingConfig
from labkit.corruptions import SEVERITIES
from labkit.evaluate import under_attack
from labkit.metrics.retrieval import recall_at_10
from labkit.registry import UnknownNameError
from labkit.types import Embeddings
from tests.attacks.linear_aligners import Linear, least_squares

K = 3
NEAR = Threat(k=K)


@pytest.fixture(scope="module")
def parts(shared_latent) -> tuple[Embeddings, Embeddings]:
    """Training and test samples of three modalities, two samples a group, of which some lack items."""
    data = shared_latent(260, 3, group_size=2, noise=0.3)
    lacking = {"text": torch.arange(260) % 7 != 3}
    data = data.with_z(data.z, {**data.present, **lacking})
    return data.take(range(180)), data.take(range(180, 260))


@pytest.fixture(scope="module")
def aligner(parts) -> Linear:
    return least_squares(parts[0])


@pytest.fixture(scope="module")
def inputs(parts) -> Features:
    return Features.of(parts[1], "image", parts[0])


def attacked(aligner, parts, inputs, threat: Threat = NEAR, **options) -> list[Outcome]:
    return evaluate_attack(aligner, parts[1], inputs, threat, modality="image", **options)


def found_within(similarity: list[float], wanted: set[int], k: int) -> float:
    """Share of the orders of tied items in which one that is wanted is among the first k, by trying all of them."""
    rounded = [round(s, 6) for s in similarity]
    hits = []
    last = sorted(rounded, reverse=True)[k - 1]
    above = [i for i, s in enumerate(rounded) if s > last]
    tied = [i for i, s in enumerate(rounded) if s == last]
    for order in itertools.permutations(tied):
        hits.append(bool(wanted & {*above, *order[: k - len(above)]}))
    return float(np.mean(hits))


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_success_and_recall_by_plain_loops_with_ties_and_several_partners(goal, parts, generator):
    """Gallery items of other groups have the same vectors in pairs, so places are shared."""
    train, test = parts
    text = test.z["text"].clone()
    text[2::4] = text[0::4]  # groups are 0 0 1 1 2 2: rows 0 and 2 are of different ones
    test = test.with_z({**test.z, "text": text})
    aligner = least_squares(train)
    inputs = Features.of(test, "image", train, test.key[:30])
    outcomes = attacked(aligner, (train, test), inputs, Threat("pgd", "l2", goal, k=K, steps=4), radii=[1.5])
    outcome = next(o for o in outcomes if o.queries.target == "text")
    clean, queries = aligner.embed(test), outcome.queries
    changed = outcome.changed.features @ aligner.maps["image"]
    gallery = [i for i in range(80) if test.present["text"][i]]
    assert queries.gallery.tolist() == gallery
    values = {"recall_at_10": [], "attack_success": []}
    for n, row in enumerate(queries.rows.tolist()):
        similarity, before = (
            torch.cosine_similarity(query[None].double(), clean.z["text"][gallery].double()).tolist()
            for query in (changed[n], clean.z["image"][row])
        )
        partners = {j for j, i in enumerate(gallery) if test.groups[i] == test.groups[row]}
        values["recall_at_10"].append(found_within(similarity, partners, 10))
        if goal == "targeted":
            wanted = set(queries.wanted[n].nonzero().flatten().tolist())
            assert wanted
            assert not wanted & partners
            assert len({int(test.groups[gallery[j]]) for j in wanted}) == 1
            values["attack_success"].append(found_within(similarity, wanted, 1))
        elif found_within(before, partners, K) > 0:
            values["attack_success"].append(1 - found_within(similarity, partners, K))
    for score in outcome.scores:
        if score.name in values:
            assert score.value == pytest.approx(np.mean(values[score.name])), score.name
            assert score.n == len(values[score.name])
    assert 0 < outcome.success.value < 1
    assert any(0 < v < 1 for v in values["attack_success"] + values["recall_at_10"]), "ties decide somewhere"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "random"])
def test_budgets_are_kept_and_larger_ones_do_more(attack, norm, aligner, parts, inputs):
    outcomes = attacked(aligner, parts, inputs, Threat(attack, norm, k=K, steps=8))
    assert len(outcomes) == 2 * len(SEVERITIES)
    for outcome in outcomes:
        assert outcome.radius == inputs.budgets[norm][outcome.severity]
        rows = outcome.changed.delta.double()
        lengths = rows.abs().amax(dim=1) if norm == "linf" else rows.norm(dim=1)
        assert (lengths <= outcome.radius * (1 + 1e-6)).all()
        assert lengths.allclose(outcome.changed.lengths)
        back = (outcome.changed.features - outcome.queries.inputs.z) / inputs.scale
        assert back.allclose(outcome.changed.delta, atol=1e-4)
    for target in ("text", "speech_fr"):
        curve = [o.success.value for o in outcomes if o.queries.target == target]
        assert curve[0] == 0
        if attack != "random":
            assert all(b >= a - 1e-9 for a, b in itertools.pairwise(curve))
            assert norm == "linf" or curve[-1] > 0.3


def test_recall_at_severity_0_is_the_clean_recall_of_the_attacked_samples(aligner, parts):
    some = Features.of(parts[1], "image", parts[0], parts[1].key[::3])
    (outcome, _) = attacked(aligner, parts, some, radii=[0.0])
    shared = aligner.embed(parts[1])
    score = next(s for s in recall_at_10(shared, shared) if (s.source, s.target) == ("image", outcome.queries.target))
    rows = outcome.queries.rows
    assert outcome.scores[0].value == pytest.approx(float(score.per_point[rows].mean()))
    assert (outcome.changed.delta == 0).all()


def test_queries_that_fail_when_clean_are_left_alone_unless_targeted_or_transferred(aligner, parts, inputs):
    for threat, surrogate, all_moved in (
        (Threat(k=1), None, False),
        (Threat(goal="targeted"), None, True),
        (Threat(k=1), aligner, True),
    ):
        outcome = attacked(aligner, parts, inputs, threat, radii=[0.2], surrogate=surrogate)[0]
        moved = outcome.changed.lengths > 0
        undecided = outcome.success.per_point[outcome.queries.rows].isnan()
        if all_moved:
            assert moved[undecided].any() if threat.goal == "untargeted" else moved.double().mean() > 0.9
        else:
            assert undecided.any()
            assert moved.equal(~undecided)


def test_a_sample_does_not_depend_on_the_others(aligner, parts, inputs):
    whole = attacked(aligner, parts, inputs, radii=[0.1])[0]
    some = Features.of(parts[1], "image", parts[0], parts[1].key[[40, 3]])
    part = attacked(aligner, parts, some, radii=[0.1])[0]
    at = [whole.queries.rows.tolist().index(row) for row in part.queries.rows.tolist()]
    assert part.changed.delta.allclose(whole.changed.delta[at], atol=1e-5)


def test_batches_do_not_matter(aligner, parts, inputs, monkeypatch):
    whole = attacked(aligner, parts, inputs, radii=[0.1])[0]
    monkeypatch.setattr(Features, "batch", 30)
    assert attacked(aligner, parts, inputs, radii=[0.1])[0].changed.delta.allclose(whole.changed.delta, atol=1e-5)


def test_equal_seeds_are_equal_and_others_start_elsewhere(aligner, parts, inputs):
    first, again, other = (
        attacked(aligner, parts, inputs, Threat(k=K, steps=2, seed=seed), radii=[0.1])[0] for seed in (0, 0, 1)
    )
    assert first.changed.delta.equal(again.changed.delta)
    assert not first.changed.delta.allclose(other.changed.delta)
    targeted = [
        attacked(aligner, parts, inputs, Threat(goal="targeted", seed=seed), radii=[0.1])[0].queries.wanted
        for seed in (0, 0, 1)
    ]
    assert targeted[0].equal(targeted[1])
    assert not targeted[0].equal(targeted[2])


def test_more_steps_and_restarts_reach_a_loss_that_is_no_lower(aligner, parts, inputs):
    queries = attacked(aligner, parts, inputs, radii=[0.0])[0].queries
    clean, model = aligner.embed(parts[1]), attacks.differentiable(aligner, "image")
    threat = Threat("apgd", k=K, steps=5)
    goal = attacks.evaluation.objective_of(queries, clean, threat)
    losses = []
    for steps, restarts in ((1, 1), (5, 1), (5, 3), (5, 6)):
        how = replace(threat, steps=steps, restarts=restarts)
        found = attacks.evaluation.perturb(queries.inputs, model, goal, how, radius=0.1)
        losses.append(goal.loss(model(found.features)))
    assert losses[1].mean() > losses[0].mean()
    for fewer, more in itertools.pairwise(losses[1:]):
        assert (more >= fewer - 1e-6).all()


def test_attacks_made_on_another_variant_are_weaker_end_to_end(parts):
    """Made on clip, measured on cca: worse than cca's own, better than nothing of the same size."""
    train, test = parts
    short = TrainingConfig(epochs=15, batch_size=64, learning_rate=0.02)
    clip, cca = (variants.get(n)({"dim": 8}, training=short).fit(train, test) for n in ("clip", "cca"))
    inputs = Features.of(test, "image", train)
    threat, radii = Threat("pgd", "l2", k=1), [2.0]
    own, transferred, noise = (
        np.mean([o.success.value for o in attacked(cca, parts, inputs, how, radii=radii, surrogate=surrogate)])
        for how, surrogate in ((threat, None), (threat, clip), (replace(threat, attack="random"), None))
    )
    assert own > transferred > noise + 0.05
    table = under_attack(attacked(cca, parts, inputs, threat, surrogate=clip), test, resamples=100, seed=0).scores
    assert set(table["corruption"]) == {"pgd_l2_features"}


def test_rows_of_budgets_that_are_no_severity_are_not_made(aligner, parts, inputs):
    outcomes = attacked(aligner, parts, inputs, radii=[0.123])
    assert outcomes[0].severity is None
    with pytest.raises(ValueError, match="pgd_linf_features has the budget 0.123; only severities can be stored"):
        under_attack(outcomes, parts[1], resamples=100, seed=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"norm": "l1"}, "norm must be one of linf, l2; got 'l1'"),
        ({"goal": "some"}, "goal must be untargeted or targeted; got 'some'"),
        ({"k": 0}, "k must be at least 1; got 0"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"restarts": -1}, "restarts must be at least 0; got -1"),
    ],
)
def test_threats_that_there_are_not(wrong, told):
    with pytest.raises(ValueError, match=told):
        Threat(**wrong)
    with pytest.raises(UnknownNameError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        Threat("pdg")


def test_wrong_requests_are_one_sentence(aligner, parts, inputs):
    train, test = parts
    for radius in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a budget must be a finite number, 0 or more; got"):
            attacked(aligner, parts, inputs, radii=[radius])
    detached = Linear(aligner.maps, before=lambda z: z.detach())
    with pytest.raises(ValueError, match=r"variant 'linear' has no gradient from features of 'image'.*`surrogate`"):
        attacked(detached, parts, inputs, radii=[0.1])
    with pytest.raises(ValueError, match=r"no modality \['sound'\] in these embeddings"):
        evaluate_attack(aligner, test, inputs, Threat(), modality="sound")
    with pytest.raises(ValueError, match="no sample 'nothing' with an item of 'image'; there are 80 others"):
        Features.of(test, "image", train, ["nothing"])
    with pytest.raises(ValueError, match=r"no test sample 'thing0' with an item of 'image' \(1 such keys\)"):
        attacked(aligner, parts, Features.of(train, "image", train, ["thing0"]))
    few = test.take(range(10))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.\d, the other items of the gallery; got 10"):
        attacked(aligner, (train, few), Features.of(few, "image", train), Threat())


def test_transferred_attacks_need_no_gradient_of_what_they_are_applied_to(aligner, parts, inputs):
    detached = Linear(aligner.maps, before=lambda z: z.detach())
    outcome = attacked(detached, parts, inputs, radii=[1.0], surrogate=aligner)[0]
    assert outcome.success.value > 0.5
