"""Geometric alignment (proposal B): transport, Riemannian manifold alignment and retrieval together.

    L = w_ot S_epsilon(x, y) + w_rma L_RMA + w_retrieve InfoNCE

L_RMA is the isometric reading; see `labkit.losses.rma_isometric`. Neighbor sets come from the frozen features, that is
from the manifolds as the encoders made them. Without the retrieval term the constant map would be optimal.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce, rma_isometric, rma_literal
from labkit.losses.distances import Distance
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight
from labkit.variants._transport import Solver, transport


class RMAOptions(CollapsibleOptions):
    """Hyper-parameters of geometric alignment.

    Attributes:
        w_ot: alpha of the proposal, weight of transport.
        w_rma: beta, weight of the Riemannian term.
        w_retrieve: gamma, weight of the contrastive retrieval term; without it the map may collapse.
        epsilon: regularization of transport, relative to the mean cost.
        solver: of transport: "divergence", "entropic", "unbalanced", "exact" (as proposed), "low_rank", "sliced" or
            "lower_bound".
        distance: that the Riemannian term compares: "euclidean", "sphere" (the angle), "cosine", "geodesic" or
            "diffusion"; the last two on the cloud of both modalities.
        literal: take the Riemannian term as proposed, a sum over the batch: see `labkit.losses.rma_literal`.
    """

    keeps_apart: ClassVar[tuple[str, ...]] = ("w_retrieve",)

    w_ot: Weight = 1.0
    w_rma: Weight = 10.0
    w_retrieve: Weight = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05
    solver: Solver = "divergence"
    distance: Distance = "euclidean"
    literal: bool = False


@VARIANTS.register("rma", aliases=("geometric",))
class RMA(Trained):
    """Proposal B: OT + RMA + retrieval; two or more modalities. Source: Geometric alignment proposal, L_total."""

    Options: ClassVar[type[Options]] = RMAOptions
    options: RMAOptions
    search = Trained.search | {
        "w_ot": (0.1, 0.3, 1.0, 3.0, 10.0),
        "w_rma": (0.3, 1.0, 3.0, 10.0, 30.0),
        "epsilon": (0.05, 0.2),
    }

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The transport term."""
        o = self.options
        return {"ot": o.w_ot * transport(pair, o.solver, epsilon=o.epsilon)} if o.w_ot else {}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Riemannian and retrieval terms."""
        o = self.options
        terms = {}
        if o.w_rma:
            terms["rma"] = o.w_rma * self._riemannian(pair)
        if o.w_retrieve:
            value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
            terms["retrieve"] = o.w_retrieve * value
        return terms

    def _riemannian(self, pair: Pair) -> Tensor:
        o = self.options
        near_x, near_y = pair.neighbors(o.neighbors)
        if o.literal:
            return rma_literal(pair.x, pair.y, neighbors_x=near_x)
        return rma_isometric(
            pair.x, pair.y, neighbors_x=near_x, neighbors_y=near_y, k=near_x.shape[1], distance=o.distance
        )
