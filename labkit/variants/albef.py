"""ALBEF, align before fuse: contrast with a momentum teacher and a queue, matching, and masked modeling.

    L = w_contrastive L_ITC + w_matching L_ITM + w_masked L_MFM, each a mean over pairs of modalities
    L_ITC   InfoNCE on [slow features of the batch; queue], targets alpha softmax(slow similarities) + (1 - alpha) T
    L_ITM   do two items belong together? a cross-encoder is asked; hard negatives by similarity (`_matching`)
    L_MFM   mean over masked features of (x_hat - x)^2, x_hat from what is left of the item, fused with its partner

alpha grows from 0 over the first epoch. The paper masks words. Frozen features have no tokens, so standardized features
are masked instead, at random, and predicted by regression; their teacher is the data alone, as a regression has no
distribution to soften. The cross-encoder sees the heads' unit rows, so that all three losses train the heads. The
paper's 0.995 and 65,536 are for 10^5 steps and 10^7 pairs, a training on *stamps* has 120 steps and 570 samples.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.encoders.heads import LinearHead
from labkit.losses import distilled_info_nce
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import check_pairs
from labkit.variants._matching import Matching
from labkit.variants._momentum import Queue, Slow
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight


class ALBEFOptions(TrainedOptions):
    """Hyper-parameters of ALBEF.

    Attributes:
        w_contrastive: weight of ITC; positive, or nothing shapes the space by which is retrieved.
        w_matching: weight of ITM.
        w_masked: weight of masked feature modeling.
        alpha: share of the soft targets after the first epoch.
        momentum: of the slow copy of the heads, at most; see `_momentum`.
        queue: samples that are kept as negatives beyond the batch.
        masking: share of the features that are hidden and predicted; 0 leaves nothing to predict.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_matching: Weight = 1.0
    w_masked: Weight = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    queue: Annotated[int, Field(ge=0)] = 256
    masking: Annotated[float, Field(ge=0, lt=1)] = 0.3


@VARIANTS.register("albef")
class ALBEF(Trained):
    """ITC, ITM and masked features; two or more modalities. Source: Li et al. 2021, arXiv:2107.07651."""

    Options: ClassVar[type[Options]] = ALBEFOptions
    options: ALBEFOptions
    search = Trained.search | {
        "w_matching": (0.1, 0.3, 1.0),
        "w_masked": (0.1, 0.3, 1.0),
        "alpha": (0.0, 0.2, 0.4),
        "momentum": (0.5, 0.9, 0.99),
    }
    _steps_of_epoch = 1

    def prepare(self, train: Embeddings) -> None:
        """Add the slow heads, the queue, the cross-encoder and the decoders.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        check_pairs(train.present)
        o, extra = self.options, self.network.extra
        self._steps_of_epoch = max(1, len(train) // self.training.batch_size)
        extra["slow"] = Slow(self.network.heads, momentum=o.momentum)
        extra["queue"] = Queue(self.modalities, size=o.queue, dim=o.dim)
        if o.w_matching or o.w_masked:
            # one cross-encoder, as in the paper
            extra["matching"] = Matching(dict.fromkeys(self.modalities, o.dim))
        if o.w_masked:
            width = cast("Matching", extra["matching"]).fusion.dim
            extra["decoder"] = nn.ModuleDict({m: nn.Linear(width, z.shape[1]) for m, z in train.z.items()})

    @property
    def alpha(self) -> float:
        """Share of the soft targets at this step."""
        slow = cast("Slow", self.network.extra["slow"])
        return self.options.alpha * min(1.0, int(slow.steps) / self._steps_of_epoch)

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The three losses."""
        o, terms = self.options, {"contrastive": self.options.w_contrastive * self._contrastive(pair)}
        a, b = pair.modalities
        if o.w_matching:
            similarity = pair.x @ pair.y.T / pair.temperature
            matching = self.network.extra["matching"]
            found = matching({a: pair.x}, {b: pair.y}, similarity=similarity, group=pair.group)
            terms["matching"] = o.w_matching * found
        if o.w_masked:
            sides = ((a, pair.raw_x, {b: pair.y}), (b, pair.raw_y, {a: pair.x}))
            values = [self.masked(m, raw, partner) for m, raw, partner in sides]
            terms["masked"] = o.w_masked * torch.stack(values).mean()
        return terms

    def _contrastive(self, pair: Pair) -> Tensor:
        slow, queue = cast("Slow", self.network.extra["slow"]), cast("Queue", self.network.extra["queue"])
        a, b = pair.modalities
        queued_x, queued_y, queued_group = queue.both(a, b)
        return distilled_info_nce(
            pair.x,
            pair.y,
            torch.cat([slow.project(a, pair.raw_x), queued_x]),
            torch.cat([slow.project(b, pair.raw_y), queued_y]),
            alpha=self.alpha,
            temperature=pair.temperature,
            group=torch.cat([pair.group, queued_group]),
        )

    def masked(self, modality: str, raw: Tensor, partner: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the hidden features, in variances of each; 1 for one who predicts their means."""
        head = cast("LinearHead", self.network.heads[modality])
        hidden = torch.rand_like(raw) < self.options.masking
        rows = F.normalize(head(torch.where(hidden, head.mean, raw)).float(), dim=1)
        fusion = cast("Matching", self.network.extra["matching"]).fusion
        decoder = cast("nn.ModuleDict", self.network.extra["decoder"])[modality]
        error = decoder(fusion({modality: rows, **partner})) - (raw - head.mean) / head.scale
        return (error.square() * hidden).sum() / hidden.sum().clamp(min=1)

    def after_step(self, batch: Embeddings) -> None:
        """Let the slow heads follow, and queue what they say of the batch."""
        slow, queue = cast("Slow", self.network.extra["slow"]), cast("Queue", self.network.extra["queue"])
        slow.follow(self.network.heads)
        z = {m: slow.project(m, batch.z[m]) for m in self.modalities}
        queue.push(z, batch.present, batch.groups)
