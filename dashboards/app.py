"""The app of one browser session: run picker, three pages, state in the URL."""

from __future__ import annotations

import html
from typing import Any

import holoviews as hv
import panel as pn
import param

from dashboards import content as contents
from dashboards.items import STYLE
from dashboards.page_manifolds import ManifoldsPage
from dashboards.page_robustness import RobustnessPage
from dashboards.page_runs import RunsPage
from labkit.store import Store, StoreError

pn.extension("tabulator", raw_css=[STYLE])
hv.extension("bokeh", logo=False)
hv.renderer("bokeh").webgl = True

PAGES = ("Manifolds", "Robustness", "Runs")


class App(param.Parameterized):
    """Pages around one store; the picked run is on the first, comparable runs on the others."""

    run = param.Selector(default="", objects=[""], doc="Run on the page Manifolds; others on the same data beside it.")
    page = param.Integer(default=0, bounds=(0, len(PAGES) - 1))

    def __init__(self, store: Store | None = None) -> None:
        super().__init__()
        self.store = store or Store()
        self.manifolds, self.robustness, self.runs = ManifoldsPage(), RobustnessPage(), RunsPage()
        self._message = pn.Column(sizing_mode="stretch_width")
        pages = (self.manifolds, self.robustness, self.runs)
        self._tabs = pn.Tabs(*zip(PAGES, (p.view for p in pages), strict=True), dynamic=True, active=self.page)
        self._tabs.link(self, active="page", bidirectional=True)
        self._from_url()
        self.refresh()
        self.template = self._template()

    def refresh(self) -> None:
        """Read the store again: new runs appear, changed ones are redrawn."""
        table = self.store.table()
        ready = table[table["status"] == "complete"] if len(table) else table
        labels = {f"{r.variant} · seed {r.seed} · {r.id[-10:]}": r.id for r in ready.itertuples()}
        self.param["run"].objects = labels or {"": ""}
        if self.run not in labels.values():
            self.run = next(iter(labels.values()), "")
        else:
            self._show()
        if not labels:
            waiting = ", ".join(f"{r.id} ({r.status})" for r in table.itertuples()) if len(table) else ""
            self._say(f"No complete run in {self.store.root}: `make demo` or `labkit demo` makes some. {waiting}")

    @param.depends("run", watch=True)
    def _show(self) -> None:
        if not self.run:
            return
        try:
            ids = contents.comparable(self.store, self.run)
            scores = contents.scores(self.store, ids)
            self.manifolds.show(contents.load(self.store, self.run))
            self.robustness.show(scores)
            self.runs.show(
                scores, lambda metric: contents.fields(self.store, ids, metric), self.store.table(), self.store.problems
            )
            self._message.objects = []
        except StoreError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self._message.objects = [pn.pane.Alert(html.escape(text), alert_type="warning")]

    def _from_url(self) -> None:
        location = pn.state.location
        if location is None:
            return
        asked = location.query_params
        known = {str(r) for r in self.store.table()["id"]}
        if str(asked.get("run", "")) in known:
            self.param["run"].objects = [asked["run"]]
            self.run = asked["run"]
        location.sync(self, {"run": "run", "page": "page"})
        location.sync(self.manifolds, {"color": "color", "projection": "projection"})

    def _template(self) -> Any:
        dark = self._is_dark()
        again = pn.widgets.Button(name="Reload runs", button_type="light", width=110)
        again.on_click(lambda _: self.refresh())
        theme = pn.widgets.Button(name="Light theme" if dark else "Dark theme", button_type="light", width=110)
        theme.on_click(lambda _: self._retheme("default" if dark else "dark"))
        picker = pn.Param(
            self.param, parameters=["run"], show_name=False, widgets={"run": {"type": pn.widgets.Select, "width": 330}}
        )
        template = pn.template.BootstrapTemplate(
            title="labkit", theme="dark" if dark else "default", header_background="#1b1f24"
        )
        bar = pn.Row(picker, again, theme)
        template.main.append(pn.Column(bar, self._message, self._tabs, sizing_mode="stretch_width"))
        return template

    @staticmethod
    def _is_dark() -> bool:
        return pn.state.location is not None and pn.state.location.query_params.get("theme") == "dark"

    @staticmethod
    def _retheme(name: str) -> None:
        """A theme is part of the page that the server sends, so it takes a reload; the URL keeps everything else."""
        if pn.state.location is not None:
            pn.state.location.update_query(theme=name)
            pn.state.location.reload = True
