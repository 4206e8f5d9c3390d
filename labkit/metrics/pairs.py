"""What the registered metrics share: pairs of modalities, the samples both have, cosine similarity, checks.

Cosine similarities are computed in float64 and rounded to the resolution of the vectors' own dtype, so that
similarities which differ by rounding error only count as ties. Without that a collapsed (constant) embedding
would be ranked by noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from labkit.types import Embeddings

Array = Tensor | np.ndarray  # what the tensor functions take

# decimals of a cosine that survive the rounding error of the vectors; 2 for half precision
_DECIMALS = {torch.float64: 12, torch.float32: 6}


def as_matrix(values: Array, name: str) -> Float[Tensor, "n d"]:
    """`values` as a float64 tensor on its own device.

    Raises:
        ValueError: not a matrix of finite floating-point numbers.
    """
    tensor = torch.as_tensor(values)
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise ValueError(f"{name} must be a floating-point matrix [n d]; got {tensor.dtype} {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has NaN or infinite values; drop those rows first")
    return tensor.double()


def as_pair(x: Array, y: Array) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n e"]]:
    """Two matrices whose rows are the same samples, in float64.

    Raises:
        ValueError: not finite matrices, or different numbers of rows.
    """
    x, y = as_matrix(x, "x"), as_matrix(y, "y")
    if len(x) != len(y):
        raise ValueError(f"row i of x and y must be the same sample; got {len(x)} and {len(y)} rows")
    return x, y


def cosine_similarity(x: Array, y: Array) -> Float[Tensor, "n m"]:
    """Cosine of every row of `x` [n d] with every row of `y` [m d], in float64, range [-1, 1].

    Rounded to 6 decimals for float32 input (12 for float64, 2 for half), so that rounding errors make ties
    instead of an order. A zero vector has similarity 0 with everything.

    Raises:
        ValueError: not finite matrices, or different dimensions.
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    decimals = min(_DECIMALS.get(x.dtype, 2), _DECIMALS.get(y.dtype, 2))
    x, y = as_matrix(x, "x"), as_matrix(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"cosine similarity needs one dimension; got {x.shape[1]} and {y.shape[1]}")
    return (normalize(x, dim=1) @ normalize(y, dim=1).T).round(decimals=decimals)


def ordered_pairs(aligned: Embeddings) -> Iterator[tuple[str, str]]:
    """Every (source, target) of two different modalities of a shared space.

    Raises:
        ValueError: the modalities have different dimensions.
    """
    _check_shared(aligned)
    return permutations(aligned.modalities, 2)


def unordered_pairs(aligned: Embeddings) -> Iterator[tuple[str, str]]:
    """Every two different modalities of a shared space once.

    Raises:
        ValueError: the modalities have different dimensions.
    """
    _check_shared(aligned)
    return combinations(aligned.modalities, 2)


def rows_with(embeddings: Embeddings, *modalities: str) -> Int[Tensor, " q"]:
    """Indices of the samples that have all of `modalities`."""
    have = torch.stack([embeddings.present[m].to(embeddings.z[m].device) for m in modalities])
    return have.all(dim=0).nonzero().flatten()


def spread(values: Float[Tensor, " q"], rows: Int[Tensor, " q"], n: int) -> Float[Tensor, " n"]:
    """`values` of the samples `rows` as n per-point values on the CPU, NaN elsewhere."""
    points = torch.full((n,), torch.nan, dtype=torch.float64)
    points[rows.cpu()] = values.double().cpu()
    return points


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices over `rows` such that one block of a [rows columns] matrix stays near 32 MB in float64."""
    size = max(1, 2**22 // max(columns, 1))
    return (slice(start, start + size) for start in range(0, rows, size))


def _check_shared(aligned: Embeddings) -> None:
    sizes = {m: z.shape[1] for m, z in aligned.z.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"metrics need a shared space with one dimension for all modalities; got {sizes}: align first")
