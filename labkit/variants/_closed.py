"""Closed forms: one affine map per modality, solved for and never trained."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.types import Embeddings
from labkit.variants._base import AlignerBase


class ClosedForm(AlignerBase):
    """`embed(x) = normalize((x - mean_m) W_m)`; a subclass solves for the maps.

    Samples that lack a modality take no part in that modality's statistics or map.
    """

    search: ClassVar[dict[str, tuple[Any, ...]]] = {"dim": (16, 32, 64, 128, 256)}

    mean: dict[str, Tensor]
    map: dict[str, Tensor]

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps `W_m [d_m, k]` from centered float64 features `z`, rows of absent items zero."""
        raise NotImplementedError

    def fit(self, train: Embeddings, validation: Embeddings) -> Self:
        """Solve on the training samples; `validation` is not looked at.

        Raises:
            ValueError: a modality with fewer than two training samples, or with equal ones only.
        """
        data = train.to(self.device, torch.float64)
        self._check_train(data)
        self.modalities = data.modalities
        self.mean = {m: data.z[m][data.present[m]].mean(dim=0) for m in data.modalities}
        centered = {m: (data.z[m] - self.mean[m]) * data.present[m][:, None] for m in data.modalities}
        self.map = self.solve(centered, data.present)
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
        z = {m: self.place(m, (data.z[m] - self.mean[m]) @ self.map[m]) for m in data.modalities}
        return data.with_z(z).to(dtype=torch.float32)

    def place(self, modality: str, rows: Tensor) -> Tensor:
        """Unit rows from the mapped rows of a modality: their directions, where a subclass says nothing else."""
        del modality
        return F.normalize(rows, dim=1)

    def state(self) -> dict[str, Tensor]:
        """Means and maps."""
        return {f"mean.{m}": v for m, v in self.mean.items()} | {f"map.{m}": v for m, v in self.map.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take means and maps."""
        self.mean = {m: state[f"mean.{m}"].to(self.device) for m in self.modalities}
        self.map = {m: state[f"map.{m}"].to(self.device) for m in self.modalities}


def check_pairs(present: dict[str, Tensor]) -> None:
    """Refuse modalities whose samples have no partner in any other: where pairs are needed, they would be noise.

    Raises:
        ValueError: a modality shares no sample with another one.
    """
    masks = torch.stack(list(present.values())).double()
    shared = masks @ masks.T - torch.diag(masks.sum(dim=1))
    alone = [m for m, row in zip(present, shared, strict=True) if not bool(row.any())]
    if alone:
        raise ValueError(f"no training sample has {alone} and another modality; add paired samples")


def principal_axes(rows: Tensor, dim: int) -> Tensor:
    """First `dim` principal axes `[d, dim]` of centered rows, zero columns where the data has fewer.

    Signs are fixed (largest entry positive), so the result is the same on every device.
    """
    _, _, vh = torch.linalg.svd(rows, full_matrices=False)
    axes = vh[:dim].T
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return F.pad(axes * signs, (0, dim - axes.shape[1]))
