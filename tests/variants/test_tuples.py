"""GRAM, TRIANGLE, PMRL and Symile: which samples they contrast, that their terms are the stated ones, and why signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import TrainingConfig
from labkit.losses import antipodal, gram, gram_volume, info_nce, leading_directions, pmrl, symile, triangle
from labkit.metrics.retrieval import recall_at_10
from labkit.variants._tuples import tuples

SHORT = TrainingConfig(epochs=2, batch_size=64)
NAMES = ("gram", "triangle", "pmrl", "symile")


def fitted(name: str, data, training=SHORT, **options):
    return variants.get(name)({"dim": 8, **options}, training=training).fit(data, data)


def test_a_set_of_modalities_has_all_samples_that_have_it(shared_latent):
    data = shared_latent(80, 3, missing=0.4, group_size=2)
    names = list(data.modalities)
    has = [{m for m in names if data.present[m][i]} for i in range(80)]
    found = {tuple(s.z): s for s in tuples(data.z, data)}
    assert set(found) == {tuple(m for m in names if m in s) for s in has if len(s) > 1}
    for modalities, one in found.items():
        rows = [i for i, s in enumerate(has) if s >= set(modalities)]
        assert one.count == sum(s == set(modalities) for s in has)
        assert one.group.equal(data.groups[rows])
        for m in modalities:
            assert one.z[m].equal(data.z[m][rows])


def test_what_one_sample_alone_has_says_nothing(shared_latent):
    data = shared_latent(6)
    lonely = {"image": torch.arange(6) < 3, "text": torch.arange(6) > 1}
    assert list(tuples(data.z, data.with_z(data.z, lonely))) == []


def expected_contrast(name: str, z: list[torch.Tensor], t: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    if name == "pmrl":
        return pmrl(*z, temperature=0.1, temperature_between=t, group=group)
    if name == "gram":
        orders = [[z[a], *(v for i, v in enumerate(z) if i != a)] for a in range(len(z))]
        return torch.stack([gram(*o, temperature=t, group=group) for o in orders]).mean()
    if name == "symile":
        subsets = [s for k in (2, 3, 4) for s in itertools.combinations(z, k)]
        return torch.stack([symile(*s, temperature=t, group=group) for s in subsets]).mean()
    if len(z) == 2:
        return info_nce(*z, temperature=t, group=group)
    orders = [o for o in itertools.permutations(range(len(z)), 3) if o[1] < o[2]]
    return torch.stack([triangle(*(z[i] for i in o), temperature=t, group=group) for o in orders]).mean()


@pytest.mark.parametrize("modalities", [3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_terms_are_means_over_samples_of_their_formula(name, modalities, shared_latent):
    data = shared_latent(60, modalities, missing=0.3, group_size=2)
    aligner = fitted(name, data, dropout=0.0)
    z, t = aligner.network.project(data, normalize=True), aligner.network.temperature
    sets = list(tuples(z, data))
    values = [expected_contrast(name, list(s.z.values()), t, s.group) * s.count for s in sets]
    expected = torch.stack(values).sum() / sum(s.count for s in sets)
    terms = aligner.terms(data)
    assert terms["contrastive"].item() == pytest.approx(expected.item(), rel=1e-4)
    if name in ("gram", "pmrl"):
        pairs = itertools.combinations(z, 2)
        both = [(a, b, data.present[a] & data.present[b]) for a, b in pairs]
        far = torch.stack([antipodal(z[a][rows], z[b][rows]) for a, b, rows in both]).mean()
        assert terms["antipodal"].item() == pytest.approx(5 * far.item(), rel=1e-4, abs=1e-7)
    assert ("matching" in terms) == (name != "symile")


@pytest.mark.parametrize("name", NAMES)
def test_weights_multiply_terms_and_zero_leaves_them_out(name, shared_latent):
    data = shared_latent(40, 3)
    terms = {}
    for weight in (1.0, 3.0):
        fields = variants.get(name).Options.model_fields
        aligner = fitted(name, data, **{f: weight for f in fields if f.startswith("w_")}, dropout=0.0)
        for m, head in aligner.network.heads.items():
            torch.manual_seed(len(m))
            head.linear.weight.data = torch.randn_like(head.linear.weight)
        aligner.network.log_temperature.data.fill_(-2.0)
        terms[weight] = {k: v for k, v in aligner.terms(data).items() if k != "matching"}  # whose network differs
    for term, value in terms[1.0].items():
        assert terms[3.0][term].item() == pytest.approx(3 * value.item(), rel=1e-4)
    if name != "symile":
        assert "matching" not in fitted(name, data, w_matching=0.0).terms(data)


@pytest.mark.parametrize("name", NAMES)
def test_every_term_reaches_every_head(name, shared_latent):
    data = shared_latent(40, 3, missing=0.2)
    aligner = fitted(name, data)
    for head in aligner.network.heads.values():
        head.linear.weight.data.normal_()
    for term, value in aligner.terms(data).items():
        aligner.network.zero_grad()
        value.backward(retain_graph=True)
        for m, head in aligner.network.heads.items():
            assert float(head.linear.weight.grad.abs().max()) > 1e-7, f"{term} of {m}"


@pytest.mark.parametrize("name", ["gram", "triangle", "pmrl"])
def test_hard_negatives_are_what_the_loss_confuses(name, shared_latent):
    """The scores by which they are drawn are the loss's own, of the first modality against the others."""
    data = shared_latent(12, 3)
    aligner = fitted(name, data)
    z = list(aligner.embed(data).z.values())
    t = aligner.network.temperature
    scores = aligner.scores(z)
    for i, j in itertools.product(range(12), repeat=2):
        if name == "pmrl":
            u = leading_directions(*z)[1]
            expected = (u[i] @ u[j]).abs() / t
        elif name == "gram":
            expected = -gram_volume(z[0][[i]], z[1][[j]], z[2][[j]])[0, 0] / t
        else:
            a, b, c = z[0][i], z[1][j], z[2][j]
            sides = [(a - b).norm(), (a - c).norm(), (b - c).norm()]
            s = sum(sides) / 2
            expected = -2 * s * (s - sides[0]) * (s - sides[1]) * (s - sides[2]) / t
        assert scores[i, j].item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)


def test_volumes_alone_do_not_know_the_sign_by_which_retrieval_ranks(shared_latent):
    """Without the antipodal term some starts end with partners at opposite poles; with it none does."""
    data = shared_latent(240)
    train, validation, test = (data.take(rows) for rows in (range(140), range(140, 170), range(170, 240)))
    training = TrainingConfig(epochs=10, batch_size=64, learning_rate=0.02)
    found: dict[float, list[float]] = {0.0: [], 5.0: []}
    for weight, seed in itertools.product(found, range(4)):
        options = {"dim": 16, "dropout": 0.1, "w_antipodal": weight, "w_matching": 0.0}
        aligner = variants.get("gram")(options, training=training, seed=seed).fit(train, validation)
        shared = aligner.embed(test)
        found[weight].append(float(np.mean([s.value for s in recall_at_10(shared, shared)])))
    assert min(found[5.0]) > 0.9
    assert min(found[0.0]) < 0.3
    assert max(found[0.0]) > 0.9, "it is a matter of luck"


def test_the_first_modality_as_the_only_anchor(shared_latent):
    data = shared_latent(40, 3)
    aligner = fitted("gram", data, anchor="first", dropout=0.0)
    z, t = aligner.network.project(data, normalize=True), aligner.network.temperature
    expected = gram(*z.values(), temperature=t, group=data.groups)
    assert aligner.terms(data)["contrastive"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_symile_of_two_is_clip(shared_latent):
    data = shared_latent(40, missing=0.3)
    first, second = (fitted(name, data) for name in ("symile", "clip"))
    assert first.terms(data)["contrastive"].item() == pytest.approx(second.terms(data)["contrastive"].item(), rel=1e-5)
