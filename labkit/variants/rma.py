"""Geometric alignment (proposal B): transport, Riemannian manifold alignment and retrieval together.

    L = w_ot S_epsilon(x, y) + w_rma L_RMA + w_retrieve InfoNCE

L_RMA is the isometric reading; see `labkit.losses.rma_isometric`. Neighbor sets come from the frozen features, that is
from the manifolds as the encoders made them. Without the retrieval term the constant map would be optimal.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from labkit.losses import info_nce, rma_isometric, sinkhorn_divergence
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class RMAOptions(TrainedOptions):
    """Hyper-parameters of geometric alignment.

    Attributes:
        w_ot: alpha of the proposal, weight of the Sinkhorn divergence.
        w_rma: beta, weight of the Riemannian term.
        w_retrieve: gamma, weight of the contrastive retrieval term; positive, or the map may collapse.
        epsilon: regularization of the divergence, relative to the mean cost.
    """

    w_ot: Weight = 1.0
    w_rma: Weight = 10.0
    w_retrieve: Annotated[float, Field(gt=0)] = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05


@VARIANTS.register("rma", aliases=("geometric",))
class RMA(Trained):
    """Proposal B: OT + RMA + retrieval; two or more modalities. Source: Geometric alignment proposal, L_total."""

    Options: ClassVar[type[Options]] = RMAOptions
    options: RMAOptions
    search = Trained.search | {
        "w_ot": (0.3, 1.0, 3.0, 10.0),
        "w_rma": (1.0, 10.0, 30.0, 100.0),
        "epsilon": (0.05, 0.2),
    }

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The transport term."""
        return {"ot": self.options.w_ot * sinkhorn_divergence(pair.cloud_x, pair.cloud_y, epsilon=self.options.epsilon)}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Riemannian and retrieval terms."""
        o = self.options
        near_x, near_y = pair.neighbors(o.neighbors)
        return {
            "rma": o.w_rma * rma_isometric(pair.x, pair.y, neighbors_x=near_x, neighbors_y=near_y),
            "retrieve": o.w_retrieve * info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group),
        }
