"""Colors are fixed by name and can be told apart."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from labkit.views import category_colors, modality_colors, variant_colors
from labkit.views.colors import MODALITY, VARIANT


def _lightness_free_distance(a: str, b: str) -> float:
    """Distance for a red-blind reader: Vienot, Brettel and Mollon (1999) protanopia, linear RGB."""
    protanopia = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    x, y = (protanopia @ np.array(to_rgb(c)) ** 2.2 for c in (a, b))
    return float(np.linalg.norm(x.clip(0) ** (1 / 2.2) - y.clip(0) ** (1 / 2.2)))


@pytest.mark.parametrize("colors", [MODALITY, VARIANT])
def test_known_names_differ_also_for_red_blind_readers(colors):
    assert min(_lightness_free_distance(a, b) for a, b in combinations(colors.values(), 2)) > 0.1


@pytest.mark.parametrize("make", [modality_colors, variant_colors])
def test_a_name_keeps_its_color_whatever_else_is_drawn(make):
    alone = make(["unheard_of"])["unheard_of"]
    assert make(["another", "clip", "unheard_of", "image"])["unheard_of"] == alone
    to_rgb(alone)


def test_categories_are_colored_by_sorted_name_and_nothing_known_is_gray():
    colors = category_colors(["b", "a", "b", None, "other"])
    assert list(colors) == ["None", "a", "b", "other"]
    assert colors == category_colors(["other", "a", "b", None])
    assert colors["None"] == colors["other"] not in (colors["a"], colors["b"])


def test_many_categories_have_many_colors():
    colors = category_colors(range(100))
    assert len(set(colors.values())) == 100
