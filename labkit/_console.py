"""What the commands share: lists and assignments in, one sentence and an exit code out.

Nothing heavy is imported before there is an error.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer


def names(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def refuse_both(context: typer.Context, *, allowed: tuple[str, ...]) -> None:
    """A stored run has its whole configuration: an option beside it would be silently dropped.

    Raises:
        ValueError: an option outside `allowed` was given.
    """
    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if extra := [f"--{name}" for name in given if name not in allowed]:
        raise ValueError(f"a stored run brings its configuration; leave out {', '.join(extra)}, or the run's id")


def assignments(pairs: list[str] | None) -> dict[str, Any]:
    """Values of `name=value` pairs: JSON where it is JSON, else text; `a.b=value` is the entry b of a.

    Raises:
        ValueError: a pair has no name or no "=".
    """
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} must be name=value, e.g. w_ot=3")
        *path, last = name.split(".")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{pair!r} is an entry of {part!r}, which has been given a value; give one of them")
        try:
            inner[last] = json.loads(value)
        except json.JSONDecodeError:
            inner[last] = value
    return values


@contextmanager
def clear_errors() -> Iterator[None]:
    """One sentence and exit code 1 or 2 instead of a traceback, for what users can mend; one for labkit's warnings."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, ImportError, RuntimeError) as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    place: str,
    line: int,
    file: TextIO | None = None,
    text: str | None = None,
) -> None:
    """Without the line of code where it is one of labkit, which says all there is to say."""
    own = Path(place).is_relative_to(Path(__file__).parent)
    typer.echo(f"warning: {message}" if own else warnings.formatwarning(message, category, place, line, text), err=True)


def _exit_code(error: Exception) -> int | None:
    """2 for a wrong argument, 1 for what failed; None for what is no answer to the user, a bug for one."""
    from labkit.registry import UnknownNameError
    from labkit.store import RunNotFoundError, StoreError

    if isinstance(error, (UnknownNameError, RunNotFoundError)):
        return 2
    if isinstance(error, (StoreError, OSError, ImportError, ArithmeticError)):
        return 1
    if isinstance(error, (ValueError, TypeError)):
        from labkit.data.stamps import CorruptBundleError

        return 1 if isinstance(error, CorruptBundleError) else 2
    return None
