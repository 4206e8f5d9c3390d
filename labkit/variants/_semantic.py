"""Semantic matching: modalities meet in the space of class posteriors, which labels give and pairs do not.

    embedding of x = sqrt(p(class | x)),   similarity of x and y = sum_k sqrt(p_k(x) p_k(y))

The square root puts posteriors on the unit sphere, where the cosine is the Bhattacharyya coefficient. Labels are all
that relates two items, so retrieval can be no finer than categories. The epoch kept is the one with the best validation
recall, as for every variant: by accuracy, it retrieves alike on *stamps*, and one criterion keeps the comparison fair.
Rasiwasia et al. 2010, "A new approach to cross-modal multimedia retrieval", ACM Multimedia, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from labkit.types import Embeddings
from labkit.variants._base import gradients_as_asked
from labkit.variants._task import classes, task_terms
from labkit.variants._trained import Trained

if TYPE_CHECKING:
    from jaxtyping import Float


class Semantic(Trained):
    """Classifiers on the heads; a subclass says which modalities a classifier sees, and what teaches it."""

    search: ClassVar[dict[str, tuple[Any, ...]]] = {"dim": (64, 128, 256), "dropout": (0.5, 0.6, 0.7, 0.8)}
    normalized: ClassVar[bool] = False

    def classifier(self, number: int) -> nn.Module:
        """What maps rows of the heads to one logit for each of a number of classes."""
        raise NotImplementedError

    def logits(self, z: dict[str, Tensor]) -> dict[str, Float[Tensor, "n c"]]:
        """Logits of each item alone."""
        raise NotImplementedError

    def prepare(self, train: Embeddings) -> None:
        """Add the classifier.

        Raises:
            ValueError: no training sample has a label.
        """
        if not classes(train):
            raise ValueError(
                f"variant {self.name()!r} learns from labels alone but no training sample has one; give "
                "`Embeddings.label`, or take a variant that learns from pairs, e.g. 'clip'"
            )
        self._add_classifier(classes(train))

    def embed(self, data: Embeddings) -> Embeddings:
        """Square roots of the class posteriors of each item alone; absent ones zero.

        Has a gradient with respect to features that require one.

        Raises:
            RuntimeError: nothing is fitted yet.
            ValueError: a modality, or a number of features, that the aligner was not fitted on.
        """
        self._check_fitted()
        self._check_input(data, self.network.widths)
        with gradients_as_asked(data):
            data = data.to(self.device, torch.float32)
            logits = self.logits(self.network.project(data, normalize=False))
            return data.with_z({m: v.softmax(dim=1).sqrt() for m, v in logits.items()})

    def restore(self, state: dict[str, Tensor]) -> None:
        """Rebuild heads and classifier from their saved shapes and take the weights."""
        super().restore(state)
        self._add_classifier(int(state["extra.classifier.number_of_classes"]))
        self.network.load_state_dict(state)
        self.network.to(self.device).eval()

    def _add_classifier(self, number: int) -> None:
        made = self.classifier(number)
        made.register_buffer("number_of_classes", torch.tensor(number))
        self.network.extra["classifier"] = made


class Fused(Semantic):
    """One classifier of all items of a sample: `(features, present) -> logits`, both by modality; some may be left out.

    An item alone is a sample that lacks everything else.
    """

    def logits(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """The classifier on each item alone."""
        classifier = self.network.extra["classifier"]
        return {m: classifier({m: v}, {m: torch.ones_like(v[:, 0], dtype=torch.bool)}) for m, v in z.items()}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Cross-entropy of the classifier on the items that each sample has; unlabeled samples take no part."""
        return task_terms(self.network.extra["classifier"](z, batch.present), batch, weight=1.0)
