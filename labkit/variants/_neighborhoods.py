"""Neighbors inside a batch, looked up in lists that are made once per training.

The frozen features do not move, so the nearest training samples of each are listed once, nearest first. The neighbors
of a sample within a batch are then the first k of its list that are in the batch: a few comparisons instead of a
matrix product and a selection over the whole batch. Lists are four times as long as k neighbors are expected to need;
rows whose list ends too early are rare, and batches with such rows are searched directly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Int

MARGIN = 4
# entries of one modality's lists: 128 MB
LARGEST = 2**24


class Neighborhoods:
    """Lists of the nearest training samples of each by cosine, in float64; made when they are first asked for.

    Args:
        train: all training samples, frozen features.
    """

    def __init__(self, train: Embeddings) -> None:
        self._train = train
        self._row = {key: i for i, key in enumerate(train.key.tolist())}
        self._lists: dict[tuple[str, int], Tensor | None] = {}

    def rows(self, keys: np.ndarray) -> Int[Tensor, " n"] | None:
        """Rows of training samples; None if one of the keys is none of theirs."""
        found = [self._row.get(key, -1) for key in keys.tolist()]
        return None if -1 in found else torch.tensor(found, device=self._train.device)

    def among(self, modality: str, rows: Int[Tensor, " n"], k: int) -> Int[Tensor, "n k"] | None:
        """The k nearest others of each of `rows` among them, nearest first; None where the lists do not say.

        Args:
            modality: in whose features.
            rows: of samples that have the modality.
            k: 1 <= k < n.
        """
        if (modality, k) not in self._lists:
            self._lists[modality, k] = self._listed(modality, k, len(rows))
        lists = self._lists[modality, k]
        if lists is None:
            return None
        place = torch.full((len(self._train),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        candidates = place[lists[rows]]
        count = (candidates >= 0).cumsum(dim=1)
        if int(count[:, -1].min()) < k:
            return None
        return candidates[(candidates >= 0) & (count <= k)].view(len(rows), k)

    def _listed(self, modality: str, k: int, batch: int) -> Tensor | None:
        present = self._train.present[modality].nonzero().flatten()
        n = len(present)
        length = min(n - 1, math.ceil(MARGIN * k * n / batch))
        if n * length > LARGEST:
            return None
        unit = F.normalize(self._train.z[modality][present].double(), dim=1)
        lists = torch.zeros(len(self._train), length, dtype=torch.long, device=present.device)
        for part in torch.arange(n, device=present.device).split(max(1, LARGEST // n)):
            cosine = unit[part] @ unit.T
            cosine[torch.arange(len(part), device=part.device), part] = -torch.inf  # no neighbor of itself
            lists[present[part]] = present[cosine.topk(length, dim=1).indices]
        return lists
