"""A store with one run, and tables to put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit.store import SCORE_COLUMNS, Run, Store

N = 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def start(store: Store) -> Callable[..., Run]:
    """Create a run; `start("a", seed=1, rerun=True)`."""

    def create(run_id: str = "clip-s0-aa", *, variant: str = "clip", seed: int = 0, rerun: bool = False) -> Run:
        config = {"variant": variant, "data": {"modalities": ("image", "text")}}
        return store.create(
            run_id, name=f"{variant} {seed}", variant=variant, config=config, seed=seed, data_root=".", rerun=rerun
        )

    return create


@pytest.fixture
def run(start: Callable[..., Run]) -> Run:
    return start()


@pytest.fixture
def points() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(N)],
            "split": ["train", "test"] * (N // 2),
            "group": np.arange(N) // 2,
            "label": "cat",
            "caption": "a cat",
            "image": [f"pictures/{i}.webp" for i in range(N - 1)] + [None],
            "present_image": [True] * (N - 1) + [False],
            "text": "a cat",
            "present_text": True,
        }
    )


@pytest.fixture
def score() -> Callable[..., pd.DataFrame]:
    """One row of scores, some columns of it changed."""

    def row(**changes: object) -> pd.DataFrame:
        values = {
            "metric": "mrr", "source": "image", "target": "text", "split": "test", "corrupted": "",
            "corruption": "none", "severity": 0, "corruption_seed": 0, "seed": 0, "step": "final", "value": 0.5,
            "low": 0.4, "high": 0.6, "n": N, "interval": "95% bootstrap over groups", "higher_is_better": True,
            "chance": None,
        } | changes  # fmt: skip
        return pd.DataFrame([values], columns=list(SCORE_COLUMNS))

    return row


@pytest.fixture
def field(points: pd.DataFrame) -> Callable[..., pd.DataFrame]:
    """Per-point values of one condition."""

    def rows(value: float = 0.5, corruption: str = "none", severity: float = 0) -> pd.DataFrame:
        corrupted = "" if corruption == "none" else "image"
        return pd.DataFrame(
            {"key": points["key"], "split": "test", "source": "image", "target": "text", "corrupted": corrupted,
             "corruption": corruption, "severity": severity, "value": value}
        )  # fmt: skip

    return rows
