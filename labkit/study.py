"""Studies: grids of runs through papermill, in parallel, resumable.

A study is a YAML file: the shared configuration, a list of variants with their options, and seeds. Each cell of the
grid is one execution of `notebooks/01_train_evaluate.ipynb`, which ends as `report.ipynb` in the run's folder. Complete
runs are skipped, so a killed study continues where it was; a run that fails keeps its half notebook and the others
go on.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from labkit import __version__
from labkit import run as runs
from labkit.config import ConfigError, DataConfig, EvaluationConfig, RunConfig, TrainingConfig, parse
from labkit.registry import UnknownNameError
from labkit.store import Run, Store, StoreError
from labkit.store.errors import explained

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "notebooks" / "01_train_evaluate.ipynb"
SCRATCH = ".notebooks"  # in the folder of the runs: notebooks that are not yet part of one


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
        name: of the study, for titles and the folder in `results/`.
        description: what it asks, one or two sentences.
        data: shared by all runs.
        training: shared by all runs.
        evaluation: shared by all runs.
        variants: the rows of the grid.
        seeds: its columns; a seed sets the split, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = ""
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    variants: tuple[Cell, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)

    def configs(self) -> list[RunConfig]:
        """The resolved configuration of every run, seeds outermost so that a partial study is balanced.

        Raises:
            UnknownNameError, ConfigError: a run that cannot be made, or one that occurs twice.
        """
        found = [runs.resolve(self._config(cell, seed)) for seed in self.seeds for cell in self.variants]
        ids = [config.run_id for config in found]
        if twice := sorted({run_id for run_id in ids if ids.count(run_id) > 1}):
            raise ConfigError(f"study {self.name!r} has the same run twice ({twice[0]}): remove a variant or a seed")
        return found

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
        UnknownNameError: no study has that name; the message lists the nearest.
        FileNotFoundError: no such file.
        ConfigError: the file is no YAML, or a field is wrong; the message names the file and the field.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else REPOSITORY / "studies" / f"{name}.yaml"
    if is_path and not path.is_file():
        raise FileNotFoundError(f"no study file {path}; give the path of a YAML file, or a name in studies/")
    if not path.is_file():
        raise UnknownNameError(f"unknown study {name!r}; {_nearest(name, path.parent)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping with the fields {', '.join(Study.model_fields)}")
    return parse(Study, content, what=str(path))


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
        UnknownNameError, ConfigError: see `Study.configs`.
        ValueError: a file of the user's has changed since a complete run was made from it.
        StoreError: the folder of the runs cannot be made.
    """
    configs = study.configs()
    store = Store(Path(Store(root).root).resolve())  # the notebooks run in another folder
    with explained("make", store.root):
        (store.root / SCRATCH).mkdir(parents=True, exist_ok=True)
    outcomes = {} if rerun else _finished(store, configs)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # every notebook is one thread wide: as many run side by side as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bar = tqdm(total=len(configs), initial=len(outcomes), desc=study.name, unit="run")
    with bar, ThreadPoolExecutor(max_workers=jobs or joblib.cpu_count()) as pool:
        futures = [pool.submit(_execute, store, c, rerun) for c in configs if c.run_id not in outcomes]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes[outcome.run_id] = outcome
                bar.update()
                if outcome.error:
                    bar.write(f"{outcome.run_id} failed: {outcome.error}")
        except KeyboardInterrupt:
            bar.write("stopping when the notebooks that are running are done; the same command continues")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[config.run_id] for config in configs]


def complete(study: Study, root: Path | str | None = None) -> tuple[Store, list[str]]:
    """The store, and the ids of the study's complete runs in the order of the grid."""
    store = Store(root)
    done = {r.id for r in store.runs() if r.status == "complete"}
    return store, [c.run_id for c in study.configs() if c.run_id in done]


def status(study: Study, *, root: Path | str | None = None) -> pd.DataFrame:
    """One row per run of the study: run, variant, seed, status, code (made by this or by other code), error."""
    store = Store(root)
    known = {r.id: r for r in store.runs()}
    head = runs.git_state().get("commit")
    return pd.DataFrame(list(_status_rows(study, known, head)))


def _status_rows(study: Study, known: dict[str, Run], head: str | None) -> Iterator[dict[str, Any]]:
    for config in study.configs():
        row = {"run": config.run_id, "variant": config.variant, "seed": config.seed}
        found = known.get(config.run_id)
        if found is None:
            yield row | {"status": "not started", "code": "", "error": ""}
            continue
        info = found.info
        state = "interrupted" if info["status"] == "running" and not found.is_alive else info["status"]
        same = (info["labkit"], info["git"].get("commit")) == (__version__, head)
        yield row | {
            "status": state,
            "code": "this code" if same else "other code",
            "error": (info["error"] or "").partition("\n")[0],
        }


def _finished(store: Store, configs: list[RunConfig]) -> dict[str, Outcome]:
    """The runs that need not be made again: complete, and with their notebook."""
    done = {r.id: r for r in store.runs() if r.status == "complete" and r.has("report")}
    finished = [c.run_id for c in configs if c.run_id in done]
    for run_id in finished:
        runs.check_data(done[run_id])
    return {run_id: Outcome(run_id, "complete") for run_id in finished}


def _execute(store: Store, config: RunConfig, rerun: bool) -> Outcome:
    """One papermill job; never raises, so that the others go on."""
    import papermill  # starts slowly; `study status` does without
    from traitlets.config import Config

    parameters = config.model_dump(mode="json")
    parameters |= {"dataset": parameters["data"]["dataset"], "modalities": parameters["data"]["modalities"]}
    parameters |= {"missing": parameters.pop("data")["missing"], "runs": str(store.root), "rerun": rerun}
    notebook = store.root / SCRATCH / f"{config.run_id}.ipynb"
    error = ""
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
    except Exception as raised:  # noqa: BLE001 - whatever a notebook raises belongs to its run alone
        error = _first_line(raised)
    try:
        error = _file(store, config, notebook, error)
    except (StoreError, OSError) as raised:  # the disk is full, say: the others may still find space
        error = error or str(raised)
    return Outcome(config.run_id, "failed" if error else "complete", error)


def _file(store: Store, config: RunConfig, notebook: Path, error: str) -> str:
    """Move the executed notebook into its run and see to it that the run says how it ended.

    Returns:
        Why the run is not complete, empty if it is.
    """
    found = next((r for r in store.runs() if r.id == config.run_id), None)
    if found is None or found.is_alive or (error and found.status == "complete"):
        # it raised before it had the run, which another process may be writing or may have completed before
        return f"{error or 'the notebook made no run'}; see {notebook}"
    if notebook.is_file():
        report = found.folder / "report.ipynb"
        notebook.replace(report)
        found.register(report)
    if found.status == "running":  # the kernel died before it could say so
        found.fail(error or "the kernel died")
    return error if found.status == "complete" else error or found.info["error"]


def _nearest(name: str, folder: Path) -> str:
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"{hint} Or give the path of a YAML file"


def _first_line(error: Exception) -> str:
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {value}".strip().splitlines()[0][:300]
