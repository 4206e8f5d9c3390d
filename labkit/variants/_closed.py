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

    def __init__(self, options: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(options, **settings)
        self.mean: dict[str, Tensor] = {}
        self.map: dict[str, Tensor] = {}

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps `W_m [d_m, k]` from centred float64 features `z`, rows of absent items zero."""
        raise NotImplementedError

    def fit(self, train: Embeddings, validation: Embeddings) -> Self:
        """Solve on the training samples; `validation` is not looked at."""
        data = train.to(self.device, torch.float64)
        self.modalities = data.modalities
        few = {m: int(data.present[m].sum()) for m in data.modalities if data.present[m].sum() < 2}
        if few:
            raise ValueError(f"variant {self.name()!r} needs at least 2 training samples per modality; got {few}")
        self.mean = {m: data.z[m][data.present[m]].mean(dim=0) for m in data.modalities}
        centered = {m: (data.z[m] - self.mean[m]) * data.present[m][:, None] for m in data.modalities}
        self.map = self.solve(centered, data.present)
        return self

    def embed(self, data: Embeddings) -> Embeddings:
        """The samples in the shared space, rows on the unit sphere, absent ones zero."""
        self._check_fitted(data)
        data = data.to(self.device, torch.float64)
        z = {m: F.normalize((data.z[m] - self.mean[m]) @ self.map[m], dim=1) for m in data.modalities}
        return data.with_z(z).to(dtype=torch.float32)

    def state(self) -> dict[str, Tensor]:
        """Means and maps."""
        return {f"mean.{m}": v for m, v in self.mean.items()} | {f"map.{m}": v for m, v in self.map.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take means and maps."""
        self.mean = {m: state[f"mean.{m}"].to(self.device) for m in self.modalities}
        self.map = {m: state[f"map.{m}"].to(self.device) for m in self.modalities}


def principal_axes(rows: Tensor, dim: int) -> Tensor:
    """First `dim` principal axes `[d, dim]` of centred rows, zero columns where the data has fewer.

    Signs are fixed (largest entry positive), so the result is the same on every device.
    """
    _, _, vh = torch.linalg.svd(rows, full_matrices=False)
    axes = vh[:dim].T
    signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return F.pad(axes * signs, (0, dim - axes.shape[1]))
