"""GOTMA (proposal A): transport, Riemannian consistency, contrast and, where labels are used, a task.

    L = w_ot S_epsilon + w_rc L_RC + w_cl L_CL + w_task L_task

L_RC compares great-circle distances on the sphere of the shared space over neighbors in the frozen features; L_task is
the cross-entropy of a linear classifier on the mean of a sample's embeddings, off (0) by default so that the comparison
with the other variants is on equal information.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.losses import info_nce, rc, sinkhorn_divergence
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class GotmaOptions(TrainedOptions):
    """Hyper-parameters of GOTMA.

    Attributes:
        w_ot: lambda_OT, weight of the Sinkhorn divergence.
        w_rc: lambda_RC, weight of Riemannian consistency.
        w_cl: lambda_CL, weight of the contrastive term; positive, or the map may collapse.
        w_task: lambda_task, weight of classification; needs labels when positive.
        epsilon: regularization of the divergence, relative to the mean cost.
    """

    w_ot: Weight = 1.0
    w_rc: Weight = 10.0
    w_cl: Annotated[float, Field(gt=0)] = 1.0
    w_task: Weight = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05


@VARIANTS.register("gotma")
class Gotma(Trained):
    """Proposal A: OT + RC + contrast (+ task); two or more modalities. Source: GOTMA proposal, section 2.2."""

    Options: ClassVar[type[Options]] = GotmaOptions
    options: GotmaOptions
    search = Trained.search | {
        "w_ot": (0.3, 1.0, 3.0, 10.0),
        "w_rc": (1.0, 10.0, 30.0, 100.0),
        "epsilon": (0.05, 0.2),
    }

    def prepare(self, train: Embeddings) -> None:
        """Add the task classifier where it is wanted."""
        if self.options.w_task == 0:
            return
        if train.label is None or bool((train.label < 0).all()):
            raise ValueError("w_task is positive but the training samples have no labels; set w_task to 0")
        self.network.extra["task"] = nn.Linear(self.options.dim, int(train.label.max()) + 1)

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The transport term."""
        return {"ot": self.options.w_ot * sinkhorn_divergence(pair.cloud_x, pair.cloud_y, epsilon=self.options.epsilon)}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Riemannian and contrastive terms."""
        o = self.options
        near_x, near_y = pair.neighbors(o.neighbors)
        return {
            "rc": o.w_rc * rc(pair.x, pair.y, neighbors_x=near_x, neighbors_y=near_y),
            "contrastive": o.w_cl * info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group),
        }

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Cross-entropy of the classifier on each sample's mean embedding; unlabeled samples take no part."""
        if "task" not in self.network.extra or batch.label is None:
            return {}
        masks = torch.stack([batch.present[m] for m in z])
        known = (batch.label >= 0) & masks.any(dim=0)
        if not bool(known.any()):
            return {}
        masks = masks[:, known, None]
        mean = (torch.stack(list(z.values()))[:, known] * masks).sum(dim=0) / masks.sum(dim=0)
        logits = self.network.extra["task"](mean)
        return {"task": self.options.w_task * F.cross_entropy(logits, batch.label[known])}
