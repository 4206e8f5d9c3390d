"""Tables of results: chosen columns under names that people use, long texts in several lines.

What is in a column is sorted by a click on its head; every text is shown as it is and never as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import panel as pn

from dashboards.parts import table

_FOOT = """
:host .tabulator .tabulator-footer { background: transparent; color: inherit }
:host .tabulator .tabulator-footer .tabulator-page:not(.active) { background: transparent; color: inherit }
"""  # light on dark pages, else
_LETTER, _ARROW = 9, 36  # pixels of a column's head


def board(
    frame: pd.DataFrame,
    columns: Mapping[str, tuple[str, int]],
    *,
    page_size: int = 20,
    on_row: Callable[[int], None] | None = None,
) -> pn.widgets.Tabulator:
    """A table of some columns.

    Args:
        frame: the rows.
        columns: name -> its title and width in pixels; names that the frame lacks are left out.
        page_size: rows that are seen at once; the others are sent when somebody looks.
        on_row: called with the number of the row that a click hit.
    """
    names = [name for name in columns if name in frame]
    made = table(frame[names].reset_index(drop=True))
    wrapped = {name: {"type": "textarea"} for name in names if not pd.api.types.is_numeric_dtype(frame[name])}
    made.param.update(
        formatters={**made.formatters, **wrapped}, titles={name: columns[name][0] for name in names},
        widths={name: _width(*columns[name]) for name in names}, layout="fit_data", sizing_mode="stretch_width",
        stylesheets=[*made.stylesheets, _FOOT],
        theme_classes=["table-sm"],  # the design sets it only on what is there when the page is made
    )  # fmt: skip
    if len(frame) > page_size:
        made.param.update(pagination="remote", page_size=page_size)
    if on_row is not None:
        made.on_click(lambda event: on_row(int(event.row)))
    return made


def _width(title: str, wanted: int) -> int:
    """The width of a column, with room for its head."""
    return max(wanted, _LETTER * len(title) + _ARROW)
