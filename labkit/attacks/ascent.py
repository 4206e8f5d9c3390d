"""What all attacks share: the gradient of a loss of each row, and the best perturbation met so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Loss = Callable[[Tensor], Tensor]  # x [n ...] -> [n], of each row alone; higher is better for the attacker


def gradient(loss: Loss, x: Tensor) -> tuple[Float[Tensor, " n"], Tensor]:
    """Losses of the rows and their gradients, zero where they are not finite (roots at zero have none)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


class Best:
    """The perturbation with the highest loss of each row, among those it was offered.

    Attributes:
        delta: perturbations.
        value: their losses.
    """

    def __init__(self, delta: Tensor, value: Float[Tensor, " n"]) -> None:
        self.delta, self.value = delta, value

    @classmethod
    def clean(cls, loss: Loss, x: Tensor) -> Best:
        """No perturbation: an attacker who finds nothing better leaves the item alone."""
        return cls(torch.zeros_like(x), evaluated(loss, x))

    def offer(self, delta: Tensor, value: Float[Tensor, " n"]) -> None:
        """Take the rows that are better."""
        better = value > self.value
        self.delta = chosen(better, delta, self.delta)
        self.value = torch.where(better, value, self.value)


@torch.no_grad()
def evaluated(loss: Loss, x: Tensor) -> Float[Tensor, " n"]:
    """Losses of the rows, without gradients."""
    return loss(x)


def chosen(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of `yes` where the mask is true, else of `no`."""
    return torch.where(mask.view(-1, *(1 for _ in yes.shape[1:])), yes, no)
