"""What the numbers say, in words: rules with fixed thresholds on measured values and their references.

Every pair gets one finding about how it is related (`RELATIONS`, the first rule that applies) and those of `BESIDES`
that apply. `agreement` is 0 at the level of shuffled rows and 1 for a perfect copy. The thresholds are conventions,
chosen for contrast and not fitted to data; the sentences give the numbers, so that readers may draw other lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from labkit.diagnosis.evidence import LEVEL, Evidence
from labkit.diagnosis.result import Finding

EXACT = 0.999  # agreement of Procrustes from which only rigid motions and scale differ
MUCH = 0.5  # agreement from which most of the structure is common
LITTLE = 0.2  # agreement up to which little of it is
APART = 0.05  # distance of means in units of total variance from which a shift is worth a word
DIMENSIONS = 1.25  # ratio of dimensions from which they count as different
CONE = 0.5  # mean cosine of different points from which a cloud is a narrow cone
HUBS = 1.0  # skewness from which there are hubs (Radovanovic et al. 2010)
# blind to the pairing: in a shared space, and in any
SHAPES = ("mmd", "gromov_wasserstein")
ENOUGH = 100  # samples from which "nothing found" means something

Rule = Callable[[Evidence], Finding | None]
Rows = dict[str, dict[str, Any]]  # of the table of clouds by measure, of one modality


def find(clouds: pd.DataFrame, measures: pd.DataFrame, *, shared: bool) -> tuple[Finding, ...]:
    """Findings about every pair, then about every modality.

    Args:
        clouds: table of clouds, `labkit.diagnosis.result.CLOUD_COLUMNS`.
        measures: table of measures, `labkit.diagnosis.result.MEASURE_COLUMNS`.
        shared: whether the modalities live in one space.
    """
    found: list[Finding] = []
    for _, rows in measures.groupby(["source", "target"], sort=False):
        evidence = Evidence(clouds, rows, shared)
        relation = next((f for rule in RELATIONS if (f := rule(evidence)) is not None), None)
        found += [relation] if relation else []
        found += [f for rule in BESIDES if (f := rule(evidence)) and f.name != (relation and relation.name)]
    for _, table in clouds.groupby("modality", sort=False):
        rows = {row["measure"]: row for row in table.to_dict("records")}
        found += [f for about in ABOUT_CLOUDS if (f := about(rows)) is not None]
    return tuple(found)


def exact_copy(e: Evidence) -> Finding | None:
    """Only a rigid motion and a scale lie between the clouds."""
    if not (e.related and e.agreement("procrustes") >= EXACT):
        return None
    numbers = e.said("procrustes", "cka", "mutual_knn")
    if not e.shared:
        sentence = (
            f"{e.target} is {e.source} up to rotation, reflection, shift and scale: {numbers}. Which of these it is "
            "cannot be told in spaces of their own."
        )
        title = "Copy up to rotation, shift and scale"
        return _about(e, "rotated_copy", title, sentence, ("procrustes", "cka", "mutual_knn"))
    ratio = _spread_ratio(e)
    scaled = (1 - ratio) ** 2 / (1 + ratio**2)  # displacement that the scale alone makes
    evidence = ("procrustes", "displacement", "offset")
    numbers = e.said(*evidence)
    if e.number("displacement") > scaled + 1 - EXACT:
        sentence = f"{e.target} is {e.source} turned: the shapes are equal, the coordinates are not; {numbers}."
        return _about(e, "rotated_copy", "Rotated copy", sentence, evidence)
    if scaled > 1 - EXACT:
        sentence = f"{e.target} is {e.source}, {ratio:.3g} times as wide; {numbers}."
        return _about(e, "scaled_copy", "Scaled copy", sentence, evidence)
    if e.number("offset") > 1 - EXACT:
        sentence = f"{e.target} is {e.source} moved as a whole; {numbers}."
        return _about(e, "shifted", "Shifted copy", sentence, evidence)
    return _about(e, "identical", "Identical", f"Every pair has the same coordinates; {numbers}.", evidence)


def noisy_copy(e: Evidence) -> Finding | None:
    """The same shape and neighborhoods, not exactly."""
    shape = min(e.agreement("procrustes"), e.agreement("cka"))
    if not (e.related and shape >= MUCH and e.agreement("mutual_knn") > LITTLE):
        return None
    numbers = e.said("procrustes", "cka", "mutual_knn")
    where = ""
    if e.shared and e.number("displacement") > 1 - MUCH:
        where = f" The coordinates do not agree ({e.said('displacement')}): it is turned, too."
    sentence = f"{e.target} is close to a copy of {e.source}, up to rotation, shift and scale: {numbers}.{where}"
    strength = "strong" if shape >= (1 + MUCH) / 2 else "moderate"
    return _about(e, "noisy_copy", "Noisy copy", sentence, ("procrustes", "cka", "mutual_knn"), strength)


def same_globally(e: Evidence) -> Finding | None:
    """Far points correspond, near ones do not."""
    shape = max(e.agreement("cka"), e.agreement("procrustes"))
    if not (e.related and shape >= MUCH and e.agreement("mutual_knn") <= LITTLE):
        return None
    sentence = (
        f"What is far apart in {e.source} is far apart in {e.target}, but the nearest neighbors are others: "
        f"{e.said('cka', 'procrustes', 'mutual_knn')}."
    )
    title = "Same global shape, different neighborhoods"
    return _about(e, "same_global_shape", title, sentence, ("cka", "procrustes", "mutual_knn"))


def same_locally(e: Evidence) -> Finding | None:
    """Near points correspond, the whole does not."""
    shape = max(e.agreement("cka"), e.agreement("procrustes"))
    if not (e.related and shape < MUCH <= e.agreement("mutual_knn")):
        return None
    sentence = (
        f"{e.source} and {e.target} have their neighbors in common, but not their global shape, as after bending or "
        f"stretching: {e.said('mutual_knn', 'cka', 'procrustes')}."
    )
    title = "Same neighborhoods, different global shape"
    return _about(e, "same_neighborhoods", title, sentence, ("mutual_knn", "cka", "procrustes"))


def partly_related(e: Evidence) -> Finding | None:
    """Beyond chance, far from a copy: the usual case."""
    if not e.related:
        return None
    beyond = [m for m, p in e.adjusted.items() if p <= LEVEL]
    most = max(e.agreement(m) for m in beyond)
    sentence = (
        f"{e.source} and {e.target} have more in common than shuffled rows, and are far from a copy: "
        f"{e.said(*e.adjusted)}."
    )
    strength = "strong" if most >= MUCH else "moderate" if most >= LITTLE else "weak"
    return _about(e, "partly_related", "Related, far from a copy", sentence, tuple(beyond), strength)


def undecided(e: Evidence) -> Finding | None:
    """No number of shuffles this small could show a relation."""
    if e.related or e.decidable or not e.adjusted:
        return None
    needed = math.ceil(len(e.adjusted) / LEVEL) - 1
    sentence = (
        f"Whether {e.source} and {e.target} are related cannot be told from so few shuffles: {needed} are needed for "
        f"{len(e.adjusted)} measures; {e.said(*e.adjusted)}."
    )
    return _about(e, "undecided", "Too few shuffles to tell", sentence, tuple(e.adjusted), "weak")


def not_paired(e: Evidence) -> Finding | None:
    """The same points in another order."""
    if e.related or not e.adjusted or _shapes_differ(e):
        return None
    closer = [m for m in SHAPES if e.has(m) and e.same_points(m)]
    if not closer:
        return None
    sentence = (
        f"The shapes of {e.source} and {e.target} are closer than two samples of one cloud "
        f"({e.said(*closer, whole=True)}), but the rows do not correspond ({e.said(*e.adjusted)}): they are in another "
        "order."
    )
    return _about(e, "rows_not_paired", "Same shape, rows not paired", sentence, (*closer, *e.adjusted))


def same_distribution(e: Evidence) -> Finding | None:
    """Two samples of one distribution."""
    shapes = [m for m in SHAPES if e.has(m)]
    if e.related or not e.adjusted or not shapes or _shapes_differ(e):
        return None
    sentence = (
        f"The shapes of {e.source} and {e.target} differ no more than halves of one cloud ({e.said(*shapes)}), and "
        f"the rows do not correspond ({e.said(*e.adjusted)}): two samples of one distribution, or shuffled rows."
    )
    title = "Indistinguishable from split halves of one cloud"
    strength = "moderate" if e.number(shapes[0], "n") >= ENOUGH else "weak"
    return _about(e, "split_halves", title, sentence, (*shapes, *e.adjusted), strength)


def unrelated(e: Evidence) -> Finding | None:
    """Nothing in common beyond chance."""
    if e.related or not e.adjusted:
        return None
    shapes = [m for m in SHAPES if e.differs(m)]
    sentence = f"{e.source} and {e.target} have no more in common than shuffled rows: {e.said(*e.adjusted)}"
    if not shapes:  # and none was measured, or another rule would have spoken
        unknown = f"{sentence}. Whether their shapes agree was not measured."
        return _about(e, "unrelated", "Rows do not correspond", unknown, tuple(e.adjusted), "weak")
    strength = "strong" if e.number(next(iter(e.adjusted)), "n") >= ENOUGH else "moderate"
    sentence = f"{sentence}, and their shapes differ: {e.said(*shapes)}."
    return _about(e, "unrelated", "Unrelated", sentence, (*e.adjusted, *shapes), strength)


def shifted(e: Evidence) -> Finding | None:
    """In a shared space the centers are apart."""
    if not (e.shared and e.differs("offset") and e.number("offset") >= APART):
        return None
    sentence = f"The centers of {e.source} and {e.target} are apart: {e.said('offset', 'mmd')}."
    strength = "strong" if e.number("offset") >= 10 * APART else "moderate"
    return _about(e, "shifted", "Shifted", sentence, ("offset",), strength)


def other_dimension(e: Evidence) -> Finding | None:
    """Manifolds of different dimension by both estimators."""
    told = []
    for measure in ("dimension_two_nn", "dimension_levina_bickel"):
        a, b = e.cloud(e.source, measure), e.cloud(e.target, measure)
        if a is None or b is None:
            return None
        small, large = sorted((a, b), key=lambda row: row["value"])
        if small["high"] >= large["low"] or large["value"] < DIMENSIONS * small["value"]:
            return None
        told.append(f"{measure} {a['value']:.1f} and {b['value']:.1f}")
    sentence = f"{e.source} and {e.target} have different intrinsic dimensions: {', '.join(told)}."
    evidence = ("dimension_two_nn", "dimension_levina_bickel")
    return _about(e, "different_dimension", "Different intrinsic dimension", sentence, evidence, "moderate")


RELATIONS: tuple[Rule, ...] = (
    exact_copy,
    noisy_copy,
    same_globally,
    same_locally,
    partly_related,
    undecided,
    not_paired,
    same_distribution,
    unrelated,
)
BESIDES: tuple[Rule, ...] = (shifted, other_dimension)


def narrow_cone(rows: Rows) -> Finding | None:
    """All points in nearly one direction."""
    row = rows.get("mean_cosine")
    if row is None or not row["low"] >= CONE:
        return None
    sentence = (
        f"Different samples of {row['modality']} have a mean cosine of {row['value']:.2f}: cosines tell little apart "
        "before the mean is taken off."
    )
    strength = "strong" if row["low"] >= (1 + CONE) / 2 else "moderate"
    return _of_cloud(row, "narrow_cone", "Narrow cone", sentence, strength)


def hubs(rows: Rows) -> Finding | None:
    """Few points are neighbors of very many others."""
    row = rows.get("hubness")
    if row is None or not row["low"] >= HUBS:
        return None
    sentence = (
        f"Some samples of {row['modality']} are among the nearest neighbors of very many others: the skewness of how "
        f"often is {row['value']:.2g} [{row['low']:.2g}, {row['high']:.2g}] ({row['note']})."
    )
    return _of_cloud(row, "hubs", "Hubs", sentence, "strong" if row["low"] >= 2 * HUBS else "moderate")


def fragments(rows: Rows) -> Finding | None:
    """The graph of neighbors falls apart."""
    row = rows.get("components")
    if row is None or row["value"] < 2:
        return None
    sentence = f"{row['modality']} falls into {row['value']:.0f} parts that share no neighbors ({row['note']})."
    return _of_cloud(row, "fragments", "Separate parts", sentence, "strong")


def no_curvature(rows: Rows) -> Finding | None:
    """Curvature was refused."""
    row = rows.get("scalar_curvature")
    if row is None or not math.isnan(row["value"]):
        return None
    sentence = f"The curvature of {row['modality']} was {row['note']}."
    return _of_cloud(row, "no_curvature", "Curvature cannot be estimated", sentence, "strong")


ABOUT_CLOUDS: tuple[Callable[[Rows], Finding | None], ...] = (narrow_cone, hubs, fragments, no_curvature)


def _of_cloud(row: dict[str, Any], name: str, title: str, sentence: str, strength: str) -> Finding:
    return Finding(name, title, sentence, (row["measure"],), strength, row["modality"])


def _about(
    e: Evidence, name: str, title: str, sentence: str, evidence: tuple[str, ...], strength: str = "strong"
) -> Finding:
    return Finding(name, title, sentence, evidence, strength, e.source, e.target)


def _spread_ratio(e: Evidence) -> float:
    a, b = e.cloud(e.source, "spread"), e.cloud(e.target, "spread")
    return 1.0 if a is None or b is None or a["value"] == 0 else b["value"] / a["value"]


def _shapes_differ(e: Evidence) -> bool:
    return any(e.differs(m) for m in SHAPES)
