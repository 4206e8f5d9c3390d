"""Page Runs: leaderboard with intervals, paired differences to a baseline, the claims, and the state of every run."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd
import panel as pn
import param

from dashboards.comparison import Comparison, comparable
from dashboards.page import Page
from dashboards.parts import marked, notice, offer, table, text
from dashboards.session import Session
from labkit import claims, results, views
from labkit.config import ConfigError
from labkit.store import StoreError

ONE, EVERY = "one per method", "all"
_DIFFERENCES = ["variant", "difference", "low", "high", "p", "p_holm", "effect_size", "seeds", "n", "kind"]
_LISTED = ["id", "variant", "seed", "state", "n", "modalities", "created (UTC)", "error"]
_CLAIMS = ["id", "verdict", "effect", "low", "high", "p_holm", "p_against", "margin", "expect", "seeds", "n", "study",
           "hypothesis", "reason"]  # fmt: skip
_WAIT = '<div class="lk-none lk-wait">computing ...</div>'


class RunsPage(Page):
    """The page."""

    title = "Runs"
    keep = ("metric", "direction", "baseline", "configurations")
    needs_run = False

    metric = param.String(default="recall_at_10", doc="Of the leaderboard.")
    direction = param.String(default="", doc="Of the metric.")
    baseline = param.String(default="clip", doc="Method that the others are compared with.")
    configurations = param.Selector(default=ONE, objects=[ONE, EVERY], doc="Which configurations of a method.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._runs: Comparison | None = None
        self._selects = {
            "metric": pn.widgets.Select(label="Metric", width=200),
            "direction": pn.widgets.Select(label="Direction", width=200),
            "baseline": pn.widgets.Select(
                label="Baseline", description="Method that the others are compared with.", width=260
            ),
        }
        self._many = pn.widgets.Select.from_param(self.param["configurations"], label="Configurations", width=170)
        self._updating = False
        self._board, self._all = (pn.Column(sizing_mode="stretch_width") for _ in range(2))
        self._verdicts = pn.Column(sizing_mode="stretch_width")
        for name, select in self._selects.items():
            select.param.watch(lambda event, name=name: self._chosen(name, event.new), "value")
        claimed = pn.Card(
            self._verdicts, title="Claims of the proposals, from the committed results of the studies",
            collapsed=True, sizing_mode="stretch_width",
        )  # fmt: skip
        claimed.param.watch(lambda event: None if event.new else self._judge(), "collapsed")
        controls = pn.FlexBox(*self._selects.values(), self._many)
        self.view = pn.Column(controls, self._board, claimed, self._all, sizing_mode="stretch_width")

    def show(self) -> None:
        """Offer the clean scores of the runs on the same data; list all runs below."""
        found = self.session.listing
        listed = found.table
        created = listed["created"].str.slice(0, 16).str.replace("T", " ")
        listed = listed.assign(**{"created (UTC)": created}).sort_values("created", ascending=False)
        self._all.objects = [
            pn.pane.Markdown(f"**All runs in this folder** ({len(listed)})"),
            table(listed[_LISTED], page_size=15),
            *[notice(problem, warning=True) for problem in found.problems],
        ]
        self._compute()

    @param.depends("configurations", watch=True)
    def _compute(self) -> None:
        found, run, every = self.session.listing, self.session.run, self.configurations == EVERY
        runs = self._runs = comparable(found, run, every=every) if run else None
        if runs is None or not runs.ids:
            self._empty()
            return
        self._board.objects = [pn.pane.HTML(_WAIT)]
        self.session.later("board", lambda: runs.scores, lambda _: self._draw() if runs is self._runs else None)

    def _chosen(self, name: str, value: Any) -> None:
        if not self._updating and value is not None:
            self.param.update({name: value})

    @param.depends("metric", "direction", "baseline", watch=True)
    def _draw(self) -> None:
        """Offer what was measured, and compute the table of what is chosen."""
        runs = self._runs
        if runs is None or runs.scores.empty:
            self._empty()
            return
        metric, direction, baseline = self._offer(runs.scores[runs.scores["corruption"] == "none"])
        source, target = direction.split(" → ")

        def compute() -> tuple[pd.DataFrame, pd.DataFrame]:
            board = runs.leaderboard(metric, source, target)
            return board, runs.differences(metric, source, target, baseline) if len(board) > 1 else pd.DataFrame()

        def tell(made: tuple[pd.DataFrame, pd.DataFrame]) -> None:
            self._tell(*made, metric=metric, direction=_direction(direction))

        self.session.later("board", compute, tell)

    def _offer(self, clean: pd.DataFrame) -> tuple[str, str, str]:
        """What there is to choose from, each select for those before it, and what is shown of it."""
        self._updating = True
        try:
            self._put("metric", sorted(clean["metric"].unique()), views.words)
            rows = clean[clean["metric"] == self._selects["metric"].value]
            pairs = rows[["source", "target"]].drop_duplicates().itertuples(index=False)
            self._put("direction", [f"{a} → {b}" for a, b in pairs], _direction)
            here = (rows["source"] + " → " + rows["target"]) == self._selects["direction"].value
            self._put("baseline", sorted(rows.loc[here, "cell"].unique()), str)
        finally:
            self._updating = False
        metric, direction, baseline = (str(select.value) for select in self._selects.values())
        return metric, direction, baseline

    def _put(self, name: str, values: list[str], show: Any) -> None:
        select, wanted = self._selects[name], getattr(self, name)
        offer(select, values, show)
        if wanted in values:
            select.value = wanted

    def _tell(self, board: pd.DataFrame, versus: pd.DataFrame, *, metric: str, direction: str) -> None:
        drawn = views.leaderboard_plot(board, metric=metric, direction=direction)
        wide = drawn.opts(width=None, responsive=True, min_width=300, backend="bokeh")
        parts = [
            pn.pane.HoloViews(wide, backend="bokeh", linked_axes=False, sizing_mode="stretch_width"),
            table(board.drop(columns="higher_is_better"), page_size=20),
        ]
        if len(versus):
            told = "**Paired difference to the baseline** (p corrected by Holm)"
            parts += [pn.pane.Markdown(told), table(versus[_DIFFERENCES], page_size=20)]
        self._board.objects = parts

    def _empty(self) -> None:
        self._board.objects = [notice("No scores yet: `make demo` or `labkit run VARIANT` computes some.")]

    def _judge(self) -> None:
        """The claims, once somebody opens the card."""
        self._verdicts.objects = [pn.pane.HTML(_WAIT)]
        self.session.later("claims", _verdicts, lambda made: self._verdicts.param.update(objects=_told(made)))


def _direction(pair: str) -> str:
    """A direction as people write it; some metrics have only a source, or no modality at all."""
    source, target = pair.split(" → ")
    return f"{source} → {target}" if target else source or "all modalities"


def _verdicts() -> pd.DataFrame | str:
    """All claims with their verdicts, or the sentence that says why there are none."""
    try:
        changed = max((f.stat().st_mtime_ns for f in results.FOLDER.glob("*/scores.parquet")), default=0)
        return _evaluated(claims.FILE.stat().st_mtime_ns, changed)
    except (OSError, ConfigError, StoreError) as error:
        return f"The claims cannot be read: {error}. They come with a checkout of labkit, in studies/ and results/."


@lru_cache(maxsize=1)
def _evaluated(_stated: int, _changed: int) -> pd.DataFrame:
    stated = claims.load()
    return claims.evaluate(stated, claims.committed(stated))


def _told(made: pd.DataFrame | str) -> list[Any]:
    if isinstance(made, str):
        return [notice(made, warning=True)]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in made["verdict"].value_counts().items())
    kinds = "; ".join(dict.fromkeys(made["kind"].dropna()))
    note = (
        f"<b class='lk-claims' data-n='{len(made)}'>{text(counts)} of {len(made)} claims.</b> Effect: mean with its 95 "
        "% interval. p holm: for the claim, p against: for an effect smaller than the margin, both corrected by Holm "
        f"over all tested claims. Intervals: {text(kinds)}. {marked('The same in a shell: `labkit claims`')}"
    )
    whole = made.assign(**{c: made[c].astype("Int64") for c in ("seeds", "n")})
    return [pn.pane.HTML(f"<div>{note}</div>", sizing_mode="stretch_width"), table(whole[_CLAIMS], page_size=20)]
