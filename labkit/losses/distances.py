"""The distances that Riemannian losses compare, between unit rows: four with a closed form or a graph, one of walks.

Graphs and paths carry no gradient; the lengths of their edges do, and diffusion distances have one everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

from labkit.geometry import chord_distances, diffusion_distances, shortest_paths, sphere_distances

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Distance = Literal["sphere", "euclidean", "cosine", "geodesic", "diffusion"]


def within(z: Float[Tensor, "n d"], distance: Distance, *, k: int) -> Float[Tensor, "n n"]:
    """Distances between the rows of one cloud; `k` neighbors make the graph where there is one.

    Raises:
        ValueError: an unknown distance, or k out of range where a graph is made.
    """
    if distance == "geodesic":
        return _square(shortest_paths(z, k=k).lengths(z), len(z))
    if distance == "diffusion":
        return diffusion_distances(z, k=k)
    return _direct(z, z, distance)


def between(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], distance: Distance, *, k: int
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """Distances within x, within y, and from x to y: with a graph or walks, on the cloud that both make.

    Raises:
        ValueError: as `within` does.
    """
    if distance in ("geodesic", "diffusion"):
        n, both = len(x), within(torch.cat([x, y]), distance, k=k)
        return both[:n, :n], both[n:, n:], both[:n, n:]
    across = _direct(x, y, distance)
    return _direct(x, x, distance), _direct(y, y, distance), across


def _direct(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    if distance == "sphere":
        return sphere_distances(x, y)
    if distance == "euclidean":
        return chord_distances(x, y)
    if distance == "cosine":
        return 1 - x @ y.T
    raise ValueError(f"distance must be one of {', '.join(get_args(Distance))}; got {distance!r}")


def _square(lengths: Float[Tensor, " p"], n: int) -> Float[Tensor, "n n"]:
    """Lengths of all pairs i < j as a symmetric matrix."""
    first, second = torch.triu_indices(n, n, 1, device=lengths.device)
    upper = lengths.new_zeros(n, n).index_put((first, second), lengths)
    return upper + upper.T
