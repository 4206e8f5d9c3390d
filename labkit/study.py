"""Studies: grids of runs through papermill, in parallel, resumable.

A study is a YAML file: the shared configuration, a list of variants with their options, and seeds. Each cell of the grid
is one execution of `notebooks/01_train_evaluate.ipynb`, which ends as `report.ipynb` in the run's folder. Complete
runs are skipped, so a killed study continues where it was; a run that fails keeps its half notebook and the others go on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from labkit import run as runs
from labkit.config import DataConfig, EvaluationConfig, RunConfig, TrainingConfig, parse
from labkit.store import Store

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "notebooks" / "01_train_evaluate.ipynb"


class Cell(BaseModel):
    """A variant of the grid.

    Attributes:
        variant: name in `labkit.variants.VARIANTS`.
        options: its hyper-parameters; defaults where they are not given.
        training: fields of `TrainingConfig` that differ from the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    variant: str
    options: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


class Study(BaseModel):
    """A grid of runs: every variant with every seed.

    Attributes:
        name: of the study, for titles and file names.
        description: what it asks, one or two sentences.
        data: shared by all runs.
        training: shared by all runs.
        evaluation: shared by all runs.
        variants: the rows of the grid.
        seeds: its columns; a seed sets the split, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str = ""
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    variants: tuple[Cell, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)

    def configs(self) -> list[RunConfig]:
        """The resolved configuration of every run, seeds outermost so that a partial study is balanced."""
        return [runs.resolve(self._config(cell, seed)) for seed in self.seeds for cell in self.variants]

    def _config(self, cell: Cell, seed: int) -> RunConfig:
        training = parse(
            TrainingConfig, self.training.model_dump() | cell.training, what=f"training of {cell.variant!r}"
        )
        return RunConfig(
            data=self.data,
            variant=cell.variant,
            options=cell.options,
            training=training,
            evaluation=self.evaluation,
            seed=seed,
        )


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


def load(name: str) -> Study:
    """The study in the file `name`, or in `studies/<name>.yaml`.

    Raises:
        FileNotFoundError: neither exists; the message lists the studies there are.
        ConfigError: a field is wrong; the message names the file and the field.
    """
    folder = REPOSITORY / "studies"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise FileNotFoundError(f"no study {name!r} at {path}; there are: {known}; or give the path of a YAML file")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping with the fields {', '.join(Study.model_fields)}")
    return parse(Study, content, what=str(path))


def run(study: Study, *, root: Path | str | None = None, jobs: int | None = None, rerun: bool = False) -> list[Outcome]:
    """Execute what is not complete yet; a progress bar counts the runs.

    Args:
        study: the grid.
        root: folder of the runs, `$LABKIT_RUNS` or `runs` by default.
        jobs: notebooks at a time, one per core by default; each uses one thread.
        rerun: execute complete runs anew.

    Returns:
        How each run of the study ended, complete ones included.
    """
    store = Store(root)
    configs = study.configs()
    finished = set() if rerun else {r.id for r in store.runs() if r.status == "complete"}
    pending = [config for config in configs if config.run_id not in finished]
    outcomes = [Outcome(c.run_id, "complete") for c in configs if c.run_id in finished]
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # every notebook is one thread wide: as many run side by side as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bar = tqdm(total=len(configs), initial=len(outcomes), desc=study.name, unit="run")
    with bar, ThreadPoolExecutor(max_workers=jobs or os.cpu_count() or 1) as pool:
        futures = [pool.submit(_execute, store, config, rerun) for config in pending]
        for future in as_completed(futures):
            outcome = future.result()
            outcomes.append(outcome)
            bar.update()
            if outcome.error:
                bar.write(f"{outcome.run_id} failed: {outcome.error}")
    return outcomes


def complete(study: Study, root: Path | str | None = None) -> tuple[Store, list[str]]:
    """The store, and the ids of the study's complete runs in the order of the grid."""
    store = Store(root)
    done = {r.id for r in store.runs() if r.status == "complete"}
    return store, [c.run_id for c in study.configs() if c.run_id in done]


def status(study: Study, *, root: Path | str | None = None) -> pd.DataFrame:
    """One row per run of the study: id, variant, seed, status, code (made by this code or by older)."""
    store = Store(root)
    known = {r.id: r for r in store.runs()}
    head = runs.git_state().get("commit")
    return pd.DataFrame(list(_status_rows(study, known, head)))


def _status_rows(study: Study, known: dict[str, Any], head: str | None) -> Iterator[dict[str, Any]]:
    for config in study.configs():
        found = known.get(config.run_id)
        info = found.info if found else {}
        state = info.get("status", "not started")
        if state == "running" and found is not None and not found.is_alive:
            state = "interrupted"
        made_by = (info.get("git") or {}).get("commit")
        code = "" if not info else ("this code" if made_by == head else "older code")
        yield {"run": config.run_id, "variant": config.variant, "seed": config.seed, "status": state, "code": code}


def _execute(store: Store, config: RunConfig, rerun: bool) -> Outcome:
    """One papermill job; never raises, so that the others go on."""
    import papermill  # starts slowly; `study status` does without

    parameters = config.model_dump(mode="json")
    parameters |= {"dataset": parameters["data"]["dataset"], "modalities": parameters["data"]["modalities"]}
    parameters |= {"missing": parameters.pop("data")["missing"], "runs": str(store.root), "rerun": rerun}
    scratch = store.root / ".notebooks"
    scratch.mkdir(parents=True, exist_ok=True)
    notebook = scratch / f"{config.run_id}.ipynb"
    error = ""
    try:
        papermill.execute_notebook(
            str(NOTEBOOK), str(notebook), parameters=parameters, progress_bar=False, cwd=str(REPOSITORY)
        )
    except Exception as raised:  # noqa: BLE001 - whatever a notebook raises belongs to its run alone
        error = _first_line(raised)
    return _file(store, config, notebook, error)


def _file(store: Store, config: RunConfig, notebook: Path, error: str) -> Outcome:
    """Move the executed notebook into its run and see to it that the run says how it ended."""
    found = next((r for r in store.runs() if r.id == config.run_id), None)
    if found is None:
        return Outcome(config.run_id, "failed", error or f"the notebook made no run; see {notebook}")
    if notebook.is_file():
        report = found.folder / "report.ipynb"
        notebook.replace(report)
        found.register(report)
    if found.status == "running":  # the kernel died before it could say so
        found.fail(error or "the kernel died")
    return Outcome(config.run_id, found.status, error if found.status != "complete" else "")


def _first_line(error: Exception) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {value}".strip().splitlines()[0][:300]
