"""MISA: a shared and a private representation per modality; the one aligned, the other apart, both needed to rebuild.

    L = w_contrastive InfoNCE(s_a, s_b) + w_similarity CMD(sigmoid(s_a), sigmoid(s_b)) + w_difference L_diff
        + w_reconstruction mean_m |D_m(s_m + p_m) - x_m|^2 / d_m + w_task CE(V [mean_m s_m, p_1, ..., p_M], label)
    L_diff = mean_m difference(s_m, p_m) + mean_{a < b} difference(p_a, p_b)

s and p are linear heads, x standardized features. As published it has no contrast: CMD compares distributions, so what
relates two items is the task alone, and nothing keeps the shared part from becoming constant. InfoNCE is added for
both; `w_contrastive` 0 with `allow_collapse` is the published objective. The task counts where there are labels, and a
linear reading of all representations replaces the transformer over them. Hazarika et al. 2020, arXiv:2005.03545.

Also called `mac`: no publication was found under the name "MAC (modality-agnostic and -specific representations)"; this
is the method that comes closest.
"""

from __future__ import annotations

import itertools
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from labkit.encoders.heads import LinearHead, linear_heads
from labkit.losses import cmd, difference, info_nce, reconstruction
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._task import classes, mean_present, task_terms
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight


class MisaOptions(CollapsibleOptions):
    """Hyper-parameters of MISA.

    Attributes:
        w_contrastive: weight of InfoNCE on the shared part; without it that may collapse.
        w_similarity: weight of the central moment discrepancy between the shared parts.
        w_difference: weight of soft orthogonality, of shared from private and of private parts from each other.
        w_reconstruction: weight of rebuilding the features from the sum of both parts.
        w_task: weight of classification; there is none where the training samples have no labels.
    """

    keeps_apart: ClassVar[tuple[str, ...]] = ("w_contrastive",)

    w_contrastive: Weight = 1.0
    w_similarity: Weight = 0.1
    w_difference: Weight = 0.3
    w_reconstruction: Weight = 0.1
    w_task: Weight = 0.1


@VARIANTS.register("misa", aliases=("mac",))
class Misa(Trained):
    """Shared and private representations; two or more modalities. Source: Hazarika et al. 2020, arXiv:2005.03545."""

    Options: ClassVar[type[Options]] = MisaOptions
    options: MisaOptions
    search = Trained.search | {
        "w_similarity": (0.03, 0.1, 1.0),
        "w_reconstruction": (0.03, 0.1, 1.0),
        "w_task": (0.0, 0.1, 1.0),
    }
    normalized: ClassVar[bool] = False

    def prepare(self, train: Embeddings) -> None:
        """Add private heads, decoders and, where there are labels, a classifier."""
        o, extra = self.options, self.network.extra
        extra["private"] = linear_heads(train, dim=o.dim, dropout=o.dropout)
        extra["decoder"] = nn.ModuleDict({m: nn.Linear(o.dim, z.shape[1]) for m, z in train.z.items()})
        if o.w_task and classes(train):
            extra["task"] = nn.Linear((len(train.modalities) + 1) * o.dim, classes(train))

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Contrast of the shared parts."""
        if not self.options.w_contrastive:
            return {}
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Moments of the shared parts, in the unit interval, where all orders have one scale."""
        if not self.options.w_similarity:
            return {}
        return {"similarity": self.options.w_similarity * cmd(pair.cloud_x.sigmoid(), pair.cloud_y.sigmoid())}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Difference, reconstruction and task."""
        o, extra = self.options, self.network.extra
        head = extra["private"].get_submodule
        private = {m: head(m)(batch.z[m]).float() for m in z}
        terms = {}
        if o.w_difference:
            terms |= _mean("difference", o.w_difference, self._differences(z, private, batch))
        if o.w_reconstruction:
            terms |= _mean("reconstruction", o.w_reconstruction, [self._rebuilding(z, private, batch)])
        if "task" in extra:
            own = [private[m] * batch.present[m][:, None] for m in private]
            logits = extra["task"](torch.cat([mean_present(z, batch.present), *own], dim=1))
            terms |= task_terms(logits, batch, weight=o.w_task)
        return terms

    def _differences(self, z: dict[str, Tensor], private: dict[str, Tensor], batch: Embeddings) -> list[list[Tensor]]:
        """Of shared from private part, one per modality; and of private parts, one per pair of modalities."""
        couples = [(z[m], private[m], batch.present[m]) for m in z]
        pairs = [
            (private[a], private[b], batch.present[a] & batch.present[b]) for a, b in itertools.combinations(private, 2)
        ]
        return [
            [difference(x[rows], y[rows]) for x, y, rows in some if int(rows.sum()) > 1] for some in (couples, pairs)
        ]

    def _rebuilding(self, z: dict[str, Tensor], private: dict[str, Tensor], batch: Embeddings) -> list[Tensor]:
        """Squared error of the decoders, one per modality, in variances of the features."""
        decoder, values = self.network.extra["decoder"].get_submodule, []
        for m in z:
            rows, head = batch.present[m], cast("LinearHead", self.network.heads[m])
            if bool(rows.any()):
                standardized = (batch.z[m][rows] - head.mean) / head.scale
                values.append(reconstruction(decoder(m)(z[m][rows] + private[m][rows]), standardized))
        return values


def _mean(name: str, weight: float, parts: list[list[Tensor]]) -> dict[str, Tensor]:
    """The sum of the means of the parts as a term; none where the batch has nothing to compare."""
    means = [torch.stack(values).mean() for values in parts if values]
    return {name: weight * torch.stack(means).sum()} if means else {}
