"""A training loop that knows no variant: batches in, loss terms out, early stopping on validation retrieval.

    fitted = labkit.train.fit(module, objective, (train, validation), config, seed=0)

AdamW with linear warm-up and cosine decay, gradient clipping, automatic mixed precision (`labkit.train.precision`),
checkpoints from which a killed training continues to the same numbers (`labkit.train.checkpoint`), and a record of each
epoch that shows collapse (`labkit.train.monitor`). Everything random comes from one seed, on every device.
"""

from __future__ import annotations

from labkit.train.checkpoint import Checkpoint
from labkit.train.loop import DivergedError, Fitted, Log, Objective, fit, validation_score
from labkit.train.monitor import CollapseWarning
from labkit.train.precision import full_precision

__all__ = [
    "Checkpoint",
    "CollapseWarning",
    "DivergedError",
    "Fitted",
    "Log",
    "Objective",
    "fit",
    "full_precision",
    "validation_score",
]
