"""A process that fills a cache slowly; a script, started by test_cache.py.

    python filling_cache.py FOLDER ROWS LOG SECONDS

Row i is i, i + 1, ...; each row computed is a line of LOG with the number of the process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from labkit.encoders.cache import Features

DIM = 3


def vectors(rows: np.ndarray) -> np.ndarray:
    return rows[:, None] + np.arange(DIM, dtype=np.float32)


def fill(folder: Path, n: int, log: Path, seconds: float) -> np.ndarray:
    def compute(rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        with log.open("a") as file:
            for row in rows:
                file.write(f"{row} {os.getpid()}\n")
        time.sleep(seconds)
        return vectors(rows), {}

    return Features(folder, {"what": "slow"}, n=n, dim=DIM).rows(np.arange(n), compute)[0]


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
