"""One registry per subpackage: a decorator, a look-up, a list of names.

    LOSSES = Registry("loss", __name__)          # in labkit/losses/__init__.py

    @LOSSES.register("info_nce", aliases=("clip_loss",))
    def info_nce(...): ...

Sibling modules of the package are imported on the first look-up, so a new loss, metric, encoder, variant or
dataset is one new file and nothing else. Duplicate names are refused; an unknown name answers with the nearest.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that no registered component has; the message lists the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry:
    """Name -> component, filled by the modules of `package`.

    Args:
        kind: what the components are, for messages ("loss", "variant", ...).
        package: dotted name of the package whose modules register components; usually `__name__`.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, object] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Decorator that adds a component under `name` and `aliases`.

        Raises:
            ValueError: a name is taken by another component.
        """

        def add(component: T) -> T:
            for candidate in (name, *aliases):
                taken = self._entries.get(self._aliases.get(candidate, candidate))
                if taken is not None and not _same_source(taken, component):
                    raise ValueError(f"{self.kind} {candidate!r} is already registered at {_where(taken)}")
            self._entries[name] = component
            self._aliases.update(dict.fromkeys(aliases, name))
            return component

        return add

    def get(self, name: str) -> object:
        """The component called `name` (or having it as an alias).

        Raises:
            UnknownNameError: no such component; the message names the nearest ones.
        """
        self._discover()
        key = self._aliases.get(name, name)
        if key not in self._entries:
            known = [*self._entries, *self._aliases]
            near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(sorted(known))}"
            raise UnknownNameError(f"unknown {self.kind} {name!r}; {hint}")
        return self._entries[key]

    def names(self) -> list[str]:
        """Registered names without aliases, sorted."""
        self._discover()
        return sorted(self._entries)

    def canonical(self, name: str) -> str:
        """`name` with an alias resolved; raises `UnknownNameError` like `get`."""
        self.get(name)
        return self._aliases.get(name, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries or name in self._aliases

    def __repr__(self) -> str:
        return "\n".join(f"{self.kind} {name} -> {_where(self._entries[name])}" for name in self.names())

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # before the imports: the modules may use the registry
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._discovered = False  # or a second look-up would answer from half a registry
            raise


def _same_source(first: object, second: object) -> bool:
    """A reloaded module registers the same component again; that is no clash."""
    return _identity(first) == _identity(second)


def _identity(component: object) -> tuple[object, object]:
    component = inspect.unwrap(component)  # type: ignore[arg-type]
    return getattr(component, "__module__", None), getattr(component, "__qualname__", id(component))


def _where(component: object) -> str:
    component = inspect.unwrap(component)  # type: ignore[arg-type]
    try:
        source = inspect.getsourcefile(component)  # type: ignore[arg-type]
        line = inspect.getsourcelines(component)[1]  # type: ignore[arg-type]
    except (TypeError, OSError):
        return repr(component)
    module = getattr(component, "__module__", "") or str(source)
    return f"{module.replace('.', '/')}.py:{line}"
