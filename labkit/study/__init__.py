"""Studies: grids of runs through papermill, in parallel, resumable.

    study = labkit.study.load("baselines")       # studies/baselines.yaml
    labkit.study.run(study, jobs=2)              # what is not complete yet
    labkit.study.status(study)
    scores, fields = labkit.study.tables(study)  # of the complete runs, told apart by `cell`

A study is a YAML file (`labkit.study.grid`). A job is one execution of `notebooks/01_train_evaluate.ipynb` that trains
some seeds of one cell (`labkit.study.jobs`); the notebook ends as `report.ipynb` in the folder of each of its runs.
"""

from labkit.study.grid import Cell, Planned, Study, load
from labkit.study.jobs import Outcome, run
from labkit.study.state import by_cell, cells, complete, counts, export, leaderboards, status, tables
from labkit.study.tuned import best

__all__ = [
    "Cell",
    "Outcome",
    "Planned",
    "Study",
    "best",
    "by_cell",
    "cells",
    "complete",
    "counts",
    "export",
    "leaderboards",
    "load",
    "run",
    "status",
    "tables",
]
