"""What every registered variant keeps, run over the registry: a new variant is tested from its first day.

The planted problem: modalities see one normal latent through a random affine map each, with noise. The tables below say
which variants are not expected to solve it, or which numbers of modalities they take; every line of them is tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import ConfigError, TrainingConfig, parse
from labkit.data.pairing import unpair
from labkit.metrics.retrieval import recall_at_1, recall_at_10
from labkit.metrics.similarity import rankme
from labkit.registry import UnknownNameError
from labkit.train import validation_score
from labkit.types import Aligner, Embeddings
from labkit.variants import VARIANTS, AlignerBase, ClosedForm, Trained

NAMES = list(VARIANTS)
QUICK = {"dim": 16, "dropout": 0.1, "epsilon": 0.2, "neighbors": 5, "repeats": 3, "refinements": 10}
TRAINING = TrainingConfig(epochs=10, batch_size=64, learning_rate=0.02, weight_decay=0.01)
SHORT = TRAINING.model_copy(update={"epochs": 2})

# Who does not beat the floor by much at finding the partner of an item, and why.
FLOOR = {"identity"}  # relates nothing
BY_LABELS = {"attention", "concat", "unimodal"}  # labels alone relate the modalities: it finds the category
# is never told what belongs together, and a normal latent has no shape to tell by
BY_SHAPE = {"gw_matching", "mini_vec2vec"}
NO_PARTNERS = FLOOR | BY_LABELS | BY_SHAPE
# Who learns from samples of one modality each: a term that compares clouds, or labels. The others refuse them.
WITHOUT_PAIRS = NO_PARTNERS | {"fgw", "gotma", "gw", "misa", "mmd", "ot", "rma", "structure"}
# Numbers of modalities that the definition allows, where that is not any from 2 up. It refuses others.
MODALITIES: dict[str, tuple[int, ...]] = {"triangle": (3, 4)}
# Options that augment the input; 0 turns them off.
AUGMENTED: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("brownian", "consistency", "cyclip", "separation"), ("noise", "masking")
) | {"albef": ("masking",)}

pytestmark = [
    # after an epoch or two posteriors are still alike; whether a space has collapsed has a test of its own
    pytest.mark.filterwarnings("ignore::labkit.train.CollapseWarning"),
    pytest.mark.filterwarnings("ignore::labkit.variants._unpaired.UnmatchedWarning"),  # true here: see BY_SHAPE
]


def takes(name: str, modalities: int) -> bool:
    return modalities in MODALITIES.get(name, (2, 3, 4))


def quick(name: str, **changes: Any) -> dict[str, Any]:
    """Options under which a fit takes a second, as far as the variant has them."""
    fields = variants.get(name).Options.model_fields
    return {k: v for k, v in (QUICK | changes).items() if k in fields}


def parts(data: Embeddings) -> tuple[Embeddings, Embeddings, Embeddings]:
    n = len(data)
    train, validation, rest = np.split(np.arange(n), [n // 2, n // 2 + n // 6])
    return data.take(train), data.take(validation), data.take(rest)


def planted(make: Any, name: str, n: int, *, seed: int = 0, missing: float = 0.0) -> Embeddings:
    """The planted problem in as few modalities as the variant takes."""
    return make(n, min(MODALITIES.get(name, (2,))), seed=seed, missing=missing)


def fitted(name: str, data: Embeddings, *, seed: int = 0, training: TrainingConfig = TRAINING) -> AlignerBase:
    train, validation, _ = parts(data)
    return variants.get(name)(quick(name), training=training, seed=seed).fit(train, validation)


CASES = [(name, m) for name in NAMES for m in (2, 3, 4) if takes(name, m)]


@pytest.fixture(scope="module", params=CASES, ids=lambda p: f"{p[0]}-{p[1]}")
def case(request, shared_latent) -> tuple[str, AlignerBase, Embeddings]:
    """A variant fitted on 2, 3 or 4 modalities of which 30 % of the items are missing, and other such samples."""
    name, modalities = request.param
    data = shared_latent(360, modalities, missing=0.3)
    training = TRAINING if modalities < 4 else TRAINING.model_copy(update={"epochs": 6})  # six pairs of modalities
    return name, fitted(name, data, training=training), parts(data)[2]


def test_it_is_an_aligner_with_one_shared_space(case):
    name, aligner, test = case
    assert isinstance(aligner, Aligner)
    shared = aligner.embed(test)
    assert shared.modalities == test.modalities
    assert (shared.key == test.key).all()
    assert shared.groups.equal(test.groups)
    assert len({v.shape for v in shared.z.values()}) == 1
    for m in test.modalities:
        assert shared.present[m].equal(test.present[m])
        norms = shared.z[m].norm(dim=1)
        assert norms[test.present[m]].allclose(torch.ones(()), atol=1e-5), name
        assert (shared.z[m][~test.present[m]] == 0).all()
        assert not shared.z[m].requires_grad


def test_it_retrieves_unseen_partners_in_every_direction(case):
    name, aligner, test = case
    shared = aligner.embed(test)
    scores = recall_at_10(shared, shared)
    assert len(scores) == len(test.modalities) * (len(test.modalities) - 1)
    for score in scores:
        assert score.chance is not None
        if name not in NO_PARTNERS:
            assert score.value > score.chance + 0.3, f"{score.source} to {score.target}"


def test_its_space_has_not_collapsed(case):
    name, aligner, test = case
    shared = aligner.embed(test)
    for m in test.modalities:
        rank = rankme(shared.z[m][test.present[m]])
        assert rank > (1.5 if name in BY_LABELS else 3), f"the latent has 8 directions, {name} keeps {rank:.1f} of {m}"


def test_saved_and_loaded_it_embeds_alike(case, tmp_path):
    name, aligner, test = case
    aligner.save(tmp_path / "aligner")
    again = variants.load(tmp_path / "aligner")
    assert type(again) is variants.get(name)
    assert again.options == aligner.options
    first, second = aligner.embed(test), again.embed(test)
    for m in test.modalities:
        assert first.z[m].equal(second.z[m])


def test_an_embedding_does_not_depend_on_its_batch_mates(case):
    _, aligner, test = case
    whole = aligner.embed(test)
    for rows in ([3, 1], [3]):
        some = aligner.embed(test.take(rows))
        for m in test.modalities:
            assert some.z[m].allclose(whole.z[m][rows], atol=1e-6)


def test_one_modality_can_be_embedded_alone(case):
    _, aligner, test = case
    m = test.modalities[-1]
    assert aligner.embed(test.select([m])).z[m].allclose(aligner.embed(test).z[m], atol=1e-6)


def test_it_has_a_gradient_for_features_that_require_one(case):
    """It says by how much a random projection of the embedding changes, and is not zero."""
    name, aligner, test = case
    generator = torch.Generator().manual_seed(0)
    for m in test.modalities:
        rows = test.present[m].nonzero().flatten()[:8]
        x = test.z[m][rows].clone().requires_grad_()
        weights = torch.randn(8, aligner.embed(test).z[m].shape[1], generator=generator)

        def value(v: torch.Tensor, m: str = m, weights: torch.Tensor = weights) -> torch.Tensor:
            return (aligner.embed(Embeddings(key=test.key[:8], z={m: v})).z[m] * weights).sum()

        (slope,) = torch.autograd.grad(value(x), x)
        assert torch.isfinite(slope).all()
        assert (slope.norm(dim=1) > 0).all(), name
        step = 1e-3 * slope / slope.norm()  # along the gradient, where rounding weighs least
        change = float(value(x.detach() + step) - value(x.detach() - step))
        assert change == pytest.approx(2 * float((step * slope).sum()), rel=0.05)


def test_it_keeps_no_graph_unless_features_require_a_gradient(case):
    _, aligner, test = case
    asked = {m: v.clone().requires_grad_() for m, v in test.z.items()}
    with torch.no_grad():
        assert not any(v.requires_grad for v in aligner.embed(test.with_z(asked)).z.values())
    plain, with_graph = aligner.embed(test), aligner.embed(test.with_z(asked))
    for m in test.modalities:
        assert plain.z[m].grad_fn is None
        assert plain.z[m].equal(with_graph.z[m].detach())


def gain(aligner: AlignerBase, data: Embeddings) -> float:
    """Recall@1 on the last third of `data`, mean over directions, above that of the floor."""
    test = parts(data)[2]
    spaces = [a.embed(test) for a in (aligner, fitted("identity", data))]
    found, floor = ([score.value for score in recall_at_1(space, space)] for space in spaces)
    return float(np.mean(found) - np.mean(floor))


def label_share(aligner: AlignerBase, data: Embeddings) -> float:
    """Among the ten nearest in the other modality: how many have the label of the query (0.5 by chance)."""
    test = parts(data)[2]
    z = aligner.embed(test).z
    near = (z["image"] @ z["text"].T).topk(10, dim=1).indices
    return float((test.label[near] == test.label[:, None]).double().mean())


@pytest.mark.parametrize("name", NAMES)
def test_on_the_planted_problem_it_beats_the_floor_unless_listed(name, shared_latent):
    data = planted(shared_latent, name, 240)
    assert (gain(fitted(name, data), data) > 0.3) == (name not in NO_PARTNERS)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NO_PARTNERS])
def test_with_half_of_the_pairs_cut_apart_it_still_does(name, shared_latent):
    data = planted(shared_latent, name, 240)
    train, validation, _ = parts(data)
    aligner = variants.get(name)(quick(name), training=TRAINING).fit(unpair(train, 0.5, seed=0), validation)
    assert gain(aligner, data) > 0.1


@pytest.mark.parametrize("name", sorted(BY_LABELS))
def test_what_learns_from_labels_finds_the_category_and_needs_them(name, shared_latent):
    data = shared_latent(300)
    assert label_share(fitted(name, data), data) > 0.65
    unknown = Embeddings(key=data.key, z=data.z)
    with pytest.raises(ValueError, match=f"'{name}' learns from labels alone.*no training sample has one"):
        fitted(name, unknown)


@pytest.mark.parametrize("name", sorted(BY_SHAPE))
def test_what_is_not_told_the_pairs_does_as_well_on_wrong_ones(name, shared_latent):
    data = shared_latent(300)
    train, validation, _ = parts(data)
    wrong = train.with_z({**train.z, "text": train.z["text"].roll(1, dims=0)})
    scores = [gain(variants.get(name)(quick(name)).fit(t, validation), data) for t in (train, wrong)]
    assert abs(scores[0] - scores[1]) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_without_any_pairs_it_learns_or_says_that_it_cannot(name, shared_latent):
    data = planted(shared_latent, name, 240)
    train, validation, test = parts(data)
    records: list[Any] = []
    aligner = variants.get(name)(quick(name), training=TRAINING, log=records.append)
    if name not in WITHOUT_PAIRS:
        with pytest.raises(ValueError, match="add paired samples"):
            aligner.fit(unpair(train, 0, seed=0), validation)
        return
    shared = aligner.fit(unpair(train, 0, seed=0), validation).embed(test)
    assert min(rankme(z) for z in shared.z.values()) > (1.5 if name in BY_LABELS else 3)
    if isinstance(aligner, Trained):
        terms = set(aligner.terms(train.take(range(64))))
        first, last = (sum(v for term, v in records[i].items() if term in terms) for i in (0, -1))
        assert last < first


@pytest.mark.parametrize(("name", "modalities"), [(n, m) for n in NAMES for m in (1, 2, 3, 4) if not takes(n, m)])
def test_numbers_of_modalities_that_it_is_not_defined_for_are_refused(name, modalities, shared_latent):
    data = shared_latent(60, max(modalities, 2))
    data = data.select(data.modalities[:modalities])
    with pytest.raises(ValueError, match=rf"'{name}'.* modalities; got \[[^]]*\]"):
        variants.get(name)(quick(name), training=SHORT).fit(data, data)


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(variants.get(n), Trained)])
def test_batches_in_which_hardly_anything_is_paired_are_survived(name, shared_latent):
    data = planted(shared_latent, name, 40, missing=0.5)
    shared = fitted(name, data, training=TrainingConfig(epochs=2, batch_size=2)).embed(data)
    assert all(bool(torch.isfinite(z).all()) for z in shared.z.values())


@pytest.mark.parametrize(("name", "option"), [(n, o) for n, options in AUGMENTED.items() for o in options])
def test_augmentation_changes_the_result(name, option, shared_latent):
    data = planted(shared_latent, name, 120)
    z = [variants.get(name)(quick(name) | o, training=SHORT).fit(data, data).embed(data).z for o in ({}, {option: 0})]
    assert not z[0]["image"].allclose(z[1]["image"], atol=1e-3)


def test_augmentation_is_declared():
    declared = {n for n in NAMES if {"noise", "masking"} & set(variants.get(n).Options.model_fields)}
    assert declared == set(AUGMENTED)


# who matches by shape decides between close rivals, which rounding can turn
EXACT = [n for n in NAMES if issubclass(variants.get(n), ClosedForm) and n not in BY_SHAPE]


@pytest.mark.parametrize("name", EXACT)
def test_the_origin_of_a_modality_does_not_matter_with_missing_items(name, shared_latent):
    data = shared_latent(360, 3, missing=0.3).to(dtype=torch.float64)
    moved = data.with_z({m: z + 50 for m, z in data.z.items()})
    first, second = (fitted(name, d).embed(d) for d in (data, moved))
    for m in data.modalities:
        assert first.z[m].allclose(second.z[m], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_embeddings_and_others_differ(name, shared_latent):
    data = planted(shared_latent, name, 120)
    torch.manual_seed(98)  # no result may hang on the global state
    z = {seed: fitted(name, data, seed=seed, training=SHORT).embed(data).z["image"] for seed in (0, 1)}
    torch.manual_seed(99)
    assert fitted(name, data, training=SHORT).embed(data).z["image"].equal(z[0])
    assert issubclass(variants.get(name), Trained) == (not z[0].equal(z[1]))


@pytest.mark.parametrize("name", NAMES)
def test_fitting_leaves_the_global_random_state_alone(name, shared_latent):
    before = torch.get_rng_state()
    fitted(name, planted(shared_latent, name, 60), training=SHORT)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_fit_forgets_the_first(name, shared_latent):
    data, other = planted(shared_latent, name, 120), shared_latent(120, max(MODALITIES.get(name, (3,))), seed=1)
    aligner = fitted(name, other, training=SHORT)
    train, validation, _ = parts(data)
    aligner.fit(train, validation)
    assert aligner.embed(data).z["text"].equal(fitted(name, data, training=SHORT).embed(data).z["text"])


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_the_device_and_loads_on_the_cpu(name, shared_latent, device, tmp_path):
    data = planted(shared_latent, name, 90, missing=0.3)
    train, validation, test = parts(data)
    aligner = variants.get(name)(quick(name), training=SHORT, device=device).fit(train, validation)
    shared = aligner.embed(test.to(device))
    assert shared.device.type == device.type
    aligner.save(tmp_path)
    here = variants.load(tmp_path).embed(test)
    assert here.z["text"].allclose(shared.z["text"].cpu(), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gets_a_clear_sentence(name, shared_latent, tmp_path):
    data = planted(shared_latent, name, 60)
    aligner = variants.get(name)(quick(name), training=SHORT)
    with pytest.raises(RuntimeError, match="not fitted yet"):
        aligner.embed(data)
    with pytest.raises(RuntimeError, match="not fitted yet"):
        aligner.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(FileNotFoundError, match=r"aligner\.json is missing"):
        variants.load(tmp_path / "nothing")
    for count in (0, 1):
        rare = data.with_z(data.z, {**data.present, "text": torch.arange(60) < count})
        with pytest.raises(ValueError, match=rf"at least 2 training samples.*'text': {count}"):
            aligner.fit(rare, data)
    with pytest.raises(ValueError, match=r"same vector in \['text'\]"):
        aligner.fit(data.with_z({**data.z, "text": torch.ones(60, 22)}), data)
    aligner.fit(data, data)
    with pytest.raises(ValueError, match=r"fitted on \['image', 'text'.*\], cannot embed \['sound'\]"):
        aligner.embed(Embeddings(key=data.key, z={"sound": data.z["image"]}))
    with pytest.raises(ValueError, match="fitted on 20 features of 'image', cannot embed 22"):
        aligner.embed(Embeddings(key=data.key, z={"image": data.z["text"]}))


def test_what_no_variant_can_use_never_reaches_one(shared_latent):
    data = shared_latent(60)
    data.z["text"][7, 3] = torch.nan
    with pytest.raises(ValueError, match="'text'.*NaN"):
        Embeddings(key=data.key, z=data.z)
    with pytest.raises(ConfigError, match="'batch_size' is 1"):
        parse(TrainingConfig, {"batch_size": 1}, what="training")
    with pytest.raises(UnknownNameError, match="unknown variant 'gotna'; did you mean 'gotma'"):
        variants.get("gotna")


def test_the_floor_is_at_chance(shared_latent):
    gains = []
    for seed in range(12):
        data = shared_latent(360, seed=seed)
        shared = fitted("identity", data).embed(parts(data)[2])
        chance = recall_at_10(shared, shared)[0].chance
        assert chance is not None
        gains.append(validation_score(shared) - chance)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(len(gains))
    assert abs(np.mean(gains)) < 0.05
