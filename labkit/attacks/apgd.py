"""APGD, auto-PGD: PGD with momentum whose steps start at twice the radius and are halved when they stop helping.

    z = P(x_k + eta * s(gradient)),    x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))

At checkpoints a row halves its eta and goes back to its best point, if fewer than 75 % of the steps since the last one
raised its loss, or if neither eta nor the best loss has changed since then. Croce and Hein 2020, "Reliable evaluation
of adversarial robustness with an ensemble of diverse parameter-free attacks" (ICML, arXiv:2003.01690), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from labkit.attacks import ATTACKS
from labkit.attacks.ascent import Best, Loss, chosen, evaluated, gradient
from labkit.attacks.ball import Ball

MOMENTUM = 0.25  # share of the step before
RISING = 0.75  # share of steps that must raise the loss
FIRST, SHORTENED, SHORTEST = 0.22, 0.03, 0.06  # checkpoints, as shares of all steps


@ATTACKS.register("apgd")
def apgd(loss: Loss, x: Tensor, ball: Ball, starts: Sequence[Tensor], *, steps: int = 20) -> Tensor:
    """The best point on the way from any start. See `labkit.attacks.Attack`."""
    best = Best.clean(loss, x)
    for start in starts:
        found = _climb(loss, x, ball, start, steps)
        best.offer(found.delta, found.value)
    return best.delta


def checkpoints(steps: int) -> list[int]:
    """After which steps a row may halve its step size: ceil(p_j steps), the p_j ever closer to each other."""
    shares = [0.0, FIRST]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - SHORTENED, SHORTEST))
    # rounded first: 0.22 * 50 is a little more than 11
    return sorted({math.ceil(round(share * steps, 9)) for share in shares if 0 < share <= 1})


def _climb(loss: Loss, x: Tensor, ball: Ball, start: Tensor, steps: int) -> Best:
    column = (-1, *(1 for _ in x.shape[1:]))
    eta = torch.full((len(x),), 2 * ball.radius, dtype=x.dtype, device=x.device)
    before, delta = start, start
    value, slope = gradient(loss, x + delta)
    best, best_slope = Best(delta, value), slope
    rises, last = torch.zeros_like(value), 0
    halved, best_then = torch.zeros_like(value, dtype=torch.bool), value
    stops = set(checkpoints(steps))
    for step in range(1, steps):
        ahead = ball.project(delta + eta.view(column) * ball.steepest(slope, x + delta), x)
        if step > 1:  # there is none before the first
            ahead = ball.project(delta + (1 - MOMENTUM) * (ahead - delta) + MOMENTUM * (delta - before), x)
        before, delta, value_before = delta, ahead, value
        value, slope = gradient(loss, x + delta)
        rises += value > value_before
        best_slope = chosen(value > best.value, slope, best_slope)
        best.offer(delta, value)
        if step in stops:
            stuck = ~halved & (best_then == best.value)
            halved, best_then = (rises < RISING * (step - last)) | stuck, best.value
            eta = torch.where(halved, eta / 2, eta)
            delta, slope = chosen(halved, best.delta, delta), chosen(halved, best_slope, slope)
            value = torch.where(halved, best.value, value)
            rises, last = torch.zeros_like(rises), step
    ahead = ball.project(delta + eta.view(column) * ball.steepest(slope, x + delta), x)
    best.offer(ahead, evaluated(loss, x + ahead))
    return best
