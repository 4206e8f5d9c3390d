"""Data in which it is known how much of what decides the label is shared: when does alignment help?

The generator of Tjandrasuwita et al. 2025 (`labkit.data.synthetic.tjandrasuwita`) as a dataset, so that a study can
set its parameters:

    data: {dataset: redundancy, modalities: [first, second], options: {redundancy: 2, depth: 3}}

Samples with equal shared features are one group: their partners cannot be told apart, and would leak across splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from labkit.data import DATASETS, DatasetOptions
from labkit.data.synthetic.tjandrasuwita import CLASSES, RELEVANT, SHARED, redundancy_uniqueness
from labkit.types import Embeddings


class RedundancyOptions(DatasetOptions):
    """Parameters of the generator.

    Attributes:
        n: samples.
        redundancy: R, how many of the 8 features that decide the label both modalities have; the others are unique.
        depth: of the random network through which the second modality sees its features; 0 is a linear map.
        temperature: of the label's softmax; a higher one makes the label noisier.
        rule: seed of the label's rule, the network and the samples.
    """

    n: Annotated[int, Field(ge=100)] = 2000
    redundancy: Annotated[int, Field(ge=0, le=RELEVANT)] = RELEVANT
    depth: Annotated[int, Field(ge=0)] = 0
    temperature: Annotated[float, Field(gt=0)] = 0.05
    rule: Annotated[int, Field(ge=0)] = 0


@DATASETS.register("redundancy")
@dataclass(frozen=True)
class Redundancy:
    """Two modalities that share R of 8 features behind the label; the fields are those of `RedundancyOptions`."""

    n: int = 2000
    redundancy: int = RELEVANT
    depth: int = 0
    temperature: float = 0.05
    rule: int = 0
    modalities = ("first", "second")
    Options = RedundancyOptions

    def load(self, modalities: Sequence[str] | None = None, encoders: Mapping[str, str] | None = None) -> Embeddings:
        """Features of the given modalities (float32), both by default; the generator is their only encoder.

        Raises:
            ValueError: no such modality.
        """
        made = redundancy_uniqueness(
            self.n, redundancy=self.redundancy, depth=self.depth, temperature=self.temperature, seed=self.rule
        )
        code = (made.features[:, :SHARED] * 2 ** torch.arange(SHARED)).sum(dim=1)
        named = replace(made.embeddings(), group=code, label_names=tuple(f"class {i}" for i in range(CLASSES)))
        return named.to(dtype=torch.float32).select(tuple(modalities or self.modalities))

    def table(self) -> pd.DataFrame:
        """key, group, label; there are no raw items."""
        samples = self.load()
        assert samples.label is not None
        label = np.array(samples.label_names)[samples.label.numpy()]
        return pd.DataFrame({"key": samples.key, "group": samples.groups.numpy(), "label": label})

    def items(self, modality: str, keys: Sequence[str] | None = None) -> list[Any]:
        """No raw items: None for each key."""
        self.encoder_name(modality)
        return [None] * (self.n if keys is None else len(keys))

    def encoder_name(self, modality: str) -> str:
        """The generator, for either modality.

        Raises:
            ValueError: no such modality.
        """
        if modality not in self.modalities:
            raise ValueError(f"redundancy has no modality {modality!r}; it has {', '.join(self.modalities)}")
        return "redundancy_uniqueness"

    def encoder_names(self, modality: str) -> tuple[str, ...]:
        """The generator alone."""
        return (self.encoder_name(modality),)

    def digest(self) -> str:
        """Empty: there are no raw items."""
        return ""
