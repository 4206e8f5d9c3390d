"""Names beside dots that hide neither each other nor other dots."""

from __future__ import annotations

import numpy as np
import pandas as pd

_LETTER, _LINE, _DOT = 6.4, 13.0, 6.0  # pixels: width of a letter at 8 pt, height of a line, radius of a dot
_SHIFTS = (0.0, 0.8, -0.8, 1.6, -1.6)  # lines up or down from the dot


def place_labels(x: np.ndarray, y: np.ndarray, names: list[str], *, frame: tuple[int, int]) -> pd.DataFrame:
    """Greedy placement: each name right or left of its dot, or a little above or below; none where nothing is free.

    Args:
        x: of the dots `[n]`.
        y: of the dots `[n]`.
        names: of the dots.
        frame: width and height of the picture in pixels, axes included.

    Returns:
        x, y, label, and side: "left" where the text begins at x, "right" where it ends there. One row per placed name.
    """
    # a part of the picture is outside its axes, and the data have some padding inside
    scale = np.array([_span(x) / (0.5 * frame[0]), _span(y) / (0.6 * frame[1])])
    dots = np.column_stack([x, y]) / scale
    middle = (dots[:, 0].min() + dots[:, 0].max()) / 2
    taken = [(*(dot - _DOT), *(dot + _DOT)) for dot in dots]
    rows = []
    # those with fewest neighbors first: outliers are what a reader asks about
    lonely = np.argsort(
        -np.sort(np.linalg.norm(dots[:, None] - dots[None], axis=-1), axis=1)[:, : min(4, len(x))].sum(1)
    )
    for i in lonely:
        width = _LETTER * len(names[i])
        inward = ("left", "right") if dots[i][0] < middle else ("right", "left")
        for shift in _SHIFTS:
            found = [s for s in inward if _free(_box(dots[i], width, shift, s), taken, own=i)]
            if found:
                box = _box(dots[i], width, shift, found[0])
                taken.append(box)
                at = box[0] if found[0] == "left" else box[2]
                rows.append((at * scale[0], (dots[i][1] + shift * _LINE) * scale[1], names[i], found[0]))
                break
    return pd.DataFrame(rows, columns=["x", "y", "label", "side"])


def _span(values: np.ndarray) -> float:
    return float(np.ptp(values)) or 1.0


def _box(dot: np.ndarray, width: float, shift: float, side: str) -> tuple[float, float, float, float]:
    low = dot[1] + (shift - 0.5) * _LINE
    left = dot[0] + _DOT + 1 if side == "left" else dot[0] - _DOT - 1 - width
    return (left, low, left + width, low + _LINE)


def _free(box: tuple[float, ...], taken: list[tuple[float, ...]], *, own: int) -> bool:
    others = (t for i, t in enumerate(taken) if i != own)
    return not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in others)
