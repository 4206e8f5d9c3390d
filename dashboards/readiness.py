"""What a run has, and which command computes what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dashboards import parts
from dashboards.content import Content


@dataclass(frozen=True)
class Part:
    """Something that a page shows and that a command computes.

    Attributes:
        what: as people call it.
        there: whether a run has it.
        command: what computes it; `RUN` stands for the run's id.
        model: whether that takes the run's own model, which imported embeddings come without.
    """

    what: str
    there: Callable[[Content], bool]
    command: str
    model: bool = False

    def told(self, content: Content) -> str:
        """The sentence of a page that cannot show it."""
        if self.model and "imported" in content.run.config:
            return f"{self.what}: not for imported embeddings, which come without the model that made them."
        return f"{self.what} not computed for this run: `{self.command.replace('RUN', content.run.id)}` does it."


def _has(kind: str) -> Callable[[Content], bool]:
    return lambda content: content.run.has(kind)


PARTS: dict[str, Part] = {
    "maps": Part("Maps", _has("projections"), "labkit project RUN"),
    "steps": Part("Steps of the training", lambda c: len(c.steps) > 1, "labkit run RUN --rerun", model=True),
    "couplings": Part("Transport plans", _has("couplings"), "labkit diagnose RUN"),
    "topology": Part("Topology", _has("topology"), "labkit diagnose RUN"),
    "curves": Part("Robustness", lambda c: c.has_curves, "labkit robustness RUN", model=True),
    "weights": Part("Weights", _has("checkpoints"), "labkit run RUN --rerun", model=True),
}


def lacking(content: Content, names: tuple[str, ...]) -> list[Part]:
    """The parts among `names` that the run does not have."""
    return [PARTS[name] for name in names if not PARTS[name].there(content)]


def summary(content: Content) -> str:
    """All parts as HTML: what is there at a glance, and behind it the commands for the rest."""
    ready = [part for part in PARTS.values() if part.there(content)]
    missing = [part for part in PARTS.values() if part not in ready]
    shown = " · ".join(parts.text(part.what.lower()) for part in ready)
    if not missing:
        return f'<span class="lk-ready">everything computed: {shown}</span>'
    told = "".join(f"<li>{parts.marked(part.told(content))}</li>" for part in missing)
    lacks = ", ".join(parts.text(part.what.lower()) for part in missing)
    return (
        f'<details class="lk-ready"><summary>computed: {shown or "nothing"}; <b>not: {lacks}</b></summary>'
        f"<ul>{told}</ul></details>"
    )
