"""Pictures, sounds and captions of samples as HTML: texts are escaped, files come from the data folder only."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from dashboards.content import Content, Ranks
from dashboards.parts import text
from labkit.store.media import media_type

_MAX_BYTES = 4_000_000
_MAX_TEXT = 400

_MEANING = {
    "median rank": "of the true partner among all targets, from 1",
    "median distance": "cosine distance between partners",
    "by chance": "median cosine distance of random pairs",
    "gap": "distance between the mean vectors of both modalities",
}

STYLE = """
.lk-card { display: flex; gap: 8px 14px; flex-wrap: wrap; align-items: center; margin-bottom: 6px }
.lk-card img { width: 128px; height: 128px; background: #fff; border-radius: 8px; object-fit: contain }
.lk-card audio { width: 220px; height: 36px } .lk-card .cap { font-size: 1.15em; font-weight: 600; max-width: 20em }
.lk-card .cap, .lk-row span, .lk-mod { overflow-wrap: anywhere }
.lk-mod { opacity: .7; font-size: .86em; letter-spacing: .02em }
.lk-cols { display: flex; gap: 14px; flex-wrap: wrap } .lk-col { min-width: 150px; flex: 1 }
.lk-row { display: flex; gap: 8px; align-items: center; padding: 3px 5px; border-radius: 6px; font-size: .92em }
.lk-row img { width: 40px; height: 40px; background: #fff; border-radius: 4px; object-fit: contain }
.lk-row audio { width: 170px; height: 28px; display: block }
.lk-shared { background: rgba(230, 159, 0, .22) } .lk-none { opacity: .7; margin: 2px 0 6px }
table.lk-num { font-variant-numeric: tabular-nums; border-collapse: collapse }
table.lk-num td, table.lk-num th { padding: 1px 12px 1px 0; text-align: right }
table.lk-num td:first-child, table.lk-num th:first-child { text-align: left }
"""


def card(content: Content, row: int) -> str:
    """Caption, picture and sounds of one sample: every modality that it has."""
    point = content.points.iloc[row]
    told = " · ".join(str(point[c]) for c in ("label", "kind", "split") if c in point and not pd.isna(point[c]))
    key = f'<span class="lk-key">{text(point["key"])}</span>'
    parts = [f'<div><div class="cap">{text(caption(point))}</div><div class="lk-mod">{text(told)}<br>{key}</div></div>']
    for modality in content.modalities:
        shown = _item(content, row, modality)
        if shown:
            parts.append(f'<div><div class="lk-mod">{text(modality)}</div>{shown}</div>')
    return f'<div class="lk-card">{"".join(parts)}</div>'


def neighbors(content: Content, row: int, *, step: str, k: int) -> str:
    """The k nearest samples in each modality side by side; those that several modalities share are marked.

    Raises:
        NotComputedError: the vectors of this space are not stored.
    """
    found = {m: content.nearest(row, m, step=step, k=k) for m in content.modalities}
    every = np.concatenate([*found.values(), np.array([], dtype=int)])
    rows, counts = np.unique(every, return_counts=True)
    shared = set(rows[counts > 1].tolist())
    columns = []
    for modality, near in found.items():
        entries = [_entry(content, int(i), marked=int(i) in shared) for i in near]
        body = "".join(entries) or '<div class="lk-none">this sample has no such item</div>'
        columns.append(f'<div class="lk-col"><div class="lk-mod">nearest in {text(modality)}</div>{body}</div>')
    note = f'<div class="lk-none lk-overlap">{_overlaps(content, found)}</div>'
    return f'{note}<div class="lk-cols">{"".join(columns)}</div>'


def entries(content: Content, rows: np.ndarray) -> str:
    """Some samples beside each other: picture and caption."""
    return f'<div class="lk-cols">{"".join(_entry(content, int(row), marked=False) for row in rows)}</div>'


def partners(content: Content, rows: np.ndarray, *, step: str = "final") -> dict[tuple[str, str], Ranks]:
    """Where the partners of some samples are, by direction; directions without a pair are left out.

    Raises:
        NotComputedError: the vectors of the shared space are not stored.
    """
    found = {(a, b): content.partner_ranks(rows, a, b, step) for a, b in permutations(content.modalities, 2)}
    return {way: ranks for way, ranks in found.items() if ranks.pairs}


def partner_table(content: Content, found: Mapping[tuple[str, str], Ranks], *, step: str = "final") -> str:
    """Per direction: pairs, median rank of the true partner, median distances of it and by chance, and the gap."""
    lines, sampled = [], ""
    several = any(ranks.pairs > 1 for ranks in found.values())  # of one pair there is no chance and no gap
    for (source, target), ranks in found.items():
        cells = [
            f"{ranks.pairs:,}",
            f"{np.median(ranks.rank):.0f} of {ranks.last:,}",
            f"{np.median(ranks.distance):.2f}",
        ]
        if several:
            cells += [f"{np.median(ranks.chance):.2f}" if len(ranks.chance) else "", f"{ranks.gap:.2f}"]
        numbers = "".join(f"<td>{text(c)}</td>" for c in cells)
        lines.append(f"<tr><td>{text(source)} → {text(target)}</td>{numbers}</tr>")
        if len(ranks.rank) < ranks.pairs:
            sampled = f"Medians of a random sample of {len(ranks.rank):,} pairs"
            sampled += f", ranked against {2 * len(ranks.rank):,} random targets." if content.is_large else "."
    where = "shared space" if step == "final" else f"shared space, step {step}"
    names = (where, "pairs", "median rank", "median distance", *(("by chance", "gap") if several else ()))
    head = "".join(f'<th title="{text(_MEANING.get(n, ""))}">{text(n)}</th>' for n in names)
    note = f'<div class="lk-none">{sampled}</div>' if sampled else ""
    return f'<table class="lk-num"><tr>{head}</tr>{"".join(lines)}</table>{note}'


def caption(point: pd.Series) -> str:
    """What people call a sample: its caption, else its key."""
    known = point.get("caption")
    return str(point["key"]) if known is None or pd.isna(known) else str(known)


def _overlaps(content: Content, found: dict[str, np.ndarray]) -> str:
    """How many neighbors each two modalities share, and how many two random lists would."""
    there = {m: near for m, near in found.items() if len(near)}
    parts = [
        f"{text(a)}–{text(b)} <b>{len(np.intersect1d(there[a], there[b]))} of {min(len(there[a]), len(there[b]))}</b>"
        for a, b in combinations(there, 2)
    ]
    if not parts:
        return "no two modalities to compare"
    k, others = max(map(len, there.values())), len(content.points) - 1
    return f"shared neighbors (marked): {' · '.join(parts)} · by chance {k * k / max(others, 1):.1g}"


def listed(content: Content, row: int, modality: str, told: str, *, marked: bool) -> str:
    """One sample of a list of a modality: as elsewhere, with a line of text, and the sound where it is one."""
    item = _item(content, row, modality)
    sound = item if item.startswith("<audio") else ""
    return _entry(content, row, marked=marked, more=f'<div class="lk-mod">{text(told)}</div>{sound}')


def _entry(content: Content, row: int, *, marked: bool, more: str = "") -> str:
    pictures = (_item(content, row, m) for m in content.modalities)
    picture = next((shown for shown in pictures if shown.startswith("<img")), "")
    classes = "lk-row lk-shared" if marked else "lk-row"
    return f'<div class="{classes}">{picture}<span>{text(caption(content.points.iloc[row]))}{more}</span></div>'


def _item(content: Content, row: int, modality: str) -> str:
    """An item as HTML; empty where the sample has none, or a text that the caption tells already."""
    point = content.points.iloc[row]
    raw = point.get(modality, None)
    if not point[f"present_{modality}"] or raw is None or pd.isna(raw):
        return ""
    if not media_type(raw):
        return "" if str(raw) == caption(point) else f'<div class="cap">{text(str(raw)[:_MAX_TEXT])}</div>'
    source, problem = _source(content, str(point["key"]), modality)
    if problem:
        return f'<div class="lk-none lk-gone">{text(str(raw)[:_MAX_TEXT])}: {text(problem)}</div>'
    if source.startswith("data:image"):
        return f'<img alt="{text(caption(point))}" src="{source}">'
    return f'<audio controls preload="auto" data-modality="{text(modality)}" src="{source}"></audio>'


@lru_cache(maxsize=2048)
def _source(content: Content, key: str, modality: str) -> tuple[str, str]:
    """A picture or sound as a data URL, or why it cannot be shown; the map and the numbers do without."""
    try:
        path = content.run.item_path(key, modality)
        if path is None or not media_type(path):
            return "", "no picture or sound"
        if path.stat().st_size > _MAX_BYTES:
            return "", f"larger than {_MAX_BYTES // 1_000_000} MB, not shown"
        found = path.read_bytes()
    except ValueError:
        return "", "outside the data folder, not shown"
    except FileNotFoundError:
        return "", "the file is missing; put it back into the data folder"
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"
    return f"data:{media_type(path)};base64,{base64.b64encode(found).decode()}", ""
