"""Automatic mixed precision: encoders and heads in 16 bits, loss terms in 32.

`fit` calls `Objective.terms` under `torch.autocast`. An objective projects there, casts what comes out to float32 and
computes its loss terms inside `full_precision`: exp(-C / epsilon) overflows in float16, and det, eigh and small
distances lose all digits in either 16-bit format. `labkit.variants.Trained.terms` does so for all its subclasses.
"""

from __future__ import annotations

import torch

from labkit.config import TrainingConfig

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which autocast is off on `device`: what is computed inside keeps the precision of its inputs."""
    return torch.autocast(device_type=device.type, enabled=False)


def mixed_precision(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Context in which matrix products run in the configured precision.

    Raises:
        ValueError: float16 without CUDA, where gradients that vanish cannot be scaled.
    """
    if config.precision == "float16" and device.type != "cuda":
        raise ValueError(f"precision 'float16' needs CUDA, training runs on {device.type}; use 'bfloat16' or 'float32'")
    return torch.autocast(
        device_type=device.type, dtype=_DTYPES[config.precision], enabled=config.precision != "float32"
    )


def gradient_scaler(config: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    """What keeps small float16 gradients from vanishing; does nothing in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
