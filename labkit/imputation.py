"""What stands in for items that are absent, so that methods are asked about the same samples whatever is missing.

In the shared space an absent item of modality m gets the direction of

    sum over the sample's present modalities k outside the question of T_km(z_k),   else a constant c_m,

and an imputation is a choice of T and c. `others` takes the items themselves; `nearest` the item in m of the training
sample that is nearest in k; `barycentric` the image of z_k under the coupling of the training embeddings of k and m;
`mean` has no T, and the mean training embedding for c, the constant that is nearest to the items; `token` no T, and a
learned c. In retrieval neither the asking nor the searched modality is ever used for the other: it would give the
answer away. `drop` imputes nothing: samples that lost the item neither ask nor are found, so n and the gallery shrink.
Recall can rise as items are lost: if a caption stands in for speech, which is harder to find, or the gallery shrinks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from labkit import ot
from labkit.losses import info_nce
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

EPSILON = 0.05  # of the coupling, relative to its mean cost
STEPS = 100  # of gradient descent on a token
STEP_SIZE = 0.05
LOST = 0.3  # share of the items that a token stands in for while it is learned
ROWS = 256  # training samples that it is learned on, at most
TEMPERATURE = 0.07


@dataclass(frozen=True, eq=False)
class Imputation:
    """Completes embedded samples.

    Attributes:
        constant: modality -> what stands in where nothing else of the sample may be used.
        translate: T, a function of (from modality, to modality, unit rows [n d]); None if a constant always stands in.
    """

    constant: Mapping[str, Float[Tensor, " d"]]
    translate: Callable[[str, str, Float[Tensor, "n d"]], Float[Tensor, "n d"]] | None = None

    def __call__(self, shared: Embeddings, asked: Sequence[str]) -> Embeddings:
        """The modalities `asked`, complete.

        Args:
            shared: samples in the shared space, some with absent items.
            asked: modalities of the result, e.g. the one that asks and the one that is searched: what stands in for
                their items comes from the other modalities.
        """
        known = [m for m in shared.modalities if m not in asked]
        z = {m: shared.z[m].clone() for m in asked}
        for m in asked:
            absent = ~shared.present[m]
            if absent.any():
                z[m][absent] = self._stand_in(shared.take(absent.cpu().numpy()), m, known)
        return shared.select(asked).with_z(z, {m: torch.ones_like(shared.present[m]) for m in asked})

    def _stand_in(self, lacking: Embeddings, modality: str, known: Sequence[str]) -> Tensor:
        total = torch.zeros_like(lacking.z[modality])
        for k in known:
            there = lacking.present[k]
            if self.translate is not None and there.any():
                total[there] += self.translate(k, modality, lacking.z[k][there])
        informed = total.norm(dim=1, keepdim=True) > 0
        return torch.where(informed, F.normalize(total, dim=1), self.constant[modality].to(total))


def fit(name: str, trained: Embeddings) -> Imputation:
    """The imputation called `name`.

    Args:
        name: one of `IMPUTATIONS`.
        trained: training samples in the shared space; some may lack modalities, or be of one only.
    """
    return IMPUTATIONS[name](trained)


def others(trained: Embeddings) -> Imputation:
    """The normalized mean of the sample's other modalities: what an aligned space is for."""
    return Imputation(_means(trained), lambda _, __, z: z)


def mean(trained: Embeddings) -> Imputation:
    """The mean training embedding of the modality, which says nothing about the sample."""
    return Imputation(_means(trained))


def nearest(trained: Embeddings) -> Imputation:
    """The item of the training sample that is nearest in a modality that the sample has, by cosine; needs pairs."""

    def translate(source: str, target: str, z: Tensor) -> Tensor:
        both = trained.present[source] & trained.present[target]
        if not both.any():
            return torch.zeros_like(z)
        similarity = F.normalize(z, dim=1) @ F.normalize(trained.z[source][both], dim=1).T
        return trained.z[target][both][similarity.argmax(dim=1)].to(z)

    return Imputation(_means(trained), translate)


def barycentric(trained: Embeddings) -> Imputation:
    """The entropic map between the clouds of training embeddings of two modalities, blind to how they are paired.

    T(z) = sum_j y_j softmax_j((g_j - c(z, y_j)) / epsilon), c the cosine cost: on a training item the barycentric
    projection of its row of the plan, its partner where the plan is a permutation (Pooladian & Niles-Weed 2021,
    arXiv:2109.12004, eq. 4).
    """

    @functools.cache
    def coupling(source: str, target: str) -> ot.Coupling:
        x, y = (trained.z[m][trained.present[m]] for m in (source, target))
        return ot.sinkhorn(ot.PointCloud(x, y, "cosine"), epsilon=EPSILON)

    return Imputation(_means(trained), lambda source, target, z: coupling(source, target).map(z))


def token(trained: Embeddings) -> Imputation:
    """A learned direction for each modality, the same for all samples.

    Least InfoNCE of the modality with each other one over training samples, where a share of its items, drawn anew in
    each step, is replaced by the token. As a question a constant is at chance, whichever it is; as an answer it
    competes with the items that are there. That is what is learned: to be found, but not in their stead. The aligner
    stays as it is; trained with the token it would be another variant, and this is about its embeddings.
    """
    return Imputation({m: _learned(trained, m, start) for m, start in _means(trained).items()})


IMPUTATIONS: dict[str, Callable[[Embeddings], Imputation]] = {
    "others": others,
    "drop": others,  # of what nobody is asked about
    "mean": mean,
    "nearest": nearest,
    "barycentric": barycentric,
    "token": token,
}


def _means(trained: Embeddings) -> dict[str, Tensor]:
    return {m: trained.z[m][trained.present[m]].mean(dim=0) for m in trained.modalities}


def _learned(trained: Embeddings, modality: str, start: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chosen = trained.take(torch.randperm(len(trained), generator=generator)[:ROWS].sort().values.numpy())
    pairs = {k: chosen.present[modality] & chosen.present[k] for k in chosen.modalities if k != modality}
    pairs = {k: rows for k, rows in pairs.items() if int(rows.sum()) > 1}
    learned = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], lr=STEP_SIZE)
    for _ in range(STEPS if pairs else 0):
        lost = torch.rand(len(chosen), 1, generator=generator).to(start.device) < LOST
        x = torch.where(lost, F.normalize(learned, dim=0), chosen.z[modality])
        losses = [
            info_nce(x[rows], chosen.z[k][rows], temperature=TEMPERATURE, group=chosen.groups[rows])
            for k, rows in pairs.items()
        ]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    return F.normalize(learned.detach(), dim=0)
