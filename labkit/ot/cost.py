"""Geometries: what it costs to move mass from point i of one cloud to point j of another.

A geometry knows the cost, not the weights or the solver. `PointCloud` computes the matrix from coordinates,
    sqeuclidean   C_ij = |x_i - y_j|^2
    euclidean     C_ij = |x_i - y_j|
    cosine        C_ij = 1 - <x_i, y_j> / (|x_i| |y_j|)
    geodesic      C_ij = arccos(<x_i, y_j> / (|x_i| |y_j|)), the great-circle distance in radians;
`CostMatrix` holds a matrix that the user made. Batch dimensions stand in front. Half precision is lifted to
float32 and autocast is switched off inside, because exp(-C / epsilon) does not survive 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which autocast is off on `device`: transport runs in float32 or float64."""
    return torch.autocast(device_type=device.type, enabled=False)


def lift(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it came in 16 bits, itself otherwise; gradients pass through."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def require_floating(tensor: Tensor, name: str) -> None:
    """Refuse what is not a floating-point tensor with something in it.

    Raises:
        TypeError: `tensor` is not a torch tensor of a floating-point type.
        ValueError: it is empty.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, expected a torch tensor: torch.as_tensor makes one.")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has type {tensor.dtype}, expected floating point: call .float() first.")
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty (shape {tuple(tensor.shape)}), expected at least one point.")


def require_finite(tensor: Tensor, name: str) -> None:
    """Refuse what is not a finite floating-point tensor.

    Raises:
        TypeError: `tensor` is not a torch tensor of a floating-point type.
        ValueError: it is empty, has NaN or infinite entries, or is on the meta device, which has no numbers.
    """
    require_floating(tensor, name)
    if tensor.is_meta:
        raise ValueError(f"{name} is on meta, which holds shapes without numbers: move it to a real device.")
    # The sum is five times faster to look at than the entries, and finite unless one of them is not or it overflows.
    if bool(torch.isfinite(tensor.detach().sum())):
        return
    finite = torch.isfinite(tensor)
    if not finite.all():
        count = int((~finite).sum())
        raise ValueError(f"{name} has {count} NaN or infinite entries: remove those points or repair them.")


def _sqeuclidean(x: Tensor, y: Tensor) -> Tensor:
    # The cost does not feel a common shift; taking it out keeps |x|^2 + |y|^2 - 2xy from cancelling.
    shift = y.detach().mean(-2, keepdim=True)
    x, y = x - shift, y - shift
    x_squared, y_squared = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    # One product of [x, |x|^2, 1] with [-2y, 1, |y|^2]: adding the squares to -2xy would read n^2 numbers again.
    left = torch.cat([x, x_squared, torch.ones_like(x_squared)], -1)
    right = torch.cat([-2 * y, torch.ones_like(y_squared), y_squared], -1)
    squared = left @ right.mT
    # Rounding leaves about -1e-7 where points coincide. Clamping the numbers only keeps the derivatives.
    squared.detach().clamp_min_(0)
    return squared


def _norms(x: Tensor, y: Tensor) -> Tensor:
    """|x_i|^2 + |y_j|^2, what the rounding of a squared distance is proportional to; without gradient."""
    return x.detach().square().sum(-1)[..., :, None] + y.detach().square().sum(-1)[..., None, :]


def _safe_root(squared: Tensor, noise: Tensor | float) -> Tensor:
    # A root has no derivative at 0: take the subgradient 0 there instead of NaN. Below the rounding of the
    # squares a distance is noise, which the root would blow up (1e-7 to 3e-4), so it counts as 0.
    apart = squared.detach() > noise
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def _size(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Power of two near the largest coordinate: what to divide by before squares that would overflow or underflow."""
    size = x.detach().abs().amax(dim, keepdim=True)
    # A power of two, since dividing by it does not round.
    return torch.where(size > 0, torch.exp2(torch.frexp(size).exponent.to(x.dtype) - 1), 1.0)


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    size = torch.maximum(_size(x, (-2, -1)), _size(y, (-2, -1)))
    x, y = x / size, y / size
    return size * _safe_root(_sqeuclidean(x, y), 4 * torch.finfo(x.dtype).eps * _norms(x, y))


def _unit(x: Tensor) -> Tensor:
    x = x / _size(x, -1)
    squared = x.square().sum(-1, keepdim=True)
    return x / torch.where(squared > 0, squared, 1.0).sqrt()


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    # Equal directions are at cost 0, not at a rounding error, which a collapsed cloud would be scaled by.
    return torch.nn.functional.threshold(1 - _unit(x) @ _unit(y).mT, 8 * torch.finfo(x.dtype).eps, 0.0)


def _geodesic(x: Tensor, y: Tensor) -> Tensor:
    # 2 arctan(|x - y| / |x + y|) for unit vectors: arccos loses half of the digits of a small angle.
    x, y = _unit(x), _unit(y)
    norms, squared = _norms(x, y), _sqeuclidean(x, y)
    noise = 4 * torch.finfo(x.dtype).eps * norms
    chord, opposite = _safe_root(squared, noise), _safe_root(2 * norms - squared, noise)
    # The derivative of arctan at (0, 0) is NaN: two zero vectors, which are at angle 0.
    return 2 * torch.atan2(chord, torch.where(norms > 0, opposite, 1.0))


COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sqeuclidean": _sqeuclidean,
    "euclidean": _euclidean,
    "cosine": _cosine,
    "geodesic": _geodesic,
}


class Geometry(Protocol):
    """What a solver asks of a geometry; `PointCloud`, `CostMatrix` and `Restricted` are the ones there are."""

    @property
    def device(self) -> torch.device:
        """Where the costs are computed."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, n, m), of the matrix."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether this is one cloud with itself."""
        ...

    def matrix(self) -> Float[Tensor, "*batch n m"]:
        """All costs, differentiable in what they were made from; +inf forbids a pair."""
        ...

    def block(self, rows: slice, columns: slice) -> Float[Tensor, "*batch r c"]:
        """The costs of some rows and columns, equal to that part of the matrix up to rounding."""
        ...


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Two clouds in the same space, and the cost between their points.

    `PointCloud(x, x)`, with the same tensor twice, is the geometry of one cloud with itself: solvers then use
    the faster symmetric iteration, and Gromov-Wasserstein reads it as a space.

    Attributes:
        x: Source points.
        y: Target points.
        cost: "sqeuclidean", "euclidean", "cosine" or "geodesic" (of the directions: a zero vector is at a right
            angle to every other).

    Raises:
        TypeError: x or y is not a floating-point tensor.
        ValueError: NaN, infinite or empty input, different numbers of features, an unknown cost.
    """

    x: Float[Tensor, "*batch n d"]
    y: Float[Tensor, "*batch m d"]
    cost: str = "sqeuclidean"

    def __post_init__(self) -> None:
        """Check the clouds and bring both to one dtype of at least 32 bits."""
        if self.cost not in COSTS:
            near = get_close_matches(str(self.cost), COSTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"cost={self.cost!r} is unknown, expected one of {sorted(COSTS)}.{hint}")
        for name, points in (("x", self.x), ("y", self.y)):
            require_floating(points, name)
            if points.ndim < 2:
                raise ValueError(f"{name} has shape {tuple(points.shape)}, expected [..., points, features].")
        if self.x.shape[-1] != self.y.shape[-1]:
            raise ValueError(
                f"x has {self.x.shape[-1]} features and y has {self.y.shape[-1]}: a cost between them means "
                "nothing. Project both into one space, or compare the spaces by ot.gromov_wasserstein."
            )
        if self.x.device != self.y.device:
            raise ValueError(f"x is on {self.x.device} and y on {self.y.device}: move both to one device.")
        require_finite(self.x, "x")
        require_finite(self.y, "y")
        x, same = lift(self.x), self.y is self.x
        y = x if same else lift(self.y)
        dtype = torch.promote_types(x.dtype, y.dtype)
        object.__setattr__(self, "x", x.to(dtype))
        object.__setattr__(self, "y", self.x if same else y.to(dtype))

    @property
    def device(self) -> torch.device:
        """Where the points are."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.x.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, n, m)."""
        batch = torch.broadcast_shapes(self.x.shape[:-2], self.y.shape[:-2])
        return (*batch, self.x.shape[-2], self.y.shape[-2])

    @property
    def symmetric(self) -> bool:
        """Whether this is one cloud with itself."""
        return self.x is self.y

    def matrix(self) -> Float[Tensor, "*batch n m"]:
        """The costs, differentiable in x and y, in the cost's own units."""
        return self._costs(self.x, self.y)

    def block(self, rows: slice, columns: slice) -> Float[Tensor, "*batch r c"]:
        """The costs of some rows and columns, computed from those points only."""
        return self._costs(self.x[..., rows, :], self.y[..., columns, :])

    def _costs(self, x: Tensor, y: Tensor) -> Tensor:
        with full_precision(self.y.device):
            return COSTS[self.cost](x, y)

    def cost_from(self, x_new: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch k m"]:
        """Costs from other source points to y, differentiable in them.

        Raises:
            ValueError: `x_new` has another number of features than y, or is not finite.
        """
        require_finite(x_new, "x_new")
        if x_new.ndim < 2 or x_new.shape[-1] != self.y.shape[-1]:
            raise ValueError(
                f"x_new has shape {tuple(x_new.shape)}, expected [..., points, {self.y.shape[-1]}] like y."
            )
        return self._costs(x_new.to(self.y.dtype), self.y)


@dataclass(frozen=True, eq=False)
class CostMatrix:
    """A cost that is given as a matrix: geodesic distances, 1 - similarity, or anything else.

    Attributes:
        values: C_ij, finite. Solvers differentiate with respect to it.

    Raises:
        TypeError: `values` is not a floating-point tensor.
        ValueError: NaN, infinite or empty, or fewer than two dimensions.
    """

    values: Float[Tensor, "*batch n m"]

    def __post_init__(self) -> None:
        """Check the matrix and bring it to at least 32 bits."""
        require_finite(self.values, "the cost matrix")
        if self.values.ndim < 2:
            raise ValueError(f"the cost matrix has shape {tuple(self.values.shape)}, expected [..., n, m].")
        object.__setattr__(self, "values", lift(self.values))

    @property
    def device(self) -> torch.device:
        """Where the matrix is."""
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, n, m)."""
        return tuple(self.values.shape)

    @property
    def symmetric(self) -> bool:
        """Always False: equal rows and columns are not looked for, so the general iteration is used."""
        return False

    def matrix(self) -> Float[Tensor, "*batch n m"]:
        """The costs as given."""
        return self.values

    def block(self, rows: slice, columns: slice) -> Float[Tensor, "*batch r c"]:
        """That part of the matrix."""
        return self.values[..., rows, columns]
