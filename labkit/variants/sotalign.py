"""SOTAlign: a few pairs teach a linear map, and the map's coupling of everything else teaches the heads.

    L = w_contrastive InfoNCE(pairs) + w_klot KLOT(K, K*),    K = x y^T,  K* = x* y*^T
    KLOT(K, K*) = KL(P* | P),  P the entropic coupling of the similarities K, P* of K*

x and y are the heads' rows of all items of a batch, paired or not; x* and y* those of the teacher, a closed form
(CCA, CSA or Procrustes) that was solved on the pairs before training. Items without partners are thus placed where the
teacher would couple them, and the heads may do better than linear least squares on the pairs.
SOTAlign 2026 (ICML): semi-supervised alignment of unimodal models by optimal transport.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.losses import info_nce, klot
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight
from labkit.variants.cca import CCA
from labkit.variants.csa import CSA
from labkit.variants.procrustes import Procrustes

TEACHERS: dict[str, type[ClosedForm]] = {"cca": CCA, "csa": CSA, "procrustes": Procrustes}


class SOTAlignOptions(TrainedOptions):
    """Hyper-parameters of SOTAlign.

    Attributes:
        w_contrastive: weight of InfoNCE on the pairs.
        w_klot: weight of the teacher's coupling. Neither term alone is least for a map that has collapsed.
        epsilon: of the student's coupling, in units of a cosine.
        target_epsilon: of the teacher's; smaller, so that its coupling is decided.
        teacher: "cca", "csa" or "procrustes", the closed form that the pairs are given to.
        teacher_dim: dimension of the teacher's space.
    """

    w_contrastive: Weight = 1.0
    w_klot: Weight = 1.0
    epsilon: Annotated[float, Field(gt=0)] = 0.05
    target_epsilon: Annotated[float, Field(gt=0)] = 0.02
    teacher: Literal["cca", "csa", "procrustes"] = "csa"
    teacher_dim: Annotated[int, Field(ge=2)] = 64


class Teacher(nn.Module):
    """What the teacher makes of one modality; its numbers are not trained."""

    def __init__(self, solved: ClosedForm, modality: str) -> None:
        super().__init__()
        self.mean: Tensor
        self.map: Tensor
        self.scale: Tensor
        scale = solved.rho.sqrt() if isinstance(solved, CSA) else torch.ones(solved.map[modality].shape[1])
        self.register_buffer("mean", solved.mean[modality].float())
        self.register_buffer("map", solved.map[modality].float())
        self.register_buffer("scale", scale.float())

    def forward(self, features: Tensor) -> Tensor:
        """Rows whose products across modalities are the teacher's similarities."""
        return F.normalize((features - self.mean) @ self.map, dim=1) * self.scale


@VARIANTS.register("sotalign")
class SOTAlign(Trained):
    """InfoNCE on pairs, KLOT to a linear teacher on all items; two or more modalities. Source: SOTAlign 2026 (ICML).

    Needs some pairs for the teacher; the fewer they are against unpaired items, the more it is made for.
    """

    Options: ClassVar[type[Options]] = SOTAlignOptions
    options: SOTAlignOptions
    search = Trained.search | {
        "w_klot": (0.1, 0.3, 1.0, 3.0),
        "target_epsilon": (0.005, 0.02, 0.05),
        "teacher": ("csa", "procrustes"),
        "teacher_dim": (32, 64, 128),
    }

    def prepare(self, train: Embeddings) -> None:
        """Solve for the teacher on the samples that have partners.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        options = {"dim": self.options.teacher_dim}
        solved = TEACHERS[self.options.teacher](options, device=self.device).fit(train, train)
        self.network.extra["teacher"] = nn.ModuleDict({m: Teacher(solved, m) for m in self.modalities})

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The coupling of all items as the teacher would have it."""
        o = self.options
        if not o.w_klot:
            return {}
        teacher = cast("nn.ModuleDict", self.network.extra["teacher"])
        a, b = pair.modalities
        with torch.no_grad():
            target = teacher[a](pair.cloud_raw_x) @ teacher[b](pair.cloud_raw_y).T
        similarity = pair.cloud_x @ pair.cloud_y.T
        value = klot(similarity, target, epsilon=o.epsilon, target_epsilon=o.target_epsilon)
        return {"klot": o.w_klot * value}

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The contrastive term."""
        if not self.options.w_contrastive:
            return {}
        value = info_nce(pair.x, pair.y, temperature=pair.temperature, group=pair.group)
        return {"contrastive": self.options.w_contrastive * value}
