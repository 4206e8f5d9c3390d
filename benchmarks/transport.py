"""Prints how labkit's optimal transport compares with its peers: `python benchmarks/transport.py --quick`.

Medians over fresh seeds, ratios from one run, peers interleaved with ours in one process. CPU seconds with one thread
pinned to one core, or wall seconds with `--device cuda`. The accuracy gate comes first: L1 marginal error (rows and
columns) <= 1e-6 in float64 and 1e-4 in float32, and <C, P> within 1e-4 of a certified float64 reference; gradients
within 1e-5. A result that misses it is printed as "fails" with its error, never as a time; a peer that needs more
than 20 times our slowest run (twice the asked ratio for Gromov-Wasserstein, if that is more) is stopped and printed as
DNF. Imports and just-in-time compilation are excluded for
everyone. Peers: `pip install -e '.[benchmarks]'`; those that are absent are skipped with a note.
"""

from __future__ import annotations

import argparse
import csv
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
QUICK_SEEDS = 2

if TYPE_CHECKING:
    from benchmarks.race import Measurement
    from benchmarks.rows import Entry, Outcome, Row, Summary


def one_thread() -> None:
    """Pin this process to one core and every library to one thread; to be called before they are imported."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(arguments: Sequence[str] | None = None, rows: Sequence[Row] | None = None) -> int:
    """Run the chosen rows, print the table, write the file; the exit code is 1 if one of our results missed a gate.

    Args:
        arguments: As on the command line.
        rows: What may be chosen from, all of `rows.ROWS` by default.
    """
    if rows is None:
        from benchmarks.rows import ROWS as rows
    options = _options(arguments, rows)
    chosen = [r for r in rows if r.quick or not options.quick] if options.rows is None else _named(rows, options.rows)
    first = secrets.randbelow(10**6) if options.first_seed is None else options.first_seed
    print(_header(chosen, options, first), flush=True)
    measured: list[Measurement] = []
    failed = False
    for row in chosen:
        count = min(row.seeds, QUICK_SEEDS if options.quick else options.seeds)
        found = row.run(range(first, first + count), options.device)
        measured += found
        failed |= any(m.status != "ok" for m in found if m.solver == "labkit")
        print(_lines(row, found, options.device), flush=True)
        if options.output is not None:
            _write(options.output, measured)
    return int(failed)


def _options(arguments: Sequence[str] | None, rows: Sequence[Row]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="rows: " + "; ".join(r.name for r in rows)
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds, without the largest rows")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=5, help="problems per row (large rows take fewer)")
    parser.add_argument("--first-seed", type=int, help="repeat a run; fresh seeds by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="CSV with every single measurement")
    return parser.parse_args(arguments)


def _named(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    chosen = [row for row in rows if any(name in row.name for name in names)]
    if not chosen:
        raise SystemExit(f"no row matches {list(names)}; there are: {'; '.join(row.name for row in rows)}")
    return chosen


def _header(rows: Sequence[Row], options: argparse.Namespace, first: int) -> str:
    from benchmarks.rows import Race

    contestants = {s.name: s for row in rows if isinstance(row, Race) for s in row.solvers}
    absent = [name for name, solver in contestants.items() if not solver.available(options.device)]
    clock = "wall seconds" if options.device == "cuda" else "CPU seconds, one thread"
    lines = [f"{clock} on {options.device}, seeds from {first} (--first-seed {first} repeats them)"]
    if absent:
        lines.append(f"not installed or not for {options.device}, skipped: {', '.join(absent)}")
    return "\n".join([*lines, "", *TABLE_HEAD])


TABLE_HEAD = (
    "| row | seeds | labkit | our error | best peer | found | target | met | peers |",
    "|---|---|---|---|---|---|---|---|---|",
)


def _lines(row: Row, measured: Sequence[Measurement], device: str) -> str:
    """One line of the table for each claim of a row; the first one holds the times."""
    from benchmarks.rows import best_peer, summarize

    summary = summarize(measured)
    seeds = len({m.seed for m in measured})
    best = best_peer(summary)
    ours = summary["labkit"]
    times = [
        row.name,
        str(seeds),
        _cell(ours),
        _errors(ours),
        "-" if best is None else f"{best} {_cell(summary[best])}",
    ]
    lines = []
    for i, claim in enumerate(row.claims):
        outcome = claim(summary, device)
        cells = [*(times if i == 0 else [""] * len(times)), outcome.found, outcome.target, _met(outcome)]
        lines.append("| " + " | ".join([*cells, _peers(summary) if i == 0 else ""]) + " |")
    return "\n".join(lines)


def _cell(entry: Entry) -> str:
    if entry.status == "ok":
        return f"{entry.seconds:.3g} s"
    if entry.status == "fails":
        return f"fails ({_errors(entry)})"
    return entry.status if not entry.note else f"{entry.status} ({entry.note[:60]})"


def _errors(entry: Entry) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in sorted(entry.errors.items()))


def _peers(summary: Summary) -> str:
    return "; ".join(f"{name} {_cell(entry)}" for name, entry in summary.items() if name != "labkit")


def _met(outcome: Outcome) -> str:
    return {True: "yes", False: "NO", None: "-"}[outcome.met]


def _write(path: Path, measured: Sequence[Measurement]) -> None:
    kinds = sorted({kind for m in measured for kind in m.errors})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "solver", "status", "seconds", *kinds, "note"])
        for m in measured:
            figures = [f"{m.errors[k]:.4g}" if k in m.errors else "" for k in kinds]
            writer.writerow([m.row, m.seed, m.solver, m.status, f"{m.seconds:.6g}", *figures, m.note])


if __name__ == "__main__":
    one_thread()
    sys.path[0] = str(ROOT)  # instead of this folder, so that modules have one name: benchmarks.*
    sys.exit(main())
