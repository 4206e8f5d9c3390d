"""Names of attacks: what they leave open, what they say, and the budgets behind severities."""

from __future__ import annotations

import pandas as pd
import pytest

from labkit import attacks
from labkit.attacks import ATTACKS, Threat
from labkit.attacks.ball import NORMS
from labkit.attacks.names import INPUTS
from labkit.registry import UnknownNameError


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_stored_names_say_all(attack, norm, goal):
    for inputs in INPUTS:
        threat = Threat(attack, norm, goal)
        named = attacks.parsed(threat.label(inputs))
        assert (named.threat, named.inputs) == (threat, inputs)
        assert attacks.canonical(threat.label(inputs)) == threat.label(inputs)
        assert attacks.is_attack(threat.label(inputs))


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("pgd", "pgd_linf"),
        ("apgd_l2", "apgd_l2"),
        ("pgd_pixels", "pgd_linf_pixels"),
        ("fgsm_targeted", "fgsm_linf_targeted"),
        ("random_search_l2_features", "random_l2_features"),
    ],
)
def test_shorter_names(name, stored):
    assert attacks.canonical(name) == stored


@pytest.mark.parametrize("name", ["pdg_linf", "pgd_l3", "pgd_targeted_linf", ""])
def test_names_that_there_are_not(name):
    with pytest.raises(UnknownNameError, match="unknown attack"):
        attacks.canonical(name)


def test_corruptions_are_no_attacks():
    assert not any(map(attacks.is_attack, ("none", "gaussian_noise", "missing_modality+nearest")))


def test_budgets_are_in_units_that_people_read():
    assert attacks.budget("pgd_linf_pixels", 4) == (pytest.approx(1), "levels of a pixel, of 255")
    assert attacks.budget("apgd_l2_pixels_targeted", 3)[0] == pytest.approx(32)
    radius, unit = attacks.budget("pgd_linf_features", 5)
    assert (radius, unit) == (0.2, "standard deviations of a feature")
    for name in ("pgd_linf_pixels", "pgd_l2_pixels", "pgd_linf_features", "pgd_l2_features"):
        radii = [attacks.budget(name, severity)[0] for severity in range(6)]
        assert radii == sorted(set(radii))
        assert radii[0] == 0
    with pytest.raises(ValueError, match="'pgd_linf' leaves open what is attacked: pgd_linf_pixels and pgd_linf_feat"):
        attacks.budget("pgd_linf", 1)
    with pytest.raises(ValueError, match="severity must be one of"):
        attacks.budget("pgd_linf_pixels", 6)


def test_tables_get_the_budgets_of_their_attacks():
    table = pd.DataFrame({"corruption": ["jpeg", "pgd_linf_pixels", "pgd_linf_pixels"], "severity": [1.0, 0.0, 5.0]})
    found = attacks.with_budgets(table)
    assert found["radius"].tolist() == pytest.approx([0, 2])
    assert set(found["unit"]) == {"levels of a pixel, of 255"}
    with pytest.raises(ValueError, match="no attack in this table; it has jpeg: measure one"):
        attacks.with_budgets(table[:1])
