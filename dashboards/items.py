"""Pictures, sounds and captions of samples as HTML. Every text from data is escaped; files only from the data folder."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

import numpy as np
import pandas as pd

from dashboards.content import Content

_MEDIA = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
          ".ogg": "audio/ogg", ".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac"}  # fmt: skip
_MAX_BYTES = 4_000_000

STYLE = """
.lk-card { display: flex; gap: 14px; flex-wrap: wrap; align-items: center }
.lk-card img { width: 128px; height: 128px; background: #fff; border-radius: 8px; object-fit: contain }
.lk-card audio { width: 220px; height: 36px } .lk-card .cap { font-size: 1.15em; font-weight: 600; max-width: 20em }
.lk-mod { opacity: .65; font-size: .8em; text-transform: uppercase; letter-spacing: .04em }
.lk-cols { display: flex; gap: 18px; flex-wrap: wrap } .lk-col { min-width: 210px; flex: 1 }
.lk-row { display: flex; gap: 8px; align-items: center; padding: 3px 5px; border-radius: 6px; font-size: .92em }
.lk-row img { width: 40px; height: 40px; background: #fff; border-radius: 4px; object-fit: contain }
.lk-shared { background: rgba(230, 159, 0, .22) } .lk-none { opacity: .6 }
.lk-num { font-variant-numeric: tabular-nums } table.lk-num td, table.lk-num th { padding: 1px 9px 1px 0; text-align: right }
table.lk-num td:first-child, table.lk-num th:first-child { text-align: left }
"""


def card(content: Content, row: int) -> str:
    """Caption, picture and sounds of one sample: every modality that it has."""
    point = content.points.iloc[row]
    parts = [
        f'<div><div class="cap">{_text(_caption(point))}</div><div class="lk-mod">{_text(_facts(point))}</div></div>'
    ]
    for modality in content.modalities:
        shown = _item(content, row, modality)
        if shown is None:
            continue
        parts.append(f'<div><div class="lk-mod">{_text(modality)}</div>{shown}</div>')
    return f'<div class="lk-card">{"".join(parts)}</div>'


def neighbors(content: Content, row: int, *, step: str, k: int) -> str:
    """The k nearest samples in each modality side by side; those that several modalities share are marked."""
    found = {m: content.nearest(row, m, step=step, k=k) for m in content.modalities}
    every = np.concatenate(list(found.values())) if found else np.array([], dtype=int)
    rows, counts = np.unique(every, return_counts=True)
    shared = set(rows[counts > 1].tolist())
    columns = []
    for modality, near in found.items():
        entries = [_entry(content, int(i), marked=int(i) in shared) for i in near]
        body = "".join(entries) or '<div class="lk-none">this sample has no such item</div>'
        columns.append(f'<div class="lk-col"><div class="lk-mod">{_text(modality)}</div>{body}</div>')
    note = f"{len(shared)} of {len(rows)} neighbors are shared by two or more modalities (marked)"
    return f'<div class="lk-none">{note}</div><div class="lk-cols">{"".join(columns)}</div>'


def partner_table(content: Content, rows: np.ndarray) -> str:
    """Per direction: pairs, median rank of the true partner and median cosine distance, in the shared space."""
    lines = []
    for source in content.modalities:
        for target in content.modalities:
            if source == target:
                continue
            ranks, distances = content.partner_ranks(rows, source, target)
            if len(ranks):
                cells = (
                    len(ranks),
                    f"{np.median(ranks):.0f} of {len(content.present(target))}",
                    f"{np.median(distances):.2f}",
                )
                lines.append(_tr(f"{source} → {target}", cells))
    head = "<tr><th>shared space</th><th>pairs</th><th>median rank of partner</th><th>median distance</th></tr>"
    return f'<table class="lk-num">{head}{"".join(lines)}</table>'


def _tr(name: str, cells: Iterable[object]) -> str:
    return f"<tr><td>{_text(name)}</td>{''.join(f'<td>{_text(str(c))}</td>' for c in cells)}</tr>"


def _entry(content: Content, row: int, *, marked: bool) -> str:
    point = content.points.iloc[row]
    picture = next((s for m in content.modalities if (s := _item(content, row, m)) and s.startswith("<img")), "")
    classes = "lk-row lk-shared" if marked else "lk-row"
    return f'<div class="{classes}">{picture}<span>{_text(_caption(point))}</span></div>'


def _item(content: Content, row: int, modality: str) -> str | None:
    """An item as HTML, None where the sample has none or it is a text (which the caption shows)."""
    point = content.points.iloc[row]
    if not point[f"present_{modality}"]:
        return None
    try:
        path = content.run.item_path(str(point["key"]), modality)
    except (ValueError, OSError):
        return None  # a text, or a file that is not there: the map and the numbers do without
    if path is None or path.suffix.lower() not in _MEDIA or path.stat().st_size > _MAX_BYTES:
        return None
    media = _MEDIA[path.suffix.lower()]
    source = f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode()}"
    if media.startswith("image"):
        return f'<img alt="{_text(_caption(point))}" src="{source}">'
    return f'<audio controls preload="auto" data-modality="{_text(modality)}" src="{source}"></audio>'


def _caption(point: pd.Series) -> str:
    caption = point.get("caption")
    return str(point["key"]) if caption is None or pd.isna(caption) else str(caption)


def _facts(point: pd.Series) -> str:
    return " · ".join(str(point[c]) for c in ("label", "kind", "split", "key") if c in point and not pd.isna(point[c]))


def _text(value: str) -> str:
    return html.escape(value, quote=True)
