"""What a page is: the app knows nothing else of it.

A page reads `self.session`, builds its widgets once and an empty `view`, and draws when it is told to. It never watches
another page, nor the session: the app calls `show` and `mark` of the visible page only.
"""

from __future__ import annotations

from typing import ClassVar

import panel as pn
import param

from dashboards.content import Content
from dashboards.session import Session


class Page(param.Parameterized):
    """Base of all pages.

    Class attributes:
        title: text of its tab.
        keep: own parameters that the URL keeps, as `<title in small letters>.<name>`.
        parts: names in `readiness.PARTS`; a run without all of them is told which command computes them.
        needs_run: whether it can show anything without a complete run.

    Attributes:
        view: what the app puts into the tab, made by the page's own `__init__`.
    """

    title: ClassVar[str]
    keep: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    needs_run: ClassVar[bool] = True
    view: pn.viewable.Viewable

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    @property
    def key(self) -> str:
        """Beginning of the page's own parameters in the URL."""
        return self.title.lower()

    @property
    def content(self) -> Content:
        """The shown run; there is one whenever the app calls a page that needs it."""
        assert self.session.content is not None
        return self.session.content

    def show(self) -> None:
        """Draw: the run, its files, the step, the frame or the color have changed, or the page is seen first.

        Raises:
            StoreError: the app shows its sentence instead.
        """
        raise NotImplementedError

    def mark(self) -> None:
        """Follow the selection and the focus; also called after each `show`. Nothing by default."""
