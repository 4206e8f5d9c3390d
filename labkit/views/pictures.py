"""Pictures of the things themselves: contact sheets, maps drawn with thumbnails, couplings as matrices."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import holoviews as hv
import numpy as np
import pandas as pd

from ._style import both, framed
from .colors import modality_colors

if TYPE_CHECKING:
    from PIL.Image import Image

# a palette keeps a notebook with pictures in it under 300 kB
COLORS = 64

Items = Callable[[str, Sequence[str]], list[Any]]


def contact_sheet(pictures: Sequence[Any], *, columns: int = 12, size: int = 72) -> Image:
    """Pictures in rows, in the order given, on white; absent ones (None) leave a gap.

    Args:
        pictures: `PIL.Image` each, or None.
        columns: pictures in a row.
        size: width and height of each, in pixels.

    Raises:
        ValueError: no pictures, or no columns.
    """
    from PIL import Image, ImageOps

    if not len(pictures) or columns < 1:
        raise ValueError(f"a contact sheet needs pictures and columns; got {len(pictures)} and {columns}")
    rows = -(-len(pictures) // columns)
    step = size + size // 12
    sheet = Image.new("RGB", (columns * step, rows * step), "white")
    for i, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(ImageOps.pad(picture, (size, size), color="white"), (i % columns * step, i // columns * step))
    return sheet.quantize(COLORS)


def coupling_matrix(plan: np.ndarray, *, rows: str = "image", columns: str = "text") -> hv.Image:
    """A coupling as a matrix, every row scaled by its own mass: brightness is the share sent to each target.

    Args:
        plan: `[n, m]`, non-negative.
        rows: modality of the rows.
        columns: modality of the columns.
    """
    share = plan / plan.sum(axis=1, keepdims=True)
    n, m = share.shape
    # square root: a coupling has few heavy entries, which would leave the rest black
    picture = hv.Image(np.sqrt(share[::-1]), bounds=(0, 0, m, n), kdims=["target", "source"], vdims=["share"])
    labels: dict[str, Any] = {"xlabel": f"{columns} (n = {m})", "ylabel": f"{rows} (n = {n})", "cmap": "magma"}
    picture = both(picture, bokeh={**labels, "invert_yaxis": True}, mpl={**labels, "invert_yaxis": True})
    return framed(picture, title=f"Where each {rows} goes (square root of its share)", size=(520, 520))


def thumbnail_map(
    projection: pd.DataFrame, items: Items, *, source: str = "image", target: str = "text", limit: int = 100
) -> Image:
    """The 2-D frame with `source` drawn as pictures, each tied to where its `target` lies.

    Pictures that would cover one another are left out, so at most `limit` are drawn; the title says how many. All
    points stay visible as dots.

    Args:
        projection: columns key, modality, x, y.
        items: gives the pictures of a modality for keys, see `labkit.data.Dataset.items`.
        source: modality that has pictures.
        target: modality that the lines lead to.
        limit: largest number of pictures.

    Raises:
        ValueError: a modality is not in the projection.
    """
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from PIL import Image

    places = {str(m): rows.set_index("key")[["x", "y"]] for m, rows in projection.groupby("modality")}
    unknown = {source, target} - set(places)
    if unknown:
        raise ValueError(f"the projection has no {sorted(unknown)}; it has {sorted(places)}")
    colors = modality_colors(places)
    figure = Figure(figsize=(11, 7.5), dpi=100)
    axis = figure.subplots()
    for modality, where in places.items():
        axis.scatter(where["x"], where["y"], s=7, color=colors[modality], alpha=0.45, label=modality, linewidths=0)
    both_there = places[source].join(places[target], rsuffix="_target", how="inner")
    shown = _apart(places[source].loc[both_there.index], limit)
    for key, picture in zip(shown, items(source, shown), strict=True):
        row = both_there.loc[key]
        axis.plot([row["x"], row["x_target"]], [row["y"], row["y_target"]], color="0.55", linewidth=0.7, zorder=2)
        box = AnnotationBbox(OffsetImage(_cut_out(picture), zoom=0.24), (row["x"], row["y"]), frameon=False)
        box.set_zorder(3)
        axis.add_artist(box)
    axis.set_title(f"{len(shown)} of {len(both_there)} pictures, each tied to its {target}", loc="left", fontsize=12)
    axis.legend(loc="upper right", frameon=False, markerscale=2.5)
    axis.set_axis_off()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB").quantize(COLORS)


def _cut_out(picture: Any) -> np.ndarray:
    """RGBA of a picture whose white ground is transparent, so that neighbours show through."""
    rgb = np.asarray(picture.convert("RGB"))
    ground = (rgb > 247).all(axis=2, keepdims=True)
    return np.concatenate([rgb, np.where(ground, 0, 255).astype(np.uint8)], axis=2)


def _apart(where: pd.DataFrame, limit: int) -> list[str]:
    """Keys of at most `limit` points, chosen in order such that no two pictures overlap."""
    span = np.ptp(where.to_numpy(), axis=0)
    scaled = where.to_numpy() / np.where(span > 0, span, 1.0)
    chosen: list[int] = []
    for i, point in enumerate(scaled):
        # a thumbnail is about 3.2 % of the width and 4.6 % of the height of the frame
        if len(chosen) < limit and not (np.abs(scaled[chosen] - point) < (0.036, 0.05)).all(axis=1).any():
            chosen.append(i)
    return [str(where.index[i]) for i in chosen]
