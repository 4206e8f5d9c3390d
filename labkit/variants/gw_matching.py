"""GW matching: two clouds are laid onto each other by their inner distances, without a single pair.

    P = argmin sum (D_x[i, k] - D_y[j, l])^2 P_ij P_kl  (+ epsilon KL),    y~_i = sum_j P_ij y_j / sum_j P_ij,
    Q = U V^T of x^T y~

D are Euclidean distances between the principal coordinates, divided by their means. The problem has many local optima
(Peyre, Cuturi, Solomon 2016): annealed and other starts lead to the best of several entropic plans, which a proximal
descent sharpens (Xu, Luo, Zha, Carin 2019). Alvarez-Melis and Jaakkola 2018 (EMNLP) align word embeddings so; the map
by Procrustes makes it apply to new items.

A low distortion is no evidence of a right matching, and the problem is blind to symmetries of the clouds. What can be
said without pairs is in `certificates`: the distortion beside a lower bound that no coupling beats and beside that of
matching everything with everything, and how many other starts did as well with another matching. On stamps they are
doubtful, and rightly so: for image and text the best coupling found distorts less than half as much as the true pairs
do (0.015 against 0.037), so no better search could help. What it finds is the coarse structure: recall@10 is three
times chance for image and text, and chance or less where speech is one of the two.
"""

from __future__ import annotations

import warnings
from dataclasses import astuple, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from labkit import ot
from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._unpaired import UnmatchedWarning, Unpaired, UnpairedOptions, rotation

TOLERANCE = 1e-2
SHARPEN_EPSILON = 0.01
# copies with noise: right matchings left at most 0.12, wrong ones 0.19 and more, unrelated clouds about 0.2
LARGEST_LEFT = 0.15


class GWMatchingOptions(UnpairedOptions):
    """Hyper-parameters of GW matching.

    Attributes:
        dim: principal components of each modality, and the dimension of the shared space.
        samples: most training items of each modality that are matched; time grows with their cube.
        epsilon: regularization of the search, relative to the distortion of the product coupling.
        starts: descents: from the product, from the plans of two lower bounds, then at random.
    """

    dim: Annotated[int, Field(ge=2)] = 32
    samples: Annotated[int, Field(ge=2)] = 1000
    epsilon: Annotated[float, Field(gt=0)] = 0.02
    starts: Annotated[int, Field(ge=1)] = 4


@dataclass(frozen=True)
class Certificate:
    """What can be said about a matching without knowing the pairs.

    Attributes:
        distortion: of the matching that was found, in units of squared mean distances.
        lower_bound: that no coupling falls below.
        product: distortion of matching everything with everything.
        alternatives: other starts that did as well with another matching.
    """

    distortion: float
    lower_bound: float
    product: float
    alternatives: int

    @property
    def left(self) -> float:
        """Distortion above the lower bound, as a share of that of the product: 0 cannot be improved, 1 is nothing."""
        room = self.product - self.lower_bound
        return (self.distortion - self.lower_bound) / room if room > 0 else 0.0

    @property
    def doubtful(self) -> bool:
        """Whether the distances leave the matching open. False is no proof that it is right."""
        return self.left > LARGEST_LEFT or self.alternatives > 0


@VARIANTS.register("gw_matching", aliases=("gw-matching",))
class GWMatching(Unpaired):
    """Unpaired rotation from a Gromov-Wasserstein coupling; two or more modalities. Source: arXiv:1809.00013.

    Attributes:
        certificates: modality that was moved -> what is known about its matching.
    """

    Options: ClassVar[type[Options]] = GWMatchingOptions
    options: GWMatchingOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"dim": (8, 16, 32, 64), "epsilon": (0.005, 0.02, 0.05)}
    certificates: dict[str, Certificate]

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Principal axes at unit scale, times the rotation.

        Warns:
            UnmatchedWarning: the distances leave a matching open.
        """
        self.certificates = {}
        maps = super().solve(z, present)
        for m, certificate in self.certificates.items():
            if certificate.doubtful:
                warnings.warn(_doubt(m, certificate), UnmatchedWarning, stacklevel=3)
        return maps

    def match(self, x: Tensor, y: Tensor, modality: str, random: np.random.Generator) -> Tensor:
        """Procrustes onto the barycenters of the coupling."""
        spaces = ot.PointCloud(x, x, "euclidean"), ot.PointCloud(y, y, "euclidean")
        seed = int(random.integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ot.NotConvergedWarning)  # what counts is in the certificate
            found = ot.gromov_wasserstein(
                *spaces, epsilon=self.options.epsilon, n_starts=self.options.starts, seed=seed, tolerance=TOLERANCE
            )
            sharp = ot.gromov_wasserstein(
                *spaces, epsilon=SHARPEN_EPSILON, method="proximal", init_plan=found.plan, tolerance=TOLERANCE
            )
        best = min(found, sharp, key=lambda coupling: float(coupling.cost))
        self.certificates[modality] = Certificate(
            float(best.cost), float(best.lower_bound), float(best.spaces.product_objective), int(found.n_alternatives)
        )
        plan = best.plan
        return rotation(x, plan @ y / plan.sum(dim=1, keepdim=True).clamp(min=torch.finfo(plan.dtype).tiny))

    def state(self) -> dict[str, Tensor]:
        """Means, maps and certificates."""
        known = {
            f"certificate.{m}": torch.tensor(astuple(c), dtype=torch.float64) for m, c in self.certificates.items()
        }
        return super().state() | known

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take means, maps and certificates."""
        super().restore(state)
        self.certificates = {}
        for m in self.modalities:
            if f"certificate.{m}" in state:
                distortion, lower_bound, product, alternatives = state[f"certificate.{m}"].tolist()
                self.certificates[m] = Certificate(distortion, lower_bound, product, int(alternatives))


def _doubt(modality: str, certificate: Certificate) -> str:
    said = f"the matching of {modality!r} by distances alone is in doubt: "
    if certificate.alternatives:
        return f"{said}{certificate.alternatives} other matching(s) are about as good; use pairs, or check with some"
    return (
        f"{said}its distortion {certificate.distortion:.3g} is {certificate.left:.0%} of the way from the lower bound "
        f"{certificate.lower_bound:.3g} to {certificate.product:.3g}, of no matching; use pairs, or check with some"
    )
