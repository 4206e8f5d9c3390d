"""The app of one browser session: run picker, three pages, state in the URL."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import pandas as pd
import panel as pn
import param

from dashboards import content as contents
from dashboards import items, parts
from dashboards.comparison import comparable
from dashboards.page_manifolds import COLORS, ManifoldsPage
from dashboards.page_robustness import RobustnessPage
from dashboards.page_runs import RunsPage
from labkit.store import Store, StoreError

hv.extension("bokeh", logo=False)
hv.renderer("bokeh").webgl = True

PAGES = ("Manifolds", "Robustness", "Runs")
STATES = ("complete", "running", "interrupted", "failed")


class App(param.Parameterized):
    """Pages around one store; the picked run is on the first, comparable runs on the others.

    Args:
        store: the runs; those of `labkit.store.runs_root()` by default.
        query: what the URL asks for: run, page, color, projection, theme.
    """

    run = param.Selector(default="", objects=[""], doc="Run on the page Manifolds; others on the same data beside it.")
    page = param.Selector(default=PAGES[0], objects=list(PAGES))

    def __init__(self, store: Store | None = None, query: dict[str, str] | None = None) -> None:
        super().__init__()
        self.store = store or Store()
        self.dark = (query or {}).get("theme") == "dark"
        self.manifolds, self.robustness, self.runs = ManifoldsPage(), RobustnessPage(), RunsPage()
        self._listed, self._problems = pd.DataFrame(), []
        self._stale = set(PAGES)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._states = pn.pane.HTML("", margin=(18, 8))
        self._read()
        self._ask(query or {})
        self._views = dict(zip(PAGES, (p.view for p in (self.manifolds, self.robustness, self.runs)), strict=True))
        # a page is put into its tab once it is drawn: what changes while the browser builds it may get lost
        self._places = {name: pn.Column(sizing_mode="stretch_width") for name in PAGES}
        self._tabs = pn.Tabs(*self._places.items(), active=PAGES.index(self.page))
        self._tabs.param.watch(lambda event: self.param.update(page=PAGES[event.new]), "active")
        self._show()
        self.param.watch(self._show, ["run", "page"])
        self.template = self._template()

    @property
    def state(self) -> dict[str, Any]:
        """What the URL needs to bring this page back."""
        theme = "dark" if self.dark else "default"
        shown = {"run": self.run, "page": self.page, "color": self.manifolds.color}
        return {**shown, "projection": self.manifolds.projection, "theme": theme}

    def refresh(self) -> None:
        """Read the store again: new runs appear, changed ones are redrawn."""
        before = self.run
        self._stale = set(PAGES)
        self._read()
        if self.run == before:
            self._show()

    def _read(self) -> None:
        table, self._problems = self.store.table(), self.store.problems
        dead = (table["status"] == "running") & ~table["alive"].astype(bool)
        self._listed = table.assign(state=table["status"].mask(dead, "interrupted"))
        counts = self._listed["state"].value_counts()
        told = [f"{counts[state]} {state}" for state in STATES if state in counts]
        self._states.object = f'<span class="lk-states">{parts.text(" · ".join(told) or "no runs")}</span>'
        ready = self._listed[self._listed["state"] == "complete"].sort_values(["variant", "seed"], kind="stable")
        labels = {
            f"{r.variant} · seed {r.seed} · {str(r.modalities).replace(',', ', ')} · {str(r.id)[-10:]}": str(r.id)
            for r in ready.itertuples()
        }
        chosen = self.run if self.run in labels.values() else self._newest(ready)
        with param.parameterized.batch_call_watchers(self):
            self.param["run"].objects = labels or {"": ""}
            self.run = chosen

    def _newest(self, ready: pd.DataFrame) -> str:
        """The newest complete run of a trained variant; closed forms, which log no training, only if there is none."""
        ids = [str(i) for i in ready.sort_values("created", ascending=False)["id"]]
        logs = ((i, self.store.root / i / "log.jsonl") for i in ids)
        trained = (i for i, log in logs if log.exists() and log.stat().st_size)
        return next(trained, next(iter(ids), ""))

    def _ask(self, query: dict[str, str]) -> None:
        """Bring back what the URL names; what it cannot have is said."""
        if query.get("page") in PAGES:
            self.page = query["page"]
        if query.get("color") in COLORS:
            self.manifolds.color = query["color"]
        if wanted := query.get("projection"):
            self.manifolds.param["projection"].objects = [wanted]  # the run says whether it has it
            self.manifolds.projection = wanted
        asked = query.get("run", "")
        if asked in self.param["run"].objects:
            self.run = asked
        elif asked:
            try:
                info = self.store.open(asked).info
                why = f"run {asked} is {info['status']}" + (f": {info['error']}" if info["error"] else "")
            except StoreError as error:
                why = str(error)
            self._message.objects = [parts.notice(f"The address asks for another run, but {why}", warning=True)]

    def _show(self, *events: Any) -> None:
        """Draw the visible page; the others wait until somebody looks at them."""
        if any(event.name == "run" for event in events):
            self._stale = set(PAGES)
            self._message.objects = []
        self._tabs.active = PAGES.index(self.page)
        if self.page not in self._stale:
            return
        self._stale.discard(self.page)
        with pn.io.hold():
            try:
                self._draw()
            except StoreError as error:
                self._message.objects = [parts.notice(str(error), warning=True)]
            self._places[self.page].objects = [self._views[self.page]]

    def _draw(self) -> None:
        if self.page == "Runs":
            self.runs.show(comparable(self.store, self.run) if self.run else None, self._listed, self._problems)
        elif not self.run:
            text = f"No complete run in {self.store.root}: `make demo` or `labkit demo` makes some."
            errors = [f"{r.id} {r.state}: {r.error}" for r in self._listed.itertuples() if isinstance(r.error, str)]
            self._message.objects = [parts.notice(text), *[parts.notice(e, warning=True) for e in errors]]
        elif self.page == "Robustness":
            self.robustness.show(comparable(self.store, self.run))
        else:
            self.manifolds.show(contents.load(self.store, self.run))

    def _template(self) -> Any:
        again = pn.widgets.Button(label="Reload runs", width=110, margin=(23, 5))
        again.on_click(lambda _: self.refresh())
        theme = pn.widgets.Button(label=f"{'Light' if self.dark else 'Dark'} theme", width=110)
        theme.margin = (23, 5)
        theme.on_click(lambda _: self._retheme())
        picker = pn.widgets.Select.from_param(self.param["run"], width=430)
        template = pn.template.BootstrapTemplate(
            title="labkit", theme="dark" if self.dark else "default", header_background="#1b1f24"
        )
        bar = pn.FlexBox(picker, self._states, again, theme, align_items="center")
        main: Any = template.main
        main.append(pn.Column(bar, self._message, self._tabs, sizing_mode="stretch_width"))
        return template

    def _retheme(self) -> None:
        """A theme is part of the page that the server sends, so it takes a reload; the URL keeps everything else."""
        location = pn.state.location
        if location is not None:
            location.update_query(**{**self.state, "theme": "default" if self.dark else "dark"})
            location.reload = True


def session() -> Any:
    """The page of one browser session, which follows the URL it was opened with and keeps it up to date."""
    pn.extension("tabulator", raw_css=[items.STYLE, parts.STYLE])  # holds for one session
    location = pn.state.location
    query = {} if location is None else {k: str(v) for k, v in location.query_params.items()}
    app = App(query=query)

    def tell(*_: object) -> None:
        if location is not None:
            location.update_query(**app.state)

    tell()
    app.param.watch(tell, ["run", "page"])
    app.manifolds.param.watch(tell, ["color", "projection"])
    return app.template
