"""What the pointer rests on in a map, and keys pressed while it is there.

A browser sends a move only once the pointer has rested for a moment: a message per move would flood the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bokeh.events import MouseEnter, MouseLeave, MouseMove
from bokeh.models import ColumnDataSource, CustomJS

KEYS = {"Escape": "clear", "Ctrl-Z": "undo"}
_REST = 120  # milliseconds
_TELL = """
const tell = (x, y, key) => {
  told.n = (told.n ?? 0) + 1
  told.data = {x: [x], y: [y], key: [key], n: [told.n]}
}
"""
_MOVE = f"""{_TELL}
clearTimeout(told.timer)
const {{x, y}} = cb_obj
told.timer = setTimeout(() => tell(x, y, ""), {_REST})
"""
_ENTER = (
    _TELL
    + """
document.removeEventListener("keydown", told.press)
told.press = (event) => {
  if (["INPUT", "TEXTAREA", "SELECT"].includes(event.composedPath()[0].tagName)) return
  const undo = (event.ctrlKey || event.metaKey) && event.key === "z"
  const key = event.key === "Escape" ? "clear" : undo ? "undo" : ""
  if (key === "") return
  event.preventDefault()
  tell(null, null, key)
}
document.addEventListener("keydown", told.press)
"""
)
_LEAVE = "clearTimeout(told.timer); document.removeEventListener('keydown', told.press);"


def listen(figure: Any, at: Callable[[float, float], None], press: Callable[[str], None]) -> None:
    """Follow the pointer on a figure.

    Args:
        figure: of bokeh.
        at: called with the place where the pointer rests.
        press: called with one of the values of `KEYS`.
    """
    told = ColumnDataSource({"x": [], "y": [], "key": [], "n": []}, name="pointer")
    for event, code in ((MouseMove, _MOVE), (MouseEnter, _ENTER), (MouseLeave, _LEAVE)):
        figure.js_on_event(event, CustomJS(args={"told": told}, code=code))

    def changed(_: str, __: Any, data: dict[str, Any]) -> None:
        x, y, key = (list(data[name])[0] for name in ("x", "y", "key"))
        if key in KEYS.values():
            press(key)
        elif x is not None and y is not None:
            at(float(x), float(y))

    told.on_change("data", changed)
