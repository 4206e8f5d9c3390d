"""Drawings of `labkit.views` on a page: as wide as there is room, where a notebook has a fixed width."""

from __future__ import annotations

import holoviews as hv
import panel as pn


def stretched(drawn: hv.Overlay, *, min_width: int = 300) -> hv.Overlay:
    """The same drawing without its width; an option of None would count as a width."""
    kept = {k: v for k, v in drawn.opts.get("plot", backend="bokeh").kwargs.items() if k != "width"}
    return hv.Overlay(drawn.values()).opts(**kept, responsive=True, min_width=min_width, backend="bokeh")


def drawing(drawn: hv.Overlay) -> pn.pane.HoloViews:
    """A pane of a drawing."""
    return pn.pane.HoloViews(stretched(drawn), backend="bokeh", linked_axes=False, sizing_mode="stretch_width")
