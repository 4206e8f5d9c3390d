"""ShaSpec: features shared by the modalities, and specific ones that tell which modality they come from.

    L = w_contrastive InfoNCE(s_a, s_b) + w_shared |s_a - s_b|_1 / (n sqrt(d)) + w_specific CE(U p_m, m)
        + w_task CE(V [f_1, ..., f_M], label),   f_m = P [s_m, p_m] + s_m, or the mean of all s where m is missing

s are unit rows of linear heads, p linear heads. As published it has no contrast: distance and task are least where all
samples of a class fall on one point, so nothing tells two items of a class apart. InfoNCE is added for that;
`w_contrastive` 0 with `allow_collapse` is the published objective. The task counts where there are labels. The encoder
that the paper shares, behind a layer per modality, is with linear maps a linear head per modality; its L1 distance is
between raw features, which could shrink. Wang et al. 2023, "Multi-modal learning with missing modality via
shared-specific feature modelling", CVPR, arXiv:2307.14126.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.encoders.heads import linear_heads
from labkit.losses import info_nce
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import check_pairs
from labkit.variants._task import classes, mean_present, task_terms
from labkit.variants._trained import CollapsibleOptions, Pair, Trained, Weight


class ShaSpecOptions(CollapsibleOptions):
    """Hyper-parameters of ShaSpec.

    Attributes:
        w_contrastive: weight of InfoNCE on the shared features; without it they may collapse.
        w_shared: alpha, weight of the distance between the shared features of a pair.
        w_specific: beta, weight of telling the modality from the specific features.
        w_task: weight of classification; there is none where the training samples have no labels.
    """

    keeps_apart: ClassVar[tuple[str, ...]] = ("w_contrastive",)

    w_contrastive: Weight = 1.0
    w_shared: Weight = 1.0
    w_specific: Weight = 0.02
    w_task: Weight = 0.1


@VARIANTS.register("shaspec")
class ShaSpec(Trained):
    """Shared and specific features; two or more modalities. Source: Wang et al. 2023, arXiv:2307.14126."""

    Options: ClassVar[type[Options]] = ShaSpecOptions
    options: ShaSpecOptions
    search = Trained.search | {"w_shared": (0.1, 1.0, 3.0), "w_task": (0.0, 0.1, 1.0)}

    def prepare(self, train: Embeddings) -> None:
        """Add specific heads, the classifier of modalities and, where there are labels, fusion and classifier.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        check_pairs(train.present)
        o, extra, modalities = self.options, self.network.extra, len(train.modalities)
        extra["specific"] = linear_heads(train, dim=o.dim, dropout=o.dropout)
        extra["modality"] = nn.Linear(o.dim, modalities)
        if o.w_task and classes(train):
            extra["fusion"] = nn.Linear(2 * o.dim, o.dim)
            extra["task"] = nn.Linear(modalities * o.dim, classes(train))

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Contrast and distance of the shared features."""
        o, terms = self.options, {}
        if o.w_contrastive:
            value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
            terms["contrastive"] = o.w_contrastive * value
        if o.w_shared:
            terms["shared"] = o.w_shared * (pair.x - pair.y).abs().sum(dim=1).mean() / o.dim**0.5
        return terms

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Classification of the modality and of the sample."""
        o, extra = self.options, self.network.extra
        head = extra["specific"].get_submodule
        specific = {m: head(m)(batch.z[m]).float() for m in z}
        terms = {}
        if o.w_specific:
            terms["specific"] = o.w_specific * self._which_modality(specific, batch)
        if "task" in extra:
            terms |= task_terms(extra["task"](self._fused(z, specific, batch)), batch, weight=o.w_task)
        return terms

    def _which_modality(self, specific: dict[str, Tensor], batch: Embeddings) -> Tensor:
        """Cross-entropy of telling the modality, mean over the modalities of the batch."""
        values = []
        for i, (m, features) in enumerate(specific.items()):
            logits = self.network.extra["modality"](features[batch.present[m]])
            if len(logits):
                values.append(F.cross_entropy(logits, torch.full_like(logits[:, 0], i, dtype=torch.long)))
        return torch.stack(values).mean()

    def _fused(self, z: dict[str, Tensor], specific: dict[str, Tensor], batch: Embeddings) -> Tensor:
        """Shared and specific features of each modality side by side; a missing one is the mean of the shared ones."""
        fusion, mean = self.network.extra["fusion"], mean_present(z, batch.present)
        fused = {m: fusion(torch.cat([z[m], specific[m]], dim=1)) + z[m] for m in z}
        return torch.cat([torch.where(batch.present[m][:, None], f, mean) for m, f in fused.items()], dim=1)
