"""Whether an attack can be believed: what must hold if its gradients lead anywhere.

A defense, or a broken attack, that hides the gradient looks robust and is not. Its signs: one step does better than
many, more steps or a larger budget do worse, attacks made on another model do better than those on the model itself,
noise does better than gradients, it depends on where one starts, and no budget is enough. The checks find signs; that
they find none is no proof. Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security" (ICML),
section 3.1; Carlini et al. 2019, "On evaluating adversarial robustness", arXiv:1902.06705.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from labkit.attacks.evaluation import Threat, evaluate_attack
from labkit.attacks.inputs import Inputs
from labkit.corruptions import level
from labkit.types import Aligner, Embeddings

STEPS = (0.25, 0.5, 1, 2)  # times those of the threat
SEEDS = 3  # random starts that are compared
SLACK = 0.02  # by how much a share may be lower and still count as not lower; or one sample
SPREAD = 0.1  # largest range of shares over starts that matters little; or two samples
COMPLETE = 0.99  # share that must fall where nothing limits the attacker


@dataclass(frozen=True)
class Verdict:
    """What one check says.

    Attributes:
        check: its name, as in the table.
        passed: whether it is as it must be.
        sentence: the expectation and the numbers.
    """

    check: str
    passed: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'as expected' if self.passed else 'SUSPECT'}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Masking:
    """All checks of an attack on a variant.

    Attributes:
        table: one row per setting: check, setting, success (share of samples), n.
        verdicts: one per check.
    """

    table: pd.DataFrame
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is suspect."""
        return all(verdict.passed for verdict in self.verdicts)


class _Runs:
    """Success of changed threats on the same samples."""

    def __init__(self, aligner: Aligner, test: Embeddings, inputs: Inputs, modality: str) -> None:
        self._aligner, self._test, self._inputs, self._modality = aligner, test, inputs, modality
        self.rows: list[dict[str, object]] = []

    def add(
        self, check: str, setting: str, threat: Threat, radius: float, surrogate: Aligner | None = None
    ) -> tuple[str, float]:
        """The setting and the share of samples on which the attack succeeds, over all galleries."""
        outcomes = evaluate_attack(
            self._aligner,
            self._test,
            self._inputs,
            threat,
            modality=self._modality,
            radii=[radius],
            surrogate=surrogate,
        )
        values = np.concatenate([np.asarray(outcome.success.per_point) for outcome in outcomes])
        counted = values[~np.isnan(values)]
        if not len(counted):
            raise ValueError("no sample is found when clean, so there is nothing to attack; take others")
        self.rows.append({"check": check, "setting": setting, "success": counted.mean(), "n": len(counted)})
        return setting, float(counted.mean())

    @property
    def n(self) -> int:
        """Samples of a share."""
        return int(str(self.rows[0]["n"]))


def masking_checks(
    aligner: Aligner,
    surrogate: Aligner,
    test: Embeddings,
    inputs: Inputs,
    threat: Threat,
    *,
    modality: str,
    severity: int = 3,
) -> Masking:
    """Look for signs that the gradients of an attack on `aligner` are masked.

    Args:
        aligner: fitted; what is attacked.
        surrogate: another variant, on which attacks are made that are transferred.
        test: clean test samples.
        inputs: what is attacked of them; about 20 times as many gradients as one attack takes.
        threat: the attack.
        modality: of the inputs.
        severity: whose budget the checks take, but for that of the budget: one where neither none nor all succeed.

    Raises:
        ValueError: as in `evaluate_attack`; or no sample is found when clean.
    """
    runs = _Runs(aligner, test, inputs, modality)
    radius = level(severity, inputs.budgets[threat.norm])
    at = f"severity {severity}"
    attack = runs.add("attack", at, threat, radius)
    single = runs.add("one step", "fgsm", replace(threat, attack="fgsm"), radius)
    noise = runs.add("noise", "random", replace(threat, attack="random", restarts=threat.steps), radius)
    counts = sorted({max(1, round(share * threat.steps)) for share in STEPS})
    steps = [runs.add("steps", f"{count}", replace(threat, steps=count), radius) for count in counts]
    radii = inputs.budgets[threat.norm][1:]
    budgets = [runs.add("budget", f"severity {s}", threat, r) for s, r in enumerate(radii, start=1)]
    limitless = runs.add("unbounded", "unbounded", threat, inputs.everything(threat.norm))
    transfer = runs.add("transfer", "made on the other", threat, radius, surrogate)
    starts = [runs.add("start", "clean", replace(threat, restarts=0), radius)]
    for seed in range(SEEDS):
        starts.append(runs.add("start", f"random {seed}", replace(threat, restarts=1, seed=threat.seed + seed), radius))
    slack = max(SLACK, 1 / runs.n) + 1e-9
    verdicts = (
        _rising("one step", "many steps are not weaker than one", [single, attack], slack),
        _rising("noise", "gradients are not weaker than the best of as many random changes", [noise, attack], slack),
        _rising("steps", "more steps are not weaker", steps, slack),
        _rising("budget", "a larger budget is not weaker", [*budgets, limitless], slack),
        Verdict(
            "unbounded",
            limitless[1] >= COMPLETE,
            f"without a limit all attacks succeed: {_shares([limitless])}",
        ),
        _rising("transfer", "attacks made on another variant are not stronger", [transfer, attack], slack),
        _alike(starts, max(SPREAD, 2 / runs.n) + 1e-9),
    )
    return Masking(pd.DataFrame(runs.rows), verdicts)


def _rising(check: str, expected: str, found: Sequence[tuple[str, float]], slack: float) -> Verdict:
    passed = all(later[1] >= earlier[1] - slack for earlier, later in pairwise(found))
    return Verdict(check, passed, f"{expected}: {_shares(found)}")


def _alike(found: Sequence[tuple[str, float]], spread: float) -> Verdict:
    shares = [share for _, share in found]
    return Verdict("start", max(shares) - min(shares) <= spread, f"the start matters little: {_shares(found)}")


def _shares(found: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{share:.1%} ({setting})" for setting, share in found)
