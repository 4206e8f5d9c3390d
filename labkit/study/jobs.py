"""Execution of a study: notebooks side by side, each training some seeds of one cell.

A kernel takes 7-12 s to start, so one notebook trains several seeds, each its own run. Complete runs are skipped, so a
killed study continues where it was; a run that fails keeps its half notebook and the others go on.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from labkit import run as runs
from labkit import samples
from labkit.config import RunConfig
from labkit.store import Run, Store, StoreError
from labkit.store.errors import explained
from labkit.study.grid import Planned, Study

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "01_train_evaluate.ipynb"
SCRATCH = ".notebooks"  # in the folder of the runs: notebooks that are not yet part of one
SEEDS_PER_NOTEBOOK = 5


@dataclass(frozen=True)
class Outcome:
    """How one run of a study ended.

    Attributes:
        run_id: folder of the run.
        status: "complete" or "failed".
        error: what was raised, empty when complete.
    """

    run_id: str
    status: str
    error: str = ""


@dataclass(frozen=True, eq=False)
class Job:
    """Runs that one notebook makes: they differ in their seed alone.

    Attributes:
        cell: label of the cell.
        configs: resolved, one per seed.
    """

    cell: str
    configs: tuple[RunConfig, ...]

    @property
    def name(self) -> str:
        """Of the notebook while it is executed."""
        return f"{self.configs[0].run_id}-{len(self.configs)}"


def run(study: Study, *, root: Path | str | None = None, jobs: int | None = None, rerun: bool = False) -> list[Outcome]:
    """Execute what is not complete yet; a progress bar counts the runs.

    Args:
        study: the grid.
        root: folder of the runs; `labkit.store.runs_root()` by default.
        jobs: notebooks at a time, one per core by default; each uses one thread.
        rerun: execute complete runs anew.

    Returns:
        How each run of the study ended, complete ones included, in the order of the grid.

    Raises:
        UnknownNameError, ConfigError: see `Study.planned`.
        ValueError: data that cannot be used, or a file of the user's that has changed since a complete run was made.
        StoreError: the folder of the runs cannot be made.
    """
    planned = study.planned()
    store = Store(Path(Store(root).root).resolve())  # the notebooks run in another folder
    with explained("make", store.root):
        (store.root / SCRATCH).mkdir(parents=True, exist_ok=True)
    outcomes = {} if rerun else _finished(store, planned)
    _clear(store.root / SCRATCH, outcomes)
    check_data([p.config for p in planned if p.config.run_id not in outcomes])
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # every notebook is one thread wide: as many run side by side as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = jobs or joblib.cpu_count()
    order = list(dict.fromkeys(p.config.run_id for p in planned))
    bar = tqdm(total=len(order), initial=len(outcomes), desc=study.name, unit="run")
    with bar, ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(_execute, store, job, rerun) for job in _jobs(planned, set(outcomes), workers)]
        try:
            for future in as_completed(futures):
                for outcome in future.result():
                    outcomes[outcome.run_id] = outcome
                    bar.update()
                    if outcome.error:
                        bar.write(f"{outcome.run_id} failed: {outcome.error}")
        except KeyboardInterrupt:
            bar.write("stopping when the notebooks that are running are done; the same command continues")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[run_id] for run_id in order]


def check_data(configs: Sequence[RunConfig]) -> None:
    """Load each data configuration once, with the first of its seeds.

    Raises:
        UnknownNameError, FileNotFoundError, ValueError: it is not there or not usable; see `labkit.samples.load`.
    """
    seen = {}
    for config in configs:
        seen.setdefault(config.data.model_dump_json(), config)
    for config in seen.values():
        samples.load(config)


def _jobs(planned: Sequence[Planned], done: set[str], workers: int) -> list[Job]:
    """Jobs of the missing runs, in the order of the grid; fewer seeds each where workers would stand idle."""
    missing = {p.config.run_id: p for p in reversed(planned) if p.config.run_id not in done}
    alike: dict[str, list[RunConfig]] = {}
    cells = {}
    for p in planned:
        if missing.get(p.config.run_id) is p:
            key = p.config.model_copy(update={"seed": 0}).run_id
            alike.setdefault(key, []).append(p.config)
            cells.setdefault(key, p.cell)
    size = max(1, min(SEEDS_PER_NOTEBOOK, len(missing) // workers))
    pieces = [
        (start, Job(cells[key], tuple(configs[start : start + size])))
        for key, configs in alike.items()
        for start in range(0, len(configs), size)
    ]
    return [job for _, job in sorted(pieces, key=lambda piece: piece[0])]


def _finished(store: Store, planned: Sequence[Planned]) -> dict[str, Outcome]:
    """The runs that need not be made again: complete, and with their notebook."""
    done = {r.id: r for r in store.runs() if r.status == "complete" and r.has("report")}
    finished = dict.fromkeys(p.config.run_id for p in planned if p.config.run_id in done)
    for run_id in finished:
        runs.check_data(done[run_id])
    return {run_id: Outcome(run_id, "complete") for run_id in finished}


def _execute(store: Store, job: Job, rerun: bool) -> list[Outcome]:
    """One papermill job; never raises, so that the others go on.

    A kernel that dies takes all its seeds with it: they are tried again without the one that it died of.
    """
    outcomes: dict[str, Outcome] = {}
    left = job.configs
    while left:
        outcomes |= _attempt(store, Job(job.cell, left), rerun)
        left, rerun = tuple(c for c in left if c.run_id not in outcomes), False
    return [outcomes[c.run_id] for c in job.configs]


def _clear(scratch: Path, finished: Iterable[str]) -> None:
    """Remove notebooks of complete runs, which a study that was killed had no time to remove."""
    for run_id in finished:
        (scratch / f"{run_id}-1.ipynb").unlink(missing_ok=True)


def _attempt(store: Store, job: Job, rerun: bool) -> dict[str, Outcome]:
    """Execute the notebook of a job; how one or more of its runs ended."""
    notebook = store.root / SCRATCH / f"{job.name}.ipynb"
    error = _play(notebook, _parameters(job) | {"runs": str(store.root), "rerun": rerun})
    known = {r.id: r for r in store.runs()}
    made = [known[c.run_id] for c in job.configs if c.run_id in known]
    killed = [r for r in made if r.status == "running" and not r.is_alive]
    if error and killed:
        outcomes = {r.id: _filed(r, notebook, error) for r in killed}
        notebook.unlink(missing_ok=True)
        return outcomes
    # what is alive is written by another process; what is complete in spite of an error was so before, or its
    # pictures failed: a half notebook is no report of it
    own = [r for r in made if not r.is_alive and not (error and r.status == "complete")]
    outcomes = {r.id: _filed(r, notebook, error) for r in own}
    if len(outcomes) == len(job.configs):
        notebook.unlink(missing_ok=True)
    lost = [c.run_id for c in job.configs if c.run_id not in outcomes]
    reason = f"{error or 'the notebook made no run'}; see {notebook}"
    return outcomes | {run_id: Outcome(run_id, "failed", reason) for run_id in lost}


def _play(notebook: Path, parameters: dict[str, Any]) -> str:
    """Execute the template into `notebook`; what it raised, empty if nothing."""
    import papermill  # starts slowly; `study status` does without
    from traitlets.config import Config

    try:
        papermill.execute_notebook(
            str(NOTEBOOK),
            str(notebook),
            parameters=parameters,
            progress_bar=False,
            # papermill's own `cwd` changes the folder of this process, which the other threads share
            resources={"metadata": {"path": str(REPOSITORY)}},
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
    except Exception as raised:  # noqa: BLE001 - whatever a notebook raises belongs to its runs alone
        return _first_line(raised)
    return ""


def _parameters(job: Job) -> dict[str, Any]:
    parameters = job.configs[0].model_dump(mode="json", exclude={"seed"})
    return parameters | {"name": job.cell, "seeds": [c.seed for c in job.configs]}


def _filed(found: Run, notebook: Path, error: str) -> Outcome:
    """Copy the executed notebook into a run and see to it that the run says how it ended."""
    try:
        if notebook.is_file():
            report = found.folder / "report.ipynb"
            shutil.copyfile(notebook, report)
            found.register(report)
        if found.status == "running":  # the kernel died before it could say so
            found.fail(error or "the kernel died")
        if found.status != "complete":
            error = found.info["error"] or error
    except (StoreError, OSError) as raised:  # the disk is full, say: the others may still find space
        error = error or str(raised)
    return Outcome(found.id, "failed" if error else "complete", error)


def _first_line(error: Exception) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {value}".strip().splitlines()[0][:300]
