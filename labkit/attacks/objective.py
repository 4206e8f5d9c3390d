"""What an attacker of retrieval raises: a margin between the items that are to be found and those that are not.

    s_j = cosine(query, gallery item j),   b = max over `relevant` j of s_j,   r_1 >= r_2 >= ... the other s_j

    untargeted   margin = b - r_k < 0: no relevant item is among the k most similar;   the attacker raises
                 -T sum_{i <= k} log(1 + exp((b_T - r_i) / T)) / k,  b_T = T log sum over relevant of exp(s_j / T)
    targeted     margin = b - r_1 > 0: a chosen wrong item (or one of its group) is the most similar;  raised likewise

Several relevant items (captions or twins of one thing) must all be pushed out, or one of them pulled in. The smooth
form has a gradient from all k places to be taken, and keeps pushing items that are only just out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

TEMPERATURE = 0.005  # T, in units of cosine: of those tried, attacks on stamps were strongest here


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Retrieval of each of n queries from one gallery.

    Attributes:
        gallery: m embedded items [m d].
        relevant: which items count as found, of each query: its own, or those to which it is pulled [n m].
        k: places of the ranking that count.
        targeted: whether the attacker wants `relevant` among the first k, or none of it.
        temperature: T of the smooth form.

    Raises:
        ValueError: a query with nothing relevant, or with fewer than k other items.
    """

    gallery: Float[Tensor, "m d"]
    relevant: Bool[Tensor, "n m"]
    k: int
    targeted: bool = False
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if self.relevant.ndim != 2 or self.relevant.shape[1] != len(self.gallery):
            raise ValueError(
                f"relevant must be booleans [queries, {len(self.gallery)}]; got shape {tuple(self.relevant.shape)}"
            )
        count = self.relevant.sum(dim=1)
        if len(count) and int(count.min()) == 0:
            raise ValueError(f"{int((count == 0).sum())} queries have nothing relevant in the gallery; leave them out")
        others = self.relevant.shape[1] - int(count.max()) if len(count) else self.k
        if not 1 <= self.k <= others:
            raise ValueError(f"k must be in 1..{others}, the other items of the gallery; got {self.k}")

    def take(self, rows: Int[Tensor, " q"] | slice) -> Retrieval:
        """The same for some of the queries."""
        return replace(self, relevant=self.relevant[rows])

    def margin(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Best relevant similarity minus the k-th of the others; above 0 where one is among the first k."""
        best, others = self._sides(z)
        return best.amax(dim=1) - others[:, -1]

    def loss(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """What the attacker raises, in units of cosine."""
        t = self.temperature
        best, others = self._sides(z)
        ahead = t * (best / t).logsumexp(dim=1, keepdim=True) - others
        if self.targeted:
            return -t * F.softplus(-ahead / t).mean(dim=1)
        return -t * F.softplus(ahead / t).mean(dim=1)

    def _sides(self, z: Tensor) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n k"]]:
        """Similarities of the relevant items (-inf elsewhere), and the k largest of the others, descending."""
        similarity = F.normalize(z, dim=1) @ F.normalize(self.gallery, dim=1).T.to(z)
        others = similarity.masked_fill(self.relevant, -torch.inf).topk(self.k, dim=1).values
        return similarity.masked_fill(~self.relevant, -torch.inf), others
