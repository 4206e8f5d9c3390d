"""What leaves the page: the shown map as HTML, SVG or PNG, the selected samples, and the lines that bring them back.

The map is drawn by `labkit.views`, as in a notebook. The HTML holds all it needs and asks no other machine.
"""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from html import escape

import holoviews as hv
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources

from dashboards import frames, maps, readiness
from dashboards.content import Content
from dashboards.session import Session
from labkit.store import StoreError
from labkit.views.manifolds import manifold_frame, manifold_of

_SCRIPTS = Resources(mode="inline", components=["bokeh", "bokeh-gl"])
_TOLD = ("key", "caption", "label", "split")
_NOTEBOOK = "notebooks/01_train_evaluate.ipynb"
_NAMED = 20  # keys that a line of Python names


def figure(session: Session, content: Content) -> hv.Overlay:
    """The joint map that the session shows, with its selection.

    Raises:
        StoreError: it is not computed, or cannot be read.
    """
    if not content.run.has("projections"):
        raise StoreError(readiness.PARTS["maps"].told(content))
    shown = frames.chosen(session, content)
    frame = maps.frame(content, shown)
    paint = maps.paint(content, frame, session.painted)
    points = content.points[[c for c in _TOLD if c in content.points]]
    places = pd.DataFrame(
        {
            "key": points["key"].to_numpy()[frame.row],
            "modality": np.repeat(frame.modalities, np.diff(frame.starts)),
            "x": frame.x,
            "y": frame.y,
            "trust": frame.trust,
        }
    )
    table = manifold_frame(points, places)
    categories = paint.coloring.categories
    values = paint.values if categories is None else np.array(list(categories), dtype=object)[paint.values]
    column = paint.coloring.column if paint.problem or session.color in table else session.color
    colors = replace(paint.coloring, column=column)
    selection = session.selection.mask if len(session.selection) else None
    table = table.assign(**{column: values})
    return manifold_of(table, colors, n=len(points), selection=selection, name=shown.name)


def as_html(session: Session, content: Content) -> str:
    """The map as one file that can be panned, zoomed and hovered without a server."""
    # a document of its own: that of the session is the page that somebody looks at
    drawn = hv.renderer("bokeh").get_plot(figure(session, content), doc=Document()).state
    drawn.sizing_mode = "stretch_width"
    # not `file_html`: it adds the scripts of all of Panel's widgets, some of which lie on the server
    script, place = components(drawn)
    library = "".join(f"<script>{raw}</script>" for raw in _SCRIPTS.js_raw)
    head = f'<meta charset="utf-8"><title>{escape(f"labkit: {content.run.id}")}</title>{library}'
    return f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>{place}{script}</body></html>"


def as_picture(session: Session, content: Content, kind: str) -> bytes:
    """The map as "svg" or "png"."""
    out = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False}):  # a "$" in a label is a dollar
        drawn = hv.render(figure(session, content), backend="matplotlib")
        try:
            drawn.savefig(out, format=kind, dpi=200, bbox_inches="tight")
        finally:
            plt.close(drawn)
    return out.getvalue()


def as_csv(session: Session, content: Content) -> str:
    """The selected samples with what is known of them."""
    columns = [c for c in _TOLD if c in content.points]
    chosen = content.points.loc[session.selection.mask, columns]
    return chosen.to_csv(index=False)


def python_line(session: Session, content: Content) -> str:
    """A line of Python that gives the selected samples."""
    points = f"labkit.store.Store().open({content.run.id!r}).points()"
    rows = np.flatnonzero(session.selection.mask)
    if not len(rows):
        return points
    if len(rows) <= _NAMED:
        return f'{points}.set_index("key").loc[{content.points["key"].iloc[rows].tolist()!r}]'
    return f'{points}.merge(pandas.read_csv({filename(session, "csv")!r}, dtype={{"key": str}})[["key"]])'


def papermill_line(content: Content) -> str:
    """The command that makes the run again as an executed notebook; "" for a run that no notebook makes."""
    config = content.run.config
    if not {"data", "variant", "options", "training", "evaluation", "seed"} <= set(config):
        return ""
    wanted = {name: config[name] for name in ("data", "variant", "options", "training", "evaluation")}
    parameters = json.dumps({**wanted, "seeds": [config["seed"]]})
    return shlex.join(["papermill", _NOTEBOOK, f"{content.run.id}.ipynb", "-y", parameters])


def filename(session: Session, suffix: str) -> str:
    """Name of a file that is downloaded."""
    return f"{session.run}-{session.named or ('selection' if suffix == 'csv' else 'map')}.{suffix}"
