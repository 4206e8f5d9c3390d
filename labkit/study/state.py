"""What has become of a study: its cells, their state, and the scores of its complete runs told apart by `cell`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import __version__, results, stats
from labkit import run as runs
from labkit.config import RunConfig
from labkit.data import SPLITS
from labkit.evaluate import CURVE_METRICS, FIELDS_OF_CURVES
from labkit.store import Run, Store
from labkit.store.errors import explained
from labkit.study.grid import Planned, Study, text

METRIC = "recall_at_10"
STATES = ("planned", "complete", "failed", "running", "interrupted", "not started")
DOCS = Path(__file__).parents[2] / "docs" / "studies"
TEST_SHARE = SPLITS["test"] / (SPLITS["test"] + SPLITS["train"])  # of overlapping splits, see `stats.corrected_t_test`


def cells(study: Study) -> pd.DataFrame:
    """One row per cell and seed: cell, variant, seed, run, and every axis of the study with its resolved value.

    An axis is named by its path, e.g. "data.pairs"; lists are joined by "+". It is filled in for cells that do not vary
    it, too, and missing where the variant has no such option.
    """
    return pd.DataFrame([_row(study, p) for p in study.planned()])


def tables(study: Study, root: Path | str | None = None, *, metric: str = METRIC) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, and the clean per-sample values of `metric`, of the complete runs.

    Returns:
        The tables of `Store.scores` and `Store.fields` with the column cell behind variant and the axes at the end. A
        run that two cells share is in both: group by cell.

    Raises:
        ValueError: no complete run.
    """
    store, ids = complete(study, root)
    if not ids:
        raise ValueError(
            f"study {study.name!r} has no complete runs in {store.root}: `labkit study run {study.name}` makes them"
        )
    known = cells(study).drop(columns=["variant", "seed"])
    scores, fields = store.scores(ids), store.fields(metric, ids, where=results.CLEAN)
    return _joined(scores, known), _joined(fields, known)


def by_cell(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the cell in the place of the variant, for statistics and pictures that tell apart by variant."""
    return table.assign(variant=table["cell"])


def complete(study: Study, root: Path | str | None = None) -> tuple[Store, list[str]]:
    """The store, and the ids of the study's complete runs in the order of the grid."""
    store = Store(root)
    done = {r.id for r in store.runs() if r.status == "complete"}
    return store, [c.run_id for c in study.configs() if c.run_id in done]


def status(study: Study, *, root: Path | str | None = None) -> pd.DataFrame:
    """One row per run: run, cell, variant, seed, status, seconds, code (made by this or by other code), error.

    A run that two cells share is in the first. Seconds are missing where a run has not ended or was interrupted.
    """
    store = Store(root)
    known = {r.id: r for r in store.runs()}
    head = runs.git_state().get("commit")
    first = {p.config.run_id: p for p in reversed(study.planned())}
    rows = [_status_row(first[c.run_id].cell, c, known.get(c.run_id), head) for c in study.configs()]
    return pd.DataFrame(rows)


def counts(table: pd.DataFrame) -> str:
    """Planned, complete, failed, ... of a table of `status`, on one line."""
    found = table["status"].value_counts().to_dict() | {"planned": len(table)}
    told = ", ".join(f"{name} {found.get(name, 0)}" for name in STATES if name in STATES[:3] or found.get(name))
    return f"{told}; {table['seconds'].sum() / 60:.1f} minutes of runs"


def leaderboards(scores: pd.DataFrame, fields: pd.DataFrame, *, metric: str = METRIC) -> Iterator[pd.DataFrame]:
    """The cells in order of `metric`, one table per direction; into text where there is text.

    Cells of one board have the modalities of its direction; columns as in `labkit.stats.leaderboard`, with the
    direction in front.
    """
    scores, fields = by_cell(scores), by_cell(fields)
    found = scores.loc[scores["metric"] == metric, ["source", "target"]].drop_duplicates()
    pairs = [p for p in permutations(dict.fromkeys(found["source"]), 2) if p in set(map(tuple, found.to_numpy()))]
    for source, target in [p for p in pairs if p[1] == "text"] or pairs:
        board = stats.leaderboard(scores, fields, metric=metric, source=source, target=target)
        board.insert(0, "direction", f"{source} -> {target}")
        yield board


def export(study: Study, root: Path | str | None = None) -> tuple[Path, Path]:
    """Copy the study's scores into `results/<study>/` and write `docs/studies/<study>.md`: leaderboards, robustness.

    Returns:
        Both paths.

    Raises:
        ValueError: no complete run.
        StoreError: a run cannot be read, or a file cannot be written.
    """
    from labkit.study.robustness_page import robustness_part  # HoloViews: seconds that `study status` does without

    scores, fields = tables(study, root)
    store, ids = complete(study, root)
    costs = _joined(store.budgets(ids), cells(study).drop(columns=["variant", "seed"]))
    failed = failures(study, root)
    # of the many scores of each point of a curve, those that a picture or a claim reads
    kept = scores[(scores["corruption"] == "none") | scores["metric"].isin((*CURVE_METRICS, *FIELDS_OF_CURVES))]
    folder = results.write(study.name, kept, {METRIC: fields, "failures": failed}, budgets=costs)
    page = DOCS / f"{study.name}.md"
    with explained("write", page):
        DOCS.mkdir(parents=True, exist_ok=True)
        text_of_page = _page(study, counts(status(study, root=root)), scores, fields)
        more = robustness_part(scores, failed, pictures=DOCS / study.name, test_share=TEST_SHARE)
        page.write_text("\n\n".join([text_of_page, *more]) + "\n", encoding="utf-8")
    return folder, page


def failures(study: Study, root: Path | str | None = None) -> pd.DataFrame:
    """Share of the test samples of every cell that first fail at each severity, as from `stats.failure_shares`.

    Read run by run: the per-sample values of a study's curves do not fit into memory together.
    """
    store, ids = complete(study, root)
    known = cells(study)[["run", "cell"]]
    first = []
    for run_id in ids:
        values = store.fields(METRIC, [run_id]).merge(known, on="run", how="inner")
        if (values["corruption"] != "none").any():
            first.append(stats.first_failures(stats.sample_curves(values)))
    if not first:
        return pd.DataFrame(columns=["corruption", "corrupted", "method", "first", "share", "seeds", "n"])
    return stats.failure_shares(pd.concat(first, ignore_index=True))


def _page(study: Study, counted: str, scores: pd.DataFrame, fields: pd.DataFrame) -> str:
    parts = [f"# Study `{study.name}`", study.description, f"Runs: {counted}.", "n: test samples of a seed."]
    for board in leaderboards(scores, fields):
        chance = board["chance"].iloc[0]
        parts += [f"## {METRIC.replace('_', ' ')}, {board['direction'].iloc[0]}", f"Chance: {chance:.3f}."]
        lines = ["| rank | cell | mean | interval | seeds | n |", "|---:|---|---:|---|---:|---:|"]
        for row in board.to_dict("records"):
            span = f"[{row['low']:.3f}, {row['high']:.3f}]"
            lines.append(
                f"| {row['rank']} | {row['variant']} | {row['value']:.3f} | {span} | {row['seeds']} | {row['n']} |"
            )
        parts += ["\n".join(lines), "Intervals: " + "; ".join(dict.fromkeys(board["interval"])) + "."]
    return "\n\n".join(part for part in parts if part)


def _joined(table: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    joined = table.merge(known, on="run", how="inner", validate="many_to_many")
    cell = joined.pop("cell")
    joined.insert(int(joined.columns.get_loc("variant")) + 1, "cell", cell)
    return joined


def _row(study: Study, planned: Planned) -> dict[str, Any]:
    config = planned.config
    row = {"cell": planned.cell, "variant": config.variant, "seed": config.seed, "run": config.run_id}
    return row | {axis: _value(config, axis) for axis in study.axes}


def _value(values: Any, axis: str) -> Any:
    for part in axis.split("."):
        # not dumped: a field that was added later is left out at its default
        found = values if isinstance(values, Mapping) else values.__dict__
        if part not in found:
            return None
        values = found[part]
    return text(values) if isinstance(values, (list, tuple)) else values


def _seconds(info: Mapping[str, Any]) -> float:
    """From the start of a run to its end; unknown where it was interrupted in between."""
    if not info.get("finished") or info["attempts"] > 1:
        return math.nan
    start, end = (datetime.fromisoformat(info[name]) for name in ("created", "finished"))
    return (end - start).total_seconds()


def _status_row(cell: str, config: RunConfig, found: Run | None, head: str | None) -> dict[str, Any]:
    row = {"run": config.run_id, "cell": cell, "variant": config.variant, "seed": config.seed}
    if found is None:
        return row | {"status": "not started", "seconds": math.nan, "code": "", "error": ""}
    info = found.info
    state = "interrupted" if info["status"] == "running" and not found.is_alive else info["status"]
    same = (info["labkit"], info["git"].get("commit")) == (__version__, head)
    return row | {
        "status": state,
        "seconds": _seconds(info),
        "code": "this code" if same else "other code",
        "error": (info["error"] or "").partition("\n")[0],
    }
