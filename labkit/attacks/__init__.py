"""Adversarial attacks on retrieval: the worst small change of an item, instead of a random one.

    inputs = attacks.Pixels.of(encoder, keys, pictures)      # or attacks.Features.of(test, "image", train, keys)
    outcomes = attacks.evaluate_attack(aligner, test, inputs, attacks.Threat("pgd", "linf"), modality="image")

An attack is a function registered in `ATTACKS`, `attack(loss, x, ball, starts, *, steps) -> perturbations`, of tensors
alone: `loss` gives each row of `x` a number that the attacker raises, `ball` says which perturbations are allowed. What
is attacked is the query: the gallery it is compared with is clean. White-box: the attacker knows encoder and aligner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from labkit.attacks.ascent import Loss
from labkit.attacks.ball import Ball
from labkit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

ATTACKS = Registry("attack", __name__)


class Attack(Protocol):
    """Raises a loss of each row within a ball around it."""

    def __call__(self, loss: Loss, x: Tensor, ball: Ball, starts: Sequence[Tensor], *, steps: int) -> Tensor:
        """The best perturbation found for each row, in the shape of `x`; none (zero) where nothing found is better.

        Args:
            loss: x -> one number per row, of that row alone; higher is better for the attacker.
            x: clean rows.
            ball: the perturbations that are allowed.
            starts: perturbations from which it starts, one attempt each.
            steps: gradients of an attempt.
        """
        ...


def get(name: str) -> Attack:
    """The attack called `name`.

    Raises:
        UnknownNameError: none is called so; the message names the nearest.
    """
    return cast("Attack", ATTACKS.get(name))


from labkit.attacks.evaluation import Outcome, Threat, evaluate_attack  # noqa: E402
from labkit.attacks.inputs import Features, Pixels, differentiable  # noqa: E402
from labkit.attacks.masking import Masking, masking_checks  # noqa: E402
from labkit.attacks.names import budget, canonical, is_attack, parsed, with_budgets  # noqa: E402
from labkit.attacks.objective import Retrieval  # noqa: E402

__all__ = [
    "ATTACKS",
    "Attack",
    "Ball",
    "Features",
    "Loss",
    "Masking",
    "Outcome",
    "Pixels",
    "Retrieval",
    "Threat",
    "budget",
    "canonical",
    "differentiable",
    "evaluate_attack",
    "get",
    "is_attack",
    "masking_checks",
    "parsed",
    "with_budgets",
]
