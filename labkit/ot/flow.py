"""Gradient flow of a transport loss: where a cloud goes that may move freely to make the loss small.

    x <- x - step / (2 a) grad_x loss(x, y)

For the squared Euclidean cost and step 1 that is the barycentric image of x under the plan (for the divergence minus
the one of x with itself). It shows what a loss wants: OT_epsilon alone draws the cloud together, towards the mean of
y as epsilon grows; the Sinkhorn divergence does not. Feydy et al. 2019 (AISTATS), section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from labkit.ot.cost import PointCloud
from labkit.ot.divergence import sinkhorn_divergence
from labkit.ot.sinkhorn import sinkhorn

if TYPE_CHECKING:
    from jaxtyping import Float


def gradient_flow(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    epsilon: float = 0.05,
    debiased: bool = True,
    step: float = 1.0,
    n_steps: int = 60,
) -> Float[Tensor, "n d"]:
    """Where the points of x end up; weights are uniform.

    Args:
        x: Where they start.
        y: Where they should go.
        epsilon: Strength of the entropy, relative to the mean cost between the first x and y; held fixed in absolute
            terms while the cloud moves.
        debiased: Follow `sinkhorn_divergence`, or the biased value of `sinkhorn`.
        step: Length of a step; 1 goes all the way to the barycenters of the plan.
        n_steps: How many.

    Raises:
        ValueError: Input that makes no problem, or steps that are not positive.

    Warns:
        NotConvergedWarning: A solver used up its iterations.
    """
    if not step > 0 or n_steps < 1:
        raise ValueError(f"step={step} and n_steps={n_steps} must be positive.")
    scale = float(PointCloud(x, y).matrix().mean())
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        if debiased:
            loss = sinkhorn_divergence(x, y, epsilon=epsilon, scale_cost=scale)
        else:
            loss = sinkhorn(PointCloud(x, y), epsilon=epsilon, scale_cost=scale).regularized_cost
        loss.backward()
        assert x.grad is not None
        x = x - step * len(x) / 2 * x.grad
    return x.detach()
