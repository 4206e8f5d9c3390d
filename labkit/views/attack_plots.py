"""Examples of adversarial attacks: what the picture was, what was added to it, and what came out.

    change = outcome.changed.delta[0].permute(1, 2, 0).numpy()
    views.attack_sheet([views.AttackExample("clip", "rank 1 to 214", picture, change)])

Curves of attacks are drawn by `robustness_panels`, whose axis has their budgets.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .examples import sheet

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL.Image import Image

FULL = 255


@dataclass(frozen=True)
class AttackExample:
    """One attacked picture.

    Attributes:
        name: of what was attacked, a variant for one.
        text: what came of it.
        picture: red, green and blue in 0..1.
        change: what was added, on the same scale.

    Raises:
        ValueError: shapes that differ.
    """

    name: str
    text: str
    picture: Float[np.ndarray, "h w 3"]
    change: Float[np.ndarray, "h w 3"]

    def __post_init__(self) -> None:
        if np.shape(self.picture) != np.shape(self.change):
            raise ValueError(
                f"the change must have the picture's shape {np.shape(self.picture)}; got {np.shape(self.change)}"
            )


def attack_sheet(examples: Sequence[AttackExample]) -> Image:
    """A row for each example: the picture, the change about middle gray, and the attacked picture.

    Each change is drawn as strong as fits, by the power of two above it.

    Args:
        examples: with pictures of one size.

    Raises:
        ValueError: no examples, or pictures of several sizes.
    """
    rows, labels, titles = [], [], []
    for one in examples:
        largest = float(np.abs(one.change).max())
        gain = 2 ** math.floor(math.log2(0.5 / largest)) if largest > 0 else 1
        rows.append([_drawn(one.picture), _drawn(0.5 + gain * one.change), _drawn(one.picture + one.change)])
        labels.append("\n".join([*textwrap.wrap(one.name, 22), *textwrap.wrap(one.text, 22)]))
        titles.append(["clean", f"change, {gain:g} times", "attacked"])
    return sheet(rows, labels, titles)


def _drawn(values: Float[np.ndarray, "h w 3"]) -> np.ndarray:
    return np.round(FULL * np.clip(values, 0, 1)).astype(np.uint8)
