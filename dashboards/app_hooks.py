"""What the server does before the first visitor comes: load the app, compile what draws large runs, draw once.

Imports, compilation and the first drawing take seconds, and nobody should wait for them.
"""

from __future__ import annotations


def on_server_loaded(_: object) -> None:
    """Import the app, draw a few points of every kind, and the run that visitors see first."""
    import pandas as pd
    from bokeh.document import Document

    from dashboards.app import App
    from dashboards.session import Session
    from labkit.store import Store
    from labkit.views import density

    places = {"x": [0.0, 0.5], "y": [0.0, 0.5]}
    extent = ((0.0, 1.0), (0.0, 1.0))
    for color in (pd.Categorical(["a", "b"]), pd.Categorical(["a", "a"]), [0.5, None]):
        table = pd.DataFrame({**places, "color": color}).astype({"x": "float32", "y": "float32"})
        density.count(table if hasattr(color, "categories") else table.astype({"color": "float32"}), extent, (8, 8))
    ends = pd.DataFrame({"x0": [0.0], "y0": [0.0], "x1": [1.0], "y1": [1.0]}, dtype="float32")
    density.count_lines({name: ends[name].to_numpy() for name in ends}, extent, (8, 8))
    App(Session(Store())).template().server_doc(Document())
