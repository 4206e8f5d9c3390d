"""What the commands share: lists and assignments in, one sentence and an exit code out.

Nothing heavy is imported before there is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    """Values of `name=value` pairs: JSON where it is JSON, else text.

    Raises:
        ValueError: a pair has no name or no "=".
    """
    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} must be name=value, e.g. w_ot=3")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


@contextmanager
def clear_errors() -> Iterator[None]:
    """One sentence and exit code 1 or 2 instead of a traceback, for what users can mend."""
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError, ImportError, RuntimeError) as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from None


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
