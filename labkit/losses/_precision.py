"""Losses that take differences of nearly equal numbers, determinants or exponentials of large ones, out of autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """The loss computed in float32 or float64 even under `torch.autocast`; 16-bit tensors are lifted to float32."""

    @functools.wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(v.device.type for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(_lift, args), **{name: _lift(v) for name, v in kwargs.items()})  # type: ignore[arg-type]

    return computed


def _lift(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
