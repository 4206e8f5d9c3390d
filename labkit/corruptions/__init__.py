"""Corruptions: severity 0 (identity) to 5 (hard, not absurd), seeded, one per file.

A registered corruption is `corrupt(test, modality, severity, context) -> Embeddings`: the samples with that one
modality changed in the encoders' own space; a severity or modality that there is not raises a ValueError. `Context`
carries what a corruption may need of the training samples. Equal seeds make equal draws at every severity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.registry import Registry
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float

CORRUPTIONS = Registry("corruption", __name__)
SEVERITIES = (0, 1, 2, 3, 4, 5)
LOSING = ("missing_modality", "missing_by_label")  # those after which items are absent


@dataclass(frozen=True, eq=False)
class Context:
    """What a corruption may use.

    Attributes:
        mean: of each feature over the training samples, per modality.
        scale: standard deviation of each feature over the training samples, per modality.
        generator: source of all randomness.
    """

    mean: dict[str, Float[Tensor, " d"]]
    scale: dict[str, Float[Tensor, " d"]]
    generator: torch.Generator

    def seeded(self, seed: int) -> Context:
        """The same statistics with a fresh generator."""
        return replace(self, generator=torch.Generator().manual_seed(seed))


Corruption = Callable[[Embeddings, str, int, Context], Embeddings]


def context(train: Embeddings, seed: int = 0) -> Context:
    """Statistics of the training samples and a generator seeded with `seed`."""
    rows = {m: train.z[m][train.present[m]] for m in train.modalities}
    return Context(
        mean={m: r.mean(dim=0) for m, r in rows.items()},
        scale={m: r.std(dim=0) for m, r in rows.items()},
        generator=torch.Generator().manual_seed(seed),
    )


def level(severity: int, levels: tuple[float, ...]) -> float:
    """The strength at `severity`.

    Raises:
        ValueError: a severity outside 0..5.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}; got {severity!r}")
    return levels[severity]
