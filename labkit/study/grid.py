"""What a study asks for: a YAML file, expanded to the runs of its grid.

    name: few-pairs
    tuned: baselines                             # start from the best trials in results/tuning/baselines.csv
    data: {dataset: stamps, modalities: [image, text]}
    seeds: [0, 1, 2]
    grid: {data.pairs: [1.0, 0.25, 0.0]}         # of every cell; several axes are multiplied
    variants:
    - variant: clip
    - {variant: gotma, label: gotma without RC, options: {w_rc: 0}}
    - {variant: ot, seeds: [0, 1, 2, 3], grid: {options.epsilon: [0.05, 0.2]}}

A cell is what is repeated over seeds. Its label tells it from other cells of the same variant; the id of a run is a
hash of what is run, so cells and studies that ask for the same run share it.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from labkit import run as runs
from labkit import variants
from labkit.config import ConfigError, DataConfig, EvaluationConfig, RunConfig, TrainingConfig, parse
from labkit.registry import UnknownNameError
from labkit.study import tuned as tuning
from labkit.variants import Trained

FOLDER = Path(__file__).parents[2] / "studies"
CLAIMS = "claims"  # the one file of the folder that is no study, see `labkit.claims`
PARTS = ("options", "data", "training", "evaluation")
Grid = dict[str, tuple[Any, ...]]
Seed = Annotated[int, Field(ge=0)]


class Cell(BaseModel):
    """A variant of the grid, and how it differs from the rest of the study.

    Attributes:
        variant: name in `labkit.variants.VARIANTS`.
        label: what tables and pictures call it; the variant's name by default.
        options: its hyper-parameters; those of the tuning record, else defaults, where they are not given.
        data: fields of `DataConfig` that differ from the study's.
        training: fields of `TrainingConfig`, likewise.
        evaluation: fields of `EvaluationConfig`, likewise.
        seeds: instead of the study's.
        grid: axis -> values; the cell is repeated for every combination, on top of the study's grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    variant: str
    label: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[Seed, ...] = ()
    grid: Grid = Field(default_factory=dict)

    @field_validator("grid")
    @classmethod
    def _known_axes(cls, value: Grid) -> Grid:
        return _checked(value)


@dataclass(frozen=True, eq=False)
class Planned:
    """One run of a study.

    Attributes:
        cell: label of the cell that asks for it.
        config: resolved.
    """

    cell: str
    config: RunConfig


class Study(BaseModel):
    """A grid of runs.

    Attributes:
        name: of the study, for titles and the folder in `results/`.
        description: what it asks, one or two sentences.
        tuned: record of `labkit tune` whose best trials the cells start from: a name in `results/tuning/`, or the
            path of a .csv. A variant that it lacks starts from its defaults.
        data: shared by all runs.
        training: shared by all runs.
        evaluation: shared by all runs.
        seeds: of every cell that does not have its own; a seed sets the split, too.
        grid: axis (`options.epsilon`, `data.pairs`, ...) -> values, of every cell.
        variants: the cells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = ""
    tuned: str = ""
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seeds: tuple[Seed, ...] = Field(min_length=1)
    grid: Grid = Field(default_factory=dict)
    variants: tuple[Cell, ...] = Field(min_length=1)

    @field_validator("grid")
    @classmethod
    def _known_axes(cls, value: Grid) -> Grid:
        return _checked(value)

    @property
    def axes(self) -> tuple[str, ...]:
        """Everything that some cell varies, in the order of the file."""
        return tuple(dict.fromkeys([*self.grid, *(axis for cell in self.variants for axis in cell.grid)]))

    def planned(self) -> list[Planned]:
        """The runs of every cell, seeds outermost so that a partial study is balanced; some cells may share runs.

        Raises:
            UnknownNameError, ConfigError: a run that cannot be made, or a cell that occurs twice.
        """
        best = tuning.read(self.tuned) if self.tuned else {}
        found = []
        for cell in self.variants:
            for at in _combinations(self.grid | cell.grid):
                label = _label(cell, at)
                config = self._config(cell, at, best, label)
                found += [(i, label, seed, config) for i, seed in enumerate(cell.seeds or self.seeds)]
        named = [(label, seed) for _, label, seed, _ in found]
        if twice := next((n for n in named if named.count(n) > 1), None):
            raise ConfigError(
                f"study {self.name!r} has cell {twice[0]!r} with seed {twice[1]} twice: remove a variant or a seed, or "
                "give it a `label` of its own"
            )
        found.sort(key=lambda row: row[0])
        return [Planned(label, config.model_copy(update={"seed": seed})) for _, label, seed, config in found]

    def configs(self) -> list[RunConfig]:
        """The resolved configuration of every run, each once; see `planned`."""
        return list({p.config.run_id: p.config for p in self.planned()}.values())

    def untuned(self) -> list[str]:
        """Trained variants of the study that its tuning record lacks, so that they run with their defaults."""
        if not self.tuned:
            return []
        best = tuning.read(self.tuned)
        names = dict.fromkeys(variants.VARIANTS.canonical(cell.variant) for cell in self.variants)
        return [name for name in names if issubclass(variants.get(name), Trained) and name not in best]

    def _config(self, cell: Cell, at: dict[str, Any], best: dict[str, tuning.Best], label: str) -> RunConfig:
        name = variants.VARIANTS.canonical(cell.variant)
        start = best.get(name, tuning.Best())
        given: dict[str, dict[str, Any]] = {part: dict(getattr(cell, part)) for part in PARTS}
        for axis, value in at.items():
            part, _, name_of_field = axis.partition(".")
            given[part][name_of_field] = value
        shared = {part: getattr(self, part).model_dump() for part in ("data", "training", "evaluation")}
        values = {
            "data": shared["data"] | given["data"],
            "variant": name,
            "options": start.options | given["options"],
            "training": shared["training"] | start.training | given["training"],
            "evaluation": shared["evaluation"] | given["evaluation"],
        }
        # `data.options.redundancy` or `data.domain.test` as an axis: one level deeper than the other fields
        for field in ("options", "domain"):
            values["data"][field] = shared["data"].get(field, {}) | _nested(values["data"], field)
        return runs.resolve(parse(RunConfig, values, what=f"cell {label!r} of study {self.name!r}"))


def load(name: str) -> Study:
    """The study in the file `name`, or in `studies/<name>.yaml`.

    Raises:
        UnknownNameError: no study has that name; the message lists the nearest.
        FileNotFoundError: no such file.
        ConfigError: the file is no YAML, or a field is wrong; the message names the file and the field.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else FOLDER / f"{name}.yaml"
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


def text(value: Any) -> str:
    """A value of an axis in a label: numbers short, lists joined by "+"."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _label(cell: Cell, at: dict[str, Any]) -> str:
    parts = [f"{axis.rpartition('.')[2]}={text(value)}" for axis, value in at.items()]
    return ", ".join([cell.label or variants.VARIANTS.canonical(cell.variant), *parts])


def _nested(values: dict[str, Any], field: str) -> dict[str, Any]:
    """`values[field]` with the entries that were given as `field.name`, which are removed."""
    deeper = {key: values.pop(key) for key in list(values) if key.startswith(f"{field}.")}
    return values.get(field, {}) | {key.removeprefix(f"{field}."): value for key, value in deeper.items()}


def _checked(grid: Grid) -> Grid:
    for axis, values in grid.items():
        part, dot, field = axis.partition(".")
        if part not in PARTS or not dot or not field:
            near = difflib.get_close_matches(part, PARTS, n=1)
            hint = f"did you mean '{near[0]}.{field}'? " if near and field else ""
            raise ValueError(f"axis {axis!r} is unknown; {hint}write {' or '.join(f'{p}.<field>' for p in PARTS)}")
        if not values:
            raise ValueError(f"axis {axis!r} has no values; list one or more")
    return grid


def _nearest(name: str, folder: Path) -> str:
    known = sorted(p.stem for p in folder.glob("*.yaml") if p.stem != CLAIMS)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"{hint} Or give the path of a YAML file"
