"""Attention fusion: the modalities of a sample attend to each other, a classifier reads what comes out.

    p(class | x) = softmax(V f + c),   f = T([cls, h_1(x_1), ..., h_M(x_M)])_cls,   L = cross-entropy of p

T is a transformer over the tokens of one sample, missing items masked (`labkit.encoders.fusion`). An item alone is a
sample that lacks everything else; the modalities meet in the posteriors of these, see `_semantic`. Vaswani et al. 2017,
arXiv:1706.03762; modalities as one sequence: Nagrani et al. 2021, arXiv:2107.00135.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from labkit.encoders.fusion import Fusion
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._semantic import Fused
from labkit.variants._trained import TrainedOptions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class AttentionOptions(TrainedOptions):
    """Hyper-parameters of attention fusion.

    Attributes:
        attention_heads: of the transformer; must divide `dim`.
        layers: of the transformer.
    """

    attention_heads: Annotated[int, Field(ge=1)] = 4
    layers: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.dim % self.attention_heads:
            raise ValueError(f"attention_heads is {self.attention_heads}, which does not divide dim, {self.dim}")
        return self


class AttentionClassifier(nn.Module):
    """A linear classifier of what a transformer makes of a sample's items."""

    def __init__(self, fusion: Fusion, *, classes: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.classes = nn.Linear(fusion.dim, classes)

    def forward(
        self, features: dict[str, Float[Tensor, "n d"]], present: dict[str, Bool[Tensor, " n"]]
    ) -> Float[Tensor, "n c"]:
        """Logits of each sample."""
        return self.classes(self.fusion(features, present))


@VARIANTS.register("attention")
class Attention(Fused):
    """Attention over a sample's items, needs labels; two or more modalities. Source: Nagrani et al. 2021."""

    Options: ClassVar[type[Options]] = AttentionOptions
    options: AttentionOptions
    search = Fused.search | {"layers": (1, 2)}

    def classifier(self, number: int) -> AttentionClassifier:
        """The transformer and the classifier behind it."""
        o = self.options
        widths = dict.fromkeys(self.modalities, o.dim)
        fusion = Fusion(widths, dim=o.dim, heads=o.attention_heads, layers=o.layers, tokens=1)
        return AttentionClassifier(fusion, classes=number)
