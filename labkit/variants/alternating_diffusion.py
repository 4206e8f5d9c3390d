"""Alternating diffusion: steps in one modality after steps in another forget what only one of them sees.

    K_m[i, j] = exp(-|z_i - z_j|^2 / width_m),    P_m = D K_m D with rows and columns of sum 1
    S = mean over modalities a != b of P_a P_b,    S phi_k = lambda_k phi_k,    f_m = ridge regression of lambda phi

P_a P_b averages a function over the neighbors in b, then over those in a: what varies in one modality only is
averaged away, and the leading eigenvectors are functions of the common variables (Lederman and Talmon 2018, Appl.
Comput. Harmon. Anal. 44; symmetric: Talmon and Wu 2019, ibid. 47). Kernels are made bistochastic by one symmetric
scaling (Marshall and Coifman 2019, IMA J. Appl. Math. 84), so that S is symmetric and a walk for any number of
modalities: the mean over their ordered pairs is our choice for more than two. Where a sample lacks a modality, the
walk stays. New items get the coordinates by kernel ridge regression from their own modality's kernel, as a function
that is smooth there (geometric harmonics: Coifman and Lafon 2006, ibid. 21).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from labkit.geometry import nearest
from labkit.variants import VARIANTS
from labkit.variants._anchored import Anchored, AnchoredOptions
from labkit.variants._base import Options

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

SCALINGS = 200
SCALED = 1e-8  # largest error of a row sum
NARROWEST = 1e-12  # relative to the mean squared distance, for clouds of copies


class AlternatingDiffusionOptions(AnchoredOptions):
    """Hyper-parameters of alternating diffusion.

    Attributes:
        dim: eigenvectors of the walk, without the constant one.
        neighbors: which neighbor's squared distance, in the mean over samples, is the width of the kernel.
        steps: t, double steps of the walk: eigenvectors are weighted by lambda^t. More see less detail; 0 only selects.
        ridge: of the regression, relative to the kernel of a point with itself.
    """

    dim: Annotated[int, Field(ge=2)] = 128
    neighbors: Annotated[int, Field(ge=1)] = 10
    steps: Annotated[float, Field(ge=0)] = 0.25
    ridge: Annotated[float, Field(gt=0)] = 0.03


@VARIANTS.register("alternating_diffusion", aliases=("alternating-diffusion",))
class AlternatingDiffusion(Anchored):
    """Common eigenvectors of alternating walks; two or more modalities. Source: Lederman and Talmon 2018.

    Samples of one modality take no part: the walk could not leave them, and on stamps that cost a third of the recall.
    Memory and time of a fit are those of `anchors`^2 and `anchors`^3.
    """

    Options: ClassVar[type[Options]] = AlternatingDiffusionOptions
    options: AlternatingDiffusionOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dim": (64, 128, 256),
        "neighbors": (5, 10, 20),
        "steps": (0.0, 0.25, 0.5),
        "ridge": (0.01, 0.03, 0.1, 0.3),
    }

    width: dict[str, Tensor]
    weights: dict[str, Tensor]

    def solve(self, present: dict[str, Tensor]) -> None:
        """Eigenvectors of the walk between anchors, and their regression on each modality's kernel."""
        self.anchors = {m: self.anchors[m][p] for m, p in present.items()}
        here = {m: a.double() for m, a in self.anchors.items()}
        self.width = {m: kernel_width(rows, self.options.neighbors) for m, rows in here.items()}
        kernels = {m: gaussian(rows, rows, self.width[m]) for m, rows in here.items()}
        common = common_coordinates(kernels, present, dim=self.options.dim, steps=self.options.steps)
        self.weights = {}
        for m, kernel in kernels.items():
            ridge = self.options.ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
            self.weights[m] = torch.cholesky_solve(common[present[m]], torch.linalg.cholesky(kernel + ridge))

    def place(self, modality: str, rows: Tensor) -> Tensor:
        """Regression of the common coordinates, in units of the kernel at the nearest anchor."""
        exponent = exponents(rows, self.anchors[modality].to(rows.dtype), self.width[modality])
        # so that what is far from everything has a direction too
        return (exponent.amin(dim=1, keepdim=True) - exponent).exp() @ self.weights[modality]

    def state(self) -> dict[str, Tensor]:
        """Anchors, widths of the kernels and weights of the regression."""
        widths = {f"width.{m}": v for m, v in self.width.items()}
        return super().state() | widths | {f"weights.{m}": v for m, v in self.weights.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take anchors, widths and weights."""
        super().restore(state)
        self.width = {m: state[f"width.{m}"].to(self.device) for m in self.modalities}
        self.weights = {m: state[f"weights.{m}"].to(self.device) for m in self.modalities}


def kernel_width(rows: Float[Tensor, "n d"], neighbors: int) -> Float[Tensor, ""]:
    """Mean squared distance to the given neighbor, or to the last where there are fewer."""
    distance = nearest(rows, min(neighbors, len(rows) - 1)).distance.square().mean()
    spread = 2 * (rows - rows.mean(dim=0)).square().sum(dim=1).mean()
    return torch.maximum(distance, NARROWEST * spread)


def gaussian(x: Float[Tensor, "n d"], y: Float[Tensor, "a d"], width: Tensor) -> Float[Tensor, "n a"]:
    """exp(-|x_i - y_j|^2 / width)."""
    return (-exponents(x, y, width)).exp()


def exponents(x: Float[Tensor, "n d"], y: Float[Tensor, "a d"], width: Tensor) -> Float[Tensor, "n a"]:
    """|x_i - y_j|^2 / width."""
    squares = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T
    return squares.clamp(min=0) / width


def common_coordinates(
    kernels: dict[str, Float[Tensor, "k k"]], present: dict[str, Bool[Tensor, " n"]], *, dim: int, steps: float
) -> Float[Tensor, "n dim"]:
    """Leading eigenvectors of the alternating walk but the constant one, times eigenvalue^steps.

    Args:
        kernels: modality -> symmetric positive kernel between the samples that have it.
        present: modality -> which of n samples have it.
        dim: eigenvectors; zero columns where fewer have a positive eigenvalue.
        steps: power of the eigenvalues.

    Returns:
        Columns of mean square lambda^(2 steps) over the samples.
    """
    n = len(next(iter(present.values())))
    walks = {}
    for m, kernel in kernels.items():
        rows = present[m].nonzero().flatten()
        walks[m] = torch.eye(n, dtype=kernel.dtype, device=kernel.device)
        walks[m][rows[:, None], rows] = bistochastic(kernel)
    both = torch.zeros_like(next(iter(walks.values())))
    for a, b in itertools.combinations(walks.values(), 2):
        product = a @ b
        both += product + product.T
    both /= len(walks) * (len(walks) - 1)
    # without the constant function, by which all walks end
    values, vectors = torch.linalg.eigh(both - 1 / n)
    kept = min(dim, int((values > 0).sum()))
    values, vectors = values.flip(0)[:kept], vectors.flip(1)[:, :kept]
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    return torch.nn.functional.pad(n**0.5 * vectors * values**steps, (0, dim - kept))


def bistochastic(kernel: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """D K D with all row sums 1, D diagonal; by symmetric Sinkhorn steps."""
    scale = kernel.sum(dim=1).rsqrt()
    for _ in range(SCALINGS):
        sums = scale * (kernel @ scale)
        if float((sums - 1).abs().max()) <= SCALED:
            break
        scale = scale / sums.sqrt()
    return torch.outer(scale, scale) * kernel
