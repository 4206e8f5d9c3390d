"""Attacks on the test samples of a run: which samples, by which way, and their rows in the run store.

    attacks = Attacks(train, test, samples=60, raw=raw_features)
    for curve in attacks.curves(attacks.grid(("pgd", "apgd_l2_features"))):
        add(run, attacks(aligner, curve, resamples=1000, seed=0))

A condition is an attack (`labkit.attacks.names`), the modality of the queries, a severity and the seed of its random
starts. The attacked samples of a modality are drawn by their keys alone, the same for all variants and attacks; fewer
are the first of more. A curve has its own severity 0, the clean value of these samples.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from tqdm.auto import tqdm

from labkit.attacks import Features, Pixels, evaluate_attack
from labkit.attacks.inputs import Inputs
from labkit.attacks.names import parsed
from labkit.attacks.queries import Queries
from labkit.conditions import HARDER, Condition, Skipped
from labkit.encoders.raw_features import RawFeatures
from labkit.evaluate import Evaluation, under_attack
from labkit.frames import FINAL
from labkit.store import Run
from labkit.types import Aligner, Embeddings


class Attacks:
    """Attacks on some of the test samples.

    Args:
        train: training samples; their deviations are the units of features.
        test: clean test samples.
        samples: how many of each modality are attacked, at most.
        raw: raw items and encoders; without, features are attacked alone.
    """

    def __init__(self, train: Embeddings, test: Embeddings, *, samples: int, raw: RawFeatures | None = None) -> None:
        self._train, self._test, self._samples, self._raw = train, test, samples, raw
        self._inputs: dict[tuple[str, str], Inputs] = {}
        self._skipped: dict[tuple[str, str], Skipped] = {}

    @property
    def skipped(self) -> list[Skipped]:
        """What has not been measured so far."""
        return list(self._skipped.values())

    def grid(
        self,
        names: Sequence[str],
        *,
        severities: Sequence[int] = HARDER,
        draws: int = 1,
        modalities: Sequence[str] | None = None,
    ) -> list[Condition]:
        """The conditions to measure, those of one curve together; what cannot be measured is in `skipped`.

        Args:
            names: of attacks; where they leave open what is attacked, pixels where there are some, else features.
            severities: 1..5.
            draws: seeds of the random starts (and of the wrong items of targeted attacks).
            modalities: whose items are attacked, one at a time; all by default.

        Raises:
            UnknownNameError: no such attack.
            ValueError: a severity outside 1..5, or a modality that is not there.
        """
        chosen = self._test.select(modalities or self._test.modalities).modalities
        if wrong := [s for s in severities if s not in HARDER]:
            raise ValueError(f"severity must be one of {HARDER}; got {wrong[0]!r} (0 is the clean result)")
        curves = dict.fromkeys((label, m) for name in names for m in chosen for label in self._labels(name, m))
        return [
            Condition(*curve, severity, draw) for curve in curves for draw in range(draws) for severity in severities
        ]

    @staticmethod
    def curves(grid: Sequence[Condition]) -> Iterator[list[Condition]]:
        """The conditions of each attack and modality."""
        for _, part in itertools.groupby(grid, key=lambda c: c.curve):
            yield list(part)

    def available(self, modality: str) -> int:
        """How many test samples have an item of a modality."""
        return int(self._test.present[modality].sum())

    def sizes(self, condition: Condition) -> dict[str, int]:
        """How many samples are attacked, by the modality that they search; those without a partner there are not."""
        inputs = self._inputs_of(condition.modality, parsed(condition.corruption).inputs)
        others = [m for m in self._test.modalities if m != condition.modality]
        asked = (Queries.of(self._test, inputs, condition.modality, other, seed=0) for other in others)
        return {queries.target: len(queries.rows) for queries in asked}

    def __call__(self, aligner: Aligner, curve: Sequence[Condition], *, resamples: int, seed: int) -> Evaluation:
        """Rows of one curve; none where the variant cannot be attacked, which is then in `skipped`.

        Args:
            aligner: fitted.
            curve: conditions of one attack and modality.
            resamples: of each interval.
            seed: of the run.
        """
        (label, modality), outcomes = curve[0].curve, []
        named = parsed(label)
        inputs = self._inputs_of(modality, named.inputs)
        budgets = inputs.budgets[named.threat.norm]
        try:
            for draw in sorted({c.draw for c in curve}):
                radii = [budgets[s] for s in sorted({0, *(c.severity for c in curve if c.draw == draw)})]
                threat = replace(named.threat, seed=draw)
                outcomes += evaluate_attack(aligner, self._test, inputs, threat, modality=modality, radii=radii)
        except ValueError as error:
            self._skipped[label, modality] = Skipped(label, modality, 0, str(error))
            return Evaluation(pd.DataFrame(), {})
        return under_attack(outcomes, self._test, resamples=resamples, seed=seed)

    def _labels(self, name: str, modality: str) -> list[str]:
        """The stored name of an attack on a modality; none where there is no way, which is recorded."""
        named = parsed(name)
        if named.inputs == "features":
            return [str(named)]
        label = named.threat.label("pixels")
        kind = self._raw.kind(modality) if self._raw is not None else None
        if kind == "image":
            try:
                self._inputs_of(modality, "pixels")
                return [label]
            except ValueError as error:
                self._skipped[label, modality] = Skipped(label, modality, 0, str(error))
        elif named.inputs:
            other = named.threat.label("features")
            why = f"its raw items are no pictures that labkit encodes; attack its features instead: {other}"
            self._skipped[label, modality] = Skipped(label, modality, 0, why)
        return [] if named.inputs else [named.threat.label("features")]

    def _inputs_of(self, modality: str, kind: str) -> Inputs:
        if (modality, kind) not in self._inputs:
            keys = chosen_keys(self._test, modality, self._samples)
            made = (
                Features.of(self._test, modality, self._train, keys)
                if kind == "features"
                else self._pixels(modality, keys)
            )
            self._inputs[modality, kind] = made
        return self._inputs[modality, kind]

    def _pixels(self, modality: str, keys: Sequence[str]) -> Pixels:
        assert self._raw is not None
        items, failed = self._raw.items(modality, keys)
        if failed:
            why = f"{', '.join(list(failed)[:5])} ({next(iter(failed.values()))})"
            self._skipped["", modality] = Skipped("", modality, len(failed), why)
        read = [key for key in keys if key not in failed]
        if not read:
            raise ValueError(f"none of the {len(keys)} pictures can be read: {next(iter(failed.values()), '')}")
        return Pixels.of(self._raw.encoder(modality), read, items)


def chosen_keys(test: Embeddings, modality: str, samples: int) -> list[str]:
    """Keys of the samples that are attacked: those with an item of the modality whose hashes are lowest."""
    there = test.key[test.present[modality].cpu().numpy()].tolist()
    return sorted(there, key=lambda key: hashlib.sha256(f"attacked {key}".encode()).hexdigest())[:samples]


def measure(
    run: Run, aligner: Aligner, attacks: Attacks, grid: Sequence[Condition], *, resamples: int, seed: int
) -> None:
    """Measure the conditions curve by curve, and add each to the run as it is done."""
    curves = list(attacks.curves(grid))
    for curve in tqdm(curves, desc=f"attacks on {run.id}", unit="curve", disable=len(curves) < 2):
        add(run, attacks(aligner, curve, resamples=resamples, seed=seed))


def add(run: Run, found: Evaluation) -> None:
    """Add what was measured to a run."""
    if found.scores.empty:  # not one item could be read
        return
    # the field first: a row of scores says that a condition is done
    for metric, field in found.fields.items():
        run.write_field(metric, FINAL, field)
    run.write_scores(found.scores)
