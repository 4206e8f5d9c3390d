"""The search of hyper-parameters: fair, repeatable, blind to the test samples, and recorded."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from labkit import data, tune, variants
from labkit import run as runs
from labkit.config import TrainingConfig, parse
from labkit.registry import UnknownNameError
from labkit.study import Study, best
from labkit.study.tuned import Best
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
    assert [t.number for t in drawn] == list(range(len(drawn)))
    assert (drawn[0].options, drawn[0].training) == ({}, {}), "the first trial is the defaults"
    cls = variants.get(variant)
    trained = issubclass(cls, variants.Trained)
    possible = math.prod(len(v) for v in [*cls.search.values(), *(tune.OPTIMIZER.values() if trained else ())])
    assert len(drawn) == (min(40, 1 + possible) if cls.search or trained else 1), "no draw occurs twice"
    assert len({json.dumps([t.options, t.training]) for t in drawn}) == len(drawn)
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
    assert best(read) == best(table)
    assert best(read) == {"cca": Best(options[1]), "clip": Best(training={"learning_rate": 0.002})}


def test_an_unknown_variant_costs_nothing(study: Study) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'clip'"):
        tune.tune(study, trials=2, only=("clipp",))


def test_all_variants_get_a_trial_before_any_gets_its_next(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(Exception):
        """Stops the search at its first trial."""

    def watch(_: Study, trials: list[tune.Trial], jobs: int) -> list[dict[str, object]]:
        seen.extend((t.number, t.variant) for t in trials)
        raise Watched

    monkeypatch.setattr(tune, "_searched", watch)
    with pytest.raises(Watched):
        tune.tune(study, trials=3)
    assert seen == [(i, v) for i in range(3) for v in ("cca", "clip")]


def _runs(process: psutil.Process) -> bool:
    """Whether it does; one that has ended and that nobody has asked about yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_killed_search_continues_and_loses_nothing(study: Study, tmp_path: Path) -> None:
    path, record = tmp_path / "tiny.yaml", tmp_path / "record.csv"
    path.write_text(json.dumps(study.model_dump(mode="json")))
    code = "from labkit.cli import app; app(prog_name='labkit')"
    command = [sys.executable, "-c", code, "tune", str(path), "--trials", "3", "--jobs", "1", "--out", str(record)]
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 90
        while not record.is_file() or len(record.read_text().splitlines()) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        started = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait()
        assert started, "trials have a process of their own"
        end = time.monotonic() + 20
        while any(_runs(process) for process in started) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [p for p in started if _runs(p)], "processes outlive the search that started them"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    kept = pd.read_csv(record)
    assert 2 <= len(kept) <= 6
    with record.open("a") as file:
        file.write("clip,2,0.9")  # a line that was being written when the process died
    table = tune.tune(study, trials=3, jobs=1, record=record)
    assert table.groupby("variant")["trial"].apply(list).to_dict() == {"cca": [0, 1, 2], "clip": [0, 1, 2]}
    stored = pd.read_csv(record)
    assert len(stored) == 6
    again = stored.set_index("key").loc[kept["key"]].reset_index()
    assert again["seconds"].tolist() == kept["seconds"].tolist(), "a finished trial was run again"
    np.testing.assert_allclose(again["score"], kept["score"])
    before = record.read_bytes()
    tune.tune(study, trials=3, jobs=1, record=record)
    assert record.read_bytes() == before
    assert len(tune.tune(study, trials=1, jobs=1, only=("clip",), record=record)) == 1
    assert len(pd.read_csv(record)) == 6, "a smaller budget removes nothing"
    trial = tune.draw("clip", 1)[0]
    fewer = study.model_copy(update={"seeds": (0,)})
    assert tune._key(fewer, trial) != tune._key(study, trial), "scores of other seeds are no answer"


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(study: Study, tmp_path: Path) -> None:
    """The samples of the file have no labels, which the classifiers need."""
    record = tmp_path / "record.csv"
    table = tune.tune(study, trials=2, jobs=1, only=("unimodal", "cca"), record=record).set_index("variant")
    assert table.loc["unimodal", "score"].isna().all()
    assert table.loc["unimodal", "error"].str.contains("ValueError: .*label").all()
    assert (table.loc["unimodal", "seconds"] > 0).all()
    assert table.loc["cca", "score"].notna().all()
    assert (table.loc["cca", "error"] == "").all()
    read = pd.read_csv(record)
    assert len(read) == 4
    assert set(best(read)) == {"cca"}


@pytest.mark.slow
def test_a_process_that_dies_fails_its_trial_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('spawn_main' in word for word in sys.orig_argv):\n"
        "    import os\n"
        "    import labkit.variants as variants\n"
        "    variants.get('cca').fit = lambda *_: os._exit(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table = tune.tune(study, trials=2, jobs=2).set_index("variant")
    assert table.loc["cca", "error"].str.startswith("the process died").all()
    assert table.loc["clip", "score"].notna().all()


def test_a_file_that_is_no_record_is_left_alone(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("name,value\nx,1\n")
    with pytest.raises(ValueError, match=r"scores.csv is no record of `labkit tune`: it lacks the columns"):
        tune.tune(study, trials=1, record=path)
    assert path.read_text() == "name,value\nx,1\n"


def test_data_that_cannot_be_used_stop_the_search_before_it_begins(study: Study) -> None:
    lost = study.model_copy(update={"data": study.data.model_copy(update={"dataset": "nowhere.npz"})})
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        tune.tune(lost, trials=2)
