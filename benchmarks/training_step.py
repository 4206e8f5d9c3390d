"""Prints what an optimizer step of every trained variant costs: `python benchmarks/training_step.py --quick`.

Milliseconds of a step (loss terms, backward, clipping of the gradient, AdamW) with the variant's default options, and
how many steps of clip that is. CPU time with one thread pinned to one core, or wall time with `--device cuda`. The
variants take turns, a step each per round, in one process; figures are medians over rounds, of ratios those of each
round's own clip step, with the quartiles. Imports, just-in-time compilation and lists of neighbors made once per
training are excluded. Goals are those of GOTMA. `--output results/benchmarks/training_step.csv` is how the file there
was made.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
BASELINE, JUDGED = "clip", "gotma"
WARM_UP = 2
TABLE_HEAD = (
    "| setting | variant | ms per step | times clip | quartiles | goal |",
    "|---|---|---|---|---|---|",
)

if TYPE_CHECKING:
    from benchmarks.steps import Setting, Step


@dataclass(frozen=True)
class Timed:
    """One variant in one setting.

    Attributes:
        seconds: Of each round's step; none where the variant does not take the setting.
        note: Why it does not.
        defined: Whether the setting is one that the variant is defined for.
    """

    setting: str
    variant: str
    seconds: tuple[float, ...] = ()
    note: str = ""
    defined: bool = True


def one_thread() -> None:
    """Pin this process to one core and every library to one thread; to be called before they are imported."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(arguments: Sequence[str] | None = None, settings: Sequence[Setting] | None = None) -> int:
    """Run the chosen settings, print the table, write the file; the exit code is 1 if a variant could not be measured.

    Args:
        arguments: As on the command line.
        settings: What may be chosen from, all of `steps.SETTINGS` by default.
    """
    from benchmarks import steps

    known = steps.SETTINGS if settings is None else settings
    options = _options(arguments, known)
    names = [BASELINE, JUDGED] if options.quick else steps.trained()
    if options.variants is not None:
        names = [BASELINE, *(n for n in steps.trained() if n in options.variants and n != BASELINE)]
    chosen = [s for s in known if options.settings is None or any(part in s.name for part in options.settings)]
    if not chosen:
        raise SystemExit(f"no setting matches {options.settings}; there are: {'; '.join(s.name for s in known)}")
    clock = "wall" if options.device == "cuda" else "CPU, one thread"
    print("\n".join([f"{clock}, {options.rounds} rounds", "", *TABLE_HEAD]), flush=True)
    done: list[Timed] = []
    for setting in chosen:
        found = measure(setting, names, options.rounds, options.device)
        done += found
        print(lines(setting, found), flush=True)
        if options.output is not None:
            write(options.output, done)
    return int(any(timed.defined and not timed.seconds for timed in done))


def _options(arguments: Sequence[str] | None, settings: Sequence[Setting]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="settings: " + "; ".join(s.name for s in settings)
    )
    parser.add_argument("--quick", action="store_true", help=f"{BASELINE} and {JUDGED} alone")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="settings whose name contains one of these")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help=f"these and {BASELINE}")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each variant that are timed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="CSV with the medians and quartiles")
    return parser.parse_args(arguments)


def measure(setting: Setting, names: Sequence[str], rounds: int, device: str) -> list[Timed]:
    """All variants in turn, `rounds` times."""
    import torch

    from benchmarks import steps

    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a transport that did not converge to the last digit takes as long
        ready: dict[str, Step] = {}
        least = {name: steps.variants.get(name).min_modalities for name in names}
        outside = {n: f"defined for {k} or more modalities" for n, k in least.items() if setting.modalities < k}
        notes = dict(outside)
        for name in names:
            if name in outside:
                continue
            try:
                ready[name] = stack.enter_context(steps.prepared(name, setting, 0, torch.device(device)))
                for _ in range(WARM_UP):
                    ready[name]()
            except (ValueError, ArithmeticError) as error:
                notes[name] = str(error)
                ready.pop(name, None)
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(rounds):
            for name, step in ready.items():
                seconds[name].append(_seconds(step, device))
    return [Timed(setting.name, n, tuple(seconds.get(n, ())), notes.get(n, ""), n not in outside) for n in names]


def _seconds(step: Step, device: str) -> float:
    import torch

    if device == "cpu":
        started = time.process_time()
        step()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def ratios(timed: Timed, baseline: Timed) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the ratios to the baseline's step of the same round."""
    each = [a / b for a, b in zip(timed.seconds, baseline.seconds, strict=True)]
    if len(each) == 1:
        return each[0], each[0], each[0]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return low, middle, high


def lines(setting: Setting, found: Sequence[Timed]) -> str:
    """One line of the table for each variant, the cheapest first."""
    baseline = next(t for t in found if t.variant == BASELINE)
    table = []
    for timed in sorted(found, key=lambda t: statistics.median(t.seconds) if t.seconds else float("inf")):
        cells = [setting.name, timed.variant]
        if not (timed.seconds and baseline.seconds):
            cells += ["-", "-", timed.note.replace("|", "/")[:100], ""]
        else:
            low, middle, high = ratios(timed, baseline)
            goal = f"<= {setting.goal:g}: {'met' if middle <= setting.goal else 'NOT MET'}"
            cells += [
                f"{1000 * statistics.median(timed.seconds):.1f}",
                f"{middle:.2f}",
                f"{low:.2f} to {high:.2f}",
                goal if timed.variant == JUDGED else "",
            ]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def write(path: Path, done: Sequence[Timed]) -> None:
    """One row per setting and variant."""
    baselines = {t.setting: t for t in done if t.variant == BASELINE}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "variant", "rounds", "milliseconds", "times_clip", "low", "high", "note"])
        for timed in done:
            figures = ["", "", "", ""]
            if timed.seconds and baselines[timed.setting].seconds:
                low, middle, high = ratios(timed, baselines[timed.setting])
                milliseconds = 1000 * statistics.median(timed.seconds)
                figures = [f"{v:.4g}" for v in (milliseconds, middle, low, high)]
            writer.writerow([timed.setting, timed.variant, len(timed.seconds), *figures, timed.note])


if __name__ == "__main__":
    one_thread()
    sys.path[0] = str(ROOT)  # instead of this folder, so that modules have one name: benchmarks.*
    sys.exit(main())
