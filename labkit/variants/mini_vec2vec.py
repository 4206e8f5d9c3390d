"""mini-vec2vec: two clouds of embeddings are rotated onto each other without a single pair.

    1  k-means in each; centroids matched by min |A - P B P^T|_F over permutations P, A and B their cosines  (QAP)
    2  every item described by its cosines to all matched centroids, standardized               (relative space)
    3  each x paired with the mean of the y nearest there; Q = U V^T of x^T y                    (Procrustes)
    4  each x Q paired with the mean of the y nearest to it, Q moved halfway to the new solution     (ICP)
    5  k-means from the centroids of x, moved by Q, as the start in y; Procrustes of the centroids

Step 1 is repeated on other draws, of each modality's items by itself, and all centroids are used. Dar 2025,
"mini-vec2vec: scaling universal geometry alignment with linear transformations". Made for encoders of one modality
and tens of thousands of items. Several modalities and some hundred items are much harder: on stamps recall@10 of image
and text is two to three times chance, and chance or less where speech is one of the two. What is never looked at: see
`labkit.variants._unpaired`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from labkit.variants import VARIANTS
from labkit.variants._base import Options
from labkit.variants._unpaired import Unpaired, UnpairedOptions, rotation

if TYPE_CHECKING:
    from jaxtyping import Float, Int

QAP_STARTS = 30
SHARE = 0.8  # of the items, drawn anew in each modality for each clustering
ICP_SHARE = 0.5  # of the items of x in a refinement step
ITEMS_PER_FINE_CLUSTER = 4


class MiniVec2VecOptions(UnpairedOptions):
    """Hyper-parameters of mini-vec2vec.

    Attributes:
        clusters: centroids of one clustering; their number is also limited by a third of the items.
        repeats: clusterings that are matched.
        neighbors: items of the other modality whose mean is a partner.
        refinements: steps of ICP.
    """

    clusters: Annotated[int, Field(ge=3)] = 20
    repeats: Annotated[int, Field(ge=1)] = 30
    neighbors: Annotated[int, Field(ge=1)] = 10
    refinements: Annotated[int, Field(ge=0)] = 100


@VARIANTS.register("mini_vec2vec", aliases=("mini-vec2vec",))
class MiniVec2Vec(Unpaired):
    """Unpaired rotation from matched centroids; two or more modalities. Source: Dar 2025 (mini-vec2vec)."""

    Options: ClassVar[type[Options]] = MiniVec2VecOptions
    options: MiniVec2VecOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dim": (32, 64, 128),
        "clusters": (10, 20, 40),
        "neighbors": (5, 10, 20, 50),
    }

    def match(self, x: Tensor, y: Tensor, modality: str, random: np.random.Generator) -> Tensor:
        """The five steps."""
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        anchors = self._anchors(x, y, random)
        relative_x, relative_y = (_relative(z, a) for z, a in zip((x, y), anchors, strict=True))
        k = min(self.options.neighbors, len(y))
        q = rotation(x, _mean_of_nearest(relative_x @ relative_y.T, y, k))
        size = max(2, round(ICP_SHARE * len(x)))
        for _ in range(self.options.refinements):
            some = x[torch.as_tensor(random.choice(len(x), size, replace=False), device=x.device)]
            q = _orthogonal(q + rotation(some, _mean_of_nearest(some @ q @ y.T, y, k)))
        return self._by_clusters(x, y, q, random)

    def _anchors(self, x: Tensor, y: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Matched centroids of all clusterings `[repeats * clusters, k]`."""
        count = max(2, min(self.options.clusters, min(len(x), len(y)) // 3))
        draws = range(self.options.repeats)
        first = torch.stack([_centroids(_drawn(x, random), count, random) for _ in draws])
        second = torch.stack([_centroids(_drawn(y, random), count, random) for _ in draws])
        found = assign(_cosines(first), _cosines(second), starts=QAP_STARTS, random=random)
        second = second.gather(1, found[..., None].expand_as(second))
        return first.flatten(0, 1), second.flatten(0, 1)

    def _by_clusters(self, x: Tensor, y: Tensor, q: Tensor, random: np.random.Generator) -> Tensor:
        """Rotation between many centroids, those of y found from those of x."""
        count = min(len(x), len(y)) // ITEMS_PER_FINE_CLUSTER
        if count <= x.shape[1]:  # too few to fix a rotation
            return q
        first = _centroids(x, count, random)
        second = _centroids(y, count, random, start=first @ q)
        return rotation(first, second)


def assign(
    a: Float[Tensor, "r n n"], b: Float[Tensor, "r n n"], *, starts: int, random: np.random.Generator
) -> Int[Tensor, "r n"]:
    """Permutations p that bring symmetric matrices together: the largest sum_ij a_ij b_p(i)p(j) that is found.

    Exchanges of two, the best of all at a time, from random permutations, until none helps (2-opt); all starts of all
    problems at once.

    Args:
        a: r matrices.
        b: as many.
        starts: random permutations per problem.
        random: they are drawn from.
    """
    r, n = a.shape[:2]
    drawn = random.permuted(np.tile(np.arange(n), (r * starts, 1)), axis=1)
    p = torch.as_tensor(drawn, device=a.device)
    a, b = a.repeat_interleave(starts, dim=0), b.repeat_interleave(starts, dim=0)
    row = torch.arange(len(p), device=a.device)
    while True:
        moved = b[row[:, None, None], p[:, :, None], p[:, None, :]]
        gain, best = exchange_gains(a, moved).flatten(1).max(dim=1)
        if not bool((gain > 1e-9).any()):
            break
        first, second = best // n, best % n
        # a start that cannot improve exchanges a point with itself
        second = torch.where(gain > 1e-9, second, first)
        p_first, p_second = p[row, first], p[row, second]
        p[row, first], p[row, second] = p_second, p_first
    value = (a * moved).sum(dim=(1, 2)).view(r, starts)
    return p.view(r, starts, n)[torch.arange(r, device=a.device), value.argmax(dim=1)]


def exchange_gains(a: Float[Tensor, "r n n"], b: Float[Tensor, "r n n"]) -> Float[Tensor, "r n n"]:
    """By how much sum_ij a_ij b_ij grows when rows and columns s and t of b are exchanged; both are symmetric."""
    product = a @ b
    own = product.diagonal(dim1=1, dim2=2)
    total = product + product.mT - own[:, :, None] - own[:, None, :]
    a_own, b_own = (v.diagonal(dim1=1, dim2=2) for v in (a, b))
    at_s = (a_own[:, :, None] - a) * (b - b_own[:, :, None])
    at_t = (a - a_own[:, None, :]) * (b_own[:, None, :] - b)
    diagonal = (a_own[:, :, None] - a_own[:, None, :]) * (b_own[:, None, :] - b_own[:, :, None])
    return 2 * (total - at_s - at_t) + diagonal


def _drawn(x: Tensor, random: np.random.Generator) -> Tensor:
    size = max(2, round(SHARE * len(x)))
    return x[torch.as_tensor(random.choice(len(x), size, replace=False), device=x.device)]


def _centroids(x: Tensor, count: int, random: np.random.Generator, *, start: Tensor | None = None) -> Tensor:
    """Centroids of k-means, from `start` where it is given."""
    how = {"init": "k-means++"} if start is None else {"init": start.cpu().numpy()}
    model = KMeans(count, n_init=1, random_state=int(random.integers(2**31)), **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies among the items: fewer clusters than asked for
        centers = model.fit(x.cpu().numpy()).cluster_centers_
    return torch.as_tensor(centers, dtype=x.dtype, device=x.device)


def _cosines(centroids: Float[Tensor, "r n k"]) -> Float[Tensor, "r n n"]:
    """Centered cosines between the centroids."""
    rows = F.normalize(centroids - centroids.mean(dim=1, keepdim=True), dim=2)
    return rows @ rows.mT


def _relative(x: Float[Tensor, "n k"], anchors: Float[Tensor, "a k"]) -> Float[Tensor, "n a"]:
    """Unit rows: how much nearer to each anchor than the mean item, in units of its spread."""
    cosines = x @ F.normalize(anchors, dim=1).T
    cosines = (cosines - cosines.mean(dim=0)) / cosines.std(dim=0).clamp(min=1e-12)
    return F.normalize(cosines - cosines.mean(dim=1, keepdim=True), dim=1)


def _mean_of_nearest(similarity: Float[Tensor, "n m"], y: Float[Tensor, "m k"], count: int) -> Float[Tensor, "n k"]:
    """Means of the rows of y that each row is most similar to."""
    near = similarity.topk(count, dim=1).indices
    # as a product: [n, count, k] would be many times larger
    return torch.zeros_like(similarity).scatter_(1, near, 1 / count) @ y


def _orthogonal(q: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(q)
    return u @ vh
