"""The search of hyper-parameters: fair, repeatable, blind to the test samples, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from labkit import data, tune, variants
from labkit import run as runs
from labkit.config import TrainingConfig, parse
from labkit.registry import UnknownNameError
from labkit.study import Cell, Study
from labkit.train import DivergedError
from labkit.types import Embeddings
from labkit.variants import VARIANTS


@pytest.fixture
def study(own_file: Path) -> Study:
    return Study.model_validate(
        {
            "name": "tiny",
            "data": {"dataset": str(own_file), "modalities": ["a", "b"]},
            "training": {"epochs": 2},
            "variants": [{"variant": "cca"}, {"variant": "clip", "options": {"dim": 7}}],
            "seeds": [0, 1],
        }
    )


@pytest.mark.parametrize("variant", VARIANTS.names())
def test_draws(variant: str) -> None:
    drawn = tune.draw(variant, 40)
    assert drawn == tune.draw(variant, 40)
    assert drawn[:6] == tune.draw(variant, 6), "a larger budget extends a smaller one"
    assert [t.number for t in drawn] == list(range(40))
    assert (drawn[0].options, drawn[0].training) == ({}, {}), "the first trial is the defaults"
    cls = variants.get(variant)
    trained = issubclass(cls, variants.Trained)
    for trial in drawn[1:]:
        assert set(trial.options) == set(cls.search)
        assert all(value in cls.search[name] for name, value in trial.options.items())
        assert set(trial.training) == (set(tune.OPTIMIZER) if trained else set())
        parse(cls.Options, json.loads(json.dumps(trial.options)), what="a draw")
        TrainingConfig.model_validate(trial.training)
    for name, values in cls.search.items():
        assert {t.options[name] for t in drawn[1:]} == set(values), f"some values of {name} are never tried"


def test_every_variant_gets_the_same_budget(study: Study) -> None:
    table = tune.tune(study, trials=3, jobs=1)
    assert table.groupby("variant").size().to_dict() == {"cca": 3, "clip": 3}
    assert (table["seeds"] == 2).all()
    assert table["score"].between(0, 1).all()
    assert (table["score_sd"] >= 0).all()
    defaults = table[(table["variant"] == "clip") & (table["trial"] == 0)]
    assert defaults["options"].tolist() == ["{}"], "options written in the study are not looked at"
    only = tune.tune(study, trials=1, jobs=1, only=("procrustes",))
    assert only["variant"].tolist() == ["procrustes"]


def test_the_score_is_validation_recall_and_blind_to_the_test_samples(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tune.draw("clip", 2)[1]
    scores = tune._score(study, trial)
    load = data.load

    def changed(part: str, seed: int) -> Embeddings:
        """The data with the samples of one part replaced by noise."""
        clean = load(study.data.dataset, modalities=study.data.modalities)
        rows = data.split(clean, seed)[part]
        noise = torch.Generator().manual_seed(9)
        z = {m: v.clone() for m, v in clean.z.items()}
        for v in z.values():
            v[rows] = torch.randn(len(rows), v.shape[1], generator=noise) * 5
        return clean.with_z(z)

    for seed, expected in zip(study.seeds, scores, strict=True):
        one = study.model_copy(update={"seeds": (seed,)})
        for part, same in (("test", True), ("validation", False), ("train", False)):
            monkeypatch.setattr(runs.data, "load", lambda *_, part=part, seed=seed, **__: changed(part, seed))
            (found,) = tune._score(one, trial)
            assert (found == expected) is same, part
            monkeypatch.setattr(runs.data, "load", load)


def test_a_trial_that_diverges_scores_zero(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object) -> None:
        raise DivergedError("loss term 'contrastive' is nan")

    monkeypatch.setattr(variants.get("clip"), "fit", diverge)
    assert tune._score(study, tune.Trial("clip", 0, {}, {})) == [0.0, 0.0]


def test_the_record_can_be_read_back(tmp_path: Path) -> None:
    options = [{"dim": 64}, {"dim": 128, "ridge": 0.1}, {}]
    table = pd.DataFrame(
        {
            "variant": ["cca", "cca", "clip"],
            "trial": [0, 1, 0],
            "score": [0.25, 1 / 3, 0.5],
            "score_sd": [0.1, 0.2, np.nan],
            "seeds": [2, 2, 1],
            "options": [json.dumps(o) for o in options],
            "training": ["{}", "{}", '{"learning_rate": 0.002}'],
        }
    )
    path = tmp_path / "tuning" / "record.csv"
    tune.save(table, path)
    tune.save(table, path)
    assert [p.name for p in path.parent.iterdir()] == ["record.csv"]
    read = pd.read_csv(path)
    pd.testing.assert_frame_equal(read, table, rtol=1e-5)
    assert tune.best(read) == tune.best(table)
    assert tune.best(read) == [
        Cell(variant="cca", options=options[1]),
        Cell(variant="clip", training={"learning_rate": 0.002}),
    ]


def test_an_unknown_variant_costs_nothing(study: Study) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'clip'"):
        tune.tune(study, trials=2, only=("clipp",))
