"""TRIANGLE: the tips of a sample's three vectors span a smaller triangle than those of exchanged tuples.

    L = L_con + w_matching L_DAM,   L_con = 1/2 [CE(-A / t, T) + CE(-A' / t, T)]
    A_ij = (|u|^2 |w|^2 - (u.w)^2) / 2,   u = a_i - b_j,   w = a_i - c_j

The loss is defined for three modalities. Of four or more, every triple counts alike; each modality is the anchor a in
turn. A sample that has two of three items keeps one side of its triangle, and half its squared length, 1 - <a, b>, is
contrasted instead of the area, which is InfoNCE. With two modalities nothing but that is left, so they are refused.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from torch import Tensor

from labkit.losses import info_nce, triangle, triangle_area
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._tuples import Matched, MatchedOptions


@VARIANTS.register("triangle")
class Triangle(Matched):
    """Areas and matching; three or more modalities. Source: Cicchetti et al. 2025, arXiv:2509.24734."""

    Options: ClassVar[type[Options]] = MatchedOptions
    search = Matched.search | {"temperature": (0.05, 0.1, 0.2)}
    min_modalities = 3

    def contrast(self, z: list[Tensor], group: Tensor) -> Tensor:
        """Contrast of areas, mean over triples and anchors; of sides where there are two modalities."""
        temperature = self.network.temperature
        if len(z) == 2:
            return info_nce(*z, temperature=temperature, group=group)
        turned = [(*t[a:], *t[:a]) for t in itertools.combinations(z, 3) for a in range(3)]
        return torch.stack([triangle(*t, temperature=temperature, group=group) for t in turned]).mean()

    def scores(self, z: list[Tensor]) -> Tensor:
        """Negative areas, mean over the triples of the first modality; cosines where there is one other."""
        first, *others = z
        if len(others) == 1:
            return first @ others[0].T / self.network.temperature
        areas = [triangle_area(first, *two) for two in itertools.combinations(others, 2)]
        return -torch.stack(areas).mean(dim=0) / self.network.temperature
