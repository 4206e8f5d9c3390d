"""One self-contained HTML page for a set of runs: leaderboards, paired differences, robustness curves, maps.

Everything is drawn by `labkit.views` from stored tables; scripts and styles are inside the file, so it opens anywhere,
without a network. Text that comes from data is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import pandas as pd

from labkit import stats, views
from labkit.store import Store

METRIC = "recall_at_10"
BASELINE = "clip"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; padding-bottom: .3rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: 1rem 0 }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #eaeef2 } th { border-color: #8c959f }
td:first-child, th:first-child { text-align: left } .note { color: #57606a; font-size: .9rem } figure { margin: 1rem 0 }
"""


def write(store: Store, ids: Sequence[str], *, title: str, description: str = "", path: Path | None = None) -> Path:
    """Write the report of the runs `ids`.

    Args:
        store: where they are.
        ids: complete runs.
        title: of the page.
        description: a sentence or two under it.
        path: of the file; `report.html` in the store's root by default.

    Returns:
        The path.

    Raises:
        ValueError: no runs.
    """
    if not ids:
        raise ValueError(f"no complete runs to report in {store.root}: `labkit study run` makes them")
    path = path or store.root / "report.html"
    page = _page(title, description, list(_sections(store, list(ids))))
    scratch = path.with_name(f".tmp-{path.name}")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def _sections(store: Store, ids: list[str]) -> Iterator[tuple[str, str, list[Any]]]:
    """(title, html, figures) of each section."""
    scores = store.scores(ids)
    fields = store.fields(METRIC, ids, where={"corruption": "none"})
    directions = _directions(scores)
    for source, target in directions:
        board = stats.leaderboard(scores, fields, metric=METRIC, source=source, target=target)
        figure = views.leaderboard_plot(board, metric=METRIC, direction=f"{source} → {target}")
        yield f"Recall@10, {source} → {target}", _table(board.drop(columns="higher_is_better")), [figure]
    if BASELINE in set(scores["variant"]):
        yield "Against the contrastive baseline", _versus(scores, fields, directions), []
    for corruption in sorted(set(scores["corruption"]) - {"none"}):
        figures = [
            views.robustness_curves(
                scores, metric=METRIC, corruption=corruption, corrupted=source, source=source, target=target
            )
            for source, target in directions
        ]
        note = f"<p class=note>The asking modality is corrupted ({html.escape(corruption.replace('_', ' '))}).</p>"
        yield f"Robustness: {corruption.replace('_', ' ')}", note, figures
    yield "Maps", _MAP_NOTE, list(_maps(store, ids))
    yield "Runs", _runs(store, ids), []


_MAP_NOTE = (
    "<p class=note>Each thing once per modality. Pictures, not evidence: distances in two dimensions are no distances "
    "in the shared space; the dashboard colors every point by how far the map can be trusted there.</p>"
)


def _directions(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Into text where there is text, else all; text is what people search by."""
    found = scores.loc[scores["metric"] == METRIC, ["source", "target"]].drop_duplicates()
    pairs = [p for p in permutations(dict.fromkeys(found["source"]), 2) if p in set(map(tuple, found.to_numpy()))]
    return [p for p in pairs if p[1] == "text"] or pairs


def _versus(scores: pd.DataFrame, fields: pd.DataFrame, directions: list[tuple[str, str]]) -> str:
    parts = [f"<p class=note>Paired difference to {BASELINE}; p corrected by Holm within a direction.</p>"]
    for source, target in directions:
        table = stats.compare(scores, fields, metric=METRIC, source=source, target=target, baseline=BASELINE)
        columns = ["variant", "difference", "low", "high", "p", "p_holm", "seeds", "n", "kind"]
        parts.append(f"<h3>{html.escape(source)} → {html.escape(target)}</h3>" + _table(table[columns]))
    return "".join(parts)


def _maps(store: Store, ids: list[str]) -> Iterator[Any]:
    seen: set[str] = set()
    for run_id in ids:
        run = store.open(run_id)
        name = "umap" if run.has("projections", "umap") else "pca"
        if run.info["variant"] in seen or not run.has("projections", name):
            continue
        seen.add(run.info["variant"])
        drawn = views.manifold(run.points(), run.projection(name), name=name)
        yield drawn.relabel(f"{run.info['variant']}, seed {run.info['seed']}")


def _runs(store: Store, ids: list[str]) -> str:
    rows = []
    for run_id in ids:
        info = store.open(run_id).info
        commit = (info.get("git") or {}).get("commit", "")[:10]
        rows.append({"run": run_id, "created": info["created"], "commit": commit, "labkit": info["labkit"]})
    return _table(pd.DataFrame(rows))


def _table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0, escape=True, float_format=lambda v: f"{v:.3f}", na_rep="–")


def _page(title: str, description: str, sections: list[tuple[str, str, list[Any]]]) -> str:
    import holoviews as hv
    from bokeh.embed import components
    from bokeh.resources import INLINE

    hv.extension("bokeh", logo=False)
    figures = [hv.render(f, backend="bokeh") for _, _, drawn in sections for f in drawn]
    script, divs = components(figures) if figures else ("", ())
    remaining = iter(cast("tuple[str, ...]", divs))
    body = []
    for heading, text, drawn in sections:
        pictures = "".join(f"<figure>{next(remaining)}</figure>" for _ in drawn)
        body.append(f"<section><h2>{html.escape(heading)}</h2>{pictures}{text}</section>")
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>labkit: {html.escape(title)}</title>"
        f"<style>{_STYLE}</style>{INLINE.render()}</head><body><h1>{html.escape(title)}</h1>"
        f"<p>{html.escape(description)}</p>{''.join(body)}{script}</body></html>"
    )
