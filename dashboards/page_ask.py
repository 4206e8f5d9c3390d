"""Page Ask: the things that are nearest to a sentence, a picture or a vector of the reader's own.

The query goes through the run's own encoder and aligner, so it is compared in the space that the run has learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import panel as pn
import param

from dashboards import frames, live, maps, queries
from dashboards.content import Content
from dashboards.items import entries
from dashboards.live import Model, Seen, opened
from dashboards.map_set import JOINT, MapSet
from dashboards.page import Page
from dashboards.parts import legend, notice, offer, text
from dashboards.previews import preview
from dashboards.queries import QueryError
from dashboards.session import Session
from labkit.store import StoreError
from labkit.views import words

KINDS = {"a text": "text", "a picture": "image", "a row of an array": ""}
_NOTE = (
    "Similarity is the cosine in the shared space of this run, of the stored vectors and not of the map. The star "
    "stands at the mean place of the query's 15 nearest points."
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found.

    Attributes:
        query: as HTML.
        place: in the map, None where there is no map.
        near: modality -> rows of the nearest things, and their similarities.
    """

    query: str
    place: tuple[float, float] | None
    near: dict[str, tuple[np.ndarray, np.ndarray]]


class AskPage(Page):
    """The page."""

    title = "Ask"
    keep = ("query", "k")
    parts = ("weights",)

    query = param.String(default="", doc="The text that was asked.")
    k = param.Integer(default=8, bounds=(1, 30), doc="How many things of each modality.")

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.model: Model | None = None
        self.maps: MapSet | None = None
        self.answer: Answer | None = None
        self._kind = pn.widgets.Select(label="Ask with", options=list(KINDS), width=150)
        self._modality = pn.widgets.Select(
            label="As", width=150, description="Whose encoder and aligner it goes through."
        )
        self._text = pn.widgets.TextInput(label="Text", placeholder="a yellow bird", width=320)
        self._file = pn.widgets.FileDropper(  # sends parts: one message of ten megabytes would end the connection
            label="File", multiple=False, max_file_size=f"{queries.MOST_BYTES // 1_000_000}MB", width=320, height=80
        )
        self._row = pn.widgets.IntInput(label="Row", value=0, start=0, width=90)
        self._count = pn.widgets.IntSlider(label="Nearest things", start=1, end=30, value=8, width=180)
        self._button = pn.widgets.Button(label="Ask", color="primary", width=80, margin=(20, 5, 0, 5))
        self._select = pn.widgets.Button(label="Select these", disabled=True, width=110)
        self._open = pn.widgets.Button(label="See them on the maps", disabled=True, width=170)
        self._message = pn.Column(sizing_mode="stretch_width")
        self._map = pn.Column(sizing_mode="stretch_width")
        self._legend, self._query, self._near = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(3))
        self._listen()
        self.view = self._layout()

    def show(self) -> None:
        """Draw the map, and load the model of the run."""
        self.model = None
        self._forget()
        self._draw_map()
        self._say("")
        self._query.object = '<div class="lk-none lk-wait">loading the model of this run ...</div>'
        content = self.content
        self.session.later("ask model", lambda: opened(content), self._loaded)

    def mark(self) -> None:
        """Follow the selection."""
        if self.maps is not None:
            self.maps.mark(self.session.selection.mask, None, links=False)
            self._star()

    def ask(self) -> None:
        """Encode the query, and look up what is nearest."""
        model, modality = self.model, self._modality.value
        if model is None or modality is None or self._button.disabled:
            return
        try:
            encode = self._encoder(model, modality)
        except QueryError as error:
            self._forget()
            self._say(str(error))
            return
        self._say("")
        self._query.object = '<div class="lk-none lk-wait">encoding ...</div>'
        content, k = self.content, self.k
        frame = None if self.maps is None else self.maps.frame
        self.session.later("ask", lambda: _answer(content, model, modality, frame, encode, k), self._tell)

    def _encoder(self, model: Model, modality: str) -> Callable[[], Seen]:
        """What makes a vector of the query, once its form is known to be sound."""
        if self._kind.value == "a text":
            written = queries.sentence(self._text.value)
            self.query = written
            return lambda: model.seen(modality, written)
        name, content = next(iter((self._file.value or {}).items()), ("", b""))
        if not content:
            raise QueryError("Choose a file first.")
        content = content.encode() if isinstance(content, str) else content  # a text, which is refused as what it is
        if self._kind.value == "a picture":
            picture = queries.picture(content)
            return lambda: model.seen(modality, picture)
        values = queries.array(content)
        features = queries.row_of(values, int(self._row.value or 0), model.width(modality), modality)
        told = f"row {self._row.value or 0} of {name}, as features of {words(modality)}"
        return lambda: Seen(told, model.aligned(modality, features))

    def _tell(self, answer: Answer | str) -> None:
        if isinstance(answer, str):
            self._forget()
            self._say(answer)
            return
        content, self.answer = self.content, answer
        self._query.object = f'<div class="lk-card">{answer.query}</div>'
        columns = [
            f'<div class="lk-col"><div class="lk-mod">nearest in {text(words(m))}</div>'
            f"{''.join(_entry(content, int(r), float(s)) for r, s in zip(*found, strict=True))}</div>"
            for m, found in answer.near.items()
        ]
        self._near.object = f'<div class="lk-cols">{"".join(columns)}</div>'
        self._select.disabled = self._open.disabled = False
        self._star()

    def _forget(self) -> None:
        self.answer = None
        self._query.object = self._near.object = ""
        self._select.disabled = self._open.disabled = True
        self._star()

    def _say(self, sentence: str) -> None:
        self._message.objects = [notice(sentence, warning=True)] if sentence else []

    def _loaded(self, model: Model | str) -> None:
        self._query.object = ""
        if isinstance(model, str):
            self._button.disabled = True
            self._say(f"Nothing can be asked: {model}")
            return
        self.model = model
        self._offer()

    def _offer(self, *_: object) -> None:
        """Offer the modalities that take what is asked with, and say why where none does."""
        kind = KINDS[str(self._kind.value)]
        self._text.visible, self._file.visible = kind == "text", kind != "text"
        self._row.visible = not kind
        if self.model is None:
            return
        fitting = [m for m in self.model.modalities if not kind or self.model.kind(m) == kind]
        offer(self._modality, fitting)
        self._allow()

    def _allow(self, *_: object) -> None:
        """Whether the chosen modality can be asked with; its encoder is loaded to know."""
        model, modality, kind = self.model, self._modality.value, KINDS[str(self._kind.value)]
        if model is None:
            return
        self._button.disabled = True
        if modality is None:
            there = ", ".join(words(m) for m in model.modalities)
            self._allowed(f"no modality of this run takes {self._kind.value}; it has {there}")
        elif kind:
            self.session.later("ask encoder", lambda: model.refusal(modality), self._allowed)
        else:
            self._allowed("")

    def _allowed(self, refusal: str) -> None:
        self._button.disabled = bool(refusal)
        self._say(f"Nothing can be asked: {refusal}" if refusal else "")
        if self.query and self.answer is None and not refusal and self._kind.value == "a text":
            self._text.value = self.query
            self.ask()

    def _draw_map(self) -> None:
        content, session = self.content, self.session
        if not content.run.has("projections"):
            self.maps, self._legend.object = None, ""
            self._map.objects = [notice(f"No map of this run: `labkit project {content.run.id}` makes one.")]
            return
        frame = maps.frame(content, replace(frames.chosen(session, content), step="final"))
        paint = maps.paint(content, frame, session.painted)
        self.maps = MapSet(content, frame, paint, on_area=session.selection.select, on_click=self._click)
        self._legend.object = legend(paint.coloring, session.color, pd.Series(paint.values))
        self._map.objects = [self.maps.panes[JOINT].view]

    def _click(self, row: int) -> None:
        self.session.selection.focus = row

    def _star(self) -> None:
        if self.maps is not None:
            place = None if self.answer is None else self.answer.place
            self.maps.panes[JOINT].put("star", {"x": [place[0]], "y": [place[1]]} if place else {"x": [], "y": []})

    def _take(self, *_: object) -> None:
        """Select what was found."""
        if self.answer is not None:
            rows = np.unique(np.concatenate([rows for rows, _ in self.answer.near.values()]))
            self.session.selection.select(rows.astype(int))

    def _see(self, *_: object) -> None:
        self._take()
        self.session.go("Manifolds")

    def _listen(self) -> None:
        self._kind.param.watch(self._offer, "value")
        self._modality.param.watch(self._allow, "value")
        self._button.on_click(lambda _: self.ask())
        self._text.param.watch(lambda event: self.ask() if event.new.strip() != self.query else None, "value")
        self._count.param.watch(lambda event: setattr(self, "k", event.new), "value")
        self._select.on_click(self._take)
        self._open.on_click(self._see)

    @param.depends("k", watch=True)
    def _again(self) -> None:
        self._count.value = self.k
        if self.answer is not None:
            self.ask()

    def _layout(self) -> pn.Column:
        self._offer()
        left = pn.Column(
            self._legend, self._map, pn.pane.Markdown(_NOTE), styles={"flex": "1 1 480px", "min-width": "0"}
        )
        right = pn.Column(
            self._query, pn.Row(self._select, self._open), self._near, styles={"flex": "1 1 480px", "min-width": "0"}
        )
        asked = pn.FlexBox(self._kind, self._modality, self._text, self._file, self._row, self._button, self._count)
        return pn.Column(
            asked, self._message, pn.FlexBox(left, right, align_items="start", gap="14px", sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )  # fmt: skip


def _answer(
    content: Content, model: Model, modality: str, frame: maps.Frame | None, encode: Callable[[], Seen], k: int
) -> Answer | str:
    """Runs beside the session: it touches no widget."""
    try:
        seen = encode()
        place = None if frame is None else live.place(content, frame, seen.vector)
        near = {m: content.most_similar(seen.vector, m, step="final", k=k) for m in content.modalities}
    except StoreError as error:
        return str(error)
    return Answer(preview(seen.item, "the query"), place, near)


def _entry(content: Content, row: int, similarity: float) -> str:
    style = "display: flex; align-items: center; gap: 6px"
    number = f'<b class="lk-similarity">{similarity:.2f}</b>'
    return f'<div style="{style}">{number}{entries(content, np.array([row]))}</div>'
