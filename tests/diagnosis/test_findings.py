"""Findings in words: each failure of alignment gets its name, over several seeds, and no other failure does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import labkit
from labkit.diagnosis import Diagnosis, Effort

QUICK = Effort(shuffles=99, pooled=99, splits=5)
MEASURES = ("procrustes", "cka", "mutual_knn", "mmd", "offset", "displacement")
UNSHARED = ("procrustes", "cka", "mutual_knn", "gromov_wasserstein")
EXPECTED = {
    "identical": {"identical"},
    "rotation": {"rotated_copy"},
    "shuffled": {"rows_not_paired"},
    "shift": {"shifted"},
    "scaled": {"scaled_copy"},
    "noise": {"noisy_copy"},
    "halves": {"split_halves"},
    "independent": {"unrelated"},
    "neighborhoods": {"same_global_shape"},
    "partial": {"partly_related"},
}

FAILURES = ("rotation", "shuffled", "shift", "noise", "halves", "independent")


def names(found: Diagnosis) -> set[str]:
    return {f.name for f in found.findings if f.target}


@pytest.mark.parametrize(
    ("case", "seed"), [(case, seed) for case in EXPECTED for seed in range(3 if case in FAILURES else 1)]
)
def test_each_failure_has_its_name(case: str, seed: int, misaligned: Callable) -> None:
    found = labkit.diagnose(misaligned(case, seed), shared=True, measures=MEASURES, effort=QUICK, seed=seed)
    relations = names(found) - {"different_dimension"}
    assert EXPECTED[case] <= relations, str(found)
    assert not (relations - EXPECTED[case]) & set().union(*EXPECTED.values()), str(found)


@pytest.mark.parametrize(
    ("case", "expected", "seed"),
    [
        ("shift", "rotated_copy", 0),  # up to rotation, shift and scale: more cannot be told
        ("shuffled", "rows_not_paired", 0),
        ("shuffled", "rows_not_paired", 1),
        ("halves", "split_halves", 0),
        ("halves", "split_halves", 1),
        ("independent", "unrelated", 0),
        ("independent", "unrelated", 1),
    ],
)
def test_spaces_of_their_own_are_told_apart_by_distances(
    case: str, expected: str, seed: int, misaligned: Callable
) -> None:
    x, y = misaligned(case, seed, n=100)
    wider = torch.nn.functional.pad(y, (0, 3))
    found = labkit.diagnose((x, wider), measures=UNSHARED, effort=Effort(splits=3), seed=seed)
    assert expected in names(found), str(found)
    assert not {"shifted", "identical"} & names(found)


def test_bent_manifolds_keep_their_neighborhoods() -> None:
    g = torch.Generator().manual_seed(0)
    angle, height = 4.7 + 9.4 * torch.rand(400, generator=g), 21 * torch.rand(400, generator=g)
    roll = torch.stack([angle * angle.cos(), height, angle * angle.sin()], dim=1)
    found = labkit.diagnose((torch.stack([angle**2 / 2, height], dim=1), roll), measures=MEASURES[:3], k=8)
    assert "same_neighborhoods" in names(found), str(found)
    assert "different_dimension" not in names(found)


def test_sentences_give_numbers_and_references(misaligned: Callable) -> None:
    found = labkit.diagnose(misaligned("noise", 0), measures=MEASURES[:3], effort=QUICK)
    finding = next(f for f in found.findings if f.name == "noisy_copy")
    table = found.measures.set_index("measure")
    assert set(finding.evidence) == {"procrustes", "cka", "mutual_knn"}
    for measure in finding.evidence:
        row = table.loc[measure]
        assert f"{measure} {row['value']:.3g} (shuffled rows: {row['reference_low']:.3g} to" in finding.sentence
    assert (finding.source, finding.target) == ("x", "y")


def test_dimensions_that_differ_are_named() -> None:
    g = torch.Generator().manual_seed(0)
    flat = torch.rand(300, 2, generator=g)
    found = labkit.diagnose((flat, torch.rand(300, 6, generator=g)), measures=("cka",), effort=QUICK)
    finding = next(f for f in found.findings if f.name == "different_dimension")
    assert "dimension_two_nn 2." in finding.sentence or "dimension_two_nn 1.9" in finding.sentence


def test_refused_curvature_is_said_with_its_reason() -> None:
    found = labkit.diagnose({"x": torch.randn(100, 6, generator=torch.Generator().manual_seed(0))})
    finding = next(f for f in found.findings if f.name == "no_curvature")
    assert "takes" in finding.sentence
    assert "neighbors at least" in finding.sentence


def test_the_sphere_has_its_curvature_and_no_refusal() -> None:
    sphere = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    found = labkit.diagnose({"x": 7 * sphere})
    row = found.clouds.set_index("measure").loc["scalar_curvature"]
    assert row["value"] == pytest.approx(2, rel=0.15)  # in units of the spread: whatever its radius
    assert row["low"] <= row["value"] <= row["high"]
    assert found.clouds.set_index("measure").loc["curvature_refused", "value"] == 0
    assert "no_curvature" not in {f.name for f in found.findings}


def test_few_shuffles_decide_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    found = labkit.diagnose((x, x + 0.1), measures=["cka", "mutual_knn", "procrustes"], effort=Effort(shuffles=19))
    assert "undecided" in [f.name for f in found.findings]
    assert "59 are needed for 3 measures" in found.findings[0].sentence
    enough = labkit.diagnose((x, x + 0.1), measures=["cka", "mutual_knn", "procrustes"], effort=Effort(shuffles=59))
    assert "undecided" not in [f.name for f in enough.findings]
