"""A matching problem in the coordinates in which it is easiest.

For any invertible M, <x, y> = <M^(1/2) x, M^(-1/2) y>: the squared cost |x - y|^2 and |u - v|^2 with u = M^(1/2) x,
v = M^(-1/2) y differ by terms of one point each, and so have the same best matchings. With the M of the optimal map
between Gaussians (Bures; Dowson & Landau 1982, J. Multivar. Anal. 12) the affine part of the map is gone: where the
map is affine, the partner of u is v = u. Targets have `capacity` slots each: slot s belongs to target s mod m, and
the last m slots may stay empty unless every slot is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import PointCloud

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Added to the covariances, as a share of their mean eigenvalue: keeps M invertible in a subspace.
RIDGE = 1e-3
PRODUCT_SAMPLE = 2048
CHUNK = 2**16


@dataclass(frozen=True, eq=False)
class Task:
    """n sources to be matched with m targets, each taken floor(n / m) or ceil(n / m) times.

    Attributes:
        u: Sources, centered and scaled. v: targets. Float32.
        squared: Whether the cost is |u - v|^2 instead of |u - v|.
        offset: What a target costs on top of that; zero where it is the same for every matching.
        unit: What a unit of this cost is in the cost of the clouds.
        product: Mean cost of the product coupling, in the cost of the clouds.
    """

    u: Float[Tensor, "n d"]
    v: Float[Tensor, "m d"]
    squared: bool
    offset: Float[Tensor, " m"]
    unit: float
    product: float

    @property
    def n(self) -> int:
        """Number of sources."""
        return len(self.u)

    @property
    def m(self) -> int:
        """Number of targets."""
        return len(self.v)

    @property
    def capacity(self) -> int:
        """How often a target may be taken at most."""
        return -(-self.n // self.m)

    @property
    def n_slots(self) -> int:
        """Places for sources: `capacity` for each target."""
        return self.capacity * self.m

    @property
    def full(self) -> bool:
        """Whether every slot is taken, and so every target equally often."""
        return self.n_slots == self.n

    @property
    def n_required(self) -> int:
        """The first so many slots must be taken, the others may stay empty."""
        return self.n_slots if self.full else self.n_slots - self.m

    def cost(self, u: Float[Tensor, "k d"], v: Float[Tensor, "l d"]) -> Float[Tensor, "k l"]:
        """Costs between points, without offsets."""
        squares = torch.addmm(v.square().sum(1), u, v.mT, alpha=-2).add_(u.square().sum(1, keepdim=True))
        squares.clamp_min_(0)
        return squares if self.squared else squares.sqrt_()

    def edge_cost(self, rows: Int[Tensor, " k"], targets: Int[Tensor, "k l"]) -> Float[Tensor, "k l"]:
        """Costs with offsets, of some sources to `targets` of their own each."""
        difference = self.v[targets.flatten()].unflatten(0, targets.shape)
        squares = difference.sub_(self.u[rows, None]).square_().sum(-1)
        return (squares if self.squared else squares.sqrt_()).add_(self.offset[targets])

    def matched_cost(self, target: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Costs with offsets, of every source to its target."""
        rows = torch.arange(self.n, device=target.device)
        parts = zip(rows.split(CHUNK), target.split(CHUNK), strict=True)
        return torch.cat([self.edge_cost(row, index[:, None])[:, 0] for row, index in parts])

    def double(self) -> Task:
        """The same in float64."""
        return replace(self, u=self.u.double(), v=self.v.double(), offset=self.offset.double())


def make_task(cloud: PointCloud) -> Task:
    """Center, scale and, where the cost allows it, transform a checked pair of clouds."""
    x, y = (_unit_rows(points) if cloud.cost == "cosine" else points for points in (cloud.x, cloud.y))
    length = y.square().sum(1) if cloud.cost == "cosine" else None
    shift = x.mean(0) - y.mean(0)
    overlap = float(x.mean(0) @ y.mean(0))
    x, y = x - x.mean(0), y - y.mean(0)
    size = max(float(x.abs().max()), float(y.abs().max()), float(shift.abs().max()))
    size = size if size > 0 else 1.0
    x, y, shift = (points.div(size).float() for points in (x, y, shift))
    moved = y - shift
    if cloud.cost == "euclidean":
        task = Task(x, moved, False, torch.zeros_like(moved[:, 0]), size, 0.0)
        sample = torch.Generator().manual_seed(0)
        rows, columns = (
            torch.randint(count, (PRODUCT_SAMPLE,), generator=sample).to(x.device) for count in (task.n, task.m)
        )
        return replace(task, product=size * float(task.cost(x[rows], moved[columns]).mean()))
    u, v = _bures(x, y)
    # Where a target's own terms count, because it is taken or not: |x - y|^2 = |x|^2 + |y|^2 - 2 <x, y>, x centered.
    offset = moved.square().sum(1) - v.square().sum(1)
    product = float(x.square().sum(1).mean() + moved.square().sum(1).mean()) * size**2
    unit = size**2
    if length is not None:
        offset, unit, product = offset - (length / size**2).float(), unit / 2, 1 - overlap
    if len(x) % len(y) == 0:
        offset = torch.zeros_like(offset)
    return Task(u, v, True, offset, unit, product)


def matching_cost(cloud: PointCloud, match: Int[Tensor, " n"]) -> float:
    """Mean cost of a matching, by differences in float64."""
    total = 0.0
    for x, index in zip(cloud.x.split(CHUNK), match.split(CHUNK), strict=True):
        x, y = x.double(), cloud.y[index].double()
        if cloud.cost == "cosine":
            costs = 1 - (_unit_rows(x) * _unit_rows(y)).sum(1)
        else:
            costs = torch.linalg.vector_norm(x - y, dim=1)
            costs = costs.square() if cloud.cost == "sqeuclidean" else costs
        total += float(costs.sum())
    return total / len(match)


def _unit_rows(points: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(points, dim=1, keepdim=True)
    return points / torch.where(length > 0, length, 1.0)


def _bures(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """M^(1/2) x and M^(-1/2) y for centered clouds; M maps N(0, cov x) to N(0, cov y) optimally."""
    covariances = []
    for points in (x, y):
        covariance = (points.mT @ points / len(points)).cpu().double()
        level = RIDGE * covariance.diagonal().mean()
        covariances.append(covariance + (level if level > 0 else 1.0) * torch.eye(len(covariance), dtype=torch.float64))
    root, inverse = _power(covariances[0], 0.5), _power(covariances[0], -0.5)
    bures = inverse @ _power(root @ covariances[1] @ root, 0.5) @ inverse
    return x @ _power(bures, 0.5).to(x), y @ _power(bures, -0.5).to(y)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp_min(values.max() * 1e-12) ** exponent) @ vectors.mT
