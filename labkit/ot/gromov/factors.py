"""One space as Gromov-Wasserstein sees it: its distances D = F C F^T, exact or truncated with a measured error.

    sqeuclidean  F = [|x|^2, 1, x]     C = [[0, 1], [1, 0]] + -2 I      rank d + 2
    cosine       F = [1, x / |x|]      C = [1] + -I                     rank d + 1
    inner        F = x                 C = I                            rank d
    any other    F = I, C = D (dense); or the leading eigenvectors of sqrt(w) D sqrt(w), in linear memory

The truncation comes from a randomized subspace iteration (Halko, Martinsson, Tropp 2011, SIAM Rev. 53, alg. 4.4);
its error in the norm of L2(a x a) is computed from the entries that it passes over, not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labkit.ot.cost import Geometry, PointCloud, full_precision, lift, require_finite
from labkit.ot.restricted import Restricted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float

# Rows of D that are made at a time when it is truncated.
BLOCK_ROWS = 2048
OVERSAMPLING = 8
# Largest difference of D and its transpose, as a fraction of the largest entry.
SYMMETRY = 1e-4
# Results of this many units of rounding count as zero.
ROUNDING = 32


@dataclass(frozen=True, eq=False)
class InnerProduct:
    """A space that is described by the inner products <x_i, x_k> of its points, not by distances.

    Gromov-Wasserstein between two of these does not feel rotations, but does feel shifts: center x first if the
    origin means nothing. `scale_cost="mean"` divides by the mean of |x_i|^2, as the mean of <x_i, x_k> may be zero.

    Attributes:
        x: Points.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: NaN, infinite or empty input.
    """

    x: Float[Tensor, "*batch n d"]

    def __post_init__(self) -> None:
        """Check the points and bring them to at least 32 bits."""
        require_finite(self.x, "x")
        if self.x.ndim < 2:
            raise ValueError(f"x has shape {tuple(self.x.shape)}, expected [..., points, features].")
        object.__setattr__(self, "x", lift(self.x))

    @property
    def device(self) -> torch.device:
        """Where the points are."""
        return self.x.device

    def matrix(self) -> Float[Tensor, "*batch n n"]:
        """The inner products, differentiable in x."""
        with full_precision(self.device):
            return self.x @ self.x.mT


@dataclass(frozen=True, eq=False)
class Space:
    """Distances D = F C F^T within one space; F and C keep their gradients.

    Attributes:
        factor: F, or None for the identity.
        core: C, symmetric.
        error: Distance of D to the true distances, sqrt(sum_ik a_i a_k (D - D_true)_ik^2); zero unless truncated.
        truth: The true distances with their graph, where D approximates them and a gradient is wanted.
    """

    factor: Float[Tensor, "*batch n r"] | None
    core: Float[Tensor, "*batch r r"]
    error: Float[Tensor, "*batch"]
    truth: Float[Tensor, "*batch n n"] | None = None

    @property
    def n_points(self) -> int:
        """Number of points."""
        return (self.core if self.factor is None else self.factor).shape[-2]

    def matrix(self) -> Float[Tensor, "*batch n n"]:
        """D itself, detached."""
        core = self.core.detach()
        return core if self.factor is None else self.factor.detach() @ core @ self.factor.detach().mT

    def compress(self, rows: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch r k"]:
        """F^T v."""
        return rows if self.factor is None else self.factor.detach().mT @ rows

    def expand(self, rows: Float[Tensor, "*batch r k"]) -> Float[Tensor, "*batch n k"]:
        """F v."""
        return rows if self.factor is None else self.factor.detach() @ rows

    def times(self, rows: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch n k"]:
        """D v."""
        return self.expand(self.core.detach() @ self.compress(rows))

    def squares_times(self, weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """sum_k D_ik^2 w_k; factorized in O(n r^2)."""
        if self.factor is None:
            return (weights[..., None, :] @ self.core.detach().square())[..., 0, :]
        factor = self.factor.detach()
        second_moment = factor.mT @ (weights[..., None] * factor)
        rows = factor @ self.core.detach()
        # Rounding may leave a sum of squares a little below zero.
        return ((rows @ second_moment) * rows).sum(-1).clamp_min(0)

    def mean(self, weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Mean of D under w w^T / |w|^2."""
        share = (weights / weights.sum(-1, keepdim=True))[..., None]
        return (share * self.times(share)).sum((-2, -1))

    def divided(self, scale: Float[Tensor, "*batch"]) -> Space:
        """The space whose distances are D / scale."""
        per_matrix = scale[..., None, None]
        truth = None if self.truth is None else self.truth / per_matrix
        return replace(self, core=self.core / per_matrix, error=self.error / scale, truth=truth)

    def to(self, dtype: torch.dtype, batch: torch.Size) -> Space:
        """In another precision, broadcast to a batch shape."""

        def cast(tensor: Tensor | None, trailing: int) -> Tensor | None:
            if tensor is None:
                return None
            return tensor.to(dtype).broadcast_to((*batch, *tensor.shape[tensor.ndim - trailing :]))

        factor, core, error, truth = (
            cast(tensor, trailing)
            for tensor, trailing in ((self.factor, 2), (self.core, 2), (self.error, 0), (self.truth, 2))
        )
        assert core is not None
        assert error is not None
        return Space(factor, core, error, truth)


def make_space(geometry: Geometry | InnerProduct, name: str, weights: Tensor, rank: int | None) -> Space:
    """The distances of one space, factorized where that is exact and cheaper, truncated to `rank` if it is given.

    Args:
        geometry: `PointCloud(x, x)`, a symmetric `CostMatrix`, or `InnerProduct(x)`.
        name: What an error calls it.
        weights: Checked weights of the points, in which the error of a truncation is measured.
        rank: Number of eigenvectors to keep where no exact factors of at most this rank are known.

    Raises:
        ValueError: Not one space with itself, or `rank` below 1.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} must be at least 1, or None to keep the distances exact.")
    _require_one_space(geometry, name)
    exact, n_points = _exact_factors(geometry), weights.shape[-1]
    if exact is not None:
        factor, core = exact
        width = factor.shape[-1]
        # Two products with F cost as much as one with a dense matrix of half its size.
        if 2 * width < n_points and (rank is None or width <= rank):
            return Space(factor, core, factor.new_zeros(factor.shape[:-2]))
    if rank is None or rank >= n_points:
        matrix = geometry.matrix()
        return Space(None, matrix, matrix.new_zeros(matrix.shape[:-2]))
    space = _truncate(geometry, weights, rank)
    if torch.is_grad_enabled() and points_of(geometry).requires_grad:
        return replace(space, truth=geometry.matrix())
    return space


def points_of(geometry: Geometry | InnerProduct) -> Tensor:
    """The tensor whose dtype, batch dimensions and number of rows are those of the space."""
    if isinstance(geometry, PointCloud | InnerProduct):
        return geometry.x
    return geometry.matrix()


def mean_scale(geometry: Geometry | InnerProduct, space: Space, weights: Tensor) -> Float[Tensor, "*batch"]:
    """What `scale_cost="mean"` divides by: mean distance under w w^T, for inner products mean squared norm.

    Raises:
        ValueError: The mean is negative or not finite.
    """
    share = weights / weights.sum(-1, keepdim=True)
    if isinstance(geometry, InnerProduct):
        scale = (share * geometry.x.detach().square().sum(-1)).sum(-1)
    else:
        scale = (share * space.times(share[..., None])[..., 0]).sum(-1)
    noise = _rounding(geometry, space, share)
    if (scale < -noise).any() or not torch.isfinite(scale).all():
        raise ValueError(
            f"scale_cost='mean' gives {scale.flatten().tolist()[:4]}, which cannot divide distances: rescale what "
            "overflows, and pass scale_cost=None for matrices that may be negative."
        )
    return torch.where(scale > noise, scale, 1.0)


def _rounding(geometry: Geometry | InnerProduct, space: Space, share: Tensor) -> Tensor:
    """Mean distance that coinciding points can seem to have."""
    unit = ROUNDING * torch.finfo(share.dtype).eps
    noise = torch.zeros_like(share[..., 0])
    if space.factor is not None:
        size = space.factor.detach().abs().mT @ share[..., None]
        noise = noise + unit * (size * (space.core.detach().abs() @ size)).sum((-2, -1))
    if isinstance(geometry, PointCloud) and geometry.cost == "sqeuclidean":
        noise = noise + (unit * geometry.x.detach().abs().amax((-2, -1))).square()
    return noise


def _require_one_space(geometry: Geometry | InnerProduct, name: str) -> None:
    if isinstance(geometry, InnerProduct):
        return
    if isinstance(geometry, Restricted):
        raise TypeError(f"{name} is Restricted: pairs are forbidden between two spaces, not within one.")
    if isinstance(geometry, PointCloud) and (geometry.symmetric or torch.equal(geometry.x, geometry.y)):
        return
    matrix = geometry.matrix().detach()
    if (
        isinstance(geometry, PointCloud)
        or matrix.shape[-1] != matrix.shape[-2]
        or bool((matrix - matrix.mT).abs().max() > SYMMETRY * matrix.abs().max())
    ):
        raise ValueError(
            f"{name} has a matrix of shape {tuple(matrix.shape)} that is not symmetric: Gromov-Wasserstein compares "
            "the distances within each space, so pass PointCloud(x, x) or a symmetric CostMatrix."
        )


def _exact_factors(geometry: Geometry | InnerProduct) -> tuple[Tensor, Tensor] | None:
    """Factor and core where they are known in closed form."""
    if isinstance(geometry, InnerProduct):
        return geometry.x, _diagonal(geometry.x, [1.0] * geometry.x.shape[-1])
    if not isinstance(geometry, PointCloud):
        return None
    x = geometry.x
    one = torch.ones_like(x[..., :1])
    if geometry.cost == "sqeuclidean":
        # Distances do not feel a shift; without one |x|^2 and the inner products would cancel.
        x = x - x.detach().mean(-2, keepdim=True)
        factor = torch.cat([x.square().sum(-1, keepdim=True), one, x], -1)
        core = _diagonal(x, [0.0, 0.0] + [-2.0] * x.shape[-1])
        core[..., 0, 1] = core[..., 1, 0] = 1.0
        return factor, core
    if geometry.cost == "cosine":
        return torch.cat([one, normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny)], -1), _diagonal(
            x, [1.0] + [-1.0] * x.shape[-1]
        )
    return None


def _diagonal(x: Tensor, entries: list[float]) -> Tensor:
    core = torch.diag(x.new_tensor(entries))
    return core.repeat(*x.shape[:-2], 1, 1)


def _row_blocks(geometry: Geometry | InnerProduct, scaling: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of sqrt(w) D sqrt(w), a block at a time."""
    for start in range(0, scaling.shape[-1], BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        if isinstance(geometry, PointCloud):
            block = geometry.cost_from(geometry.x[..., rows, :])
        elif isinstance(geometry, InnerProduct):
            block = geometry.x[..., rows, :] @ geometry.x.mT
        else:
            block = geometry.matrix()[..., rows, :]
        yield rows, scaling[..., rows, None] * block.detach() * scaling[..., None, :]


def _scaled_times(geometry: Geometry | InnerProduct, scaling: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """A V for A = sqrt(w) D sqrt(w), and |A|_F^2."""
    total = torch.zeros(columns.shape[:-2], dtype=torch.float64, device=columns.device)
    product = torch.empty_like(columns)
    for rows, block in _row_blocks(geometry, scaling):
        product[..., rows, :] = block @ columns
        total += block.double().square().sum((-2, -1))
    return product, total


@torch.no_grad()
def _truncate(geometry: Geometry | InnerProduct, weights: Tensor, rank: int) -> Space:
    n_points = weights.shape[-1]
    # Points of weight zero need finite rows; more weight than they have only makes the stated error larger.
    scaling = weights.clamp_min(1e-3 * float(weights.mean())).sqrt()
    generator = torch.Generator(device=weights.device).manual_seed(0)
    width = min(rank + OVERSAMPLING, n_points)
    noise = torch.randn((n_points, width), generator=generator, dtype=weights.dtype, device=weights.device)
    basis = noise.expand(*weights.shape[:-1], -1, -1).contiguous()
    for _ in range(2):
        basis = torch.linalg.qr(_scaled_times(geometry, scaling, basis)[0]).Q
    product, total = _scaled_times(geometry, scaling, basis)
    values, vectors = torch.linalg.eigh(basis.mT @ product)
    keep = values.abs().topk(min(rank, width), -1).indices
    values = values.gather(-1, keep)
    vectors = vectors.gather(-1, keep[..., None, :].expand(*vectors.shape[:-1], -1))
    factor = (basis @ vectors) / scaling[..., None]
    # The remainder is orthogonal to what is kept, so its square is a difference of squares.
    missed = (total - values.double().square().sum(-1)).clamp_min(0).sqrt()
    return Space(factor, torch.diag_embed(values), missed.to(weights.dtype))
