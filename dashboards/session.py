"""What the pages of one browser session share: run, step, frame, color and selection.

Nothing of it outlives the session. Changing a value is enough: the app watches it and tells the visible page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import panel as pn
import param

from dashboards import content as contents
from dashboards.catalog import Listing, catalog
from dashboards.content import Content
from dashboards.selection import Selection
from labkit.store import Store

T = TypeVar("T")

GAPS = ("raw", "centered", "procrustes")
FIELDS = {
    "recall@10": "recall_at_10",
    "neighborhood preservation": "neighborhood_preservation",
    "neighborhood kept": "neighborhood_kept",
}
MEASURES = {  # without an upper end: the scale begins at zero
    "curvature difference": "curvature_alignment",
    "GW distortion": "gromov_wasserstein",
    "hubness": "k_occurrence",
}
FIRST = "first failure"  # severity at which a sample first fails
COLORS = ("modality", "label", "kind", "split", "trust", *FIELDS, *MEASURES, FIRST)
_WORKERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="numbers")  # holds no state of a session


class Session(param.Parameterized):
    """State of one browser session.

    Args:
        store: the runs.
        dark: the theme.
        user: who is logged in, "" where nobody has to.
        writable: whether selections may be written into the run folders.

    Attributes:
        selection: mask and focus over the samples of the shown run.
        content: the shown run, None before there is one.
    """

    page = param.String(default="", doc="Title of the visible page.")
    run = param.String(default="", doc="Id of the shown run.")
    step = param.String(default="final", doc="Step of the training.")
    projection = param.String(default="", doc="Method of the 2-D frame; the first that the run has where empty.")
    gap = param.Selector(default="raw", objects=list(GAPS), doc="What is done with the gap between modalities.")
    color = param.Selector(default="modality", objects=list(COLORS), doc="What the color of a point means.")
    under = param.String(default="", doc="Corruption of the color `FIRST`; the first that was measured where empty.")

    named = param.String(default="", doc="Name of the saved selection that is shown; empty once it is changed.")

    def __init__(self, store: Store, *, dark: bool = False, user: str = "", writable: bool = False) -> None:
        super().__init__()
        self.store, self.dark, self.user, self.writable = store, dark, user, writable
        self.selection = Selection()
        self.content: Content | None = None
        self._wanted: dict[str, object] = {}
        self.opened: Callable[[str, dict[str, str]], None] = lambda page, own: None

    @property
    def painted(self) -> str:
        """The color, with the corruption that it is about."""
        return f"{FIRST}: {self.under}" if self.color == FIRST and self.under else self.color

    @property
    def listing(self) -> Listing:
        """All runs of the store."""
        return catalog(self.store.root).listing()

    def look(self) -> None:
        """Look for changes of the store even if another session has just done so."""
        catalog(self.store.root).listing(fresh=True)

    def load(self) -> bool:
        """Read the shown run if it or its files have changed; the selection stays as long as the samples do.

        Returns:
            Whether anything has changed.

        Raises:
            StoreError: it cannot be read.
        """
        before = self.content
        now = contents.load(self.store, self.run) if self.run else None
        if now is before:
            return False
        same = before is not None and now is not None and before.run.folder == now.run.folder
        n = 0 if now is None else len(now.points)
        if not same or len(self.selection.mask) != n:
            self.content = None  # who watches the selection must not look it up in another run
            self.selection.reset(n)
        self.content = now
        return True

    def select_keys(self, keys: Iterable[str]) -> int:
        """Select the samples with these keys in the shown run; how many of them it has."""
        if self.content is None:
            return 0
        rows = self.content.rows_of(keys)
        self.selection.select(rows)
        return len(rows)

    def go(self, page: str, own: dict[str, str] | None = None) -> None:
        """Open another page.

        Args:
            page: its title.
            own: parameters of its own to set, by name.
        """
        self.opened(page, own or {})

    def later(self, name: str, compute: Callable[[], T], apply: Callable[[T], None]) -> None:
        """Compute something slow beside the session, then put it on the page; only the newest of a name is put there.

        Args:
            name: of the place on the page.
            compute: runs in a thread; it must not touch a widget.
            apply: runs in the session.
        """
        document, ticket = pn.state.curdoc, object()
        self._wanted[name] = ticket
        if document is None or document.session_context is None:  # without a browser
            apply(compute())
            return

        def put(result: T) -> None:
            if self._wanted.get(name) is ticket:
                apply(result)

        def done(found: Future[T]) -> None:
            document.add_next_tick_callback(lambda: put(found.result()))

        _WORKERS.submit(compute).add_done_callback(done)


def served_user() -> tuple[str, bool]:
    """Who asks, and whether the server was started with `--args --write`."""
    import sys

    user: Any = pn.state.user
    return ("" if user in (None, "guest") else str(user)), "--write" in sys.argv[1:]
