"""Augmented views of frozen features, and the contrastive base that uses them (Jiang et al. 2023, arXiv:2303.05952).

    x' = mean + scale * mask * (u + noise * e),   u = (x - mean) / scale,   e ~ N(0, 1),   mask ~ Bernoulli(1 - masking)
    L_Con = w_contrastive InfoNCE(x, y) + w_in_modal InfoNCE(x, x')

The papers crop and flip images and replace words of captions (EDA). Here the encoders are frozen and their features
stored, so the view is made of those: some are lost (replaced by the mean), all are a little off, in standard deviations
of the training samples. Rows stay independent of each other. That is a stand-in: it keeps what an item is about, but
knows nothing of left and right or of synonyms. The dropout of the heads is drawn anew for the view and adds to it. With
the two weights equal, L_Con is twice the four-part mean of the paper (two directions across, two modalities within).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor

from labkit.encoders.heads import LinearHead
from labkit.losses import info_nce
from labkit.types import Embeddings
from labkit.variants._base import Options
from labkit.variants._closed import check_pairs
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight

if TYPE_CHECKING:
    from jaxtyping import Float


class AugmentedOptions(TrainedOptions):
    """Hyper-parameters of variants that see augmented features.

    Attributes:
        noise: standard deviation of what is added to a view, in standard deviations of each feature.
        masking: share of the features that a view loses.
        w_contrastive: weight of InfoNCE between modalities; positive, or nothing relates them.
        w_in_modal: weight of InfoNCE between an item and its view.
    """

    noise: Annotated[float, Field(ge=0)] = 0.5
    masking: Annotated[float, Field(ge=0, lt=1)] = 0.2
    w_contrastive: Annotated[float, Field(gt=0)] = 1.0
    w_in_modal: Weight = 0.1


def augment(
    features: Float[Tensor, "n d"],
    *,
    mean: Float[Tensor, " d"],
    scale: Float[Tensor, " d"],
    noise: float,
    masking: float,
) -> Float[Tensor, "n d"]:
    """A view of each row; the rows themselves where `noise` and `masking` are 0.

    Formula: mean + scale * mask * ((x - mean) / scale + noise * e), mask 0 for a share `masking` of the entries, e
    standard normal. Draws come from torch's global generator of the device.

    Args:
        features: frozen features.
        mean: of each feature over the training samples.
        scale: their standard deviations.
        noise: in standard deviations.
        masking: probability that an entry becomes its mean.

    Source:
        Stand-in for image and text augmentation in Jiang et al. 2023, arXiv:2303.05952, and CyCLIP.
    """
    if not noise and not masking:
        return features
    offset = features - mean
    if noise:
        offset = offset + noise * scale * torch.randn_like(features)
    if masking:
        offset = offset * (torch.rand_like(features) >= masking)
    return mean + offset


@dataclass(frozen=True)
class View:
    """An augmented view of a batch.

    Attributes:
        features: frozen features, augmented; modality -> [n, d_m].
        z: unit rows of these through the heads; modality -> [n, d].
    """

    features: dict[str, Tensor]
    z: dict[str, Tensor]


class Augmented(Trained):
    """InfoNCE across modalities and within them; subclasses add what they ask of the views.

    Every step draws one view of each item, which all terms share.
    """

    Options: ClassVar[type[Options]] = AugmentedOptions
    options: AugmentedOptions
    search = Trained.search | {"w_in_modal": (0.03, 0.1, 0.3, 1.0), "masking": (0.1, 0.2, 0.4)}

    def prepare(self, train: Embeddings) -> None:
        """Check that something relates the modalities: in-modal terms alone would train, to no use.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        check_pairs(train.present)

    @property
    def looks(self) -> bool:
        """Whether a term looks at the views; they are not drawn otherwise."""
        return self.options.w_in_modal > 0

    def view_terms(self, z: dict[str, Tensor], batch: Embeddings, view: View) -> dict[str, Tensor]:
        """Weighted terms of the batch and its augmented view; here contrast of items with their views."""
        if not self.options.w_in_modal:
            return {}
        groups, temperature = batch.groups.to(self.device), self.network.temperature
        values = [info_nce(z[m][r], view.z[m][r], temperature=temperature, group=groups[r]) for m, r in items(batch)]
        return {"in_modal": self.options.w_in_modal * torch.stack(values).mean()} if values else {}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Contrast between the modalities."""
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Terms of the views; items without partners take part."""
        return self.view_terms(z, batch, self._view(batch)) if self.looks else {}

    def _view(self, batch: Embeddings) -> View:
        o, features = self.options, {}
        for m, x in batch.z.items():
            head = cast("LinearHead", self.network.heads[m])
            features[m] = augment(x, mean=head.mean, scale=head.scale, noise=o.noise, masking=o.masking)
        return View(features, self.network.project(batch.with_z(features), normalize=True))


def items(batch: Embeddings) -> list[tuple[str, Tensor]]:
    """Index of the items of each modality that has two or more in the batch."""
    rows = [(m, there.nonzero().flatten()) for m, there in batch.present.items()]
    return [(m, index) for m, index in rows if len(index) > 1]


def partners(batch: Embeddings) -> list[tuple[str, str, Tensor]]:
    """Each pair of modalities that two or more samples of the batch have, and the index of these."""
    pairs = itertools.combinations(batch.modalities, 2)
    rows = [(a, b, (batch.present[a] & batch.present[b]).nonzero().flatten()) for a, b in pairs]
    return [(a, b, index) for a, b, index in rows if len(index) > 1]
