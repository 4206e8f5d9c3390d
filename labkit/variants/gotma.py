"""GOTMA (proposal A): transport, Riemannian consistency, contrast and, where labels are used, a task.

    L = w_ot S_epsilon + w_rc L_RC + w_cl L_CL + w_task L_task + w_curvature L_CA

L_RC by default compares great-circle distances on the sphere of the shared space, over neighbors in the frozen
features; L_task is the cross-entropy of a linear classifier on the mean of a sample's embeddings and L_CA the
difference of curvatures, both off (0) by default: the first so that the comparison with the other variants is on equal
information, the second because a batch tells little of curvature.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from labkit.geometry import fewest_neighbors
from labkit.losses import curvature_alignment, info_nce, rc, rc_literal
from labkit.losses.distances import Distance
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._task import classes, mean_present, task_terms
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight
from labkit.variants._transport import Solver, transport

CURVED = 2  # dimensions that a batch is large enough for
SAMPLED = 64  # rows at which curvature is compared in a step


class GotmaOptions(CollapsibleOptions):
    """Hyper-parameters of GOTMA.

    Attributes:
        w_ot: lambda_OT, weight of transport.
        w_rc: lambda_RC, weight of Riemannian consistency.
        w_cl: lambda_CL, weight of the contrastive term; without it the map may collapse.
        w_task: lambda_task, weight of classification; needs labels when positive.
        w_curvature: weight of curvature alignment at a sample of the batch, a noisy regularizer; off by default.
        epsilon: regularization of transport, relative to the mean cost.
        solver: of transport: "divergence", "entropic" (as proposed), "unbalanced", "exact", "low_rank", "sliced" or
            "lower_bound".
        tau: of the solver "unbalanced": the smaller, the more may stay unmatched.
        distance: that L_RC compares: "sphere" (the angle), "euclidean", "cosine", "geodesic" or "diffusion".
        literal: take L_RC as proposed, one-sided and not normalized: see `labkit.losses.rc_literal`.
    """

    added = ("tau",)
    keeps_apart: ClassVar[tuple[str, ...]] = ("w_cl",)

    w_ot: Weight = 1.0
    w_rc: Weight = 10.0
    w_cl: Weight = 1.0
    w_task: Weight = 0.0
    w_curvature: Weight = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05
    solver: Solver = "divergence"
    tau: Annotated[float, Field(gt=0, lt=1)] = 0.9
    distance: Distance = "sphere"
    literal: bool = False


@VARIANTS.register("gotma")
class Gotma(Trained):
    """Proposal A: OT + RC + contrast (+ task); two or more modalities. Source: GOTMA proposal, section 2.2."""

    Options: ClassVar[type[Options]] = GotmaOptions
    options: GotmaOptions
    search = Trained.search | {
        "w_ot": (0.1, 0.3, 1.0, 3.0, 10.0),
        "w_rc": (0.3, 1.0, 3.0, 10.0, 30.0),
        "epsilon": (0.05, 0.2),
    }

    def prepare(self, train: Embeddings) -> None:
        """Add the task classifier where it is wanted.

        Raises:
            ValueError: it is wanted and no training sample has a label.
        """
        if self.options.w_task == 0:
            return
        if not classes(train):
            raise ValueError("w_task is positive but the training samples have no labels; set w_task to 0")
        self.network.extra["task"] = nn.Linear(self.options.dim, classes(train))

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The transport term."""
        o = self.options
        return {"ot": o.w_ot * transport(pair, o.solver, epsilon=o.epsilon, tau=o.tau)} if o.w_ot else {}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Riemannian, contrastive and curvature terms."""
        o = self.options
        terms = {}
        if o.w_rc:
            terms["rc"] = o.w_rc * self._riemannian(pair)
        if o.w_cl:
            value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
            terms["contrastive"] = o.w_cl * value
        if o.w_curvature and min(len(z.unique(dim=0)) for z in (pair.x, pair.y)) > fewest_neighbors(CURVED):
            rows = torch.randperm(len(pair.x))[:SAMPLED].to(pair.x.device)
            terms["curvature"] = o.w_curvature * curvature_alignment(pair.x, pair.y, dim=CURVED, rows=rows)
        return terms

    def _riemannian(self, pair: Pair) -> Tensor:
        o = self.options
        near_x, near_y = pair.neighbors(o.neighbors)
        if o.literal:
            return rc_literal(pair.x, pair.y, neighbors_x=near_x, k=near_x.shape[1])
        return rc(pair.x, pair.y, neighbors_x=near_x, neighbors_y=near_y, k=near_x.shape[1], distance=o.distance)

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Cross-entropy of the classifier on each sample's mean embedding; unlabeled samples take no part."""
        if "task" not in self.network.extra:
            return {}
        logits = self.network.extra["task"](mean_present(z, batch.present))
        return task_terms(logits, batch, weight=self.options.w_task)
