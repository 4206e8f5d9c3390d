"""The best trials that `labkit tune` recorded, as the starting point of a study's cells."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.config import ConfigError

FOLDER = Path(__file__).parents[2] / "results" / "tuning"


@dataclass(frozen=True)
class Best:
    """The best trial of a variant: what differs from its defaults."""

    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def record_path(name: str) -> Path:
    """`results/tuning/<name>.csv`, or the path that `name` is."""
    return Path(name) if name.endswith(".csv") else FOLDER / f"{name}.csv"


def read(name: str) -> dict[str, Best]:
    """The best trial of every variant in a record; none where there is no record yet.

    Raises:
        ConfigError: the file is no record of `labkit tune`.
    """
    path = record_path(name)
    if not path.is_file():
        return {}
    try:
        return best(pd.read_csv(path, on_bad_lines="skip"))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no record of `labkit tune` ({error}); write it anew") from None


def best(table: pd.DataFrame) -> dict[str, Best]:
    """The best trial of every variant, the earliest of equals; a variant whose trials all failed is left out."""
    scored = table.dropna(subset=["score"]).sort_values("trial", kind="stable")
    top = scored.loc[scored.groupby("variant", sort=False)["score"].idxmax()]
    return {
        row["variant"]: Best(json.loads(row["options"]), json.loads(row["training"])) for row in top.to_dict("records")
    }
