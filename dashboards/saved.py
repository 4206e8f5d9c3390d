"""The control above the tabs that saves, loads and deletes named selections, and takes selection and map away."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
import panel as pn

from dashboards import export
from dashboards.parts import notice, text
from dashboards.shelf import LONGEST, shelf
from labkit.store import StoreError

if TYPE_CHECKING:
    from dashboards.app import App
    from dashboards.content import Content
    from dashboards.session import Session

_NONE = "(none)"


class SavedSelections:
    """The control.

    Args:
        app: whose session it works on.
        name: of the selection that the URL asks for, "" for none.

    Attributes:
        view: a card, closed at first.
    """

    def __init__(self, app: App, name: str = "") -> None:
        self._app, self._session, self._own = app, app.session, False
        self.pick = pn.widgets.Select(label="Saved selections", options=[_NONE], width=220)
        self.name = pn.widgets.TextInput(
            label="Name", placeholder="letters, digits, . _ -", width=180, max_length=LONGEST
        )
        self.save = pn.widgets.Button(label="Save selection", width=120, margin=(20, 5, 0, 5))
        self.delete = pn.widgets.Button(label="Delete", width=80, margin=(20, 5, 0, 5))
        self.told = pn.Column(sizing_mode="stretch_width")
        self._lines = pn.pane.HTML("", sizing_mode="stretch_width")
        self._downloads = [
            _download("Selected samples (csv)", lambda: self._file(export.as_csv, "csv")),
            _download("Map (HTML)", lambda: self._file(export.as_html, "html")),
            _download("Map (SVG)", lambda: self._file(lambda s, c: export.as_picture(s, c, "svg"), "svg")),
            _download("Map (PNG)", lambda: self._file(lambda s, c: export.as_picture(s, c, "png"), "png")),
        ]
        row = pn.FlexBox(
            self.pick, self.name, self.save, self.delete, *self._downloads, align_items="center", gap="2px"
        )
        self.view = pn.Card(
            row, self.told, self._lines, title="Selection: save, load, export", collapsed=True,
            sizing_mode="stretch_width", margin=(2, 10, 6, 10),
        )  # fmt: skip
        self.pick.param.watch(self._picked, "value")
        self.save.on_click(lambda _: self._try(self._save))
        self.delete.on_click(lambda _: self._try(self._delete))
        self._session.selection.param.watch(self._selected, "mask")
        self._session.param.watch(lambda _: self._offer(), "run")
        self.view.param.watch(lambda _: self._offer(), "collapsed")
        self._offer()
        if name:
            self._try(lambda: self._load(name), to=app.message)

    def _picked(self, event: object) -> None:
        if not self._own and self.pick.value != _NONE:
            self._try(lambda: self._load(str(self.pick.value)))

    def _load(self, name: str) -> None:
        kept = shelf(self._session)
        if kept is None:
            return
        keys = kept.load(name)
        self._own = True
        try:
            found = self._session.select_keys(keys)
        finally:
            self._own = False
        self._name(name)
        gone = f" ({len(set(keys)) - found:,} are not in this run any more)" if found < len(set(keys)) else ""
        self._say(f"{name}: {found:,} samples selected{gone}.")

    def _save(self) -> None:
        kept, name = shelf(self._session), str(self.name.value_input or self.name.value).strip().replace(" ", "-")
        content = self._session.content
        if kept is None or content is None:
            return
        rows = np.flatnonzero(self._session.selection.mask)
        if not len(rows):
            raise StoreError("nothing is selected: select something first, then save it")
        if not name:
            raise StoreError("the selection needs a name: type one, then save it")
        kept.save(name, content.points["key"].iloc[rows].astype(str).tolist())
        self.name.param.update(value="", value_input="")
        self._name(name)
        self._say(f"{name}: {len(rows):,} samples saved {kept.where}. The address of this page brings them back.")

    def _delete(self) -> None:
        kept, name = shelf(self._session), str(self.pick.value)
        if kept is None or name == _NONE:
            raise StoreError("choose the saved selection to delete first")
        kept.delete(name)
        self._name("")
        self._say(f"{name} is deleted; its samples stay selected.")

    def _selected(self, _: object) -> None:
        """The selection is no longer the saved one."""
        if not self._own and self._session.named:
            self._name("")
        elif not self._own:
            self._tell()

    def _name(self, name: str) -> None:
        self._session.named = name
        location = pn.state.location
        if location is not None and not name:  # what an address has is only taken away by writing it anew
            kept = {k: v for k, v in location.query_params.items() if k != "selection"}
            location.search = f"?{urlencode(kept)}"
        self._app.told()
        self._offer()

    def _offer(self) -> None:
        kept = shelf(self._session)
        try:
            names = [] if kept is None else kept.names()
        except StoreError as error:
            names = []
            self._say(str(error), warning=True)
        shown = self._session.named if self._session.named in names else _NONE
        self._own = True
        try:
            self.pick.param.update(options=[_NONE, *names], value=shown)
        finally:
            self._own = False
        self._tell()

    def _tell(self) -> None:
        """The lines to copy; only worth it while somebody looks."""
        content, n = self._session.content, len(self._session.selection)
        self.view.title = f"Selection: save, load, export · {n:,} selected" if n else "Selection: save, load, export"
        if content is None or self.view.collapsed:
            return
        lines = {"The selected samples in Python": export.python_line(self._session, content),
                 "This run again, as an executed notebook": export.papermill_line(content)}  # fmt: skip
        self._lines.object = "".join(
            f'<div class="lk-mod">{what}</div><pre class="lk-code">{text(line)}</pre>'
            for what, line in lines.items()
            if line
        )

    def _file(self, make: Callable[[Session, Content], str | bytes], suffix: str) -> io.BytesIO:
        """What a download button sends; a sentence in the file where there is nothing to send."""
        content, made = self._session.content, b""
        button = self._downloads[("csv", "html", "svg", "png").index(suffix)]
        button.filename = export.filename(self._session, suffix)
        try:
            found = "" if content is None else make(self._session, content)
            made = found.encode() if isinstance(found, str) else found
        except (StoreError, ValueError) as error:
            self._say(f"not exported: {error}", warning=True)
            button.filename, made = "not-exported.txt", f"not exported: {error}\n".encode()
        return io.BytesIO(made)

    def _try(self, action: Callable[[], None], to: pn.Column | None = None) -> None:
        try:
            action()
        except StoreError as error:
            if to is None:
                self._say(str(error), warning=True)
            else:
                to.append(notice(f"The address asks for a selection that is not there: {error}", warning=True))

    def _say(self, sentence: str, *, warning: bool = False) -> None:
        self.told.objects = [notice(sentence, warning=warning)]


def _download(label: str, callback: Callable[[], io.BytesIO]) -> pn.widgets.FileDownload:
    return pn.widgets.FileDownload(callback=callback, filename="labkit", label=label, margin=(20, 5, 0, 5))
