"""CSA: canonical similarity analysis, correlations that count as much as they are worth.

    sim(x, y) = sum_k rho_k x_k y_k        x, y the first canonical variates of two items, at unit length

rho_k are the canonical correlations. For M modalities the variates are those of MAXVAR (Kettenring 1971), written with
covariances instead of samples: the leading eigenvectors v of the matrix R whose blocks are C_aa^-1/2 C_ab C_bb^-1/2 for
a != b and 0 for a = b; W_m = sqrt(M) C_mm^-1/2 v_m and rho = eigenvalue / (M - 1). For M = 2 that is CCA with its
correlations; for more, rho is the mean correlation between modalities, and there is one space, not one for each pair.
Li et al. 2025 (ICLR), "CSA: Data-efficient mapping of unimodal features to multimodal features".

The sum becomes a product of unit rows: coordinates scaled by sqrt(rho), and one more coordinate for each modality that
takes up the rest of its length. No two modalities share that one, so products across modalities are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm, check_pairs, principal_axes

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

# relative to the mean variance: what keeps a covariance of fewer samples than coordinates invertible without a ridge
LEAST_RIDGE = 1e-10
# correlations at which a variate may be one of a single modality and rounding errors
NEGLIGIBLE = 1e-9


class CSAOptions(Options):
    """Hyper-parameters of CSA.

    Attributes:
        dim: s, canonical coordinates kept; those that do not correlate are left out anyway.
        components: principal components of each modality that enter.
        ridge: added to the covariance of the components of every modality, relative to their mean variance.
    """

    dim: Annotated[int, Field(ge=1)] = 128
    components: Annotated[int, Field(ge=1)] = 256
    ridge: Annotated[float, Field(ge=0)] = 1.0


@VARIANTS.register("csa")
class CSA(ClosedForm):
    """Weighted canonical correlations; two or more modalities (MAXVAR). Source: Li et al. 2025 (ICLR), eq. 4.

    The embedding has one coordinate per modality beyond `dim`.
    """

    Options: ClassVar[type[Options]] = CSAOptions
    options: CSAOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dim": (32, 64, 128, 256),
        "components": (64, 128, 256),
        "ridge": (0.1, 0.3, 1.0, 3.0),
    }
    rho: Float[Tensor, " k"]

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Canonical directions in the original coordinates."""
        check_pairs(present)
        axes = {m: principal_axes(v[present[m]], self.options.components) for m, v in z.items()}
        axes = {m: a[:, a.any(dim=0)] for m, a in axes.items()}  # of few features, or few samples, there are fewer
        scores = {m: z[m] @ a for m, a in axes.items()}
        directions, self.rho = canonical(scores, present, dim=self.options.dim, ridge=self.options.ridge)
        return {m: axes[m] @ directions[m] for m in z}

    def place(self, modality: str, rows: Tensor) -> Tensor:
        """Unit rows whose products across modalities are the weighted similarities."""
        weighted = F.normalize(rows, dim=1) * self.rho.sqrt()
        rest = rows.new_zeros(len(rows), len(self.modalities))
        rest[:, self.modalities.index(modality)] = (1 - weighted.square().sum(dim=1)).clamp(min=0).sqrt()
        return torch.cat([weighted, rest], dim=1)

    def state(self) -> dict[str, Tensor]:
        """Means, maps and correlations."""
        return super().state() | {"rho": self.rho}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take means, maps and correlations."""
        super().restore(state)
        self.rho = state["rho"].to(self.device)


def canonical(
    x: dict[str, Float[Tensor, "n d"]], present: dict[str, Bool[Tensor, " n"]], *, dim: int, ridge: float
) -> tuple[dict[str, Tensor], Float[Tensor, " dim"]]:
    """MAXVAR variates from covariances, each of all samples that have what it relates.

    Args:
        x: modality -> centered rows, absent ones zero.
        present: modality -> which samples have it.
        dim: variates; where fewer correlate positively the others are zero columns of weight zero.
        ridge: relative to the mean variance of the modality's columns, the same in every modality.

    Returns:
        Directions `W_m [d_m, dim]` and the weights, between 0 and 1, descending.
    """
    whitened, roots = {}, {}
    for m, rows in x.items():
        covariance = rows.T @ rows / present[m].sum()
        shift = (ridge + LEAST_RIDGE) * covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(covariance)
        roots[m] = vectors * (values.clamp(min=0) + shift).rsqrt() @ vectors.T
        whitened[m] = rows @ roots[m]
    blocks = [[_cross(whitened, present, a, b) for b in x] for a in x]
    values, vectors = torch.linalg.eigh(torch.cat([torch.cat(row, dim=1) for row in blocks]))
    kept = min(dim, int((values > NEGLIGIBLE).sum()))
    values, vectors = values.flip(0)[:kept], vectors.flip(1)[:, :kept]
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    pad, parts = (0, dim - kept), vectors.split([v.shape[1] for v in x.values()])
    scale = len(x) ** 0.5
    directions = {m: F.pad(scale * roots[m] @ part, pad) for m, part in zip(x, parts, strict=True)}
    # covariances of different samples may add up to more than a correlation
    return directions, F.pad((values / (len(x) - 1)).clamp(max=1), pad)


def _cross(x: dict[str, Tensor], present: dict[str, Tensor], a: str, b: str) -> Tensor:
    """Covariance of two modalities over the samples that have both; absent rows are zero and add nothing."""
    if a == b:
        return x[a].new_zeros(x[a].shape[1], x[a].shape[1])
    return x[a].T @ x[b] / (present[a] & present[b]).sum().clamp(min=1)
