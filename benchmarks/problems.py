"""The problems of the transport benchmark, each drawn afresh from a seed.

    gmm      unit-normalized Gaussian mixture, 10 clusters, two related modalities, uniform weights
    aniso    not normalized: anisotropic, heavy-tailed, shifted clouds with Dirichlet weights
    spaces   for Gromov-Wasserstein: squared distances of features in two dimensions, or geodesics of graphs
    convex   y = grad phi(x), phi(x) = x'Ax / 2 + sum log cosh(Wx), rows permuted: the optimum is known (Brenier 1991)

epsilon is r times the mean cost. Everything is made in float64 by numpy and then cast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components, shortest_path
from sklearn.neighbors import kneighbors_graph

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

CLUSTERS = 10
DIM = 64


@dataclass(frozen=True, eq=False)
class Clouds:
    """An entropic transport problem between weighted clouds, with squared distances as cost.

    Attributes:
        x: Source points, y: target points.
        a: Source weights, b: target weights, each of total 1.
        r: epsilon / mean cost, the mean taken under a b^T as labkit does.
    """

    x: Float[Tensor, "*batch n d"]
    y: Float[Tensor, "*batch m d"]
    a: Float[Tensor, "*batch n"]
    b: Float[Tensor, "*batch m"]
    r: float

    @cached_property
    def cost(self) -> Float[Tensor, "*batch n m"]:
        """Squared distances."""
        return squared_distances(self.x, self.y)

    @cached_property
    def epsilon(self) -> Float[Tensor, "*batch"]:
        """Absolute strength, one for each problem; found without the matrix of costs."""
        means = [torch.einsum("...n,...nd->...d", w, z) for w, z in ((self.a, self.x), (self.b, self.y))]
        squares = [(w * z.square().sum(-1)).sum(-1) for w, z in ((self.a, self.x), (self.b, self.y))]
        return self.r * (squares[0] + squares[1] - 2 * (means[0] * means[1]).sum(-1))

    def to(self, device: str) -> Clouds:
        """The same problem on a device."""
        return Clouds(self.x.to(device), self.y.to(device), self.a.to(device), self.b.to(device), self.r)


@dataclass(frozen=True, eq=False)
class Spaces:
    """Two spaces with uniform weights to be matched by their inner distances, each scaled to mean 1.

    Attributes:
        dx: Distances within the first space, dy: within the second.
        x: Features whose squared distances `dx` are, up to scale; None where there are none. y likewise.
        r: epsilon / objective of the product coupling.
        epsilon: Absolute.
    """

    dx: Float[Tensor, "n n"]
    dy: Float[Tensor, "m m"]
    x: Float[Tensor, "n d"] | None
    y: Float[Tensor, "m k"] | None
    r: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Permuted:
    """Two clouds of n points and the bijection of least squared distance between them.

    Attributes:
        x: Source points, y: target points.
        match: Row of y that belongs to each row of x.
    """

    x: Float[Tensor, "n d"]
    y: Float[Tensor, "n d"]
    match: Tensor

    @property
    def optimum(self) -> float:
        """Mean squared distance of the best bijection."""
        return self.mean_cost(self.match)

    @property
    def product(self) -> float:
        """Mean squared distance of all pairs, which is the cost of knowing nothing."""
        spread = self.x.var(0, correction=0).sum() + self.y.var(0, correction=0).sum()
        return float(spread + (self.x.mean(0) - self.y.mean(0)).square().sum())

    def mean_cost(self, match: Tensor) -> float:
        """Mean squared distance of a bijection; O(n d) memory."""
        return float((self.x - self.y[match]).square().sum(1).mean())

    def gap(self, match: Tensor) -> float:
        """(cost - optimum) / (product coupling - optimum): 0 is optimal, 1 is random."""
        return (self.mean_cost(match) - self.optimum) / (self.product - self.optimum)


def gmm(n: int, r: float, *, seed: int, batch: int = 0, dtype: torch.dtype = torch.float64) -> Clouds:
    """Unit-normalized Gaussian mixture seen by two modalities; `batch` of them, or a single one for 0."""
    random = np.random.default_rng(seed)
    pairs = [_mixture(n, random) for _ in range(max(batch, 1))]
    x, y = (torch.from_numpy(np.stack(side)).to(dtype) for side in zip(*pairs, strict=True))
    if not batch:
        x, y = x[0], y[0]
    uniform = x.new_full(x.shape[:-1], 1 / n)
    return Clouds(x, y, uniform, uniform.clone(), r)


def aniso(n: int, r: float, *, seed: int, dtype: torch.dtype = torch.float64) -> Clouds:
    """Anisotropic, heavy-tailed, shifted clouds with Dirichlet weights."""
    random = np.random.default_rng(seed)
    scales = 2.0 ** (-np.arange(DIM) / 8)
    x = random.standard_t(5, size=(n, DIM)) * scales
    stretch = random.uniform(0.5, 1.5, size=DIM)
    y = random.standard_t(5, size=(n, DIM)) * scales * stretch + 0.2 * random.normal(size=DIM)
    a, b = random.dirichlet(np.ones(n)), random.dirichlet(np.ones(n))
    x, y, a, b = (torch.from_numpy(values).to(dtype) for values in (x, y, a, b))
    return Clouds(x, y, a / a.sum(), b / b.sum(), r)


def features(n: int, r: float, *, seed: int) -> Spaces:
    """Squared distances of features: a mixture, and a noisy copy of it turned in a space of one more dimension."""
    random = np.random.default_rng(seed)
    x, _ = _mixture(n, random)
    copy = np.concatenate([x + 0.05 * random.normal(size=x.shape), np.zeros((n, 1))], axis=1)
    turn = np.linalg.qr(random.normal(size=(DIM + 1, DIM + 1)))[0]
    source, target = torch.from_numpy(x), torch.from_numpy(copy[random.permutation(n)] @ turn)
    return _spaces(squared_distances(source, source), squared_distances(target, target), r, source, target)


def geodesic(n: int, r: float, *, seed: int) -> Spaces:
    """Shortest paths in neighbor graphs of two noisy samples of a swiss roll, the second one rolled tighter."""
    random = np.random.default_rng(seed)
    height, angle = 10 * random.random(n), 1.5 * np.pi * (1 + 2 * random.random(n))
    matrices = []
    for tightness in (1.0, 0.8):
        roll = np.stack([angle * np.cos(tightness * angle), height, angle * np.sin(tightness * angle)], axis=1)
        matrices.append(torch.from_numpy(_geodesics(roll + 0.05 * random.normal(size=roll.shape))))
    return _spaces(matrices[0], matrices[1], r)


def convex(n: int, *, seed: int, dim: int = 32) -> Permuted:
    """Normal points and their images under the gradient of a convex function, in another order."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, dim)).astype(np.float32)
    root = random.normal(size=(dim, dim)) / dim**0.5
    w = random.normal(size=(dim, dim)) / dim**0.5
    moved = x @ (root @ root.T).astype(np.float32) + np.tanh(x @ w.T.astype(np.float32)) @ w.astype(np.float32)
    order = random.permutation(n)
    match = np.empty(n, dtype=np.int64)
    match[order] = np.arange(n)
    return Permuted(torch.from_numpy(x), torch.from_numpy(moved[order]), torch.from_numpy(match))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, by differences where that is cheap, so that the problems do not rest on labkit's own formula."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def _spaces(dx: Tensor, dy: Tensor, r: float, x: Tensor | None = None, y: Tensor | None = None) -> Spaces:
    dx, dy = dx / dx.mean(), dy / dy.mean()
    product = dx.square().mean() + dy.square().mean() - 2
    return Spaces(dx, dy, x, y, r, float(r * product))


def _mixture(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of one mixture, the clusters of the second one displaced, every point of length 1."""
    center = random.normal(size=(CLUSTERS, DIM))
    displaced = center + 0.3 * random.normal(size=(CLUSTERS, DIM))
    x, y = (
        _unit(c[random.integers(CLUSTERS, size=n)] + 0.5 * random.normal(size=(n, DIM))) for c in (center, displaced)
    )
    return x, y


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _geodesics(points: np.ndarray) -> np.ndarray:
    k = 10
    graph = kneighbors_graph(points, k, mode="distance")
    while connected_components(graph, directed=False)[0] > 1:
        k += 5
        graph = kneighbors_graph(points, k, mode="distance")
    return shortest_path(graph, directed=False)
