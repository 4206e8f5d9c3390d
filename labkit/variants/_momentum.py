"""A slow copy of the heads, and a queue of what it said: teachers and negatives that outlast a batch.

    slow <- m_t slow + (1 - m_t) heads,   m_t = min(m, 1 - 1 / (t + 1))   after step t = 1, 2, ...

The first steps are averaged evenly, or a short training would be taught by its random start (Tarvainen and Valpola
2017, arXiv:1703.01780, in their code). Everything that outlives a step is a buffer, so a checkpoint has it. Momentum
features and queue: He et al. 2020 (MoCo), arXiv:1911.05722; Li et al. 2021 (ALBEF), arXiv:2107.07651.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Slow(nn.Module):
    """Moving average of heads. Never trained, and without dropout: a teacher sees every feature.

    Attributes:
        steps: optimizer steps that it has followed.
    """

    def __init__(self, heads: nn.ModuleDict, *, momentum: float) -> None:
        """Start as a copy of `heads`."""
        super().__init__()
        self.heads = copy.deepcopy(heads).requires_grad_(False)
        self._momentum = momentum
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(mode=False)

    @torch.no_grad()
    def follow(self, heads: nn.ModuleDict) -> None:
        """Move towards `heads` after a step."""
        self.steps += 1
        kept = min(self._momentum, 1 - 1 / (int(self.steps) + 1))
        for mine, theirs in zip(self.heads.parameters(), heads.parameters(), strict=True):
            mine.lerp_(theirs, 1 - kept)

    @torch.no_grad()
    def project(self, modality: str, features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Unit rows of the features."""
        return F.normalize(self.heads[modality](features).float(), dim=1)


class Queue(nn.Module):
    """The last samples that were pushed, in all modalities; the oldest give way.

    Attributes:
        z: rows by modality, in the order of `modalities`.
        present: which sample has which modality.
        group: of each sample.
        pushed: samples that were ever pushed.
    """

    def __init__(self, modalities: tuple[str, ...], *, size: int, dim: int) -> None:
        """Room for `size` samples; 0 keeps none."""
        super().__init__()
        self._modalities = modalities
        self.z: Tensor
        self.present: Tensor
        self.group: Tensor
        self.pushed: Tensor
        self.register_buffer("z", torch.zeros(len(modalities), size, dim))
        self.register_buffer("present", torch.zeros(len(modalities), size, dtype=torch.bool))
        self.register_buffer("group", torch.zeros(size, dtype=torch.long))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(
        self, z: Mapping[str, Float[Tensor, "n d"]], present: Mapping[str, Bool[Tensor, " n"]], group: Int[Tensor, " n"]
    ) -> None:
        """Append samples; of more than there is room for, the last."""
        size = len(self.group)
        n = min(len(group), size)
        if n == 0:
            return
        first = int(self.pushed) + len(group) - n
        at = torch.arange(first, first + n, device=self.group.device) % size
        self.z[:, at] = torch.stack([z[m][-n:] for m in self._modalities])
        self.present[:, at] = torch.stack([present[m][-n:] for m in self._modalities])
        self.group[at] = group[-n:]
        self.pushed += len(group)

    def both(self, first: str, second: str) -> tuple[Float[Tensor, "q d"], Float[Tensor, "q d"], Int[Tensor, " q"]]:
        """Rows in two modalities of the samples that have both, and their groups."""
        a, b = (self._modalities.index(m) for m in (first, second))
        rows = self.present[a] & self.present[b]
        return self.z[a, rows], self.z[b, rows], self.group[rows]
