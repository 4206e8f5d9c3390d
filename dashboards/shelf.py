"""Where named selections are kept: in the run's folder if the server may write there, else in a folder per user.

Without a login all visitors are the same nobody: they share the folder `anonymous`, so what they save is seen by the
others (what they select never is). A selection in the run's folder is read by everybody.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.store import NotComputedError, Run, StoreError
from labkit.store.errors import explained
from labkit.store.names import check_name

if TYPE_CHECKING:
    from dashboards.session import Session

MOST = 200  # selections of a user in a run
LONGEST = 60  # letters of a name


def user_root() -> Path:
    """Folder of what users save: `$LABKIT_USER_DIR`, else `~/.labkit`."""
    return Path(os.environ.get("LABKIT_USER_DIR") or Path.home() / ".labkit")


class Shelf:
    """Selections of one run, as one user sees them.

    Args:
        run: the run.
        user: who asks; "" for nobody in particular.
        writable: whether they are kept in the run's folder.
    """

    def __init__(self, run: Run, *, user: str = "", writable: bool = False) -> None:
        self._run, self._writable = run, writable
        self.folder = user_root() / "users" / _user_folder(user) / run.id / "selections"
        self.where = "with the run" if writable else "for you" if user else "for all visitors without a login"

    def names(self) -> list[str]:
        """All that can be loaded: the user's own, and those that are kept with the run."""
        return sorted({*self.own(), *self._run.selections()})

    def own(self) -> list[str]:
        """Those that the user may delete."""
        if self._writable:
            return sorted(self._run.selections())
        return sorted(file.stem for file in self.folder.glob("*.json")) if self.folder.is_dir() else []

    def load(self, name: str) -> list[str]:
        """Keys of a selection; the user's own goes before the run's of the same name.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        path = self.folder / f"{checked(name)}.json"
        if self._writable or not path.is_file():
            try:
                return self._run.selection(name)
            except NotComputedError:
                raise StoreError(f"run {self._run.id} has no saved selection {name!r} for you") from None
        with explained("read", path, variable="LABKIT_USER_DIR"):
            text = path.read_text(encoding="utf-8")
        try:
            return [str(key) for key in json.loads(text)["keys"]]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"the saved selection {name!r} is damaged: delete it and save it again") from None

    def save(self, name: str, keys: list[str]) -> None:
        """Keep a selection; one of the same name is replaced.

        Raises:
            StoreError: the name cannot be a file name, there are too many, or the folder cannot be written.
        """
        if checked(name) not in self.own() and len(self.own()) >= MOST:
            raise StoreError(f"{MOST} selections of this run are saved: delete one first")
        if self._writable:
            self._run.write_selection(name, keys)
            return
        made = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"name": name, "created": made, "run": self._run.id, "keys": keys}, indent=1)
        with explained("write", self.folder, variable="LABKIT_USER_DIR"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.folder, suffix=".tmp", delete=False, encoding="utf-8"
            ) as file:
                file.write(text)
            os.replace(file.name, self.folder / f"{name}.json")

    def delete(self, name: str) -> None:
        """Remove one of the user's own.

        Raises:
            StoreError: it is not theirs, or cannot be removed.
        """
        if checked(name) not in self.own():
            raise StoreError(f"{name!r} is kept with the run; a server with `--args --write` can delete it")
        if self._writable:
            self._run.delete_selection(name)
            return
        with explained("remove", self.folder, variable="LABKIT_USER_DIR"):
            (self.folder / f"{name}.json").unlink(missing_ok=True)


def shelf(session: Session) -> Shelf | None:
    """The shelf of the shown run, None before there is one."""
    content = session.content
    return None if content is None else Shelf(content.run, user=session.user, writable=session.writable)


def checked(name: str) -> str:
    """A name that may be a file's.

    Raises:
        StoreError: it may not.
    """
    try:
        check_name(name, "selection")
    except ValueError as error:
        raise StoreError(str(error)) from None
    if len(name) > LONGEST:
        raise StoreError(f"the name of a selection has at most {LONGEST} letters; this one has {len(name)}")
    return name


def _user_folder(user: str) -> str:
    """Folder name of a user: readable, and different for different users whatever their names are made of."""
    if not user:
        return "anonymous"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", user).strip("-")[:30]
    return f"{readable}-{hashlib.sha256(user.encode()).hexdigest()[:16]}"
