"""Concatenation: one linear classifier on the modalities' heads side by side, trained on the task.

    L = cross-entropy of p(class | x) = softmax(V [h_1(x_1), ..., h_M(x_M)] + c),   h_m = 0 where modality m is missing

The classifier also judges an item alone, all other modalities being zero; the modalities meet in these posteriors, see
`_semantic`. Nothing asks that the parts of V agree: what fusion alone makes of alignment. Baltrusaitis et al. 2019,
arXiv:1705.09406, section 6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labkit.variants import VARIANTS
from labkit.variants._semantic import Fused

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Concatenation(nn.Module):
    """A linear classifier of the modalities side by side."""

    def __init__(self, modalities: tuple[str, ...], *, dim: int, classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.classes = nn.Linear(len(modalities) * dim, classes)

    def forward(
        self, features: dict[str, Float[Tensor, "n d"]], present: dict[str, Bool[Tensor, " n"]]
    ) -> Float[Tensor, "n c"]:
        """Logits; an item that is not there counts as zero."""
        there = {m: v * present[m][:, None] for m, v in features.items()}
        zero = torch.zeros_like(next(iter(there.values())))
        return self.classes(torch.cat([there.get(m, zero) for m in self.modalities], dim=1))


@VARIANTS.register("concat")
class Concat(Fused):
    """Classifier on all modalities together, needs labels; two or more modalities. Source: Baltrusaitis et al. 2019."""

    def classifier(self, number: int) -> Concatenation:
        """One linear classifier of the concatenation."""
        return Concatenation(self.modalities, dim=self.options.dim, classes=number)
