"""Gradients of an optimal value by the envelope theorem.

At an optimum the derivative of min_P F(P, C) with respect to C is the partial derivative of F at the optimal P:
nothing is differentiated through the iterations (Danskin 1966; for transport: Feydy et al. 2019, eq. 15). What
the theorem does not give is the second derivative, for which P moves along. A solver that can differentiate its
plan says so by `again`, which is called only when somebody asks for a second derivative; without it that raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Partials = Callable[..., tuple[Tensor, ...]]


class _Envelope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, again: Partials | None, *arguments_then_partials: Tensor) -> Tensor:
        ctx.again = again
        ctx.save_for_backward(*arguments_then_partials)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        arguments, partials = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if ctx.again is not None and torch.is_grad_enabled():
            partials = ctx.again(*arguments)
        grads = [outer.reshape(outer.shape + (1,) * (p.ndim - outer.ndim)) * p for p in partials]
        if ctx.again is None:
            # Without this the partials would pass for constants, and a second derivative would come out wrong.
            grads = [_FirstOrder.apply(grad, argument) for grad, argument in zip(grads, arguments, strict=True)]
        return None, None, *grads, *(None for _ in partials)


class _FirstOrder(torch.autograd.Function):
    """A gradient that depends on its argument in a way that is not known here."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, argument: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "this transport value has first derivatives only: its second ones need the derivative of a plan that is "
            "not differentiated. Take the gradient without create_graph, or detach it."
        )


def with_envelope_gradient(
    value: Float[Tensor, "*batch"], *terms: tuple[Tensor, Tensor], again: Partials | None = None
) -> Float[Tensor, "*batch"]:
    """`value` as a function of the arguments whose partial derivatives at the optimum are given.

    Args:
        value: Optimal value, one per problem of the batch.
        *terms: Pairs (argument, partial derivative of the value), of equal shapes that begin with the batch.
        again: The partial derivatives once more, as differentiable functions of the arguments.

    Returns:
        The same number, differentiable; detached if there is no argument. A second derivative needs `again`, and
        raises RuntimeError without.
    """
    if not terms:
        return value.detach()
    arguments, partials = zip(*terms, strict=True)
    return _Envelope.apply(value.detach(), again, *arguments, *(p.detach() for p in partials))
