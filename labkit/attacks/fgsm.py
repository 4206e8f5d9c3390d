"""FGSM, the fast gradient sign method: one step as long as the budget, along the steepest ascent of the norm.

    delta = radius * sign(gradient)     (L2: radius * gradient / |gradient|)

Goodfellow, Shlens, Szegedy 2015, "Explaining and harnessing adversarial examples" (ICLR), section 4. The optimum where
the loss is linear in the input; weaker than steps wherever it bends.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from labkit.attacks import ATTACKS
from labkit.attacks.ascent import Best, Loss, evaluated, gradient
from labkit.attacks.ball import Ball


@ATTACKS.register("fgsm")
def fgsm(loss: Loss, x: Tensor, ball: Ball, starts: Sequence[Tensor], *, steps: int = 1) -> Tensor:
    """One step from each start; `steps` other than one make no difference. See `labkit.attacks.Attack`."""
    del steps
    best = Best.clean(loss, x)
    for start in starts:
        _, slope = gradient(loss, x + start)
        delta = ball.project(start + ball.radius * ball.steepest(slope, x + start), x)
        best.offer(delta, evaluated(loss, x + delta))
    return best.delta
