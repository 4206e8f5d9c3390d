"""The rows of the transport benchmark: workload, contestants, gate, and what has to come out.

A `Race` row is a problem that everybody solves; a `Budget` row is a workload of ours that has to stay within limits.
A claim turns the summary of a row into a number, a target and whether it is met; the table prints them all, the unmet
ones too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from benchmarks import budget, limit, peers, problems, reference, solvers
from benchmarks.race import CAP, Heat, Measurement, race
from benchmarks.solvers import OURS, Solver


class Outcome(NamedTuple):
    """A claim after the race: what was found, what was asked for, whether it holds (None: nothing to compare)."""

    found: str
    target: str
    met: bool | None


class Entry(NamedTuple):
    """All runs of one contestant in a row: worst status, median seconds, worst of each error."""

    status: str
    seconds: float
    errors: dict[str, float]
    note: str


Summary = Mapping[str, Entry]
Claim = Callable[[Summary, str], Outcome]


@dataclass(frozen=True)
class Race:
    """A problem that everybody solves.

    Attributes:
        name: What `--rows` selects.
        make: The problem of a seed.
        refer: Its converged reference.
        judge: The gate.
        solvers: Ours first.
        tiny: A small problem of the same kind, to warm up on.
        claims: What has to come out.
        quick: Whether `--quick` includes it.
        seeds: At most so many seeds.
        cap: A peer is stopped at so many times our time; above the factor that is claimed, to tell whether it holds.
    """

    name: str
    make: Callable[[int], Any]
    refer: Callable[[Any], Any]
    judge: Callable[[Any, Any, Any], reference.Verdict]
    solvers: Sequence[Solver]
    tiny: Callable[[], Any]
    claims: Sequence[Claim]
    quick: bool = True
    seeds: int = 5
    cap: float = CAP

    def run(self, seeds: Sequence[int], device: str) -> list[Measurement]:
        """Race on the problems of the seeds."""
        tasks = [self.make(seed) for seed in seeds]
        contestants = [s for s in self.solvers if s.available(device)]
        found = [self.refer(task) for task in tasks]
        return race(Heat(self.name, contestants, seeds, tasks, found, self.tiny(), self.judge, device, self.cap))


@dataclass(frozen=True)
class Budget:
    """A workload of ours that has to stay within limits; attributes as of `Race`.

    Attributes:
        workload: Figures by name, for a size, a seed and a device.
        n: The size.
    """

    name: str
    workload: Callable[[int, int, str], dict[str, float]]
    n: int
    claims: Sequence[Claim]
    quick: bool = True
    seeds: int = 5

    def run(self, seeds: Sequence[int], device: str) -> list[Measurement]:
        """Run the workload for each seed, each in a process of its own."""
        measured = []
        for seed in seeds:
            figures = budget.isolated(self.workload, self.n, seed, device)
            measured.append(Measurement(self.name, seed, OURS, "ok", figures.pop("seconds"), figures))
        return measured


Row = Race | Budget


def summarize(measurements: Sequence[Measurement]) -> Summary:
    """One entry per contestant, in order of appearance."""
    order = ("ok", "fails", "DNF", "error")
    entries = {}
    for name in dict.fromkeys(m.solver for m in measurements):
        runs = [m for m in measurements if m.solver == name]
        status = max((m.status for m in runs), key=order.index)
        kinds = {kind for m in runs for kind in m.errors}
        errors = {k: max(m.errors.get(k, 0.0) for m in runs) for k in kinds}
        note = next((m.note for m in runs if m.note), "")
        entries[name] = Entry(status, statistics.median(m.seconds for m in runs), errors, note)
    return entries


def best_peer(summary: Summary) -> str | None:
    """The fastest peer among those that passed the gate on every problem."""
    passed = {name: e.seconds for name, e in summary.items() if name != OURS and e.status == "ok"}
    return min(passed, key=passed.__getitem__) if passed else None


def _passed(summary: Summary) -> bool:
    return OURS in summary and summary[OURS].status == "ok"


def faster_than_best(factor: float) -> Claim:
    """So many times faster than the best peer that passed; if none did, the target is met."""

    def claim(summary: Summary, device: str) -> Outcome:
        target = f">= {factor:g} x the best peer"
        if len(summary) < 2 or not _passed(summary):
            return Outcome("-", target, False if not _passed(summary) else None)
        best = best_peer(summary)
        if best is None:
            stopped = any(e.status == "DNF" for e in summary.values())
            return Outcome(f"> {CAP} x" if stopped else "no peer passed", target, True)
        ratio = summary[best].seconds / summary[OURS].seconds
        return Outcome(f"{ratio:.2f} x", target, ratio >= factor)

    return claim


def faster_than(peer: str, factor: float) -> Claim:
    """So many times faster than a certain peer, whose time counts whatever its accuracy is."""

    def claim(summary: Summary, device: str) -> Outcome:
        target = f">= {factor:g} x {peer}"
        if peer not in summary or not _passed(summary):
            return Outcome("-", target, None if peer not in summary else False)
        ratio = summary[peer].seconds / summary[OURS].seconds
        cut = "> " if summary[peer].status == "DNF" else ""
        return Outcome(f"{cut}{ratio:.2f} x", target, ratio >= factor)

    return claim


def within_limit(n: int, factor: float) -> Claim:
    """Within so many times what the machine cannot do faster: 3 GEMMs, one exponential pass, two matrix-vectors."""

    def claim(summary: Summary, device: str) -> Outcome:
        ratio = summary[OURS].seconds / limit.loss_limit(n, problems.DIM, device)
        return Outcome(f"{ratio:.1f} x the limit", f"<= {factor:g} x the limit", _passed(summary) and ratio <= factor)

    return claim


def at_most(name: str, bound: float, unit: str = "") -> Claim:
    """A figure of ours ("seconds" or an error's name) below a bound, the worst seed counting (the median second)."""

    def claim(summary: Summary, device: str) -> Outcome:
        entry = summary[OURS]
        value = entry.seconds if name == "seconds" else entry.errors.get(name, math.nan)
        met = entry.status == "ok" and value <= bound
        return Outcome(f"{name} {value:.3g}{unit}", f"<= {bound:g}{unit}", met)

    return claim


def not_above(peer: str) -> Claim:
    """Our objective is the peer's or lower, up to 1e-4, on the worst seed."""

    def claim(summary: Summary, device: str) -> Outcome:
        target = f"objective <= {peer}'s"
        if peer not in summary or "objective" not in summary[peer].errors:
            return Outcome("-", target, None)
        ours, theirs = (summary[name].errors["objective"] for name in (OURS, peer))
        return Outcome(f"{ours:.5f} against {theirs:.5f}", target, ours <= theirs * (1 + 1e-4))

    return claim


def sinkhorn(
    problem: Callable[..., problems.Clouds], n: int, r: float, factor: float, *, seeds: int = 5, quick: bool = True
) -> Race:
    """Entropic transport in float64, plan at the gate."""
    return Race(
        name=f"{problem.__name__} {n} r={r:g}",
        make=lambda seed: problem(n, r, seed=seed),
        refer=reference.references,
        judge=reference.judge_plan,
        solvers=(solvers.SINKHORN, *peers.SINKHORN),
        tiny=lambda: problem(24, 0.1, seed=0),
        claims=(faster_than_best(factor),),
        seeds=seeds,
        quick=quick,
    )


def sinkhorn_float32(n: int, r: float, factor: float) -> Race:
    """Entropic transport in float32."""
    return Race(
        name=f"gmm {n} r={r:g} float32",
        make=lambda seed: problems.gmm(n, r, seed=seed, dtype=torch.float32),
        refer=reference.references,
        judge=reference.judge_plan,
        solvers=(solvers.SINKHORN, *peers.SINKHORN_FLOAT32),
        tiny=lambda: problems.gmm(24, 0.1, seed=0, dtype=torch.float32),
        claims=(faster_than_best(factor),),
    )


def loss(n: int, claims: Sequence[Claim]) -> Race:
    """Value of entropic transport with gradients for both clouds."""
    return Race(
        name=f"loss {n}",
        make=lambda seed: problems.gmm(n, 0.05, seed=seed),
        refer=reference.loss_gradients,
        judge=reference.judge_loss,
        solvers=(solvers.LOSS, *peers.LOSS),
        tiny=lambda: problems.gmm(24, 0.1, seed=0),
        claims=claims,
    )


def divergence(n: int) -> Race:
    """Sinkhorn divergence with gradients; no target, for information."""
    return Race(
        name=f"divergence {n}",
        make=lambda seed: problems.gmm(n, 0.05, seed=seed),
        refer=reference.divergence_gradients,
        judge=reference.judge_loss,
        solvers=(solvers.DIVERGENCE, *peers.DIVERGENCE),
        tiny=lambda: problems.gmm(24, 0.1, seed=0),
        claims=(faster_than_best(1),),
        quick=False,
    )


def batch(count: int, n: int, factor: float) -> Race:
    """Many problems of one size at once."""
    return Race(
        name=f"batch {count} x {n}",
        make=lambda seed: problems.gmm(n, 0.05, seed=seed, batch=count),
        refer=reference.references,
        judge=reference.judge_plan,
        solvers=(solvers.SINKHORN, *peers.BATCH),
        tiny=lambda: problems.gmm(24, 0.1, seed=0, batch=2),
        claims=(faster_than_best(factor),),
    )


def gromov(problem: Callable[..., problems.Spaces], n: int, factor: float, *, quick: bool = True) -> Race:
    """Entropic Gromov-Wasserstein; ours at the gate of 1e-6, POT where it stops."""
    return Race(
        name=f"GW {problem.__name__} {n}",
        make=lambda seed: problem(n, 0.05, seed=seed),
        refer=lambda task: None,
        judge=reference.judge_gromov,
        solvers=(solvers.GROMOV, *peers.GROMOV),
        tiny=lambda: problem(24, 0.5, seed=0),
        claims=(faster_than("POT", factor), at_most("marginal", 1e-6), not_above("POT")),
        quick=quick,
        cap=max(CAP, 2 * factor),
    )


def refine(n: int, *, gap: float, seconds: float, gigabytes: float, seeds: int = 5, quick: bool = True) -> Budget:
    """A bijection between large clouds whose best one is known."""
    claims = (
        at_most("gap", gap),
        at_most("seconds", seconds, " s"),
        at_most("gigabytes", gigabytes, " GB"),
        at_most("unmatched", 0),
    )
    return Budget(f"refine {n}", budget.refine, n, claims, seeds=seeds, quick=quick)


ROWS: tuple[Row, ...] = (
    sinkhorn(problems.gmm, 1024, 0.05, 8),
    sinkhorn(problems.gmm, 1024, 0.01, 7),
    sinkhorn(problems.gmm, 1024, 0.001, 3),
    sinkhorn(problems.gmm, 256, 0.05, 4),
    sinkhorn(problems.gmm, 256, 0.01, 2.5),
    sinkhorn(problems.gmm, 256, 0.001, 2),
    sinkhorn(problems.aniso, 1024, 0.05, 1.5),
    sinkhorn(problems.aniso, 256, 0.05, 1.5),
    sinkhorn(problems.gmm, 4096, 0.05, 8, seeds=3, quick=False),
    sinkhorn_float32(1024, 0.05, 3),
    sinkhorn_float32(1024, 0.01, 3),
    loss(1024, (faster_than(peers.BY_HAND, 10), faster_than(peers.GEOMLOSS, 8), within_limit(1024, 3))),
    loss(256, (within_limit(256, 8),)),
    divergence(1024),
    batch(64, 256, 4),
    gromov(problems.features, 1024, 25, quick=False),
    gromov(problems.geodesic, 512, 4),
    refine(16_384, gap=0.01, seconds=10, gigabytes=1),
    refine(65_536, gap=0.003, seconds=30, gigabytes=1, quick=False),
    refine(1_048_576, gap=0.05, seconds=600, gigabytes=4, seeds=1, quick=False),
    Budget("memory 4096 float32", budget.loss_memory, 4096, (at_most("matrices", 3),), seeds=1),
)
