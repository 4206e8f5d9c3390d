"""Which stored 2-D frame is shown, and the controls that choose it; shared by all pages with maps.

A frame is stored as `<method>` or `<method>-<gap>`: what was done with the gap between the modalities before the
projection. What is asked for and not stored is replaced by the nearest frame that is, and the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import panel as pn

from dashboards.content import Content
from dashboards.parts import offer
from dashboards.session import COLORS, GAPS, Session
from labkit.views import words

METHODS = ("umap", "tsne", "pca")
_FRAME = 900  # milliseconds for which the player shows a step


@dataclass(frozen=True)
class Shown:
    """The frame that is drawn.

    Attributes:
        method: umap, tsne or pca.
        gap: raw, centered or procrustes.
        step: of the training.
        problem: why it is not what was asked for; empty if it is.
    """

    method: str
    gap: str
    step: str
    problem: str = ""

    @property
    def name(self) -> str:
        """Its name in the store."""
        return frame_name(self.method, self.gap)


def frame_name(method: str, gap: str) -> str:
    """Name in the store of a method's frame."""
    return method if gap == "raw" else f"{method}-{gap}"


def methods(content: Content) -> list[str]:
    """Methods that have a stored frame; those that everybody knows first."""
    stored = {name.partition("-")[0] for name in content.run.steps("projections")}
    return [m for m in METHODS if m in stored] + sorted(stored - set(METHODS))


def chosen(session: Session, content: Content) -> Shown:
    """The stored frame nearest to what is asked for: first the step is given up, then the gap, then the method."""
    stored = content.run.steps("projections")
    wanted = Shown(session.projection or methods(content)[0], session.gap, session.step)
    tried = [
        (m, g, s)
        for m in dict.fromkeys((wanted.method, *methods(content)))
        for g in dict.fromkeys((session.gap, "raw", *GAPS))
        for s in dict.fromkeys((session.step, "final", *content.steps))
    ]
    method, gap, step = next(found for found in tried if found[2] in stored.get(frame_name(*found[:2]), ()))
    if (method, gap, step) == (wanted.method, wanted.gap, wanted.step):
        return wanted
    command = f"labkit run {content.run.id} --rerun" if step != wanted.step else f"labkit project {content.run.id}"
    problem = (
        f"{words(wanted.name)} at step {wanted.step} is not computed for this run: `{command}` does it. "
        f"Shown is {words(frame_name(method, gap))} at step {step}."
    )
    return Shown(method, gap, step, problem)


class FrameControls:
    """Selects for method, gap, color and step of a session.

    Args:
        session: whose values they set.

    Attributes:
        view: the controls.
        player: plays the steps of the training; empty where there is one step only.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own = False
        wide = {"sizing_mode": "stretch_width", "min_width": 96}
        self.method = pn.widgets.Select(label="Projection", description="Stored 2-D frame.", **wide)
        self.gap = pn.widgets.Select(
            label="Gap", description="Between modalities: as it is, centered per modality, or turned by Procrustes.",
            options=list(GAPS), **wide,
        )  # fmt: skip
        self.color = pn.widgets.Select(
            label="Color", description="What the color of a point means.", options=list(COLORS), **wide
        )
        for widget, name in ((self.method, "projection"), (self.gap, "gap"), (self.color, "color")):
            widget.param.watch(lambda event, name=name: self._set(name, event.new), "value")
        self._steps = pn.widgets.Select(label="Step of the training", options=["final"], value="final", width=130)
        self._steps.param.watch(lambda event: self._set("step", event.new), "value")
        self._play = pn.widgets.Toggle(label="Play", width=60, margin=(20, 5, 0, 0))
        self._play.param.watch(self._played, "value")
        self._clock: Any = None
        self.player = pn.Row()
        self.view = pn.Row(self.method, self.gap, self.color, sizing_mode="stretch_width")

    def offer(self, content: Content, shown: Shown) -> None:
        """Offer what the run has; the controls say what is shown."""
        self._own = True
        try:
            offer(self.method, methods(content), first=shown.method)
            self.method.value, self.gap.value, self.color.value = shown.method, shown.gap, self._session.color
            steps = [s for s in content.steps if s in content.run.steps("projections").get(shown.name, ())]
            self._steps.param.update(options=steps, value=shown.step)
            if bool(self.player.objects) != (len(steps) > 1):
                self.player.objects = [self._steps, self._play] if len(steps) > 1 else []
        finally:
            self._own = False

    def advance(self) -> None:
        """Show the next step of the training; after the last one the player stops."""
        steps = list(self._steps.options)
        at = steps.index(self._steps.value) + 1
        if at < len(steps):
            self._steps.value = steps[at]
        if at + 1 >= len(steps):
            self._play.value = False

    def _played(self, event: Any) -> None:
        if event.new:
            if self._steps.value == self._steps.options[-1]:
                self._steps.value = self._steps.options[0]
            self._clock = pn.state.add_periodic_callback(self.advance, period=_FRAME)
        elif self._clock is not None:
            self._clock.stop()
        self._play.label = "Pause" if event.new else "Play"

    def _set(self, name: str, value: Any) -> None:
        if not self._own and value:
            setattr(self._session, name, value)
