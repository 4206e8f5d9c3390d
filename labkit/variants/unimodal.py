"""Unimodal: each modality's own classifier, trained without the others; the floor for what labels alone give.

    L = mean over modalities m of the cross-entropy of p(class | x_m) = softmax(V_m h_m(x_m) + c_m)

h_m is the linear head of modality m. The modalities meet in their class posteriors only ("semantic matching", Rasiwasia
et al. 2010), see `_semantic`. They share the optimizer's schedule and the epoch at which training stops, nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._semantic import Semantic
from labkit.variants._task import task_terms


@VARIANTS.register("unimodal")
class Unimodal(Semantic):
    """A classifier per modality, no pairs used, needs labels; two or more modalities. Source: Rasiwasia et al. 2010."""

    def classifier(self, number: int) -> nn.ModuleDict:
        """One linear classifier per modality."""
        return nn.ModuleDict({m: nn.Linear(self.options.dim, number) for m in self.modalities})

    def logits(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each modality through its own classifier."""
        own = self.network.extra["classifier"].get_submodule
        return {m: own(m)(v) for m, v in z.items()}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Cross-entropy of each classifier on its own items; unlabeled ones take no part."""
        parts = [task_terms(v, batch.select([m]), weight=1.0) for m, v in self.logits(z).items()]
        values = [part["task"] for part in parts if part]
        return {"task": torch.stack(values).mean()} if values else {}
