"""Configurations: a stable id that changes with every field, JSON, and errors that name the field."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel

from labkit.config import ConfigError, DataConfig, EvaluationConfig, RunConfig, TrainingConfig, parse

OTHER: dict[str, Any] = {  # one different valid value for every field
    "data.dataset": "mine.npz",
    "data.modalities": ["text", "image"],
    "data.missing": 0.3,
    "data.missing_by": "label",
    "data.pairs": 0.5,
    "data.unpaired": "dropped",
    "data.shuffled": 0.2,
    "data.options": {"redundancy": 2},
    "data.encoders": {"speech_fr": "speech_small"},
    "data.domain.train": "drawing",
    "data.domain.test": "photo",
    "data.domain.test_items": {"text": "text_fr"},
    "variant": "gotma",
    "options": {"dim": 64},
    "training.epochs": 61,
    "training.batch_size": 128,
    "training.learning_rate": 1e-3,
    "training.weight_decay": 0.0,
    "training.warmup": 0.2,
    "training.gradient_clip": 2.0,
    "training.patience": 14,
    "training.precision": "bfloat16",
    "evaluation.corruptions": [],
    "evaluation.corruption_seeds": 7,
    "evaluation.bootstrap": 500,
    "evaluation.attacks.names": ["pgd_linf"],
    "evaluation.attacks.samples": 20,
    "evaluation.attacks.severities": [2],
    "seed": 1,
}


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        found |= leaves(field.annotation, f"{prefix}{name}.") if nested else {prefix + name}
    return found


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def problem(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(RunConfig, values, what="study.yaml")
    return str(caught.value)


def test_every_field_is_covered_here():
    assert leaves(RunConfig) == set(OTHER)


def test_the_id_changes_with_every_field():
    ids = {RunConfig().run_id} | {parse(RunConfig, nested(k, v), what="test").run_id for k, v in OTHER.items()}
    assert len(ids) == len(OTHER) + 1


def test_the_id_is_readable_and_the_same_in_every_process():
    code = "from labkit.config import RunConfig; print(RunConfig(options={'b': 1, 'a': 2}).run_id)"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert RunConfig(options={"a": 2, "b": 1}).run_id == elsewhere
    assert elsewhere.startswith("clip-s0-")
    assert len(elsewhere.split("-")[-1]) == 10


def test_fields_that_were_added_later_leave_the_ids_of_stored_runs_as_they_are():
    # made before the fields in `added` existed
    stored = {
        "data": {
            "dataset": "stamps",
            "missing": 0.0,
            "modalities": ["image", "text", "speech_fr"],
            "options": {},
            "pairs": 1.0,
            "unpaired": "kept",
        },
        "variant": "clip",
        "options": {},
        "training": TrainingConfig().model_dump(mode="json"),
        "evaluation": EvaluationConfig().model_dump(mode="json"),
        "seed": 0,
    }
    assert RunConfig().model_dump(mode="json") == stored
    assert RunConfig().run_id == "clip-s0-e51b05dde4"
    for part in (DataConfig, TrainingConfig, EvaluationConfig):
        assert set(part.added) <= set(part.model_fields)


def test_json_round_trip():
    changed: dict[str, Any] = {}
    for path, value in OTHER.items():
        *heads, last = path.split(".")
        part = changed
        for head in heads:
            part = part.setdefault(head, {})
        part[last] = value
    for config in (RunConfig(), RunConfig.model_validate(changed)):
        again = parse(RunConfig, json.loads(json.dumps(config.model_dump(mode="json"))), what="test")
        assert again == config
        assert again.run_id == config.run_id


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("seed", -1, "field 'seed' is -1: Input should be greater than or equal to 0"),
        ("data.missing", 1.0, "field 'data.missing' is 1.0: Input should be less than 1"),
        ("data.missing", float("nan"), "field 'data.missing' is nan"),
        ("data.missing_by", "class", "field 'data.missing_by' is 'class': Input should be 'chance' or 'label'"),
        ("data.shuffled", 1.5, "field 'data.shuffled' is 1.5: Input should be less than or equal to 1"),
        ("data.domain", "photo", "field 'data.domain' is 'photo': Input should be a valid dictionary or instance"),
        ("data.pairs", -0.1, "field 'data.pairs' is -0.1: Input should be greater than or equal to 0"),
        ("data.pairs", 2.5, "is 2.5: must be a share of the training samples in 0..1 or a whole number of them"),
        ("data.unpaired", "drop", "field 'data.unpaired' is 'drop': Input should be 'kept' or 'dropped'"),
        ("training.learning_rate", float("inf"), "field 'training.learning_rate' is inf"),
        ("training.epochs", "many", "field 'training.epochs' is 'many': Input should be a valid integer"),
        ("training.batch_size", 1, "greater than or equal to 2"),
        ("evaluation.bootstrap", 10, "greater than or equal to 100"),
        ("evaluation.attacks.samples", 0, "field 'evaluation.attacks.samples' is 0: Input should be greater than"),
        ("evaluation.attacks.severities", [0], "'evaluation.attacks.severities.0' is 0: Input should be greater than"),
        ("data.modalities", ["image"], "is ['image']: needs two or more different modalities, got ['image']"),
        ("data.modalities", ["image", "image"], "needs two or more different modalities"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(path, value, sentence):
    message = problem(nested(path, value))
    assert message.startswith("study.yaml: ")
    assert sentence in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("sead", "unknown field 'sead'; did you mean 'seed'? fields are data, variant, options, training,"),
        ("training.epochz", "unknown field 'training.epochz'; did you mean 'epochs'? fields are epochs, batch_size,"),
        ("data.domain.tset", "unknown field 'data.domain.tset'; did you mean 'test'? fields are train, test, test_it"),
        ("data.xyz", "unknown field 'data.xyz'; fields are dataset, modalities, missing"),
    ],
)
def test_an_unknown_field_answers_with_the_nearest_and_the_fields_there_are(path, sentence):
    assert sentence in problem(nested(path, 1))


def test_all_wrong_fields_are_named_at_once():
    message = problem({"seed": -1, "training": {"epochs": 0, "patienec": 3}})
    assert [w in message for w in ("'seed'", "'training.epochs'", "did you mean 'patience'")] == [True] * 3
    assert message.count(";") >= 2


def test_models_in_lists_are_followed():
    class Cell(BaseModel, extra="forbid"):
        options: dict[str, int] = {}

    class Grid(BaseModel):
        cells: tuple[Cell, ...]

    with pytest.raises(ConfigError, match=r"unknown field 'cells.1.optoins'; did you mean 'options'\? fields are opt"):
        parse(Grid, {"cells": [{}, {"optoins": 1}]}, what="grid")


def test_what_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match="labkit run: field 'value' is 3"):
        parse(RunConfig, 3, what="labkit run")  # type: ignore[arg-type]


def test_configurations_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        DataConfig().missing = 0.5  # type: ignore[misc]
