"""A cost that is computed from indices: geometries that are neither points in a space nor a stored matrix.

    C_ij = function(rows, columns)[i, j]

`CostFunction` is asked for a block at a time, so that a tree distance, a graph metric from landmarks or a learned cost
needs no n x m memory: small problems are solved on its matrix, large ones are streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.ot.cost import full_precision, lift

if TYPE_CHECKING:
    from jaxtyping import Float

Rows = slice | Tensor


@dataclass(frozen=True, eq=False)
class CostFunction:
    """Costs by a function of two index vectors.

    >>> x, y = torch.randn(1000, 3), torch.randn(2000, 3)
    >>> geometry = CostFunction(lambda i, j: torch.cdist(x[i], y[j], p=1), 1000, 2000)

    Attributes:
        function: Takes row indices [r] and column indices [c] (integer tensors on `device`) and returns the costs
            [r, c], floating point and finite. Solvers differentiate with respect to what it uses.
        n: Number of source points.
        m: Number of target points.
        device: Where the indices are made and the costs come out.

    Raises:
        TypeError: The function does not return a floating-point tensor.
        ValueError: It returns another shape, or there is no point.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    n: int
    m: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        """Ask for one entry, to see that the function fits and which dtype it has."""
        if self.n < 1 or self.m < 1:
            raise ValueError(f"the cost function has n={self.n} and m={self.m}, expected at least one point each.")
        object.__setattr__(self, "device", torch.device(self.device))
        with torch.no_grad():
            object.__setattr__(self, "dtype", self.block(slice(0, 1), slice(0, 1)).dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, m)."""
        return (self.n, self.m)

    @property
    def symmetric(self) -> bool:
        """Always False: nothing is known about the function."""
        return False

    def matrix(self) -> Float[Tensor, "n m"]:
        """All costs, as one block."""
        return self.block(slice(None), slice(None))

    def block(self, rows: Rows, columns: Rows) -> Float[Tensor, "r c"]:
        """The costs of some rows and columns.

        Raises:
            TypeError: The function does not return a floating-point tensor.
            ValueError: It returns another shape, another device, or NaN or infinite costs.
        """
        index = self._index(rows, self.n), self._index(columns, self.m)
        with full_precision(self.device):
            values = self.function(*index)
        expected = (len(index[0]), len(index[1]))
        if not isinstance(values, Tensor) or not values.is_floating_point():
            kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise TypeError(f"the cost function returned {kind}, expected a floating-point tensor.")
        if tuple(values.shape) != expected or values.device != self.device:
            raise ValueError(
                f"the cost function returned shape {tuple(values.shape)} on {values.device} for {expected[0]} rows and "
                f"{expected[1]} columns, expected {expected} on {self.device}."
            )
        if not torch.isfinite(values).all():
            raise ValueError("the cost function returned NaN or infinite costs: repair it, or give large finite ones.")
        return lift(values)

    def part(self, rows: Tensor, columns: Tensor) -> CostFunction:
        """The same costs for chosen points only."""
        return CostFunction(lambda i, j: self.function(rows[i], columns[j]), len(rows), len(columns), self.device)

    def transposed(self) -> CostFunction:
        """Sources and targets exchanged."""
        return CostFunction(lambda i, j: self.function(j, i).mT, self.m, self.n, self.device)

    def _index(self, chosen: Rows, size: int) -> Tensor:
        if isinstance(chosen, Tensor):
            return chosen
        return torch.arange(*chosen.indices(size), device=self.device)
