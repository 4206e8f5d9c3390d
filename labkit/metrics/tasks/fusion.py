"""Retrieval from two modalities to a third: does a second question help, and what is left when one of them is noise?

    q_i = a_i / |a_i| + b_i / |b_i|,   similarity(i, j) = cos(q_i, c_j)

For one query, cos(q_i, c_j) is a constant times cos(a_i, c_j) + cos(b_i, c_j), so ranking by the mean embedding is late
fusion: the two modalities ask separately and their similarities are averaged. An absent item does not ask; two absent
ones tie everything, which is chance. Baltrusaitis et al. 2019, arXiv:1705.09406, section 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from torch.nn.functional import normalize

from labkit.imputation import Imputation, others
from labkit.metrics.retrieval import curve_scores
from labkit.metrics.tasks import TASKS
from labkit.types import Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor


@TASKS.register("fused_retrieval")
def fused_retrieval(trained: Embeddings, validated: Embeddings) -> FusedRetrieval:
    """Retrieval from two modalities to a third; of the training samples only the mean embeddings are used."""
    return FusedRetrieval(others(trained))


@dataclass(frozen=True, eq=False)
class FusedRetrieval:
    """`fused_recall_at_10` and `fused_mrr` of every two modalities and third; source is e.g. "image+text".

    Everything of the query's group is relevant, ties and chance are those of `labkit.metrics.retrieval`; range 0..1,
    higher is better. Queries are samples that are asked in both modalities, the gallery those asked in the third, where
    an absent one is stood in for (`labkit.imputation`).

    Attributes:
        stand_in: for absent items, where the call names no other.
    """

    stand_in: Imputation

    def __call__(
        self,
        shared: Embeddings,
        asked: Mapping[str, Bool[Tensor, " n"]] | None = None,
        *,
        involving: str = "",
        impute: Imputation | None = None,
    ) -> list[Score]:
        """One Score per metric and direction; see `labkit.metrics.tasks.Judge`."""
        counted = shared.present if asked is None else asked
        unit = {m: normalize(z, dim=1) for m, z in shared.z.items()}  # rows of absent items stay zero
        scores = []
        for target in shared.modalities:
            for a, b in combinations([m for m in shared.modalities if m != target], 2):
                if involving not in ("", a, b, target):
                    continue
                source = f"{a}+{b}"
                searched = (impute or self.stand_in)(shared, (a, b, target)).z[target]
                both = shared.with_z(
                    {source: unit[a] + unit[b], target: searched},
                    {source: counted[a] & counted[b], target: counted[target]},
                )
                scores += [replace(s, name=f"fused_{s.name}") for s in curve_scores(both, [(source, target)])]
        return scores
