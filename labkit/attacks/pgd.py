"""PGD, projected gradient descent (here ascent): equal steps of steepest ascent, each brought back into the ball.

    delta <- P(delta + a * sign(gradient)),     a = 2.5 * radius / steps     (L2: gradient / |gradient|)

Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to adversarial attacks" (ICLR),
section 2.1 and appendix B: steps may reach any point of the ball from any other, and turn back at its border.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from labkit.attacks import ATTACKS
from labkit.attacks.ascent import Best, Loss, evaluated, gradient
from labkit.attacks.ball import Ball

REACH = 2.5  # length of all steps together, in units of the radius


@ATTACKS.register("pgd")
def pgd(loss: Loss, x: Tensor, ball: Ball, starts: Sequence[Tensor], *, steps: int = 20) -> Tensor:
    """The best point on the way from any start. See `labkit.attacks.Attack`."""
    size = REACH * ball.radius / steps
    best = Best.clean(loss, x)
    for start in starts:
        delta = start
        for _ in range(steps):
            value, slope = gradient(loss, x + delta)
            best.offer(delta, value)
            delta = ball.project(delta + size * ball.steepest(slope, x + delta), x)
        best.offer(delta, evaluated(loss, x + delta))
    return best.delta
