"""Domain shift: who takes part, with whose items, and what there is no domain for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import data, samples
from labkit.config import ConfigError, RunConfig
from labkit.metrics.retrieval import chance_recall_at_k, recall_at_10

TWO = ("image", "text")


def load(domain: dict[str, object], *, seed: int = 0, **values: object) -> samples.Samples:
    shifted = {"modalities": TWO, "domain": domain} | values
    return samples.load(RunConfig.model_validate({"data": shifted, "seed": seed}))


@pytest.fixture(scope="module")
def kind() -> dict[str, str]:
    table = data.table("stamps")
    return dict(zip(table["key"], table["kind"], strict=True))


@pytest.mark.parametrize(("train", "test"), [("drawing", "photo"), ("photo", "drawing"), ("", "photo"), ("photo", "")])
def test_each_split_has_its_kind_and_is_part_of_the_split_without_a_shift(kind, train: str, test: str) -> None:
    plain, shifted = load({}, seed=2), load({"train": train, "test": test}, seed=2)
    for name, wanted in (("train", train), ("validation", train), ("test", test)):
        expected = [key for key in getattr(plain, name).key if wanted in ("", kind[key])]
        assert getattr(shifted, name).key.tolist() == expected
    assert len(shifted.all) == len(shifted.split) == sum(len(getattr(shifted, n)) for n in data.SPLITS)
    groups = {n: set(getattr(shifted, n).groups.tolist()) for n in data.SPLITS}
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_what_is_tested_depends_on_the_kind_of_the_test_samples_alone() -> None:
    """So that training on drawings and on photographs is compared on the same photographs."""
    across, within = load({"train": "drawing", "test": "photo"}), load({"train": "photo", "test": "photo"})
    assert across.test.key.tolist() == within.test.key.tolist()
    assert not set(across.train.key) & set(within.train.key)


def test_chance_is_that_of_the_smaller_gallery() -> None:
    plain, shifted = (load(domain).test for domain in ({}, {"test": "photo"}))
    chance = []
    for test in (plain, shifted):
        anywhere = test.with_z({m: z[:, :8] for m, z in test.z.items()})
        relevant = (test.groups[:, None] == test.groups).sum(dim=1)
        chance.append(recall_at_10(anywhere, anywhere)[0].chance)
        assert chance[-1] == pytest.approx(chance_recall_at_k(relevant, len(test), 10))
    assert chance[1] > 1.5 * chance[0]


@pytest.mark.parametrize("other", ["text_fr", "text_es"])
def test_test_samples_have_the_items_of_another_modality(other: str) -> None:
    plain, shifted = load({}), load({"test_items": {"text": other}})
    stored = data.load("stamps", modalities=[other])
    row = {key: i for i, key in enumerate(stored.key)}
    at = [row[key] for key in shifted.test.key]
    assert torch.equal(shifted.test.z["text"], stored.z[other][at])
    assert torch.equal(shifted.test.present["text"], stored.present[other][at])
    assert torch.equal(shifted.test.z["image"], plain.test.z["image"])
    for name in ("train", "validation"):
        assert torch.equal(getattr(shifted, name).z["text"], getattr(plain, name).z["text"])


def test_the_table_of_a_run_shows_the_items_that_were_tested() -> None:
    config = RunConfig.model_validate({"data": {"modalities": TWO, "domain": {"test_items": {"text": "text_fr"}}}})
    points = samples.points(config, samples.load(config)).set_index("key")
    known = data.table("stamps").set_index("key").loc[points.index]
    tested = points["split"] == "test"
    assert (points["text"] == known["text_fr"].where(tested, known["text"])).all()
    assert (points["image"] == known["image"]).all()
    assert tested.any()


def test_speech_of_another_language_comes_from_the_encoder_of_the_run() -> None:
    for encoder in ("whisper_base", "speech_small"):
        found = load(
            {"test_items": {"speech_fr": "speech_es"}},
            modalities=("image", "speech_fr"),
            encoders={"speech_fr": encoder},
        )
        stored = data.load("stamps", modalities=["speech_es"], encoders={"speech_es": encoder})
        rows = np.isin(stored.key, found.test.key)
        assert torch.equal(found.test.z["speech_fr"], stored.z["speech_es"][rows])
        assert torch.equal(found.test.present["speech_fr"], stored.present["speech_es"][rows])


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        (
            {"train": "drawng"},
            "data.domain.train names 'drawng', which is not a kind of stamps; did you mean 'drawing'? there are draw",
        ),
        ({"test": "sketch"}, "data.domain.test names 'sketch', which is not a kind of stamps; there are drawing, ph"),
        ({"test_items": {"txt": "text_fr"}}, "names 'txt', which is not one of data.modalities; did you mean 'text'?"),
        ({"test_items": {"text": "text_rf"}}, "names 'text_rf', which is not a modality of stamps; did you mean"),
        (
            {"test_items": {"text": "speech_fr"}},
            "stamps has no features of it by the encoder 'minilm_l6'; it has whisper_base, speech_small",
        ),
    ],
)
def test_what_there_is_not_is_named(domain: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(domain)
    assert sentence in str(caught.value)


def test_a_split_without_samples_of_the_kind_is_refused(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thing is a sketch, and it is not in the test split."""
    whole = load({}, dataset="toy_things").train.key[0]
    table = data.table("toy_things")
    table["kind"] = np.where(table["key"] == whole, "sketch", "photo")
    monkeypatch.setattr("labkit.data.domains.data.table", lambda name, options=None: table)
    with pytest.raises(ConfigError, match=r"data.domain leaves no test sample: none of the \d+ of this split is"):
        load({"test": "sketch"}, dataset="toy_things")


def test_data_without_kinds_has_no_such_shift(toy, own_file: Path) -> None:
    for dataset, modalities in ((str(own_file), ("a", "b")), ("toy_things", TWO)):
        with pytest.raises(ConfigError, match="has no column 'kind'; leave data.domain.train and data.domain.test out"):
            load({"test": "photo"}, dataset=dataset, modalities=modalities)


def test_modalities_of_a_file_may_stand_for_each_other_where_they_are_as_wide(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    widths = {"a": 4, "b": 5, "c": 5}
    np.savez(tmp_path / "mine.npz", **{m: random.normal(size=(40, d)) for m, d in widths.items()})
    values = {"dataset": str(tmp_path / "mine.npz"), "modalities": ("a", "b")}
    found, whole = load({"test_items": {"b": "c"}}, **values), data.load(tmp_path / "mine.npz")
    assert torch.equal(found.test.z["b"], whole.z["c"][np.isin(whole.key, found.test.key)])
    with pytest.raises(ConfigError, match="'c' with 5 features stand for 'a' with 4: they must come from the same"):
        load({"test_items": {"a": "c"}}, **values)
