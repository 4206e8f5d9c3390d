"""Canonical correlation analysis; for more than two modalities MAXVAR generalized CCA.

    min over G, W_m of  sum_m |K_m (G - X_m W_m)|_F^2 + ridge n |W_m|^2,   G^T (sum_m K_m) G = I

with K_m the diagonal mask of the samples that have modality m (Kettenring 1971; van de Velden and Bijmolt 2006 for
missing rows). G are the leading eigenvectors of K^{-1/2} (sum_m P_m) K^{-1/2}, P_m the ridge projector of modality m,
K = sum_m K_m. With two complete modalities the eigenvalues are (1 + rho) / 2, rho the canonical correlations.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._closed import ClosedForm, check_pairs, principal_axes


class CCAOptions(Options):
    """Hyper-parameters of CCA.

    Attributes:
        dim: canonical coordinates kept.
        components: principal components of each modality that enter.
        ridge: added to the covariance of the components, relative to their mean variance.
    """

    dim: Annotated[int, Field(ge=1)] = 64
    components: Annotated[int, Field(ge=1)] = 256
    ridge: Annotated[float, Field(ge=0)] = 0.1


@VARIANTS.register("cca", aliases=("gcca",))
class CCA(ClosedForm):
    """(Generalized) CCA on principal components; two or more modalities. Source: Hotelling 1936; Kettenring 1971."""

    Options: ClassVar[type[Options]] = CCAOptions
    options: CCAOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dim": (16, 32, 64, 128, 256),
        "components": (64, 128, 256),
        "ridge": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    }

    def solve(self, z: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Canonical directions in the original coordinates."""
        check_pairs(present)
        axes = {m: principal_axes(v[present[m]], self.options.components) for m, v in z.items()}
        scores = {m: z[m] @ a for m, a in axes.items()}
        directions, _ = maxvar(scores, present, dim=self.options.dim, ridge=self.options.ridge)
        return {m: axes[m] @ directions[m] for m in z}


def maxvar(
    x: dict[str, Tensor], present: dict[str, Tensor], *, dim: int, ridge: float
) -> tuple[dict[str, Tensor], Tensor]:
    """MAXVAR generalized CCA with missing rows.

    Args:
        x: modality -> centered rows `[n, d_m]`, absent ones zero.
        present: modality -> mask `[n]`.
        dim: canonical coordinates; fewer are returned as zero columns where the data has fewer.
        ridge: relative to the mean variance of the modality's columns.

    Returns:
        Directions `W_m [d_m, dim]` and the `dim` eigenvalues, between 0 and 1, descending.
    """
    weight = torch.stack(list(present.values())).sum(dim=0).clamp(min=1).to(next(iter(x.values())).dtype)
    whiten = weight.rsqrt()[:, None]
    # P_m = B_m B_m^T, so the eigenproblem is the SVD of the stacked, whitened B_m: no n x n matrix
    bases, solves = {}, {}
    for m, rows in x.items():
        covariance = rows.T @ rows
        shift = ridge * covariance.diagonal().mean() + 1e-10 * covariance.diagonal().max()
        factor = torch.linalg.cholesky(
            covariance + shift * torch.eye(len(covariance), dtype=rows.dtype, device=rows.device)
        )
        bases[m] = torch.linalg.solve_triangular(factor, rows.T, upper=False).T
        solves[m] = factor
    u, s, _ = torch.linalg.svd(torch.cat([whiten * b for b in bases.values()], dim=1), full_matrices=False)
    dim_found = min(dim, u.shape[1])
    signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()
    consensus = whiten * (u * signs)[:, :dim_found]
    pad = (0, dim - dim_found)
    directions = {m: torch.cholesky_solve(rows.T @ consensus, solves[m]) for m, rows in x.items()}
    padded = {m: torch.nn.functional.pad(w, pad) for m, w in directions.items()}
    return padded, torch.nn.functional.pad(s[:dim_found].square(), pad)
