"""The training log: one JSON object per line, appended while the run goes.

Lines are independent, so a writer killed in the middle of one costs that line only. When an interrupted run is
taken up again, a marker line says so, and the steps that the new attempt repeats replace the old ones on reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import explained
from .manifest import now, plain

_RESUMED = "resumed"


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line.

    Raises:
        StoreError: no space or no permission.
        TypeError: the record holds something that JSON cannot.
    """
    line = json.dumps(plain(record), allow_nan=False).encode() + b"\n"
    with explained("write", path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the half line of a killed writer must not swallow ours
                line = b"\n" + line
        file.write(line)


def mark_resumed(path: Path) -> None:
    """Note that a new attempt starts here."""
    if path.exists():
        append(path, {_RESUMED: now()})


def read(path: Path) -> pd.DataFrame:
    """One row per line; torn lines are left out, steps that a later attempt repeated appear once."""
    with explained("read", path):
        lines = path.read_bytes().splitlines()
    rows: list[dict[str, Any]] = []
    resumed = False
    for record in _records(lines):
        if _RESUMED in record:
            resumed = True
            continue
        if resumed and "step" in record:
            rows = [row for row in rows if row.get("step", -1) < record["step"]]
            resumed = False
        rows.append(record)
    return pd.DataFrame(rows)


def _records(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
