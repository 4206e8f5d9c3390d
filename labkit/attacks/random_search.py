"""Random search: the best of the starts, without a gradient. What a gradient attack must beat to be believed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from labkit.attacks import ATTACKS
from labkit.attacks.ascent import Best, Loss, evaluated
from labkit.attacks.ball import Ball


@ATTACKS.register("random", aliases=("random_search",))
def random_search(loss: Loss, x: Tensor, ball: Ball, starts: Sequence[Tensor], *, steps: int = 1) -> Tensor:
    """The best start; `steps` make no difference. See `labkit.attacks.Attack`."""
    del ball, steps
    best = Best.clean(loss, x)
    for start in starts:
        best.offer(start, evaluated(loss, x + start))
    return best.delta
