"""Names and steps that become file names of a run folder, and the root of the store.

A file is called `<kind>/<name>@<step><suffix>`; the step is "final", "raw" (before alignment) or a number of
optimizer steps. Names cannot hold path separators or a leading dot, so no name leads out of its folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_BUNDLE = "bundle:"

Step = str | int


def runs_root() -> Path:
    """Folder of all runs: `$LABKIT_RUNS`, else `runs` of the nearest enclosing folder that has one, else `./runs`."""
    if chosen := os.environ.get("LABKIT_RUNS"):
        return Path(chosen)
    here = Path.cwd()
    return next((folder / "runs" for folder in (here, *here.parents) if (folder / "runs").is_dir()), Path("runs"))


def check_name(name: str, what: str) -> str:
    """`name`, if it may be part of a file name.

    Raises:
        ValueError: it is empty, starts with a dot, or has other characters than letters, digits, `_`, `.`, `-`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} cannot be a file name: use letters, digits, '_', '.' and '-', starting with a "
            "letter or digit"
        )
    return name


def check_part(name: str, what: str) -> str:
    """`name`, if it may stand between the dashes of a coupling's file name.

    Raises:
        ValueError: see `check_name`; or it has a dash.
    """
    if "-" in check_name(name, what):
        raise ValueError(f"{what} {name!r} cannot have '-', which separates the parts of a coupling's file name")
    return name


def check_step(step: Step) -> str:
    """The text of `step`: "final", "raw" or a number >= 0.

    Raises:
        ValueError: anything else.
    """
    text = str(step)
    if isinstance(step, bool) or not (text in ("final", "raw") or text.isdecimal()):
        raise ValueError(f"step {step!r} is unknown: use 'final', 'raw' or a number of optimizer steps >= 0")
    return str(int(text)) if text.isdecimal() else text


def step_order(step: str) -> tuple[int, int]:
    """Sort key of steps: raw, then numbers, then final."""
    return {"raw": (0, 0), "final": (2, 0)}.get(step) or (1, int(step))


def resolve_data_root(text: str, folder: Path) -> Path:
    """Folder that item paths are relative to.

    `bundle:<name>` is a data set that ships with labkit, wherever it is installed; other text is a path, taken
    relative to the run's folder.
    """
    if text.startswith(_BUNDLE):
        name = check_name(text.removeprefix(_BUNDLE), "bundle")
        return Path(__file__).parents[1] / "data" / "bundles" / name
    return folder / text


def resolve_inside(root: Path, name: str | Path) -> Path:
    """Absolute path of `name` below `root`, symbolic links followed.

    Raises:
        ValueError: the path leads out of `root`.
    """
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"path {str(name)!r} leads out of the folder {root}; refused")
    return path
