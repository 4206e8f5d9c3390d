"""Variants that place an item by its similarities to training samples of its own modality, the anchors.

Two items of different modalities can be compared once the same anchors have both: similarities are taken within a
modality only, and the anchors carry them across.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.types import Embeddings
from labkit.variants._base import AlignerBase, Options
from labkit.variants._closed import check_pairs

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


class AnchoredOptions(Options):
    """Hyper-parameters of variants with anchors.

    Attributes:
        anchors: most training samples that serve as anchors; those with the most modalities come first.
    """

    anchors: Annotated[int, Field(ge=2)] = 1000


class Anchored(AlignerBase):
    """`embed(x) = normalize(place(x - mean))`, computed from the stored anchors.

    Anchors are samples with two modalities or more; one that lacks a modality is a zero row there.
    """

    options: AnchoredOptions

    mean: dict[str, Tensor]
    anchors: dict[str, Tensor]

    def solve(self, present: dict[str, Tensor]) -> None:
        """What follows the choice of `self.anchors`; `present` says which of them have a modality."""

    def place(self, modality: str, rows: Tensor) -> Tensor:
        """Coordinates `[n, k]` in the shared space of centered float64 rows; normalized by `embed`."""
        raise NotImplementedError

    def fit(self, train: Embeddings, validation: Embeddings) -> Self:
        """Choose anchors among the training samples; `validation` is not looked at.

        Raises:
            ValueError: a modality with fewer than two training samples, with equal ones only, that no other modality
                shares samples with, or without anchors.
        """
        data = train.to(self.device, torch.float64)
        self._check_train(data)
        check_pairs(data.present)
        chosen = choose_anchors(data.present, self.options.anchors)
        present = {m: data.present[m][chosen] for m in data.modalities}
        without = [m for m, p in present.items() if not bool(p.any())]
        if without:
            raise ValueError(
                f"none of the {len(chosen)} anchors has {without}; raise the option anchors, {self.options.anchors}, "
                "or leave those modalities out"
            )
        self.modalities = data.modalities
        self.mean = {m: data.z[m][data.present[m]].mean(dim=0) for m in data.modalities}
        # half the size when saved; rounded before anything is computed from them
        self.anchors = {m: ((data.z[m][chosen] - self.mean[m]) * present[m][:, None]).float() for m in data.modalities}
        self.solve(present)
        return self

    def embed(self, data: Embeddings) -> Embeddings:
        """The samples in the shared space, rows on the unit sphere, absent ones zero.

        Raises:
            RuntimeError: nothing is fitted yet.
            ValueError: a modality, or a number of features, that the aligner was not fitted on.
        """
        self._check_fitted()
        self._check_input(data, {m: len(v) for m, v in self.mean.items()})
        data = data.to(self.device, torch.float64)
        z = {m: F.normalize(self.place(m, data.z[m] - self.mean[m]), dim=1) for m in data.modalities}
        return data.with_z(z).to(dtype=torch.float32)

    def state(self) -> dict[str, Tensor]:
        """Means and anchors."""
        return {f"mean.{m}": v for m, v in self.mean.items()} | {f"anchors.{m}": v for m, v in self.anchors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take means and anchors."""
        self.mean = {m: state[f"mean.{m}"].to(self.device) for m in self.modalities}
        self.anchors = {m: state[f"anchors.{m}"].to(self.device) for m in self.modalities}


def choose_anchors(present: dict[str, Bool[Tensor, " n"]], limit: int) -> Int[Tensor, " a"]:
    """Rows of at most `limit` samples with two modalities or more, those with more of them first; ascending.

    Where not all samples of a number of modalities fit, they are taken at equal intervals: stored samples are often
    in the order of their classes.
    """
    count = torch.stack(list(present.values())).sum(dim=0)
    chosen: list[Tensor] = []
    for modalities in range(len(present), 1, -1):
        rows = (count == modalities).nonzero().flatten()
        room = limit - sum(len(c) for c in chosen)
        if len(rows) > room:
            rows = rows[torch.arange(room, device=rows.device) * len(rows) // room] if room else rows[:0]
        chosen.append(rows)
    return torch.cat(chosen).sort().values
