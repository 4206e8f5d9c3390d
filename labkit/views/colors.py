"""Fixed colors: a modality, a variant or a category looks the same in every figure, on white and on dark ground.

Known names have colors of Okabe and Ito (Color Universal Design, 2008), which color-blind readers can tell apart. An
unknown name gets a color of the Glasbey palette (Glasbey et al., Color Research and Application 32, 2007) by a hash of
the name alone, so it does not depend on what else is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from zlib import crc32

from colorcet import b_glasbey_hv as glasbey

MODALITY: Mapping[str, str] = MappingProxyType(
    {
        "image": "#0a84d0",
        "text": "#e69f00",
        "speech_fr": "#009e73",
        "speech_es": "#cc79a7",
        "audio": "#d55e00",
        "video": "#56b4e9",
    }
)
VARIANT: Mapping[str, str] = MappingProxyType(
    {
        "identity": "#8c8c8c",
        "procrustes": "#56b4e9",
        "cca": "#e69f00",
        "clip": "#0a84d0",
        "ot": "#cc79a7",
        "rma": "#009e73",
        "gotma": "#d55e00",
        "vicreg": "#7a45b8",
        "structure": "#9c5a2d",
    }
)
CHANCE = "#8c8c8c"
MISSING = "#9a9a9a"
_CATEGORY = (
    "#0a84d0", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b3a800", "#8f6fc9", "#9c5a2d", "#7fb26a",
)  # fmt: skip


def modality_colors(names: Iterable[str]) -> dict[str, str]:
    """{modality: color}."""
    return {name: MODALITY.get(name) or _hashed(name) for name in names}


def variant_colors(names: Iterable[str]) -> dict[str, str]:
    """{variant: color}."""
    return {name: VARIANT.get(name) or _hashed(name) for name in names}


def category_colors(values: Iterable[object]) -> dict[str, str]:
    """{category: color} of all different values, in sorted order.

    Pass the values of the whole table, not those of a selection, so that colors stay when the selection changes.
    Missing values and "other" are gray.
    """
    names = sorted({str(value) for value in values})
    palette = [*_CATEGORY, *glasbey]
    colored = [name for name in names if name not in ("", "nan", "None", "other")]
    colors = {name: palette[i % len(palette)] for i, name in enumerate(colored)}
    return {name: colors.get(name, MISSING) for name in names}


def _hashed(name: str) -> str:
    """A Glasbey color by the name alone; the first ten are near those of the known names and are skipped."""
    return glasbey[10 + crc32(name.encode()) % (len(glasbey) - 10)]
