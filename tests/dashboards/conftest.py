"""Real small runs for the dashboard, and a run whose every text is an attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_limits

from labkit.config import EvaluationConfig, RunConfig, TrainingConfig
from labkit.run import execute
from labkit.store import Run, Store

HOSTILE = "<script>window.hacked = 1</script>\"><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory) -> Path:
    """Two closed forms under two seeds with a robustness curve, and a short training, all on the bundled data."""
    root = tmp_path_factory.mktemp("runs")
    measured = EvaluationConfig(corruptions=("feature_noise",), bootstrap=100)
    plain = EvaluationConfig(corruptions=(), bootstrap=100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: many threads on a busy machine are many times slower
    with threadpool_limits(1):
        execute(RunConfig(variant="clip", training=TrainingConfig(epochs=2), evaluation=plain), root=root, device="cpu")
        for variant in ("cca", "procrustes"):
            for seed in (0, 1):
                execute(RunConfig(variant=variant, seed=seed, evaluation=measured), root=root, device="cpu")
    torch.set_num_threads(threads)
    return root


def make_hostile(root: Path, *, n: int = 12, projected: bool = True) -> Run:
    """A complete run with markup in keys, captions and labels, an item outside the data folder and one that is gone."""
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    (root / "secret.png").write_bytes(b"not to be shown")
    run = Store(root).create(
        "hostile-s0", name=HOSTILE, variant="hostile", config={"data": HOSTILE}, seed=0, data_root=str(data)
    )
    points = pd.DataFrame(
        {
            "key": [f"{HOSTILE}{i}" for i in range(n)],
            "split": "test",
            "group": np.arange(n) // 2,
            "label": [HOSTILE, "plain"] * (n // 2),
            "caption": [HOSTILE] * (n - 1) + [None],
            "image": ["../secret.png", "gone.png"] * (n // 2),
            "text": HOSTILE,
            "present_image": True,
            "present_text": True,
        }
    )
    run.write_points(points)
    rng = np.random.default_rng(0)
    for modality in ("image", "text"):
        run.write_embedding(modality, "final", rng.normal(size=(n, 4)))
    if projected:
        keys, angle = points["key"], np.arange(n) / n * 2 * np.pi
        frames = [
            pd.DataFrame({"key": keys, "modality": m, "x": r * np.cos(angle), "y": r * np.sin(angle), "trust": np.nan})
            for m, r in (("image", 1.0), ("text", 0.5))
        ]
        run.write_projection("pca", "final", pd.concat(frames))
    run.complete()
    return run


def make_failed(root: Path) -> Run:
    """A run that failed with a hostile message."""
    run = Store(root).create("broken-s0", name="broken", variant="broken", config={}, seed=0, data_root=str(root))
    run.fail(f"ValueError: {HOSTILE}")
    return run


@pytest.fixture(scope="session")
def markup() -> str:
    """What hostile runs have in all their texts."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_run() -> Callable[..., Run]:
    """Makes a hostile run in a folder."""
    return make_hostile


@pytest.fixture(scope="session")
def failed_run() -> Callable[[Path], Run]:
    """Makes a failed run in a folder."""
    return make_failed
