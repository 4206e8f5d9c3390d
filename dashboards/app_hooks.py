"""What the server does before the first visitor comes: load the app and compile what draws large runs.

Compilation takes seconds, and nobody should wait for it.
"""

from __future__ import annotations


def on_server_loaded(_: object) -> None:
    """Import the app, draw a few points, and read the list of runs."""
    import pandas as pd

    from dashboards import app  # noqa: F401  imported once, for all sessions
    from dashboards.catalog import catalog
    from labkit.store import runs_root
    from labkit.views import density

    places = {"x": [0.0, 0.5], "y": [0.0, 0.5]}
    extent = ((0.0, 1.0), (0.0, 1.0))
    for color in (pd.Categorical(["a", "b"]), pd.Categorical(["a", "a"]), [0.5, None]):
        table = pd.DataFrame({**places, "color": color}).astype({"x": "float32", "y": "float32"})
        density.count(table if hasattr(color, "categories") else table.astype({"color": "float32"}), extent, (8, 8))
    ends = pd.DataFrame({"x0": [0.0], "y0": [0.0], "x1": [1.0], "y1": [1.0]}, dtype="float32")
    density.count_lines({name: ends[name].to_numpy() for name in ends}, extent, (8, 8))
    catalog(runs_root()).listing()
