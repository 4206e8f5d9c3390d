"""Flows of a transport plan: from things of one modality to things of another, one by one or label by label.

    table, record = run.coupling("image", "text", "sinkhorn", 0.05)
    flows = views.flows_from(table, keys, per_sample=3)
    views.flow_map(run.projection("umap"), flows, source="image", target="text")
    views.flow_sankey(views.label_flows(table, points), source="image", target="text")

A stored plan has its largest entries only: what is drawn is a share of the mass, and that share is returned with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import holoviews as hv
import numpy as np
import pandas as pd

from ._style import both, framed
from .colors import MISSING, category_colors, modality_colors

FLOW, PARTNER = "#7a45b8", "#e69f00"
_COLUMNS = ("row_key", "col_key", "mass")
_FAINTEST, _REST = 0.15, "other labels"
MOST_LABELS = 14
_PERCENT = hv.Dimension("percent", unit="%", value_format=lambda value: f"{value:.1f}")
_ROOM = (-320, 1320)  # for the labels beside a drawing that is 1000 wide


def flows_from(coupling: pd.DataFrame, keys: Iterable[str], *, per_sample: int, reverse: bool = False) -> pd.DataFrame:
    """The largest entries of a plan that leave some samples, or reach them.

    Args:
        coupling: row_key, col_key and mass, as from `Run.coupling`; entries sum to the stored share of the plan.
        keys: the samples.
        per_sample: entries of each.
        reverse: the samples are columns of the plan.

    Returns:
        from_key, to_key, mass and `partner`, whether both are the same sample; largest first within each sample.

    Raises:
        ValueError: other columns.
    """
    _check(coupling)
    one, other = ("col_key", "row_key") if reverse else ("row_key", "col_key")
    rows = coupling[coupling[one].isin(list(keys))]
    rows = rows.sort_values([one, "mass", other], ascending=[True, False, True], kind="stable")
    rows = rows.groupby(one, sort=False).head(per_sample)
    found = pd.DataFrame({"from_key": rows[one], "to_key": rows[other], "mass": rows["mass"].astype(float)})
    return found.assign(partner=found["from_key"] == found["to_key"]).reset_index(drop=True)


def flow_lines(flows: pd.DataFrame, sources: pd.DataFrame, targets: pd.DataFrame) -> dict[str, np.ndarray]:
    """Flows as segments: each from the place of its sample to that of where it goes, as opaque as its mass.

    Args:
        flows: as from `flows_from`.
        sources: x and y by key.
        targets: x and y by key, in the other modality.

    Returns:
        x0, y0, x1, y1, alpha and color; entries to a sample's own partner have the color `PARTNER`. Flows from or to
        things without a place are left out.
    """
    known = flows["from_key"].isin(sources.index) & flows["to_key"].isin(targets.index)
    flows = flows[known]
    start = sources.loc[flows["from_key"], ["x", "y"]].to_numpy(dtype=float)
    end = targets.loc[flows["to_key"], ["x", "y"]].to_numpy(dtype=float)
    mass = flows["mass"].to_numpy(dtype=float)
    largest = mass.max() if len(mass) else 1.0
    return {
        "x0": start[:, 0], "y0": start[:, 1], "x1": end[:, 0], "y1": end[:, 1],
        "alpha": _FAINTEST + (1 - _FAINTEST) * mass / largest,
        "color": np.where(flows["partner"], PARTNER, FLOW),
    }  # fmt: skip


def flow_map(projection: pd.DataFrame, flows: pd.DataFrame, *, source: str, target: str) -> hv.Overlay:
    """The flows of some samples over the map of two modalities.

    Args:
        projection: key, modality, x and y, as from `Run.projection`.
        flows: as from `flows_from`.
        source: modality where they begin.
        target: modality where they end.

    Raises:
        ValueError: the map lacks a modality.
    """
    parts = {m: projection[projection["modality"] == m].set_index("key") for m in (source, target)}
    if lacking := [m for m, part in parts.items() if part.empty]:
        raise ValueError(f"the map has no points of {lacking}")
    colors = modality_colors(parts)
    dots = [
        both(
            hv.Points(part, ["x", "y"], [], label=m),
            bokeh={"color": colors[m], "size": 4, "alpha": 0.35},
            mpl={"color": colors[m], "s": 6, "alpha": 0.35},
        )
        for m, part in parts.items()
    ]
    lines = hv.Segments(pd.DataFrame(flow_lines(flows, parts[source], parts[target])),
                        ["x0", "y0", "x1", "y1"], ["alpha", "color"])  # fmt: skip
    style: dict[str, object] = {"color": "color", "alpha": "alpha"}
    drawn = both(lines, bokeh={**style, "line_width": 1.6}, mpl={**style, "linewidth": 1.4})
    axes: dict[str, object] = {"xaxis": None, "yaxis": None}
    title = f"{flows['from_key'].nunique()} things of {source} and where their mass goes in {target}"
    overlay = both(hv.Overlay([*dots, drawn]), bokeh=axes, mpl=axes)
    return framed(overlay, title=title, size=(640, 440), legend="right")


def label_flows(coupling: pd.DataFrame, points: pd.DataFrame, *, reverse: bool = False) -> pd.DataFrame:
    """Mass of a plan from each label to each label.

    Args:
        coupling: row_key, col_key and mass.
        points: key and label of the samples, as from `Run.points`.
        reverse: from the columns to the rows.

    Returns:
        from_label, to_label and mass; of many labels those of most mass, the rest as one.

    Raises:
        ValueError: other columns, or a key that is not among the points.
    """
    _check(coupling)
    labels = points.set_index("key")["label"].astype(object).where(lambda s: s.notna(), "(none)").astype(str)
    keys = pd.concat([coupling["row_key"], coupling["col_key"]])
    if len(unknown := keys[~keys.isin(labels.index)]):
        raise ValueError(f"key {unknown.iloc[0]!r} of the plan is not among the points")
    table = pd.DataFrame(
        {
            "from_label": labels.loc[coupling["row_key"]].to_numpy(),
            "to_label": labels.loc[coupling["col_key"]].to_numpy(),
            "mass": coupling["mass"].to_numpy(dtype=float),
        }
    )
    if reverse:
        table = table.rename(columns={"from_label": "to_label", "to_label": "from_label"})
    most = table.groupby("from_label")["mass"].sum().nlargest(MOST_LABELS).index
    for column in ("from_label", "to_label"):
        table[column] = table[column].where(table[column].isin(most), _REST)
    return table.groupby(["from_label", "to_label"], as_index=False)["mass"].sum()


def flow_sankey(flows: pd.DataFrame, *, source: str, target: str, labels: Iterable[object] = ()) -> hv.Sankey:
    """Mass from the labels of one modality to those of another, in percent of what is drawn.

    Args:
        flows: as from `label_flows`.
        source: modality where it begins, at the left.
        target: modality where it ends.
        labels: all that there are, so that those of a few samples have the colors that they have elsewhere.

    Raises:
        ValueError: no flows.
    """
    if flows.empty:
        raise ValueError("no flows to draw")
    # the nodes of the two sides are different ones: a label that flows to itself would be a loop
    table = pd.DataFrame(
        {
            "from": flows["from_label"],
            "to": flows["to_label"] + " ",
            "percent": 100 * flows["mass"] / flows["mass"].sum(),
        }
    )
    drawn_labels = [label for side in ("from_label", "to_label") for label in flows[side] if label != _REST]
    names = {**category_colors([*labels, *drawn_labels]), _REST: MISSING}
    colors = {**names, **{f"{name} ": color for name, color in names.items()}}
    drawn = hv.Sankey(table.sort_values(["from", "to"]), ["from", "to"], _PERCENT)
    style: dict[str, object] = {"cmap": colors, "node_color": "index", "edge_color": "from"}
    bokeh = {
        **style,
        "node_alpha": 1.0,
        "edge_alpha": 0.45,
        "label_position": "outer",
        "tools": ["hover"],
        "node_size": 1,
        "node_hover_line_alpha": 0,
        "xlim": _ROOM,
    }
    drawn = both(drawn, bokeh=bokeh, mpl={**style, "label_position": "right", "label_text_font_size": 9})
    return framed(drawn, title=f"{source} (left) to {target} (right), by label", size=(640, 460))


def _check(coupling: pd.DataFrame) -> None:
    if lacking := [c for c in _COLUMNS if c not in coupling]:
        raise ValueError(f"a coupling has the columns {list(_COLUMNS)}; {lacking} are missing")
