"""Optimal transport beside contrast: the Sinkhorn divergence pulls the clouds together, pairs keep their places.

    L = InfoNCE + w_ot S_epsilon(x, y)

The divergence is blind to the pairing but sees unpaired items too, hence the contrastive term beside it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce
from labkit.losses.transport import Cost
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight
from labkit.variants._transport import Solver, transport


class OTOptions(CollapsibleOptions):
    """Hyper-parameters of the OT terms.

    Attributes:
        w_contrastive: weight of InfoNCE; without it the map may collapse.
        w_ot: weight of transport.
        epsilon: its regularization, relative to the mean cost.
        solver: of transport: "divergence", "entropic", "unbalanced", "exact", "low_rank", "sliced" or "lower_bound".
        tau: of the solver "unbalanced": the smaller, the more may stay unmatched.
        cost: of transport, between directions: "cosine", "euclidean" or "geodesic" (the angle).
    """

    added = ("tau",)
    keeps_apart: ClassVar[tuple[str, ...]] = ("w_contrastive",)

    w_contrastive: Weight = 1.0
    w_ot: Weight = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05
    solver: Solver = "divergence"
    tau: Annotated[float, Field(gt=0, lt=1)] = 0.9
    cost: Cost = "cosine"


@VARIANTS.register("ot", aliases=("sinkhorn",))
class OT(Trained):
    """InfoNCE and Sinkhorn divergence; two or more modalities. Source: Feydy et al. 2019, arXiv:1810.08278."""

    Options: ClassVar[type[Options]] = OTOptions
    options: OTOptions
    search = Trained.search | {"w_ot": (0.1, 0.3, 1.0, 3.0, 10.0), "epsilon": (0.05, 0.2)}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The transport term."""
        o = self.options
        return {"ot": o.w_ot * transport(pair, o.solver, epsilon=o.epsilon, cost=o.cost, tau=o.tau)} if o.w_ot else {}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        if not self.options.w_contrastive:
            return {}
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}
