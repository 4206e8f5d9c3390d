"""The shared space at a few steps of a training, kept so that one can watch how it came about.

Kept are the epochs 0 (before training), 1, 3, 10, 30, ...: early epochs change most. Together they take at most 32 MB
of a run; larger spaces keep fewer of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from labkit.store import Run
from labkit.types import Embeddings

EPOCHS = (0, 1, 3, 10, 30, 100, 300, 1000)
MOST_BYTES = 32 * 2**20
_BYTES = 2  # of a number in the store


class Snapshots:
    """Writes the vectors of some epochs into a run.

    Args:
        run: its points are written.
        embed: the samples of the run in the space as it is now.
    """

    def __init__(self, run: Run, embed: Callable[[], Embeddings]) -> None:
        self._run, self._embed, self._left = run, embed, MOST_BYTES

    def __call__(self, epoch: int, step: int) -> None:
        """Called when `epoch` epochs and `step` optimizer steps are done."""
        if epoch not in EPOCHS:
            return
        with torch.no_grad():
            shared = self._embed().to("cpu")
        size = sum(z.numel() * _BYTES for z in shared.z.values())
        if size > self._left:
            return
        self._left -= size
        for modality, z in shared.z.items():
            self._run.write_embedding(modality, step, z.numpy())
