"""Test samples under a corruption of one modality, by one way for corruptions of features and of raw items.

    conditions = Conditions(train, test, seed=0, raw=raw_features)
    for condition in conditions.grid(("feature_noise", "gaussian_noise", "missing_modality+nearest")):
        corrupted = conditions(condition)             # the samples, and which of them are asked

The draw decides the noise and the severity its strength, so that a sample's curve is one story. Corruptions of features
are drawn for the run's seed; those of raw items for the item's key alone, so that every variant and every seed that
tests an item sees the same bits, encoded once. Severity 0 is the clean result and no condition.

Where items are lost, what stands in for them is part of the condition: "missing_modality+nearest" loses the same items
as "missing_modality" and imputes them by `labkit.imputation.nearest` instead of `others`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from tqdm.auto import tqdm

from labkit import corruptions
from labkit.config import ConfigError
from labkit.corruptions import CORRUPTIONS, LOSING, SEVERITIES, Corruption
from labkit.corruptions import raw as raw_corruptions
from labkit.corruptions.raw import RAW
from labkit.encoders.raw_features import RawFeatures
from labkit.imputation import IMPUTATIONS
from labkit.registry import UnknownNameError
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool

HARDER = SEVERITIES[1:]


@dataclass(frozen=True)
class Condition:
    """One corruption of one modality.

    Attributes:
        corruption: name in `CORRUPTIONS` or `RAW`; of one that loses items, with "+" and the name of an imputation
            other than `others`.
        modality: whose items are corrupted.
        severity: 1..5.
        draw: number of the independent draw.
    """

    corruption: str
    modality: str
    severity: int
    draw: int = 0

    @property
    def curve(self) -> tuple[str, str]:
        """What has one curve over the severities: corruption and modality."""
        return self.corruption, self.modality

    @property
    def imputation(self) -> str:
        """What stands in for lost items, one of `labkit.imputation.IMPUTATIONS`."""
        return self.corruption.partition("+")[2] or "others"


@dataclass(frozen=True)
class Skipped:
    """What was asked for and could not be measured.

    Attributes:
        corruption: its name; empty where it concerns all of raw items.
        modality: whose items; empty where no modality has such items.
        items: how many could not be read; 0 where nothing was measured at all.
        reason: why, and the remedy.
    """

    corruption: str
    modality: str
    items: int
    reason: str

    def __str__(self) -> str:
        what = " of ".join(part for part in (self.corruption or "corruptions of raw items", self.modality) if part)
        return f"{what}: {self.items} item(s) left out: {self.reason}" if self.items else f"{what}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Test samples under a condition.

    Attributes:
        samples: all of them, in their order; the corrupted modality has other vectors, or lacks items.
        asked: modality -> which samples count in results: those that had the item before it was corrupted, but for raw
            items that could not be read, and for samples that lost theirs where these are dropped.
    """

    samples: Embeddings
    asked: dict[str, Bool[Tensor, " n"]]


def canonical(name: str) -> str:
    """A corruption's name, of features or raw items, aliases resolved; with "+" and its imputation, if it has one.

    Raises:
        UnknownNameError: no such corruption or imputation; the message names the nearest of both kinds.
        ConfigError: an imputation after a corruption that loses no items.
    """
    base, _, imputation = name.partition("+")
    registry = next((r for r in (CORRUPTIONS, RAW) if base in r), None)
    if registry is None:
        raise _unknown("corruption", base, [*CORRUPTIONS.names(), *RAW.names()])
    base = registry.canonical(base)
    if not imputation:
        return base
    if imputation not in IMPUTATIONS:
        raise _unknown("imputation", imputation, list(IMPUTATIONS))
    if base not in LOSING:
        raise ConfigError(
            f"{name!r} names an imputation, but {base} loses no items; imputations follow {', '.join(LOSING)}"
        )
    return base if imputation == "others" else f"{base}+{imputation}"


def _unknown(kind: str, name: str, known: list[str]) -> UnknownNameError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


def is_raw(name: str) -> bool:
    """Whether a corruption acts on raw items, which are then encoded again."""
    return name in RAW


class Conditions:
    """Corruptions of the test samples.

    Args:
        train: training samples, for the statistics that corruptions of features use.
        test: clean test samples.
        seed: of the run.
        raw: corrupted raw items, encoded; None where only corruptions of features are asked for.
    """

    def __init__(self, train: Embeddings, test: Embeddings, *, seed: int, raw: RawFeatures | None = None) -> None:
        self.test = test
        self._seed, self._raw = seed, raw
        self._context = corruptions.context(train)
        self._skipped: dict[tuple[str, str], Skipped] = {}
        self._unreadable: dict[tuple[str, str], dict[str, str]] = {}
        self._filled: set[Condition] = set()

    @property
    def skipped(self) -> list[Skipped]:
        """What has not been measured so far, unreadable items of a corruption and modality counted together."""
        counted = [_counted(name, modality, why) for (name, modality), why in self._unreadable.items() if why]
        return [*self._skipped.values(), *counted]

    def grid(
        self,
        names: Sequence[str],
        *,
        severities: Sequence[int] = HARDER,
        draws: int = 1,
        modalities: Sequence[str] | None = None,
    ) -> list[Condition]:
        """The conditions to measure, severities and draws of one curve together; what cannot be is in `skipped`.

        Args:
            names: of the corruptions; those of raw items act on the modalities whose items are of their kind.
            severities: 1..5.
            draws: independent draws of each.
            modalities: whose items are corrupted, one at a time; all by default.

        Raises:
            UnknownNameError: no such corruption.
            ValueError: a severity outside 1..5, a modality that is not there, or no raw items were given.
        """
        chosen = self.test.select(modalities or self.test.modalities).modalities
        if wrong := [s for s in severities if s not in HARDER]:
            raise ValueError(f"severity must be one of {HARDER}; got {wrong[0]!r} (0 is the clean result)")
        return [
            Condition(name, modality, severity, draw)
            for name in dict.fromkeys(map(canonical, names))
            for modality in (self._fitting(name, chosen) if is_raw(name) else self._accepted(name, chosen))
            for severity in severities
            for draw in range(draws)
        ]

    def fill(self, grid: Sequence[Condition]) -> None:
        """Encode what of the raw conditions is not in the cache, with one progress bar over all of it."""
        if self._raw is None:
            return
        lacking = []
        for c in grid:
            if is_raw(c.corruption) and c not in self._filled:
                keys = self._keys(c.modality)
                n = self._raw.missing(c.corruption, c.modality, keys, severity=c.severity, seed=c.draw)
                lacking += [(c, keys, n)] if n else []
        total = sum(n for *_, n in lacking)
        with tqdm(total=total, desc="encoding corrupted items", unit="item", disable=not lacking) as bar:
            for c, keys, _ in lacking:
                self._raw.features(c.corruption, c.modality, keys, severity=c.severity, seed=c.draw, advance=bar.update)

    def __call__(self, condition: Condition) -> Corrupted:
        """The test samples under a condition.

        Raises:
            ValueError: raw items that cannot be encoded; `grid` leaves such conditions out.
        """
        if is_raw(condition.corruption):
            return self._from_raw(condition)
        corrupt = cast("Corruption", CORRUPTIONS.get(condition.corruption.partition("+")[0]))
        context = self._context.seeded(self._seed * 1000 + condition.draw)
        samples = corrupt(self.test, condition.modality, condition.severity, context)
        if condition.imputation != "drop":
            return Corrupted(samples, self.test.present)
        lost = self.test.present[condition.modality] & ~samples.present[condition.modality]
        return Corrupted(samples, {m: there & ~lost for m, there in self.test.present.items()})

    def _from_raw(self, condition: Condition) -> Corrupted:
        modality, test = condition.modality, self.test
        keys = self._keys(modality)
        z, failed = self._given().features(
            condition.corruption, modality, keys, severity=condition.severity, seed=condition.draw
        )
        self._unreadable.setdefault((condition.corruption, modality), {}).update(failed)
        rows = test.present[modality].nonzero().flatten()
        changed = torch.zeros_like(test.z[modality]).index_copy(0, rows, z.to(test.z[modality]))
        read = torch.tensor([key not in failed for key in test.key.tolist()], device=test.device)
        present = {**test.present, modality: test.present[modality] & read}
        return Corrupted(test.with_z({**test.z, modality: changed}, present), present)

    def _keys(self, modality: str) -> list[str]:
        return self.test.key[self.test.present[modality].cpu().numpy()].tolist()

    def _given(self) -> RawFeatures:
        if self._raw is None:
            raise ValueError("corruptions of raw items need `raw`, the data set's items and their encoders")
        return self._raw

    def _accepted(self, name: str, chosen: Sequence[str]) -> Sequence[str]:
        """The modalities that a corruption of features acts on: all, or none where it refuses the samples."""
        try:
            self(Condition(name, chosen[0], HARDER[0]))
        except ValueError as error:
            self._skipped[name, ""] = Skipped(name, "", 0, str(error))
            return ()
        return chosen

    def _fitting(self, name: str, chosen: Sequence[str]) -> list[str]:
        """The modalities that a raw corruption acts on; why it does not on others is recorded."""
        kind, raw = raw_corruptions.get(name).kind, self._given()
        unknown = [m for m in chosen if raw.kind(m) is None]
        fitting = [m for m in chosen if raw.kind(m) == kind]
        # where labkit does not know what the items are, they might have been of this kind
        refused = {m: why for m in (fitting or unknown) if (why := raw.refusal(m))}
        for m, why in refused.items():
            self._skipped["", m] = Skipped("", m, 0, why)
        if not fitting and not unknown:
            self._skipped[name, ""] = Skipped(name, "", 0, f"no modality of {', '.join(chosen)} has {kind} items")
        return [m for m in fitting if m not in refused]


def _counted(name: str, modality: str, why: dict[str, str]) -> Skipped:
    first = next(iter(why.items()), ("", ""))
    return Skipped(name, modality, len(why), f"{', '.join(list(why)[:5])} ({first[1]})")
