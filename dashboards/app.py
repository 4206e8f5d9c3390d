"""The app of one browser session: run picker with readiness, a tab per page, state in the URL.

Everything that happens goes one way: a control, a gesture or the URL changes the `Session`, the app sees it and tells
the visible page; the other pages draw when somebody looks at them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import holoviews as hv
import panel as pn
import param
from panel.io.resources import LOCAL_DIST

from dashboards import items, parts, readiness, styles, url
from dashboards.catalog import Listing
from dashboards.page import Page
from dashboards.page_ask import AskPage
from dashboards.page_compare import ComparePage
from dashboards.page_manifolds import ManifoldsPage
from dashboards.page_neighborhoods import NeighborhoodsPage
from dashboards.page_robustness import RobustnessPage
from dashboards.page_runs import RunsPage
from dashboards.page_topology import TopologyPage
from dashboards.page_transport import TransportPage
from dashboards.page_whatif import WhatIfPage
from dashboards.saved import SavedSelections
from dashboards.session import Session, served_user
from labkit.store import Store, StoreError

hv.extension("bokeh", logo=False)
hv.renderer("bokeh").webgl = True

PAGES: tuple[type[Page], ...] = (
    ManifoldsPage,
    NeighborhoodsPage,
    TransportPage,
    RobustnessPage,
    WhatIfPage,
    AskPage,
    RunsPage,
    ComparePage,
    TopologyPage,
)
_OFFERED = 200  # runs in the picker at a time; the filter finds the others
_POLL = 3_000  # milliseconds between two looks for new runs
_LOG = logging.getLogger("labkit.dashboard")


class App:
    """Pages around one session.

    Args:
        session: whose state they show.
        query: what the URL asks for; see `url.written`.

    Attributes:
        pages: by title, each made when it is first asked for.
        drawn: titles of the pages that were seen.
        told: called when something has changed that the URL has to say.
    """

    def __init__(self, session: Session, query: dict[str, str] | None = None) -> None:
        self.session = session
        self.pages = _Pages(session, self._tell)
        self.drawn: set[str] = set()
        self._fresh: set[str] = set()
        self._marked: set[str] = set()
        self._listing: Listing | None = None
        self.told: Callable[[], object] = lambda: None
        self.message = pn.Column(sizing_mode="stretch_width")
        self._bar = _Bar(session.dark)
        # a page is put into its tab once it is drawn: what changes while the browser builds it may get lost
        self._places = {title: pn.Column(sizing_mode="stretch_width") for title in self.pages}
        self._tabs = pn.Tabs(*self._places.items())
        session.opened = self._open
        session.look()
        session.page = next(iter(self.pages))
        self._ask(query or {})
        self._show()
        self._tabs.param.watch(lambda event: session.param.update(page=list(self.pages)[event.new]), "active")
        session.param.watch(self._changed, ["run", "step", "projection", "gap", "color", "under"])
        session.param.watch(lambda _: self._show(), "page")
        session.selection.param.watch(self._selected, ["mask", "focus"])
        self._bar.listen(self)
        self._saved = SavedSelections(self, (query or {}).get("selection", ""))

    @property
    def page(self) -> Page:
        """The visible page."""
        return self.pages[self.session.page]

    @property
    def state(self) -> dict[str, str]:
        """What the URL needs to bring this back."""
        return url.written(self.session, [self.pages[title] for title in self.pages if title in self.drawn])

    def refresh(self, *, fresh: bool = False) -> None:
        """Look at the store again: new runs appear, what has changed is drawn anew.

        Args:
            fresh: even if another session has just looked.
        """
        if fresh:
            self.session.look()
        if self.session.listing is not self._listing:
            self._list()
            self._changed()

    def _tell(self) -> None:
        self.told()

    def _ask(self, query: dict[str, str]) -> None:
        """Bring back what the URL names; what it cannot have is said."""
        unknown = url.restore(self.session, PAGES, self.pages, query)
        told = [f"The address asks for what is not known here: {', '.join(unknown)}."] if unknown else []
        asked = query.get("run", "")
        if asked in self.session.listing.labels.values():
            self.session.run = asked
        elif asked:
            try:
                info = self.session.store.open(asked).info
                why = f"run {asked} is {info.get('status', 'damaged')}"
                why += f": {info['error']}" if info.get("error") else ""
            except StoreError as error:
                why = str(error)
            told.append(f"The address asks for another run, but {why}")
        self._list()
        self.message.objects = [parts.notice(sentence, warning=True) for sentence in told]

    def _list(self) -> None:
        listing = self._listing = self.session.listing
        if self.session.run not in listing.labels.values():
            self.session.run = listing.newest
        self._bar.list(listing, self.session.run)

    def _open(self, page: str, own: dict[str, str]) -> None:
        for name, value in own.items():
            setattr(self.pages[page], name, value)
        self._fresh.discard(page)
        self.session.page = page
        self._show()

    def _changed(self, *events: Any) -> None:
        """What pages draw has changed; only the visible one draws now."""
        if any(event.name == "run" for event in events):
            self.message.objects = []
            self.session.step = "final"
        self._fresh.clear()
        self._show()

    def _selected(self, *_: Any) -> None:
        if self.session.content is not None:
            self._marked.clear()
            self._mark()

    def _show(self) -> None:
        """Draw the visible page if it is not up to date."""
        title = self.session.page
        self._tabs.active = list(self.pages).index(title)
        if title in self._fresh:
            self._mark()
            self.told()
            return
        self._fresh.add(title)
        self._marked.discard(title)
        with pn.io.hold():
            try:
                self.session.load()
                self._bar.tell(self.session)
                shown = self._draw(self.pages[title])
            except StoreError as error:
                shown = [parts.notice(str(error), warning=True)]
            except Exception:  # noqa: BLE001  one broken page must not take the others with it
                _LOG.exception("page %s", title)
                shown = [parts.notice(f"The page {title} failed; the server's log has the details.", warning=True)]
            self._places[title].objects = shown
        self.told()

    def _draw(self, page: Page) -> list[Any]:
        """What goes into the tab of a page."""
        content = self.session.content
        self.drawn.add(page.title)
        if page.needs_run and content is None:
            return _no_runs(self.session)
        if content is not None and page.parts:
            missing = readiness.lacking(content, page.parts)
            if len(missing) == len(page.parts):
                return [parts.notice(part.told(content)) for part in missing]
        page.show()
        self._mark()
        return [page.view]

    def _mark(self) -> None:
        title = self.session.page
        if title in self._marked or (self.session.content is None and self.pages[title].needs_run):
            return
        self._marked.add(title)
        with pn.io.hold():
            try:
                self.pages[title].mark()
            except StoreError as error:
                self.message.objects = [parts.notice(str(error), warning=True)]

    def template(self) -> Any:
        """The page that the server sends."""
        again, theme = self._bar.again, self._bar.theme
        again.on_click(lambda _: self.refresh(fresh=True))
        theme.on_click(lambda _: self._retheme())
        template = pn.template.BootstrapTemplate(
            title="labkit",
            theme="dark" if self.session.dark else "default",
            header_background=styles.HEADER,
            design=styles.Compact,
            raw_css=[styles.PAGE],
        )
        main: Any = template.main
        main.append(pn.Column(self._bar.view, self._saved.view, self.message, self._tabs, sizing_mode="stretch_width"))
        return template

    def _retheme(self) -> None:
        """A theme is part of the page that the server sends, so it takes a reload; the URL keeps everything else."""
        location = pn.state.location
        if location is not None:
            asked: dict[str, Any] = {**self.state, "theme": "default" if self.session.dark else "dark"}
            location.update_query(**asked)
            location.reload = True


class _Pages(Mapping[str, Page]):
    """Pages by title; most visitors see few of them, and a page costs a tenth of a second to make.

    Args:
        session: whose pages.
        told: called when something of a page has changed that the URL keeps.
    """

    def __init__(self, session: Session, told: Callable[[], None]) -> None:
        self._session, self._told = session, told
        self._kinds = {kind.title: kind for kind in PAGES}
        self._made: dict[str, Page] = {}

    def __getitem__(self, title: str) -> Page:
        if title not in self._made:
            page = self._made[title] = self._kinds[title](self._session)
            if page.keep:
                page.param.watch(lambda *_: self._told(), list(page.keep))
        return self._made[title]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


class _Bar:
    """Picker, filter, readiness and buttons above the tabs."""

    def __init__(self, dark: bool) -> None:
        self.find = pn.widgets.TextInput(label="Find", placeholder="method, seed, modality ...", width=170)
        self.pick = pn.widgets.Select(label="Run", width=430)
        self.states = pn.pane.HTML("", margin=(18, 8, 0, 8))
        self.ready = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 10))
        self.again = pn.widgets.Button(label="Reload runs", width=100, margin=(20, 5, 0, 5))
        self.theme = pn.widgets.Button(label=f"{'Light' if dark else 'Dark'} theme", width=100, margin=(20, 5, 0, 5))
        row = pn.FlexBox(self.pick, self.find, self.states, self.again, self.theme, align_items="center")
        self.view = pn.Column(row, self.ready, sizing_mode="stretch_width")
        self._listing: Listing | None = None
        self._own = False

    def listen(self, app: App) -> None:
        """Let the picker choose the run of the app."""

        def picked(event: param.parameterized.Event) -> None:
            if event.new and not self._own:
                app.session.run = event.new

        self.pick.param.watch(picked, "value")
        self.find.param.watch(lambda _: self._offer(app.session.run), "value_input")

    def list(self, listing: Listing, run: str) -> None:
        """Offer the runs of a listing."""
        self._listing = listing
        told = " · ".join(f"{n} {state}" for state, n in listing.counts.items())
        self.states.object = f'<span class="lk-states">{parts.text(told or "no runs")}</span>'
        self._offer(run)

    def tell(self, session: Session) -> None:
        """Show the run of the session and what it has."""
        self.ready.object = readiness.summary(session.content) if session.content is not None else ""
        if self.pick.value != session.run:
            self._offer(session.run)

    def _offer(self, run: str) -> None:
        """The runs whose label has every word of the filter, and the shown one."""
        labels = {} if self._listing is None else self._listing.labels
        words = str(self.find.value_input or "").lower().split()
        found = {label: i for label, i in labels.items() if all(word in label.lower() for word in words)}
        offered = dict(list(found.items())[:_OFFERED])
        offered |= {label: i for label, i in labels.items() if i == run}
        self._own = True
        try:
            self.pick.param.update(options=offered or {"": ""}, value=run)
        finally:
            self._own = False
        capped = f", the first {_OFFERED} offered" if len(found) > _OFFERED else ""
        self.find.description = f"{len(found)} of {len(labels)} runs{capped}"


def _no_runs(session: Session) -> list[Any]:
    """What to do where there is no complete run, and why those that there are cannot be shown."""
    listing = session.listing
    failed = [f"{r['id']} {r['state']}: {r['error']}" for r in listing.records.values() if r.get("error")]
    text = f"No complete run in {session.store.root}: `make demo` or `labkit demo` makes some."
    return [parts.notice(text), *(parts.notice(e, warning=True) for e in (*failed, *listing.problems))]


def session() -> Any:
    """The page of one browser session, which follows the URL it was opened with and keeps it up to date."""
    pn.extension("tabulator", "filedropper", raw_css=[items.STYLE, parts.STYLE])  # holds for one session
    if pn.state.curdoc is not None:
        # of several processes the one that the websocket reaches may not have sent the page, which would have set this
        pn.state.curdoc.template_variables.setdefault("dist_url", LOCAL_DIST)
    location = pn.state.location
    query = {} if location is None else {k: str(v) for k, v in location.query_params.items()}
    user, writable = served_user()
    state = Session(Store(), dark=query.get("theme") == "dark", user=user, writable=writable)
    app = App(state, query)

    def tell() -> None:
        if location is not None:
            asked: dict[str, Any] = {**app.state}
            location.update_query(**asked)

    tell()
    app.told = tell
    pn.state.add_periodic_callback(app.refresh, period=_POLL)
    return app.template()
