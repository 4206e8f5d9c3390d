"""A training that was killed ends with the numbers of one that was not; what cannot be continued is started anew."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from labkit import run as runs
from labkit import variants
from labkit.config import RunConfig, TrainingConfig
from labkit.store import Run, Store, log
from labkit.train import Checkpoint, checkpoint
from labkit.types import Embeddings

SCRIPT = Path(__file__).with_name("killed_training.py")
CLOCKS = ["seconds", "step_seconds", "peak_memory"]
SHORT = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.02, patience=6)


def killed(mode: str, folder: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), mode, str(folder)], check=True, timeout=300)


def numbers(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns=CLOCKS)


def test_a_killed_training_goes_on_to_the_same_numbers(tmp_path):
    killed("fit", tmp_path)
    whole, stopped = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == stopped.keys()
    for name, tensor in whole.items():
        assert tensor.equal(stopped[name]), name
    a, b = (json.loads((tmp_path / name / "fitted.json").read_text()) for name in ("whole", "killed"))
    assert a == b
    whole_log, log_of_killed = (log.read(tmp_path / name / "log.jsonl") for name in ("whole", "killed"))
    assert log_of_killed["epoch"].tolist() == list(range(1, 13))
    pd.testing.assert_frame_equal(numbers(whole_log), numbers(log_of_killed), check_exact=True)
    assert log_of_killed["seconds"].is_monotonic_increasing
    lines = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert sum("resumed" in line for line in lines) == 2
    first = [json.loads(line)["epoch"] for before, line in zip(lines, lines[1:], strict=False) if "resumed" in before]
    assert min(first) > 1, "it went on, it was not started anew"


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    killed("run", tmp_path)
    (whole,), (stopped,) = (Store(tmp_path / name).runs() for name in ("whole", "killed"))
    assert stopped.status == "complete"
    assert stopped.info["attempts"] == 3
    for m in ("image", "text"):
        assert (whole.embedding(m) == stopped.embedding(m)).all()
    assert whole.scores().equals(stopped.scores())
    pd.testing.assert_frame_equal(numbers(whole.history()), numbers(stopped.history()), check_exact=True)
    assert not any("training" in name for name in stopped.files)
    assert not list(stopped.folder.rglob("training.safetensors"))
    (budget,) = Store(tmp_path / "killed").budgets().to_dict("records")
    assert budget["train_steps"] == len(whole.history()) * (whole.history()["step"].iloc[0])
    assert 0 < budget["earlier_seconds"] < budget["train_seconds"] < budget["total_seconds"]
    state = variants.load(stopped.folder / "checkpoints" / "aligner").state()
    statistics = sum(v.numel() for k, v in state.items() if k.endswith((".mean", ".scale")))
    assert budget["parameters"] == sum(v.numel() for v in state.values()) - statistics


class Stop(Exception):
    """Ends a training from outside."""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every epoch."""
    monkeypatch.setattr(checkpoint, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


def train(
    data: Embeddings,
    path: Path | None,
    *,
    stop_after: float = math.inf,
    training: TrainingConfig = SHORT,
    temperature: float = 0.07,
    seed: int = 0,
) -> tuple[variants.AlignerBase, list[int]]:
    """A fitted aligner and the epochs that it logged; stopped in the epoch after `stop_after`."""
    epochs: list[int] = []

    def record(values: Any) -> None:
        epochs.append(values["epoch"])
        if values["epoch"] > stop_after:
            raise Stop

    aligner = variants.get("clip")(
        {"dim": 8, "temperature": temperature},
        training=training,
        log=record,
        seed=seed,
        device=data.device,
        checkpoint=None if path is None else Checkpoint(path),
    )
    try:
        aligner.fit(data, data)
    except Stop:
        assert stop_after < math.inf
    return aligner, epochs


def same(first: variants.AlignerBase, second: variants.AlignerBase) -> bool:
    return all(v.equal(second.state()[k]) for k, v in first.state().items())


def test_an_interrupted_training_continues_on_any_device(often, shared_latent, tmp_path, device):
    data, path = shared_latent(70).to(device), tmp_path / "deep" / "training.safetensors"
    train(data, path, stop_after=3)
    resumed, epochs = train(data, path)
    assert epochs == [4, 5, 6], "the third was kept, the fourth was cut off before it was"
    uninterrupted, _ = train(data, None)
    for k, v in uninterrupted.state().items():
        assert v.allclose(resumed.state()[k], rtol=0, atol=0 if device.type == "cpu" else 1e-4)
    assert resumed.fitted is not None
    assert 0 < resumed.fitted.earlier_seconds < resumed.fitted.seconds


def test_a_training_that_had_ended_is_not_repeated(often, shared_latent, tmp_path):
    data, path = shared_latent(70), tmp_path / "training.safetensors"
    first, _ = train(data, path)
    again, epochs = train(data, path)
    assert epochs == []
    assert same(first, again)


def test_early_stopping_is_not_forgotten(often, shared_latent, tmp_path):
    data, path = shared_latent(70, noise=0.01), tmp_path / "training.safetensors"
    impatient = SHORT.model_copy(update={"patience": 2, "epochs": 40})
    whole, epochs = train(data, None, training=impatient)
    train(data, path, training=impatient, stop_after=3)
    resumed, rest = train(data, path, training=impatient)
    assert [1, 2, 3, *rest] == epochs
    assert len(epochs) < 40
    assert same(whole, resumed)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"seed": 1}, "seed"),
        ({"temperature": 0.1}, "owner"),
        ({"training": SHORT.model_copy(update={"learning_rate": 0.01})}, "config"),
        ({}, "data"),
    ],
)
def test_another_training_is_started_anew_with_a_warning(often, shared_latent, tmp_path, changes, differs):
    data, path = shared_latent(70), tmp_path / "training.safetensors"
    train(data, path, stop_after=2)
    if differs == "data":
        data = data.with_z({m: z + 1e-3 for m, z in data.z.items()})
    with pytest.warns(UserWarning, match=rf"is of another training \(differs in {differs}\); starting anew"):
        aligner, epochs = train(data, path, **changes)
    assert epochs[0] == 1
    assert same(aligner, train(data, None, **changes)[0])


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b"x" + b[1:]])
def test_a_damaged_file_is_started_anew_with_a_warning(often, shared_latent, tmp_path, damage: Callable):
    data, path = shared_latent(70), tmp_path / "training.safetensors"
    train(data, path, stop_after=2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="is no checkpoint of a training .*; starting anew"):
        aligner, epochs = train(data, path)
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert same(aligner, train(data, None)[0])


def test_writing_takes_a_small_share_of_the_time(shared_latent, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FIRST_SECONDS", 0.0)
    kept = Checkpoint(tmp_path / "training.safetensors")
    clock = iter([0.0, 1.0, 3.0, 50.9, 51.1, 101.1])
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: next(clock))
    kept._since = 0.0
    assert kept.due  # at 0 s
    kept.write(({"a": torch.zeros(3)}, {}), {})  # from 1 s to 3 s: no more before 2 % of the time has room for that
    assert not kept.due  # at 50.9 s
    assert not kept.due
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: 103.1)
    assert kept.due


def test_without_a_checkpoint_nothing_is_written_and_nothing_warned(shared_latent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(shared_latent(70), None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def asked(own_file: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "variant": "clip",
            "data": {"dataset": str(own_file), "modalities": ["a", "b"]},
            "training": {"epochs": 4},
            "evaluation": {"corruptions": [], "bootstrap": 100},
        }
    )


def interrupted(asked: RunConfig, root: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that `error` ended in its third epoch: the file of its training."""

    def fail(self: Run, record: Any) -> None:
        log.append(self.folder / "log.jsonl", record)
        if record["epoch"] == 3:
            raise error("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", fail)
        with pytest.raises(error):
            runs.execute(asked, root=root, device="cpu")
    (run,) = Store(root).runs()
    assert run.status == "failed"
    return run.folder / "checkpoints" / "training.safetensors"


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, True), (RuntimeError, False)])
def test_an_interrupted_run_keeps_its_training_and_a_failed_one_does_not(
    often, asked, tmp_path, monkeypatch, error, kept
):
    path = interrupted(asked, tmp_path, error, monkeypatch)
    assert path.is_file() is kept
    run = runs.execute(asked, root=tmp_path, device="cpu")
    assert run.history()["epoch"].tolist() == [1, 2, 3, 4]
    assert (Store(tmp_path).budgets()["earlier_seconds"].item() > 0) is kept
    assert not path.exists()


def test_a_run_made_anew_trains_anew(often, asked, tmp_path, monkeypatch):
    interrupted(asked, tmp_path, KeyboardInterrupt, monkeypatch)
    runs.execute(asked, root=tmp_path, device="cpu", rerun=True)
    assert Store(tmp_path).budgets()["earlier_seconds"].item() == 0


def test_other_code_does_not_go_on_with_a_run(often, asked, tmp_path, monkeypatch):
    interrupted(asked, tmp_path, KeyboardInterrupt, monkeypatch)
    monkeypatch.setattr(runs, "git_state", lambda: {"commit": "another", "dirty": False})
    with pytest.warns(UserWarning, match=r"is of another training \(differs in owner\); starting anew"):
        run = runs.execute(asked, root=tmp_path, device="cpu")
    assert run.history()["epoch"].tolist() == [1, 2, 3, 4]
    assert Store(tmp_path).budgets()["earlier_seconds"].item() == 0
