"""What Gromov-Wasserstein found, and how far to believe it: other starts, a lower bound, the error of a truncation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import full_precision
from labkit.ot.coupling import Coupling
from labkit.ot.gromov.bounds import lower_bounds
from labkit.ot.gromov.spaces import Spaces

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False, kw_only=True)
class GromovCoupling(Coupling):
    """The best local optimum that was found.

    `cost` is alpha G + (1 - alpha) <M, P>; potentials, `geometry` and `epsilon_absolute` are those of the last
    linearized problem. A low cost is no evidence of a right matching: a mirror image has the same distances.

    Attributes:
        spaces: The scaled problem.
        objectives: Regularized objective that each start led to.
        n_alternatives: Starts that came within 1 % of the product coupling's cost to the best objective and match
            over a tenth of the mass otherwise: above 0 the matching is not identified.
        approximation_error: How far truncated distances can put sqrt(G) off, in its units: for the plan P,
            |sqrt(G(P)) - sqrt(G of the true distances)| is at most this; 0 where distances are exact.
    """

    spaces: Spaces
    objectives: Float[Tensor, "*batch starts"]
    n_alternatives: Int[Tensor, "*batch"]
    approximation_error: Float[Tensor, "*batch"]

    @cached_property
    def lower_bound(self) -> Float[Tensor, "*batch"]:
        """What the cost of no coupling falls below: the best of FLB, SLB and TLB; O(n^3), computed when asked for."""
        with torch.no_grad(), full_precision(self.f.device):
            return lower_bounds(self.spaces).best

    @property
    def gap(self) -> Float[Tensor, "*batch"]:
        """`cost` minus `lower_bound`: how much better a coupling could be at most, entropy aside; >= 0."""
        return self.cost - self.lower_bound

    @property
    def spread(self) -> Float[Tensor, "*batch"]:
        """Highest minus lowest of `objectives`."""
        return self.objectives.amax(-1) - self.objectives.amin(-1)
