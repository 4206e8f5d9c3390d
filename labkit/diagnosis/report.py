"""One self-contained HTML page of a diagnosis: findings, pictures, tables; no scripts, text from data is escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from labkit.diagnosis.result import Diagnosis
from labkit.store.errors import explained

if TYPE_CHECKING:
    from holoviews.core.dimension import Dimensioned

DPI = 110
OVERLAP = "mutual_knn"  # the field that colors the second row of maps

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --paper: #fff }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink) }
h1, h2, h3 { line-height: 1.2 } h1 { margin-bottom: .2rem } .note { color: var(--soft); font-size: .9rem }
h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem }
.finding { border-left: .35rem solid #0a84d0; padding: .2rem 0 .2rem 1rem; margin: 1rem 0 }
.finding.moderate { border-color: #e69f00 } .finding.weak { border-color: #8c8c8c } .finding h3 { margin: 0 }
.finding p { margin: .2rem 0 } .warning { background: #fff4e0; padding: .5rem 1rem; border-left: .35rem solid #d55e00 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .82rem; margin: .6rem 0 }
th, td { padding: .22rem .55rem; text-align: right; border-bottom: 1px solid #eaeef2; vertical-align: top }
th { border-color: #8c959f } td.text, th:first-child, th:last-child { text-align: left }
td { white-space: nowrap } td.text { color: var(--soft); white-space: normal }
td.text:last-child { min-width: 18rem }
td:first-child { color: var(--ink); white-space: nowrap } .wide { overflow-x: auto }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin: 0 .25em 0 .5em }
.item { white-space: nowrap }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: .6rem 1.4rem }
figure { margin: 0; min-width: 0 } figure img { max-width: 100% } figcaption { color: var(--soft); font-size: .86rem }
</style></head><body>
<h1>{{ title }}</h1><p class="note">{{ summary }}</p>
{% for text in warnings %}<p class="warning">{{ text }}</p>{% endfor %}
<h2>Findings</h2>
{% for f in findings %}<div class="finding {{ f.strength }}"><h3>{{ f.title }}</h3>
<p>{{ f.sentence }}</p><p class="note">{{ f.source }}{% if f.target %} / {{ f.target }}{% endif %}; {{ f.strength }};
from {{ f.evidence | join(", ") }}</p></div>
{% else %}<p>Nothing stands out against its reference.</p>{% endfor %}
{% for section in sections %}<h2>{{ section.heading }}</h2>
{% if section.note %}<p class="note">{{ section.note }}</p>{% endif %}
{% if section.figures %}<div class="grid">{% for figure in section.figures %}
<figure><img src="data:image/png;base64,{{ figure.png }}" alt="{{ figure.alt }}" width="{{ figure.width }}">
<figcaption>{% for name, color in figure.legend %}
<span class="item"><span class="key" style="background: {{ color }}"></span>{{ name }}</span>{% endfor %}
</figcaption></figure>{% endfor %}</div>{% endif %}
{% for table in section.tables %}<div class="wide"><table><thead><tr>
{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td{% if not cell.number %} class="text"{% endif %}>{{ cell.text }}
</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endfor %}
{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Figure:
    """A picture with what it says to those who do not see it."""

    png: str
    alt: str
    legend: list[tuple[str, str]]
    width: int


@dataclass(frozen=True)
class Cell:
    """A table cell."""

    text: str
    number: bool


@dataclass(frozen=True)
class Table:
    """Cells under column names."""

    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Section:
    """Pictures, then tables."""

    heading: str
    note: str
    figures: list[Figure]
    tables: list[Table]


def write(diagnosis: Diagnosis, path: Path) -> Path:
    """Write the page; an older file stays until the new one is complete.

    Raises:
        ImportError: the drawing libraries are not installed.
        StoreError: the file cannot be written.
    """
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise ImportError("a report needs the drawing libraries: pip install 'labkit[viz]'") from error
    names = diagnosis.settings["modalities"]
    page = Environment(autoescape=True).from_string(_TEMPLATE)
    text = page.render(
        title=f"Diagnosis: {', '.join(names)}",
        summary=_summary(diagnosis),
        warnings=diagnosis.warnings,
        findings=diagnosis.findings,
        sections=list(_sections(diagnosis)),
    )
    scratch = path.with_name(f".tmp-{path.name}")
    with explained("write", path):
        try:
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    return path


def _summary(diagnosis: Diagnosis) -> str:
    s = diagnosis.settings
    space = "one shared space" if s["shared"] else "spaces of their own"
    return (
        f"{s['samples']} samples in {space}; {s['metric']} distances, k = {s['k']} neighbors, seed {s['seed']}; "
        f"references of {s['shuffles']} shuffles, {s['pooled']} pooled draws and {s['splits']} splits into halves."
    )


def _sections(diagnosis: Diagnosis) -> Iterator[Section]:
    for pair in combinations(diagnosis.settings["modalities"], 2):
        yield _pair(diagnosis, pair)
    yield Section(
        "Maps",
        "Two principal components of each modality, turned within the plane to resemble the first. Pictures, not "
        "evidence: the plane shows the stated share of the variance.",
        list(_maps(diagnosis)),
        [],
    )
    topology = list(_topology(diagnosis))
    if topology:
        note = "Vietoris-Rips persistence; distances in units of their 0.9-quantile. Far from the diagonal: real shape."
        yield Section("Topology", note, topology, [])
    for modality, rows in diagnosis.clouds.groupby("modality", sort=False):
        yield Section(
            f"The cloud of {modality}", "", [], [_table([_described(row) for row in rows.to_dict("records")])]
        )


def _pair(diagnosis: Diagnosis, pair: tuple[str, str]) -> Section:
    from labkit import views

    table = diagnosis.measures
    rows = table[(table["source"] == pair[0]) & (table["target"] == pair[1])]
    figures = []
    for draw, about in ((views.paired_measures, "shuffled rows"), (views.unpaired_measures, "halves of one cloud")):
        try:
            drawn = draw(rows)
        except ValueError:  # no measure of this kind
            continue
        alt = "; ".join(f"{r.measure} {r.value:.3g}" for r in rows.itertuples() if not math.isnan(r.value))
        figures.append(_figure(drawn, f"Measures against {about}: {alt}"))
    return Section(
        f"{pair[0]} / {pair[1]}",
        "Values with 95 % intervals. The reference is the range of 95 % of its values; compared is the value on "
        "samples of the reference's size. p is small where shuffled rows have less in common, or two samples of one "
        "cloud differ less.",
        figures,
        [_table([_measured(row) for row in rows.to_dict("records")])],
    )


def _measured(row: dict[str, Any]) -> dict[str, str]:
    drawn = f"{row['reference']} ({row['n_reference']:.0f}): " if row["reference"] else ""
    return {
        "measure": _words(row["measure"]),
        "value": _interval(row["value"], row["low"], row["high"]),
        "chance": _number(row["chance"]),
        "compared": _number(row["compared"]),
        "reference": f"{drawn}{_number(row['reference_low'])} to {_number(row['reference_high'])}" if drawn else "–",
        "p": _number(row["p"]),
        "n": _counted(row),
        "interval; notes": _joined(row["interval"], row["note"]),
    }


def _described(row: dict[str, Any]) -> dict[str, str]:
    return {
        "measure": _words(row["measure"]),
        "value": _interval(row["value"], row["low"], row["high"]),
        "n": _counted(row),
        "interval; notes": _joined("" if row["interval"] == "exact" else row["interval"], row["note"]),
    }


def _words(name: str) -> str:
    from labkit.views import words

    return words(name)


def _interval(value: float, low: float, high: float) -> str:
    return _number(value) if math.isnan(low) else f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _counted(row: dict[str, Any]) -> str:
    return f"{row['n']:.0f}" if row["n"] == row["sampled_from"] else f"{row['n']:.0f} of {row['sampled_from']:.0f}"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"


def _maps(diagnosis: Diagnosis) -> Iterator[Figure]:
    from labkit import views

    overlap = diagnosis.fields.get(OVERLAP)
    for modality, points in diagnosis.maps.groupby("modality", sort=False):
        share = f"{modality}: {len(points)} samples, {100 * points['explained'].iloc[0]:.0f} % of the variance"
        if points["label"].nunique() > 1:
            drawn = views.cloud_map(points, title=f"{share}\ncolor: label")
            yield _figure(drawn, f"Map of {modality} colored by label", legend=_legend(points))
        if overlap is not None:
            of_it = overlap[(overlap["source"] == modality) | (overlap["target"] == modality)]
            value = of_it.groupby("key")["value"].mean().reindex(points["key"]).to_numpy()
            drawn = views.cloud_map(
                points.assign(value=value), title=f"{share}\ncolor: neighbors in common", color="value"
            )
            yield _figure(drawn, f"Map of {modality} colored by the share of neighbors in common")
        elif points["label"].nunique() <= 1:
            yield _figure(views.cloud_map(points, title=share, color="modality"), f"Map of {modality}")


def _legend(points: pd.DataFrame, most: int = 16) -> list[tuple[str, str]]:
    from labkit.views import category_colors

    colors = category_colors(points["label"])
    counts = points["label"].value_counts()
    shown = [(f"{name or 'none'} ({count})", colors[str(name)]) for name, count in counts.head(most).items()]
    return shown + [(f"and {len(counts) - most} more", "transparent")] * (len(counts) > most)


def _topology(diagnosis: Diagnosis) -> Iterator[Figure]:
    from labkit import views

    for modality, bars in diagnosis.persistence.items():
        loops = bars[bars["dimension"] == 1]
        longest = float((loops["death"] - loops["birth"]).max()) if len(loops) else 0.0
        drawn = views.persistence_diagram(bars, title=f"persistence diagram of {modality}")
        yield _figure(drawn, f"Persistence diagram of {modality}; longest loop {longest:.2f}")


def _figure(drawing: Dimensioned, alt: str, *, legend: list[tuple[str, str]] | None = None) -> Figure:
    import holoviews as hv
    from matplotlib import pyplot as plt

    drawn: Any = hv.render(drawing, backend="matplotlib")
    made = io.BytesIO()
    drawn.savefig(made, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(drawn)
    width = round(int.from_bytes(made.getvalue()[16:20]) * 100 / DPI)  # of the picture, from its header
    return Figure(base64.b64encode(made.getvalue()).decode(), alt, legend or [], width)


def _table(rows: list[dict[str, str]]) -> Table:
    """The first and last columns are words, the others numbers."""
    columns = list(rows[0]) if rows else []
    ends = {columns[0], columns[-1]} if columns else set()
    return Table(columns, [[Cell(text, name not in ends) for name, text in row.items()] for row in rows])
