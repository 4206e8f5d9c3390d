"""The claims of the proposals and what the committed results of the studies say of them, judged once somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd
import panel as pn

from dashboards.boards import board
from dashboards.parts import notice, text
from dashboards.session import Session
from labkit import claims, results
from labkit.config import ConfigError
from labkit.store import StoreError

WAIT = '<div class="lk-none lk-wait">computing ...</div>'
_COLUMNS = {
    "id": ("claim", 180), "hypothesis": ("hypothesis", 300), "verdict": ("verdict", 105), "effect": ("effect", 80),
    "low": ("low", 70), "high": ("high", 75), "margin": ("margin", 80), "p_holm": ("p (Holm)", 90),
    "evidence": ("study and interval", 205),
}  # fmt: skip


def claims_card(session: Session) -> pn.Card:
    """A card that computes its table when it is opened first."""
    body = pn.Column(sizing_mode="stretch_width")
    card = pn.Card(
        body, title="Claims of the proposals, by the committed results of the studies", collapsed=True,
        sizing_mode="stretch_width", margin=(8, 5),
    )  # fmt: skip

    def tell(made: pd.DataFrame | str) -> None:
        body.objects = _told(made)

    def opened(event: Any) -> None:
        if not event.new:
            body.objects = [pn.pane.HTML(WAIT)]
            session.later("claims", judged, tell)

    card.param.watch(opened, "collapsed")
    return card


def judged() -> pd.DataFrame | str:
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


def _told(made: pd.DataFrame | str) -> list[pn.viewable.Viewable]:
    if isinstance(made, str):
        return [notice(made, warning=True)]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in made["verdict"].value_counts().items())
    note = (
        f"<b class='lk-claims' data-n='{len(made)}'>{text(counts)}, of {len(made)} claims.</b> Effect: mean over seeds "
        "with its 95 % interval; a claim holds where the effect is surely in its direction, and does not hold where it "
        "is surely smaller than the margin. p is corrected by Holm over all tested claims. In a shell: "
        "<code>labkit claims</code>"
    )
    whole = made.assign(evidence=[_evidence(row) for row in made.to_dict("records")])
    return [pn.pane.HTML(f"<div>{note}</div>", sizing_mode="stretch_width"), board(whole, _COLUMNS, page_size=10)]


def _evidence(claim: Mapping[str, Any]) -> str:
    """What a verdict rests on, or why there is none."""
    if claim["verdict"] == "not tested":
        return str(claim["reason"])
    return f"{claim['study']}: {claim['kind']}, n = {claim['n']:.0f}"
