"""Matching: a cross-encoder is asked whether items belong together, with hard negatives from the batch.

    L = CE(V f + c, [1_n, 0_n, 0_n]),   f of  [(a_i, b_i)],  [(a_i, b_j)], j ~ p_i,  [(a_k, b_i)], k ~ q_i
    p_ij ~ softmax_j(s_ij) + 1e-4 over the j of other groups,   q the same of the columns of s

s_ij says how alike a_i and b_j look already, so negatives are drawn where the space still errs. Samples of one group
are never exchanged for each other. ITM of ALBEF (Li et al. 2021, arXiv:2107.07651), DAM of GRAM (Cicchetti et al. 2025,
arXiv:2412.11959), whose 1e-4 keeps the draw possible where the softmax saturates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.encoders.fusion import Fusion

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FLOOR = 1e-4


@torch.no_grad()
def hard_negatives(
    similarity: Float[Tensor, "n n"], group: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """A sample of another group for each row, drawn the more often the more similar: the rows, and what was drawn.

    Formula: j ~ softmax_j(s_ij) + 1e-4 over the j with group_j != group_i, from torch's global generator. Rows without
    such a j are left out.
    """
    same = group[:, None] == group
    rows = (~same).any(dim=1).nonzero().flatten()
    if len(rows) == 0:
        return rows, rows
    # masked before the softmax: a sample that is most like itself would leave the others nothing but the floor
    weights = similarity.masked_fill(same, -torch.inf)[rows].softmax(dim=1) + FLOOR
    return rows, torch.multinomial(weights.masked_fill(same[rows], 0.0), 1).flatten()


def exchanged(
    similarity: Float[Tensor, "n n"], group: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Which first items to join with which second ones, and whether they match: n true tuples and up to 2n wrong ones.

    Args:
        similarity: of first item i and second item j, larger is more alike.
        group: samples with the same value are not each other's negatives.
    """
    everything = torch.arange(len(group), device=group.device)
    kept_first, other_second = hard_negatives(similarity, group)
    kept_second, other_first = hard_negatives(similarity.T, group)
    first = torch.cat([everything, kept_first, other_first])
    second = torch.cat([everything, other_second, kept_second])
    return first, second, (torch.arange(len(first), device=group.device) < len(group)).long()


class Matching(nn.Module):
    """Two-way classifier on the fusion of items that may or may not belong together.

    Attributes:
        fusion: the cross-encoder.
        verdict: its output to two logits.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        """A fusion of modalities with that many features each."""
        super().__init__()
        self.fusion = Fusion(widths)
        self.verdict = nn.Linear(self.fusion.dim, 2)

    def forward(
        self,
        first: Mapping[str, Float[Tensor, "n d"]],
        second: Mapping[str, Float[Tensor, "n d"]],
        *,
        similarity: Float[Tensor, "n n"],
        group: Int[Tensor, " n"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy; log(3) - 2/3 log(2) for a classifier that knows no more than that two of three are wrong.

        Args:
            first: modalities that are exchanged together.
            second: the others, of the same samples.
            similarity: of the first of sample i and the second of sample j.
            group: samples with the same value are not each other's negatives.
        """
        take_first, take_second, label = exchanged(similarity, group)
        joined = {m: z[take_first] for m, z in first.items()} | {m: z[take_second] for m, z in second.items()}
        return F.cross_entropy(self.verdict(self.fusion(joined)), label)
