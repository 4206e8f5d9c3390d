"""What every registered variant keeps, run over the registry: a new variant is tested from its first day."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch

from labkit import variants
from labkit.config import ConfigError, TrainingConfig
from labkit.metrics.retrieval import recall_at_10
from labkit.train import validation_score
from labkit.types import Aligner, Embeddings
from labkit.variants import VARIANTS, AlignerBase, ClosedForm, Options, Trained

NAMES = list(VARIANTS)
UNALIGNED = {"identity"}  # says so itself: the floor
QUICK = {"dim": 16, "dropout": 0.1, "epsilon": 0.2, "neighbors": 5}
TRAINING = TrainingConfig(epochs=12, batch_size=64, learning_rate=0.02, weight_decay=0.01)


def quick(name: str, **changes: Any) -> dict[str, Any]:
    """Options under which a fit takes a second, as far as the variant has them."""
    fields = variants.get(name).Options.model_fields
    return {k: v for k, v in (QUICK | changes).items() if k in fields}


def parts(data: Embeddings) -> tuple[Embeddings, Embeddings, Embeddings]:
    n = len(data)
    train, validation, rest = np.split(np.arange(n), [n // 2, n // 2 + n // 6])
    return data.take(train), data.take(validation), data.take(rest)


def fitted(name: str, data: Embeddings, *, seed: int = 0, training: TrainingConfig = TRAINING) -> AlignerBase:
    train, validation, _ = parts(data)
    return variants.get(name)(quick(name), training=training, seed=seed).fit(train, validation)


@pytest.fixture(scope="module", params=[(n, m) for n in NAMES for m in (2, 3, 4)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request, shared_latent) -> tuple[str, AlignerBase, Embeddings]:
    """A variant fitted on 2, 3 or 4 modalities of which 30 % of the items are missing, and other such samples."""
    name, modalities = request.param
    data = shared_latent(360, modalities, missing=0.3)
    return name, fitted(name, data), parts(data)[2]


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
        if name not in UNALIGNED:
            assert score.value > score.chance + 0.3, f"{score.source} to {score.target}"


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
    whole, alone = aligner.embed(test), aligner.embed(test.take([3, 1]))
    for m in test.modalities:
        assert alone.z[m].allclose(whole.z[m][[3, 1]], atol=1e-6)


def test_one_modality_can_be_embedded_alone(case):
    _, aligner, test = case
    m = test.modalities[-1]
    assert aligner.embed(test.select([m])).z[m].allclose(aligner.embed(test).z[m], atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(variants.get(n), ClosedForm)])
def test_the_origin_of_a_modality_does_not_matter_with_missing_items(name, shared_latent):
    data = shared_latent(360, 3, missing=0.3).to(dtype=torch.float64)
    moved = data.with_z({m: z + 50 for m, z in data.z.items()})
    first, second = (fitted(name, d).embed(d) for d in (data, moved))
    for m in data.modalities:
        assert first.z[m].allclose(second.z[m], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_embeddings_and_others_differ(name, shared_latent):
    data, short = shared_latent(120), TRAINING.model_copy(update={"epochs": 2})
    torch.manual_seed(98)  # no result may hang on the global state
    z = {seed: fitted(name, data, seed=seed, training=short).embed(data).z["image"] for seed in (0, 1)}
    torch.manual_seed(99)
    assert fitted(name, data, training=short).embed(data).z["image"].equal(z[0])
    assert issubclass(variants.get(name), Trained) == (not z[0].equal(z[1]))


@pytest.mark.parametrize("name", NAMES)
def test_fitting_leaves_the_global_random_state_alone(name, shared_latent):
    before = torch.get_rng_state()
    fitted(name, shared_latent(60), training=TrainingConfig(epochs=1))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_fit_forgets_the_first(name, shared_latent):
    data, other = shared_latent(120), shared_latent(120, 3, seed=1)
    short = TRAINING.model_copy(update={"epochs": 2})
    aligner = fitted(name, other, training=short)
    train, validation, _ = parts(data)
    aligner.fit(train, validation)
    assert aligner.embed(data).z["text"].equal(fitted(name, data, training=short).embed(data).z["text"])


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_the_device_and_loads_on_the_cpu(name, shared_latent, device, tmp_path):
    data = shared_latent(90, 3, missing=0.3)
    train, validation, test = parts(data)
    aligner = variants.get(name)(quick(name), training=TrainingConfig(epochs=1), device=device).fit(train, validation)
    shared = aligner.embed(test.to(device))
    assert shared.device.type == device.type
    aligner.save(tmp_path)
    here = variants.load(tmp_path).embed(test)
    assert here.z["text"].allclose(shared.z["text"].cpu(), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_options_survive_json_and_refuse_what_they_do_not_know(name):
    cls = variants.get(name)
    options = cls.Options()
    assert cls.Options.model_validate(json.loads(json.dumps(options.model_dump(mode="json")))) == options
    with pytest.raises(ConfigError, match=rf"options of variant '{name}'.*'dimm'.*did you mean 'dim'"):
        cls({"dimm": 8})
    with pytest.raises(ConfigError, match="'dim' is 0"):
        cls({"dim": 0})


@pytest.mark.parametrize("name", NAMES)
def test_what_tuning_searches_are_valid_options(name):
    cls = variants.get(name)
    assert cls.search, "tuning needs something to search"
    for field, values in cls.search.items():
        assert field in cls.Options.model_fields
        assert len(set(values)) == len(values) > 1
        for value in values:
            assert getattr(cls({field: value}).options, field) == value


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented_with_its_source_and_every_option(name):
    cls = variants.get(name)
    assert cls.__doc__
    assert "Source:" in cls.__doc__
    assert len((inspect.getmodule(cls).__doc__ or "").split()) > 10
    explained = "".join(inspect.getdoc(c) or "" for c in cls.Options.__mro__ if issubclass(c, Options))
    for field in cls.Options.model_fields:
        assert f"\n    {field}: " in explained, f"option {field} is not explained"


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gets_a_clear_sentence(name, shared_latent, tmp_path):
    data = shared_latent(60)
    aligner = variants.get(name)(quick(name), training=TrainingConfig(epochs=1))
    with pytest.raises(RuntimeError, match="not fitted yet"):
        aligner.embed(data)
    with pytest.raises(RuntimeError, match="not fitted yet"):
        aligner.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(FileNotFoundError, match=r"aligner\.json is missing"):
        variants.load(tmp_path / "nothing")
    rare = data.with_z(data.z, {"image": data.present["image"], "text": torch.arange(60) == 7})
    with pytest.raises(ValueError, match=r"at least 2 training samples.*'text': 1"):
        aligner.fit(rare, data)
    with pytest.raises(ValueError, match=r"same vector in \['text'\]"):
        aligner.fit(data.with_z({**data.z, "text": torch.ones(60, 22)}), data)
    aligner.fit(data, data)
    with pytest.raises(ValueError, match=r"fitted on \['image', 'text'\], cannot embed \['sound'\]"):
        aligner.embed(Embeddings(key=data.key, z={"sound": data.z["image"]}))
    with pytest.raises(ValueError, match="fitted on 20 features of 'image', cannot embed 22"):
        aligner.embed(Embeddings(key=data.key, z={"image": data.z["text"]}))


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


def test_names_and_aliases():
    assert VARIANTS.canonical("geometric") == "rma"
    assert variants.get("gcca").name() == "cca"


def test_a_class_that_is_not_registered_has_a_name():
    class Mine(variants.get("clip")):
        """A user's own variant."""

    assert Mine({"dim": 4}).name() == "Mine"
