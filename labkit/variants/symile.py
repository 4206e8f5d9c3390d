"""Symile: total correlation of the modalities, by InfoNCE on the multilinear inner product.

    L = mean over sets S of two or more modalities of L_S,   L_S = mean_{m in S} CE(<z_m; all others of S> / t, T)

The paper has the set of all modalities alone, and retrieves a modality given all others. From the product of three, the
cosine of two cannot be read (two coordinates may change sign together), so with that set alone one item finds another
at half the recall of clip on *stamps*. Here every subset of a sample's modalities has its total correlation; for two it
is InfoNCE. Samples with missing items take part with the sets that they have.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from labkit.losses import symile
from labkit.variants import VARIANTS
from labkit.variants._tuples import TupleTrained


@VARIANTS.register("symile")
class Symile(TupleTrained):
    """Total correlation of all subsets; two or more modalities. Source: Saporta et al. 2024, arXiv:2411.01053."""

    def contrast(self, z: list[Tensor], group: Tensor) -> Tensor:
        """Mean over the subsets of two or more modalities."""
        sizes = range(2, len(z) + 1)
        values = [
            symile(*subset, temperature=self.network.temperature, group=group)
            for size in sizes
            for subset in itertools.combinations(z, size)
        ]
        return torch.stack(values).mean()
