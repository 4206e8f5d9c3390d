"""Trainings that are killed and go on; a script, started by test_train_checkpoint.py.

    python killed_training.py fit|run FOLDER

Each attempt is a child of this process, which has loaded everything once, and is killed some time after its first
checkpoint; the last one is left to end. The same is done without a kill under FOLDER/whole.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from labkit import run, variants
from labkit.config import RunConfig, TrainingConfig
from labkit.store import log
from labkit.train import Checkpoint, checkpoint
from labkit.types import Embeddings

KILLS = 2
CONFIG = {
    "variant": "gotma",
    "data": {"modalities": ["image", "text"]},
    "training": {"epochs": 10, "batch_size": 128},
    "evaluation": {"corruptions": [], "bootstrap": 100},
}


def data(n: int, seed: int) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, 6, generator=generator)
    maps = {m: torch.randn(6, 12, generator=torch.Generator().manual_seed(i)) for i, m in enumerate("ab")}
    z = {m: latent @ w + 0.5 * torch.randn(n, 12, generator=generator) for m, w in maps.items()}
    return Embeddings(key=np.arange(n).astype(str), z=z)


def fit(folder: Path) -> None:
    log.mark_resumed(folder / "log.jsonl")
    aligner = variants.get("gotma")(
        {"dim": 6, "neighbors": 4, "dropout": 0.3},
        training=TrainingConfig(epochs=12, batch_size=32, learning_rate=0.02, patience=12),
        seed=3,
        log=lambda record: log.append(folder / "log.jsonl", record),
        checkpoint=Checkpoint(folder / "training.safetensors"),
    )
    aligner.fit(data(128, 0), data(64, 1))
    save_file(aligner.state(), folder / "weights.safetensors")
    assert aligner.fitted is not None
    kept = ("best_epoch", "best_score", "epochs", "steps")
    (folder / "fitted.json").write_text(json.dumps({name: getattr(aligner.fitted, name) for name in kept}))


def whole_run(folder: Path) -> None:
    run.execute(RunConfig.model_validate(CONFIG), root=folder, device="cpu")


def attempt(work: Callable[[Path], None], folder: Path, *, kill: bool) -> None:
    """One child; killed some epochs after its checkpoint was written, or waited for."""
    before = stamp(folder)
    child = os.fork()
    if child == 0:
        if kill:
            slow_down()
        work(folder)
        os._exit(0)
    while kill and stamp(folder) == before:
        time.sleep(0.005)
    if kill:
        time.sleep(0.15)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == kill, status
    assert kill or status == 0, status


def slow_down() -> None:
    """Epochs of 50 ms and more, and none after the fourth: there is time to be killed between checkpoints."""
    append, waits = log.append, iter((0.05, 0.05, 0.05, 1000.0))

    def slowly(path: Path, record: Mapping[str, Any]) -> None:
        append(path, record)
        if "epoch" in record:
            time.sleep(next(waits))

    log.append = slowly


def stamp(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in folder.rglob("training.safetensors")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("labkit.ot.fused")  # what is loaded on first use takes seconds in every child
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    checkpoint.FIRST_SECONDS, checkpoint.SHARE = 0.0, 0.5  # after the first epoch, and often
    mode, root = {"fit": fit, "run": whole_run}[sys.argv[1]], Path(sys.argv[2])
    for name, kills in (("whole", 0), ("killed", KILLS)):
        (root / name).mkdir()
        for _ in range(kills):
            attempt(mode, root / name, kill=True)
        attempt(mode, root / name, kill=False)
