"""What can go wrong with a run store; every message is one sentence that names the path and the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMEDY = {
    errno.ENOSPC: "the disk is full: free some space, or set {variable} to a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space, or set {variable} to a folder on another disk",
    errno.EACCES: "permission denied: change the permissions, or set {variable} to a folder you may use",
    errno.EPERM: "permission denied: change the permissions, or set {variable} to a folder you may use",
    errno.EROFS: "the disk is read-only: set {variable} to a folder you may write",
}


class StoreError(RuntimeError):
    """A run folder that cannot be read or written."""


class SchemaError(StoreError):
    """A run folder in a layout that this version does not know."""


class RunNotFoundError(StoreError):
    """No run, or more than one, has the id or prefix that was asked for."""


class RunExistsError(StoreError):
    """A run of this id is complete, being written, or was made with another configuration."""


class NotComputedError(StoreError):
    """A part of a run that nobody has computed; the message names the command that does."""


@contextmanager
def explained(action: str, path: Path, *, variable: str = "LABKIT_RUNS") -> Iterator[None]:
    """Turn the operating system's errors into one sentence with a remedy.

    Args:
        action: what could not be done, e.g. "write".
        path: to what.
        variable: of the environment, which chooses another folder.

    Raises:
        StoreError: in place of any `OSError` raised inside.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0)
        reason = remedy.format(variable=variable) if remedy else error.strerror or str(error)
        raise StoreError(f"cannot {action} {path}: {reason}") from error
