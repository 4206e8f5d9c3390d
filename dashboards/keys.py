"""Keys of the keyboard that are pressed anywhere on the page but in a control, told to the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from panel.custom import JSComponent

KEYS = ("ArrowLeft", "ArrowRight")


class Keys(JSComponent):
    """Listens to the arrow keys; draws nothing."""

    _esm = """
    export function render({ model }) {
      const taken = ["INPUT", "SELECT", "TEXTAREA", "BUTTON", "AUDIO"]
      const told = event => {
        const target = event.composedPath()[0]
        const own = taken.includes(target.tagName) || ["slider", "tab"].includes(target.getAttribute?.("role"))
        if (["ArrowLeft", "ArrowRight"].includes(event.key) && !own) { model.send_msg(event.key) }
      }
      document.addEventListener("keydown", told)
      model.on("remove", () => document.removeEventListener("keydown", told))
      return document.createElement("span")
    }
    """

    def __init__(self, pressed: Callable[[str], object]) -> None:
        super().__init__(width=0, height=0, margin=0)
        self._pressed = pressed

    def _handle_msg(self, msg: Any) -> None:
        if msg in KEYS:
            self._pressed(str(msg))
