"""Small parts of pages: notices, tables, legends. Every text from data is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import panel as pn
from bokeh.models.widgets.tables import NumberFormatter
from bokeh.palettes import Viridis256

from labkit.views import words
from labkit.views.manifolds import MISSING, Coloring

STYLE = """
.lk-notice { border-left: 4px solid #0a84d0; background: rgba(10, 132, 208, .12); padding: 9px 14px; border-radius: 4px;
  overflow-wrap: anywhere; white-space: pre-wrap }
.lk-warning { border-color: #d55e00; background: rgba(213, 94, 0, .14) }
.lk-notice code, .lk-ready code { background: rgba(127, 127, 127, .22); padding: 1px 5px; border-radius: 3px }
.lk-notice code, .lk-ready code { user-select: all }
.lk-ready { font-size: .9em } .lk-ready summary { cursor: pointer; opacity: .85 } .lk-ready ul { margin: 4px 0 }
.lk-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: center; font-size: .92em }
.lk-legend i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 5px }
.lk-legend b { display: inline-block; width: 170px; height: 11px; border-radius: 3px }
.lk-code { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9em; overflow: auto; user-select: all; margin: 0;
  font-size: .85em; padding: 8px; border-radius: 4px; background: rgba(127, 127, 127, .14) }
"""
_TABLE = ":host .tabulator { font-size: 13px } :host { max-width: 100% }"
_MOST = 24  # categories that a legend names


def text(value: object) -> str:
    """A value from data as HTML text; also safe inside a quoted attribute."""
    return html.escape(str(value), quote=True)


def marked(message: str) -> str:
    """A sentence as HTML text; what stands between backticks is a command that one click selects."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(message))


def notice(message: str, *, warning: bool = False) -> pn.pane.HTML:
    """A sentence in a box; see `marked`."""
    kind = "lk-notice lk-warning" if warning else "lk-notice"
    return pn.pane.HTML(f'<div class="{kind}" role="alert">{marked(message)}</div>', sizing_mode="stretch_width")


def table(frame: pd.DataFrame, *, page_size: int = 0) -> pn.widgets.Tabulator:
    """A read-only table: three decimals, texts as they are and never as HTML."""
    texts = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    decimals = [c for c in frame if pd.api.types.is_float_dtype(frame[c])]
    shown = frame.assign(**{c: frame[c].map(_plain) for c in texts})
    formatters = {c: {"type": "plaintext"} for c in texts} | {
        c: NumberFormatter(format="0.000", text_align="right", nan_format="") for c in decimals
    }
    paged = {"pagination": "local", "page_size": page_size} if page_size else {}
    return pn.widgets.Tabulator(
        shown, show_index=False, disabled=True, theme="simple", layout="fit_data_table", formatters=formatters,
        titles={c: str(c).replace("_", " ") for c in frame}, stylesheets=[_TABLE], **paged,
    )  # fmt: skip


def legend(colors: Coloring, name: str, values: pd.Series) -> str:
    """What the colors mean: a swatch per category, or the scale of a number."""
    if colors.categories is not None:
        return f'<div class="lk-legend">{_swatches(colors.categories)}</div>'
    ramp = ", ".join(Viridis256[::51])
    low, high = (f"{limit:.2g}" for limit in colors.limits)
    parts = [f"<span>{text(name)}</span><span>{low}</span><b style='background: linear-gradient(90deg, {ramp})'></b>"]
    parts.append(f"<span>{high}</span>")
    if unknown := int(values.isna().sum()):
        parts.append(f"<span>{_dot(MISSING)}not measured: {unknown} of {len(values)} points</span>")
    return f'<div class="lk-legend">{"".join(parts)}</div>'


def offer(
    chosen: pn.widgets.Select, values: Iterable[str], show: Callable[[str], str] = words, *, first: str = ""
) -> None:
    """Put values into a select under readable names.

    Args:
        chosen: the select; its value stays if it still exists.
        values: what it offers.
        show: a value's name.
        first: what is chosen where the select had nothing, or something that is gone.
    """
    names = {show(v): v for v in values}
    wanted = [v for v in (chosen.value, first, *names.values()) if v in names.values()]
    chosen.param.update(options=names, value=next(iter(wanted), None))


def _swatches(categories: Mapping[str, str]) -> str:
    named = [f"<span>{_dot(color)}{text(c or '(none)')}</span>" for c, color in [*categories.items()][:_MOST]]
    more = len(categories) - _MOST
    return "".join(named) + (f"<span>and {more} more</span>" if more > 0 else "")


def _dot(color: str) -> str:
    return f'<i style="background:{color}"></i>'


def _plain(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)
