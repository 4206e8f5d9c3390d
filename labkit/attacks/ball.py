"""Which perturbations an attacker is allowed: a ball in the input's own units, cut off where inputs end.

    |delta|_inf <= radius   or   |delta|_2 <= radius,      low <= x + delta <= high

Steps go along the steepest ascent of the norm: the sign of the gradient, or its direction. What would leave the range
of inputs is taken out of the gradient first, else a white background would eat the budget of an L2 step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")

_INSIDE = 1 - 1e-6  # so that rounding errors do not lead out of an L2 ball


@dataclass(frozen=True)
class Ball:
    """Perturbations of each row of `x` [n ...].

    Attributes:
        norm: of one row, over all its numbers: "linf" (the largest) or "l2" (root of the sum of squares).
        radius: in the units of `x`.
        low: least value of an input.
        high: largest value of an input.

    Raises:
        ValueError: no such norm, or a radius that is not a positive finite number.
    """

    norm: Norm
    radius: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {self.norm!r}")
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius must be a positive finite number; got {self.radius!r}")

    def project(self, delta: Tensor, x: Tensor) -> Tensor:
        """Perturbations brought into the ball, then to where `x + delta` is an input, which never makes them longer."""
        if self.norm == "linf":
            delta = delta.clamp(-self.radius, self.radius)
        else:
            delta = delta * (_INSIDE * self.radius / _lengths(delta)).clamp(max=1).to(delta.dtype)
        return torch.minimum(torch.maximum(delta, self.low - x), self.high - x)

    def steepest(self, gradient: Tensor, at: Tensor) -> Tensor:
        """The direction of norm 1 along which a loss with this gradient grows most, at the inputs `at`; else zero."""
        outward = ((at >= self.high) & (gradient > 0)) | ((at <= self.low) & (gradient < 0))
        free = gradient.masked_fill(outward, 0)
        if self.norm == "linf":
            return free.sign()
        # in units of the largest entry first: squares of small gradients underflow
        free = free / free.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(free.dtype).tiny).view(_columns(free))
        return free / _lengths(free).clamp(min=1e-12).to(free.dtype)

    def starts(self, x: Tensor, keys: Sequence[str], *, seed: int, count: int) -> list[Tensor]:
        """Perturbations drawn uniformly from the ball (before it is cut off), `count` for each row.

        A row's draws depend on the seed and on its key alone, and the first ones do not depend on how many there are.
        """
        drawn = [np.stack([self._draw(tuple(x.shape[1:]), key, (seed, i)) for key in keys]) for i in range(count)]
        return [self.project(torch.from_numpy(d).to(x), x) for d in drawn]

    def _draw(self, shape: tuple[int, ...], key: str, seed: tuple[int, int]) -> np.ndarray:
        digest = hashlib.sha256(key.encode()).digest()[:8]
        random = np.random.default_rng([*seed, int.from_bytes(digest, "little")])
        if self.norm == "linf":
            return random.uniform(-self.radius, self.radius, shape)
        direction = random.standard_normal(shape)
        length = random.uniform() ** (1 / direction.size)
        return self.radius * length * direction / np.linalg.norm(direction)


def _lengths(delta: Tensor) -> Tensor:
    """Euclidean length of each row in float64, to be multiplied with rows."""
    return torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64).view(_columns(delta))


def _columns(rows: Tensor) -> tuple[int, ...]:
    return (-1, *(1 for _ in rows.shape[1:]))
