"""All runs of a folder as a table: what is not complete comes first, with the reason and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import panel as pn

from dashboards.boards import board
from dashboards.catalog import Listing
from dashboards.parts import notice

_LISTED = {
    "id": ("run", 230), "variant": ("variant", 120), "seed": ("seed", 70), "state": ("state", 105), "n": ("n", 70),
    "modalities": ("modalities", 170), "created": ("created (UTC)", 150), "reason": ("reason", 290),
}  # fmt: skip


def runs_list(found: Listing, on_run: Callable[[str], None]) -> list[pn.viewable.Viewable]:
    """All runs, those that are not complete first, newest first.

    Args:
        found: the runs.
        on_run: called with the id of a complete run that a click hit.
    """
    listed = found.table.assign(
        created=found.table["created"].str.slice(0, 16).str.replace("T", " "),
        reason=[_reason(record) for record in found.records.values()],
    )
    ready = (listed["state"] == "complete").rename("ready")
    listed = listed.assign(ready=ready)[::-1].sort_values("ready", kind="stable", ignore_index=True)
    counts = ", ".join(f"{n:,} {state}" for state, n in found.counts.items())
    told = f"<b>All runs in this folder</b>: {counts or 'none'}; a click on a complete one shows it on all pages"

    def clicked(row: int) -> None:
        if listed["ready"].iloc[row]:
            on_run(listed["id"].iloc[row])

    problems = [notice(problem, warning=True) for problem in found.problems]
    return [pn.pane.HTML(told), *problems, board(listed, _LISTED, page_size=12, on_row=clicked)]


def _reason(record: Mapping[str, Any]) -> str:
    """Why a run is not complete, and what to do."""
    again = f"labkit run {record['id']}"
    return {
        "failed": f"{record.get('error') or 'no reason recorded'}; again with: {again}",
        "interrupted": f"its process ended before it was complete; continue with: {again}",
        "running": "still being written",
    }.get(record["state"], "")
