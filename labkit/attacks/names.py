"""Names of attacks, as configurations, the command line and the column "corruption" of scores have them.

    ATTACK[_NORM][_INPUTS][_targeted]        e.g. pgd, apgd_l2, pgd_linf_pixels, apgd_l2_features_targeted

Stored names have all parts. Without a norm it is linf; without inputs, pixels where the items are pictures whose
encoder has a gradient, else features. Steps, restarts and k are the defaults of `Threat`: one name is one attack.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import pandas as pd

from labkit.attacks import ATTACKS
from labkit.attacks.ball import NORMS, Norm
from labkit.attacks.evaluation import Goal, Threat
from labkit.attacks.inputs import Features, Pixels
from labkit.corruptions import level

INPUTS: dict[str, type[Pixels] | type[Features]] = {"pixels": Pixels, "features": Features}


@dataclass(frozen=True)
class Named:
    """What a name says.

    Attributes:
        threat: the attack.
        inputs: what is attacked, one of `INPUTS`; empty where the name leaves it open.
    """

    threat: Threat
    inputs: str

    def __str__(self) -> str:
        return self.threat.label(self.inputs)


def parsed(name: str) -> Named:
    """The attack called `name`.

    Raises:
        UnknownNameError: no attack is called so; the message names the nearest.
    """
    parts = name.split("_")

    def last(allowed: Collection[str]) -> str:
        return parts.pop() if len(parts) > 1 and parts[-1] in allowed else ""

    goal = cast("Goal", last(["targeted"]) or "untargeted")
    inputs = last(INPUTS)
    norm = cast("Norm", last(NORMS) or "linf")
    return Named(Threat("_".join(parts), norm, goal), inputs)


def canonical(name: str) -> str:
    """The name with its norm written out and an alias resolved.

    Raises:
        UnknownNameError: no attack is called so.
    """
    return str(parsed(name))


def is_attack(name: str) -> bool:
    """Whether a value of the column "corruption" is the name of an attack."""
    return name.split("_")[0] in ATTACKS


def budget(name: str, severity: int) -> tuple[float, str]:
    """Radius of the ball at a severity, in the unit in which people read it, and that unit.

    Args:
        name: of an attack, with its inputs.
        severity: 0..5.

    Raises:
        UnknownNameError: no attack is called so.
        ValueError: the name leaves the inputs open, or a severity outside 0..5.
    """
    named = parsed(name)
    if not named.inputs:
        raise ValueError(f"{name!r} leaves open what is attacked: {named}_pixels and {named}_features have other units")
    kind = INPUTS[named.inputs]
    return level(severity, kind.budgets[named.threat.norm]) / kind.one, kind.unit


def with_budgets(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of attacks in a table with the columns corruption and severity, with the columns radius and unit.

    Raises:
        ValueError: no attack among them.
    """
    rows = table[[is_attack(name) for name in table["corruption"]]]
    if rows.empty:
        there = ", ".join(sorted(set(map(str, table["corruption"])))) or "nothing"
        raise ValueError(
            f"no attack in this table; it has {there}: measure one, e.g. `labkit robustness RUN --attack pgd`"
        )
    of = rows[["corruption", "severity"]].itertuples(index=False)
    radius, unit = zip(*(budget(name, int(severity)) for name, severity in of), strict=True)
    return rows.assign(radius=radius, unit=unit)
