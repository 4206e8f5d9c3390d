"""Losses of three and more modalities at once: volume, area and rank of a sample's vectors, and total correlation.

Each scores a tuple of unit vectors, one per modality, and contrasts the true tuples of a batch with tuples in which
one modality is exchanged. With two modalities GRAM's volume is |sin| of the angle, so antipodal vectors look aligned;
with three it vanishes for coplanar ones. PMRL knows no signs either. `antipodal` is zero where they cannot be mistaken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses import LOSSES
from labkit.losses._checks import check_paired
from labkit.losses._precision import full_precision

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FLOOR = 1e-12  # added to determinants, whose square root has no gradient at zero


@full_precision
def gram_volume(anchor: Float[Tensor, "n d"], *others: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Volume of the parallelotope of anchor i and the other modalities' vectors of sample j; 0..1 for unit vectors.

    Formula: sqrt(det G_ij + 1e-12), G_ij the Gram matrix of [a_i, b_j, c_j, ...]. With H_j the Gram matrix of the
    others and v their products with the anchor, det G = det H - v' adj(H) v: only n small determinants, no division.

    Source:
        Cicchetti et al. 2025, arXiv:2412.11959, section 3.
    """
    anchor, rest = F.normalize(anchor, dim=1), torch.stack([F.normalize(z, dim=1) for z in others], dim=1)
    gram = rest @ rest.transpose(1, 2)
    products = torch.einsum("nd,mkd->nmk", anchor, rest)
    explained = torch.einsum("nmk,mkl,nml->nm", products, _adjugate(gram), products)
    return ((_determinant(gram) - explained).clamp(min=0) + FLOOR).sqrt()


@LOSSES.register("gram")
@full_precision
def gram(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *others: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.07,
    label_smoothing: float = 0.1,
    group: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Contrast of volumes: a sample's vectors span less volume than tuples with another sample's anchor.

    Formula: 1/2 [CE(-V / temperature, T) + CE(-V' / temperature, T)], V_ij the volume of x_i and sample j's others, T
    uniform over the positives of a row. Rows are normalized inside. Lower is better.

    Args:
        x: the anchor modality (text in the paper).
        y: another modality.
        others: more of them.
        temperature: divides the volumes; a number or a learnable scalar.
        label_smoothing: as in the authors' code.
        group: samples with the same value are positives of each other; every sample is its own group by default.

    Raises:
        ValueError: the modalities are not matrices of one shape with two or more rows.

    Source:
        Cicchetti et al. 2025, arXiv:2412.11959, section 3; smoothing as in the authors' code.
    """
    for z in (y, *others):
        check_paired(x, z)
    return _contrast(-gram_volume(x, y, *others) / temperature, group, label_smoothing)


@full_precision
def triangle_area(
    anchor: Float[Tensor, "n d"], second: Float[Tensor, "m d"], third: Float[Tensor, "m d"]
) -> Float[Tensor, "n m"]:
    """Twice the squared area of the triangle of anchor i and the tips second j and third j; 0 where two tips coincide.

    Formula: (|u|^2 |w|^2 - (u.w)^2) / 2 with u = a_i - b_j and w = a_i - c_j, of unit vectors (normalized inside).

    Source:
        Cicchetti et al. 2025 (TRIANGLE, arXiv:2509.24734); the area is squared as in the authors' code.
    """
    x, y, z = (F.normalize(v, dim=1) for v in (anchor, second, third))
    to_y, to_z, between = x @ y.T, x @ z.T, (y * z).sum(dim=1)
    dot = 1 - to_y - to_z + between
    return ((2 - 2 * to_y) * (2 - 2 * to_z) - dot.square()) / 2


@LOSSES.register("triangle")
@full_precision
def triangle(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    z: Float[Tensor, "n d"] | None = None,
    *,
    temperature: float | Float[Tensor, ""] = 0.07,
    group: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Contrast of areas: the tips of a sample's three vectors span a smaller triangle than those of other tuples.

    Formula: 1/2 [CE(-A / temperature, T) + CE(-A' / temperature, T)], A_ij the `triangle_area` of x_i, y_j and z_j;
    without a third modality z = -y, which makes it the triangle with the antipode. T is uniform over the positives of
    a row: the sample, and those with its value in `group`. Lower is better.

    Raises:
        ValueError: the modalities are not matrices of one shape with two or more rows.

    Source:
        Cicchetti et al. 2025 (TRIANGLE, arXiv:2509.24734); the area is squared as in the authors' code.
    """
    third = -y if z is None else z
    for other in (y, third):
        check_paired(x, other)
    return _contrast(-triangle_area(x, y, third) / temperature, group, 0.0)


@full_precision
def leading_directions(*z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n d"]]:
    """Singular values of each sample's k stacked unit vectors, ascending, and the direction of the largest.

    Formula: Z = U S V', Z [k, d] the rows of a sample, normalized inside; S, and the row of V' of its largest value,
    whose sign is arbitrary.

    Source:
        Liu et al. 2025 (PMRL), arXiv:2507.17343.
    """
    stacked = torch.stack([F.normalize(v, dim=1) for v in z], dim=1)
    # of the small Gram matrix; the ramp splits equal eigenvalues (orthogonal vectors), whose vectors have no gradient
    ramp = 1e-5 * torch.arange(stacked.shape[1], device=stacked.device, dtype=torch.float64).diag()
    values, vectors = torch.linalg.eigh((stacked @ stacked.transpose(1, 2)).double() + ramp)
    directions = torch.einsum("nk,nkd->nd", vectors[:, :, -1].to(stacked.dtype), stacked)
    return (values.clamp(min=0) + FLOOR).sqrt().to(stacked.dtype), F.normalize(directions, dim=1)


@LOSSES.register("pmrl")
@full_precision
def pmrl(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *others: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.1,
    temperature_between: float | Float[Tensor, ""] = 0.1,
    group: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Rank one: a sample's vectors have one large singular value, and their leading directions differ between samples.

    Formula: mean_i CE(s_i / temperature, first) + CE(|U U'| / temperature_between, T), s_i the singular values of
    sample i's stacked unit vectors and u_i the direction of the largest, whose sign means nothing; T is uniform over
    the positives of a row: the sample, and those with its value in `group`. No anchor.

    Raises:
        ValueError: the modalities are not matrices of one shape with two or more rows.

    Source:
        Liu et al. 2025 (PMRL), arXiv:2507.17343; |.| added, as the direction of a singular vector is arbitrary.
    """
    for z in (y, *others):
        check_paired(x, z)
    values, leading = leading_directions(x, y, *others)
    scores = values / temperature
    first = torch.full((len(x),), scores.shape[1] - 1, device=x.device)
    similar = (leading @ leading.T).abs() / temperature_between
    return F.cross_entropy(scores, first) + F.cross_entropy(similar, _positives(similar, group))


@LOSSES.register("symile")
@full_precision
def symile(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    *others: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.07,
    group: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Total correlation of all modalities: InfoNCE on the multilinear inner product; log n for an uninformative space.

    Formula: mean over anchors m of CE(S_m / temperature, T), S_ij = sum_d a_i,d prod_{others o} o_j,d: each modality
    in turn is the anchor and the others are exchanged together; T is uniform over the positives of a row: the sample,
    and those with its value in `group`. Rows are normalized inside; for two modalities this is InfoNCE.

    Raises:
        ValueError: the modalities are not matrices of one shape with two or more rows.

    Source:
        Saporta et al. 2024 (Symile), arXiv:2411.01053, the multilinear inner product.
    """
    for z in (y, *others):
        check_paired(x, z)
    units = [F.normalize(z, dim=1) for z in (x, y, *others)]
    terms = []
    for m, anchor in enumerate(units):
        rest = torch.stack([z for o, z in enumerate(units) if o != m]).prod(dim=0)
        scores = anchor @ rest.T / temperature
        terms.append(F.cross_entropy(scores, _positives(scores, group)))
    return torch.stack(terms).mean()


@full_precision
def antipodal(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """How far partners lie in opposite halves of the sphere; 0 where no angle is obtuse, 1 for antipodes.

    Formula: mean_i max(0, -<x_i, y_i>), unit rows (normalized inside). Added to a loss that knows no signs it settles
    them and then vanishes.

    Raises:
        ValueError: x and y are not two matrices of one shape with two or more rows.

    Source:
        labkit, for GRAM and PMRL where retrieval is by the cosine.
    """
    check_paired(x, y)
    return F.relu(-(F.normalize(x, dim=1) * F.normalize(y, dim=1)).sum(dim=1)).mean()


def _contrast(scores: Tensor, group: Tensor | None, label_smoothing: float) -> Tensor:
    target = _positives(scores, group)
    both = (F.cross_entropy(s, target, label_smoothing=label_smoothing) for s in (scores, scores.T))
    return torch.stack(list(both)).mean()


def _positives(scores: Tensor, group: Tensor | None) -> Tensor:
    if group is None:
        return torch.eye(len(scores), dtype=scores.dtype, device=scores.device)
    same = (group[:, None] == group).to(scores.dtype)
    return same / same.sum(dim=1, keepdim=True)


def _determinant(matrix: Float[Tensor, "n k k"]) -> Float[Tensor, " n"]:
    """Closed forms up to k = 2: their gradient needs no inverse, which a singular matrix lacks."""
    if matrix.shape[-1] == 0:
        return matrix.new_ones(len(matrix))
    if matrix.shape[-1] == 1:
        return matrix[:, 0, 0]
    if matrix.shape[-1] == 2:
        return matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
    # along the first row
    terms = [(-1) ** j * matrix[:, 0, j] * _determinant(_minor(matrix, 0, j)) for j in range(matrix.shape[-1])]
    return torch.stack(terms).sum(dim=0)


def _adjugate(matrix: Float[Tensor, "n k k"]) -> Float[Tensor, "n k k"]:
    size = range(matrix.shape[-1])
    cofactors = [[(-1) ** (i + j) * _determinant(_minor(matrix, j, i)) for j in size] for i in size]
    return torch.stack([torch.stack(row, dim=-1) for row in cofactors], dim=-2)


def _minor(matrix: Float[Tensor, "n k k"], row: int, column: int) -> Float[Tensor, "n k-1 k-1"]:
    keep = lambda left_out: [i for i in range(matrix.shape[-1]) if i != left_out]
    return matrix[:, keep(row)][:, :, keep(column)]
