"""One self-contained HTML page for a set of runs: leaderboards, paired differences, robustness curves, maps.

Everything is drawn by `labkit.views` from stored tables; scripts and styles are inside the file, so it opens anywhere,
without a network. Text that comes from data is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from labkit import stats, views
from labkit.store import Store
from labkit.store.errors import explained
from labkit.views.robustness_plots import family_of

if TYPE_CHECKING:
    import holoviews as hv
    from bokeh.plotting import figure

METRIC = "recall_at_10"
BASELINE = "clip"
WIDTH = 590  # of a figure: two stand side by side

_TEMPLATE = """
{% from macros import embed %}
{% block css_resources %}{% endblock %}{# another package may have registered style sheets to fetch #}
{% block js_resources %}<script>{{ bokeh }}</script>{% endblock %}
{% block postamble %}<meta name="viewport" content="width=device-width"><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { margin-bottom: 0 } h1, h2, h3 { line-height: 1.2 } nav a { margin-right: 1.2rem; color: #0969da }
h2 { margin-top: 2.8rem; border-bottom: 1px solid #d0d7de; padding-bottom: .3rem } h3 { margin: 1rem 0 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .6rem 0 }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #eaeef2 } th { border-color: #8c959f }
td:first-child, th:first-child { text-align: left; padding-left: .2rem } .note { color: #57606a; font-size: .9rem }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(36rem, 100%), 1fr)); gap: 1rem 1.5rem }
.grid > div { min-width: 0; overflow-x: auto } figure { margin: 0 }
</style>{% endblock %}
{% block contents %}
<h1>{{ heading | e }}</h1><p>{{ description | e }}</p><p class=note>{{ summary | e }}</p>
<nav>{% for s in sections %}<a href="#s{{ loop.index }}">{{ s.heading | e }}</a>{% endfor %}</nav>
{% for s in sections %}<section id="s{{ loop.index }}"><h2>{{ s.heading | e }}</h2>
{% if s.note %}<p class=note>{{ s.note | e }}</p>{% endif %}
<div class=grid>{% for part in s.parts %}<div>{% if part.heading %}<h3>{{ part.heading | e }}</h3>{% endif %}
{% if part.figure is not none %}<figure>{{ embed(roots[part.figure]) }}</figure>{% endif %}{{ part.table }}</div>
{% endfor %}</div></section>{% endfor %}
{% endblock %}
"""


@dataclass
class Part:
    """A figure, a table, or one above the other; `table` is HTML that is escaped already."""

    heading: str = ""
    drawing: hv.Overlay | None = None
    table: str = ""
    figure: int | None = None


@dataclass
class Section:
    """Parts that stand side by side where the window is wide."""

    heading: str
    note: str = ""
    parts: list[Part] = field(default_factory=list)


def write(
    store: Store,
    ids: Sequence[str],
    *,
    title: str,
    description: str = "",
    tables: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    path: Path | None = None,
) -> Path:
    """Write the report of the runs `ids`.

    Args:
        store: where they are.
        ids: complete runs.
        title: of the page.
        description: a sentence or two under it.
        tables: scores and clean per-sample values of the runs, where `variant` says what is told apart (the cells of
            a study); those of the store by default.
        path: of the file; `report.html` in the store's root by default.

    Returns:
        The path.

    Raises:
        ValueError: no runs.
        StoreError: a run cannot be read, or the file cannot be written; an older report then stays.
    """
    if not ids:
        raise ValueError(f"no complete runs to report in {store.root}: `labkit study run` makes them")
    path = path or store.root / "report.html"
    scores, fields = tables or (store.scores(ids), store.fields(METRIC, ids, where={"corruption": "none"}))
    sections = list(_sections(store, list(ids), scores, fields))
    page = _page(title, description, _summary(store, list(ids), scores), sections)
    scratch = path.with_name(f".tmp-{path.name}")
    with explained("write", path):
        try:
            scratch.write_text(page, encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return path


def _sections(store: Store, ids: list[str], scores: pd.DataFrame, fields: pd.DataFrame) -> Iterator[Section]:
    directions = _directions(scores)
    # recall lies in 0..1 whatever the interval of a few seeds says; one scale for all panels
    top = min(1.0, 1.05 * float(scores.loc[scores["metric"] == METRIC, "high"].max()))
    yield Section("Recall@10", "Things whose partner is among the ten nearest.", list(_boards(scores, fields, top)))
    if {BASELINE} < set(scores["variant"]):
        note = f"Paired difference to {BASELINE} in recall@10; p corrected by Holm within a direction."
        yield Section("Against the contrastive baseline", note, list(_versus(scores, fields, directions)))
    yield from _curves(stats.fully_measured(scores), top)
    note = (
        "Each thing once per modality. Pictures, not evidence: distances in two dimensions are no distances in the "
        "shared space; the dashboard colors every point by how far the map can be trusted there."
    )
    yield Section("Maps", note, list(_maps(store, ids)))
    yield Section("Runs", "", [Part(table=_runs(store, ids))])


def _boards(scores: pd.DataFrame, fields: pd.DataFrame, top: float) -> Iterator[Part]:
    for source, target in _directions(scores):
        board = stats.leaderboard(scores, fields, metric=METRIC, source=source, target=target)
        drawn = views.leaderboard_plot(board, metric=METRIC, direction=f"{source} → {target}")
        columns = ["variant", "value", "low", "high", "seeds", "n", "chance"]
        sized = drawn.opts(width=WIDTH, xlim=(0.0, top), backend="bokeh")
        yield Part("", sized, _table(board.loc[:, columns]))


def _curves(scores: pd.DataFrame, top: float) -> Iterator[Section]:
    """One section per family of corruptions, one drawing per corruption and modality."""
    corrupted = scores.loc[scores["corruption"] != "none", ["corruption", "corrupted"]].drop_duplicates()
    for family, rows in corrupted.groupby(corrupted["corruption"].map(family_of), sort=False):
        parts = []
        for corruption, modality in rows.sort_values(["corruption", "corrupted"]).itertuples(index=False):
            drawn = views.robustness_curves(scores, metric=METRIC, corruption=corruption, corrupted=modality)
            parts.append(Part("", drawn.opts(width=WIDTH, height=350, ylim=(0.0, top), backend="bokeh")))
        yield Section(f"Robustness: {family}", "Mean over the directions that involve the corrupted modality.", parts)


def _directions(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Into text where there is text, else all; text is what people search by."""
    found = scores.loc[scores["metric"] == METRIC, ["source", "target"]].drop_duplicates()
    pairs = [p for p in permutations(dict.fromkeys(found["source"]), 2) if p in set(map(tuple, found.to_numpy()))]
    return [p for p in pairs if p[1] == "text"] or pairs


def _versus(scores: pd.DataFrame, fields: pd.DataFrame, directions: list[tuple[str, str]]) -> Iterator[Part]:
    for source, target in directions:
        table = stats.compare(scores, fields, metric=METRIC, source=source, target=target, baseline=BASELINE)
        shown = table.loc[:, ["variant", "difference", "low", "high", "p", "p_holm", "seeds", "n"]]
        kinds = "; ".join(dict.fromkeys(table["kind"]))
        yield Part(f"{source} → {target}", table=f"{_table(shown)}<p class=note>{html.escape(kinds)}</p>")


def _maps(store: Store, ids: list[str]) -> Iterator[Part]:
    """One per variant, of its first seed."""
    seen: set[str] = set()
    for run_id in ids:
        run = store.open(run_id)
        variant = run.info["variant"]
        name = "umap" if run.has("projections", "umap") else "pca"
        if variant in seen or not run.has("projections", name):
            continue
        seen.add(variant)
        drawn = views.manifold(run.points(), run.projection(name), name=name)
        title = f"{variant}, seed {run.info['seed']}"
        yield Part("", drawn.opts(width=WIDTH, height=380, title=title, backend="bokeh"))


def _summary(store: Store, ids: list[str], scores: pd.DataFrame) -> str:
    infos = [store.open(run_id).info for run_id in ids]
    modalities = " | ".join(dict.fromkeys(", ".join(info["modalities"]) for info in infos))
    samples = " | ".join(dict.fromkeys(str(info["n"]) for info in infos))
    variants, seeds = scores["variant"].nunique(), scores["seed"].nunique()
    return f"{len(ids)} runs: {variants} variants, {seeds} seeds; {samples} things as {modalities}."


def _runs(store: Store, ids: list[str]) -> str:
    rows = []
    for run_id in ids:
        info = store.open(run_id).info
        commit = (info["git"].get("commit") or "")[:10]
        rows.append({"run": run_id, "made": info["created"][:16], "commit": commit, "labkit": info["labkit"]})
    return _table(pd.DataFrame(rows))


def _table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0, escape=True, float_format=lambda v: f"{v:.3f}", na_rep="–")


def _page(title: str, description: str, summary: str, sections: list[Section]) -> str:
    from bokeh.embed import file_html
    from bokeh.resources import INLINE, Resources

    figures = []
    for part in (part for section in sections for part in section.parts if part.drawing is not None):
        part.figure = len(figures)
        figures.append(_figure(part.drawing))
    # bokeh alone: `INLINE` would add what other packages have registered with it, and fetch that
    scripts = Resources(mode="inline", components=["bokeh"]).js_raw
    told = {"heading": title, "description": description, "summary": summary, "sections": sections}
    told |= {"bokeh": "\n".join(scripts)}
    return file_html(figures, INLINE, f"labkit: {title}", template=_TEMPLATE, template_variables=told)


def _figure(drawing: Any) -> figure:
    import holoviews as hv

    drawn = cast("figure", hv.render(drawing, backend="bokeh"))
    drawn.output_backend = "canvas"
    drawn.toolbar.logo = None
    drawn.toolbar.autohide = True  # it would cover the title
    return drawn
