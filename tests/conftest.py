"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit import run
from labkit.config import RunConfig
from labkit.store import Store
from labkit.types import Embeddings
from tests.toy_items import Toy, registered

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_CUDA = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(params=["cpu", *_CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every available device; the CUDA case is marked `gpu`."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_latent() -> Callable[..., Embeddings]:
    """Makes modalities that see one latent through a random affine map each, with noise; labels by its first axis."""

    def make(
        n: int = 240,
        modalities: int = 2,
        *,
        missing: float = 0.0,
        noise: float = 0.2,
        group_size: int = 1,
        seed: int = 0,
    ) -> Embeddings:
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(n, 8, generator=generator)
        names = ("image", "text", "speech_fr", "speech_es")[:modalities]
        maps = {m: torch.randn(8, 20 + 2 * i, generator=generator) for i, m in enumerate(names)}
        draw = torch.rand(n, modalities, generator=generator)
        kept = (draw >= missing).scatter(1, draw.argmax(dim=1, keepdim=True), True)
        return Embeddings(
            key=np.array([f"thing{i}" for i in range(n)]),
            z={m: 2 + latent @ a + noise * torch.randn(n, a.shape[1], generator=generator) for m, a in maps.items()},
            present={m: kept[:, i] for i, m in enumerate(names)},
            label=(latent[:, 0] > 0).long(),
            label_names=("left", "right"),
            group=torch.arange(n) // group_size,
        )

    return make


@pytest.fixture(scope="session")
def own_file(shared_latent: Callable[..., Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's own arrays in a file: 150 samples of modalities a and b, without keys and labels."""
    made = shared_latent(150, 2)
    path = tmp_path_factory.mktemp("own") / "mine.npz"
    np.savez(path, a=made.z["image"].numpy(), b=made.z["text"].numpy())
    return path


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Real runs on the bundled data: cca and clip (two epochs) over two seeds, one corruption. Only to be read."""
    store = Store(tmp_path_factory.mktemp("runs"))
    for seed in (0, 1):
        for variant in ("cca", "clip"):
            values = {
                "variant": variant,
                "data": {"modalities": ["image", "text"]},
                "training": {"epochs": 2},
                "evaluation": {"corruptions": ["feature_noise"], "corruption_seeds": 1, "bootstrap": 100},
                "seed": seed,
            }
            run.execute(RunConfig.model_validate(values), root=store.root)
    return store


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The data set `toy_things` with its encoders and raw corruptions, for one test."""
    return registered(monkeypatch)
