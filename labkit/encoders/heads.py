"""Projection heads from frozen features into the shared space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class LinearHead(nn.Module):
    """Standardization with the training statistics, dropout, one linear map.

    The statistics are buffers, so a saved head carries them and a corrupted input cannot shift them.
    """

    def __init__(
        self, features: Float[Tensor, "n d"], present: Bool[Tensor, " n"], *, dim: int, dropout: float
    ) -> None:
        """Fit the statistics on the rows of `features` that are present.

        Raises:
            ValueError: fewer than 2 rows are present.
        """
        super().__init__()
        rows = features[present]
        if len(rows) < 2:
            raise ValueError(f"a head needs at least 2 training samples with the modality; got {len(rows)}")
        deviation = rows.std(dim=0)
        # a constant feature carries nothing: it is centered and left unscaled
        self._build(
            rows.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)), dim, dropout
        )

    @classmethod
    def empty(cls, features: int, *, dim: int) -> LinearHead:
        """A head whose weights and statistics are still to be loaded."""
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head._build(torch.zeros(features), torch.ones(features), dim, 0.0)
        return head

    def _build(self, mean: Tensor, scale: Tensor, dim: int, dropout: float) -> None:
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(len(mean), dim)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Project; not normalized."""
        return self.linear(self.dropout((features - self.mean) / self.scale))


def linear_heads(train: Embeddings, *, dim: int, dropout: float) -> nn.ModuleDict:
    """A `LinearHead` per modality, fitted on the items that are there.

    Raises:
        ValueError: a modality with fewer than 2 items.
    """
    return nn.ModuleDict({m: LinearHead(z, train.present[m], dim=dim, dropout=dropout) for m, z in train.z.items()})
