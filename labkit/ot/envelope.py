"""Gradients of an optimal value by the envelope theorem.

At an optimum the derivative of min_P F(P, C) with respect to C is the partial derivative of F at the optimal P:
nothing is differentiated through the iterations (Danskin 1966; for transport: Feydy et al. 2019, eq. 15). What
the theorem does not give is the second derivative, for which P would have to move along; asking for it raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


class _Envelope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *arguments_then_partials: Tensor) -> Tensor:
        ctx.save_for_backward(*arguments_then_partials)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        arguments, partials = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        grads = [outer.reshape(outer.shape + (1,) * (p.ndim - outer.ndim)) * p for p in partials]
        # Without this the partials would pass for constants, and a second derivative would come out wrong.
        guarded = (_FirstOrder.apply(grad, argument) for grad, argument in zip(grads, arguments, strict=True))
        return None, *guarded, *(None for _ in partials)


class _FirstOrder(torch.autograd.Function):
    """A gradient that depends on its argument in a way that is not known here."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, argument: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "a transport value has first derivatives only: its second ones need the derivative of the plan. "
            "Take the gradient without create_graph, or detach it."
        )


def with_envelope_gradient(value: Float[Tensor, "*batch"], *terms: tuple[Tensor, Tensor]) -> Float[Tensor, "*batch"]:
    """`value` as a function of the arguments whose partial derivatives at the optimum are given.

    Args:
        value: Optimal value, one per problem of the batch.
        *terms: Pairs (argument, partial derivative of the value), of equal shapes that begin with the batch.

    Returns:
        The same number, differentiable once; detached if there is no argument. A second derivative raises RuntimeError.
    """
    if not terms:
        return value.detach()
    arguments, partials = zip(*terms, strict=True)
    return _Envelope.apply(value.detach(), *arguments, *(p.detach() for p in partials))
