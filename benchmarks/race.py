"""Runs the contestants of a row against each other and enforces the rules of the race.

All contestants of a row run in one forked process, one after another on every problem, so that they share the
machine's moods. The clock is that process's CPU time (wall time on CUDA). What a contestant may need to warm up
(imports, just-in-time compilation) happens on a tiny problem first, outside of the clock, for everybody. A peer
that takes more than `cap` times our slowest run on the same problem is killed by the kernel's own timer, which stops
compiled code too; the race then goes on without it.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.reference import Verdict
from benchmarks.solvers import OURS, Prepared, Solver

CAP = 20
REPEAT_BELOW = 1.0  # seconds: shorter runs are repeated and their median counts
REPEATS = 5
WITHOUT_OURS = 60.0  # seconds for a peer on a problem where we have no time to compare with


@dataclass(frozen=True)
class Measurement:
    """One contestant on one problem.

    Attributes:
        status: "ok", "fails" (the gate), "DNF" (over the cap) or "error".
        seconds: CPU time of a run; of a DNF the cap; NaN for an error.
        errors: What the gate looked at.
        note: The message of an error.
        slowest: CPU time of the slowest run, mostly the first: what a peer's first run is held against.
    """

    row: str
    seed: int
    solver: str
    status: str
    seconds: float
    errors: dict[str, float] = field(default_factory=dict)
    note: str = ""
    slowest: float = math.nan


@dataclass(frozen=True)
class Heat:
    """What a row gives to the race: the contestants (ours first), problems with their references, and the gate."""

    row: str
    solvers: Sequence[Solver]
    seeds: Sequence[int]
    tasks: Sequence[Any]
    references: Sequence[Any]
    tiny: Any
    judge: Callable[[Any, Any, Any], Verdict]
    device: str
    cap: float = CAP


def race(heat: Heat) -> list[Measurement]:
    """Every contestant on every problem; those that were stopped are out for the rest of the row."""
    done: list[Measurement] = []
    out: set[str] = set()
    context = multiprocessing.get_context("fork")
    while True:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_run, args=(sender, heat, done, out))
        child.start()
        sender.close()
        stopped = _collect(receiver, heat, done)
        child.join()
        if child.exitcode == 0:
            return done
        if stopped is None or stopped.solver == OURS:
            raise RuntimeError(f"the race of {heat.row} broke down (exit code {child.exitcode}) in {stopped}")
        by_timer = child.exitcode in (-signal.SIGPROF, -signal.SIGALRM)
        status, note = ("DNF", "") if by_timer else ("error", f"the process died with exit code {child.exitcode}")
        done.append(Measurement(heat.row, stopped.seed, stopped.solver, status, stopped.seconds, note=note))
        out.add(stopped.solver)


def _collect(receiver: Connection, heat: Heat, done: list[Measurement]) -> Measurement | None:
    """Take results until the child ends; what it had announced and not finished, if anything."""
    started = None
    while True:
        try:
            message: Measurement = receiver.recv()
        except EOFError:
            return started
        if message.status == "started":
            started = message
        else:
            done.append(message)
            started = None


def _run(sender: Connection, heat: Heat, done: Sequence[Measurement], out: set[str]) -> None:
    warnings.simplefilter("ignore")  # a warning costs nothing, and what it says the gate sees
    contestants = [s for s in heat.solvers if s.name not in out]
    finished = {(m.seed, m.solver): m.slowest for m in done}
    warm: set[str] = set()
    for seed, task, reference in zip(heat.seeds, heat.tasks, heat.references, strict=True):
        for solver in contestants:
            if (seed, solver.name) in finished:
                continue
            limit = None if solver.name == OURS else _limit(finished[seed, OURS], heat.cap)
            sender.send(Measurement(heat.row, seed, solver.name, "started", limit or 0.0))
            try:
                if solver.name not in warm:
                    _warm_up(solver, heat)
                    warm.add(solver.name)
                times, verdict = _measure(solver, heat, task, reference, limit)
                status = "ok" if verdict.passed else "fails"
                seconds = statistics.median(times)
                result = Measurement(heat.row, seed, solver.name, status, seconds, verdict.errors, slowest=max(times))
            except Exception as error:  # noqa: BLE001  a peer may raise anything, and that is its result
                note = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                result = Measurement(heat.row, seed, solver.name, "error", float("nan"), note=note)
            finished[seed, solver.name] = result.slowest
            sender.send(result)


def _limit(ours: float, cap: float) -> float:
    return cap * ours if math.isfinite(ours) else WITHOUT_OURS


def _warm_up(solver: Solver, heat: Heat) -> None:
    prepared = solver.prepare(heat.tiny, heat.device)
    prepared.read(prepared.run())


def _measure(solver: Solver, heat: Heat, task: Any, reference: Any, limit: float | None) -> tuple[list[float], Verdict]:
    prepared = solver.prepare(task, heat.device)
    with_limit(limit, heat.device)
    seconds, result = timed(prepared, heat.device)
    with_limit(None, heat.device)
    times = [seconds]
    while len(times) < REPEATS and sum(times) < REPEAT_BELOW:
        times.append(timed(prepared, heat.device)[0])
    return times, heat.judge(task, reference, prepared.read(result))


def with_limit(seconds: float | None, device: str) -> None:
    """Have the kernel end this process after so much CPU time (wall time on CUDA); None takes the limit back."""
    kind = signal.ITIMER_REAL if device == "cuda" else signal.ITIMER_PROF
    signal.signal(signal.SIGALRM if device == "cuda" else signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(kind, seconds or 0.0)


def timed(prepared: Prepared, device: str) -> tuple[float, Any]:
    """Seconds of one run, and its result."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    result = prepared.run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result
