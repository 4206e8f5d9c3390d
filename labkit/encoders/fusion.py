"""A small cross-encoder: the items of one sample attend to each other and become one vector.

    t_m = tokens of W_m x_m + e_m,    f = LayerNorm(T([cls, t_1, ..., t_M]))_cls

T is a stack of transformer layers (residual, LayerNorm before each part) over the tokens of one sample: attention
across and within modalities at once; in the last layer the summary token alone asks, as nothing else is read. Tokens of
absent items are masked. The fusion of the model-merging proposal lets a sample attend to the others of its batch, so
that a prediction hangs on its batch mates; here none can. Vaswani et al. 2017, arXiv:1706.03762; modalities as one
sequence: Nagrani et al. 2021, arXiv:2107.00135.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class Fusion(nn.Module):
    """Transformer over the tokens of a sample's modalities.

    Attributes:
        dim: length of the vector that comes out.
    """

    def __init__(
        self, widths: Mapping[str, int], *, dim: int = 64, heads: int = 4, layers: int = 1, tokens: int = 2
    ) -> None:
        """Draw the weights from torch's global generator.

        Args:
            widths: modality -> number of features that it comes with.
            dim: of a token and of the output.
            heads: of attention; must divide `dim`.
            layers: of the transformer.
            tokens: that a feature vector is cut into.

        Raises:
            ValueError: no modality, or `heads` does not divide `dim`.
        """
        super().__init__()
        if not widths:
            raise ValueError("a fusion needs at least one modality; got none")
        if dim % heads:
            raise ValueError(f"heads is {heads}, which does not divide dim, {dim}; choose a divisor")
        self.dim, self._tokens = dim, tokens
        # the bias of each map tells its modality and the place of each token
        self.maps = nn.ModuleDict({m: nn.Linear(width, tokens * dim) for m, width in widths.items()})
        self.summary = nn.Parameter(0.02 * torch.randn(dim))
        self.layers = nn.ModuleList(_Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, features: Mapping[str, Float[Tensor, "n w"]], present: Mapping[str, Bool[Tensor, " n"]] | None = None
    ) -> Float[Tensor, "n d"]:
        """One vector per sample; that of a sample without any item is a constant.

        Args:
            features: modality -> vectors; rows of absent items are not looked at.
            present: modality -> which samples have the item; all by default, and of modalities that are not named.

        Raises:
            ValueError: a modality that the fusion was not made for, or none at all.
        """
        unknown = [m for m in features if m not in self.maps]
        if unknown or not features:
            raise ValueError(f"a fusion of {list(self.maps)} was given {list(features)}")
        n, present = len(next(iter(features.values()))), present or {}
        sequence, absent = [self.summary.expand(n, 1, self.dim)], [self.summary.new_zeros(n, 1, dtype=torch.bool)]
        for m, rows in features.items():
            there = present.get(m, torch.ones(n, dtype=torch.bool, device=rows.device))
            # NaN in an absent row would outlive the mask: 0 * NaN is NaN
            rows = torch.where(there[:, None], rows, torch.zeros_like(rows))
            sequence.append(self.maps[m](rows).view(n, self._tokens, self.dim))
            absent.append(~there[:, None].expand(n, self._tokens))
        x, mask = torch.cat(sequence, dim=1), torch.cat(absent, dim=1)
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, mask, asking=1 if i == len(self.layers) else x.shape[1])
        return self.norm(x[:, 0])


class _Layer(nn.Module):
    """Attention and a feed-forward part, both residual, with LayerNorm before each."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"], *, asking: int) -> Float[Tensor, "n a d"]:
        """What the first tokens make of all; `mask` is True where a token is not to be seen."""
        seen = self.before(x)
        found, _ = self.attention(seen[:, :asking], seen, seen, key_padding_mask=mask, need_weights=False)
        x = x[:, :asking] + found
        return x + self.feed(self.between(x))
