"""The dashboard against its interaction budget: drives the served app as a browser does, over its websocket.

    python benchmarks/dashboard.py                 # 1M and 200k points per modality, 10 sessions
    python benchmarks/dashboard.py --quick         # 100k points, 3 sessions

A run of two modalities with drawn coordinates is written with the run store, `panel serve dashboards` is started on it
in a process of its own, and sessions send the events of a lasso and of a zoom. A gesture's time ends when the server
has sent the last change that it causes on the maps; numbers that are computed beside it are not waited for. Medians of
several gestures; memory is the server's resident set.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd
from bokeh.client import ClientSession, pull_session
from bokeh.core.serialization import Serializable, Serializer
from bokeh.document.events import MessageSentEvent
from bokeh.models import Plot
from panel.models import browser, location, markup, reactive_html, tabulator, widgets  # noqa: F401  classes of models
from tornado.ioloop import IOLoop

from labkit.store import Run, Store

MODALITIES = ("image", "text")
DIM, CLASSES, SHARE = 16, 12, 0.12  # SHARE: of the samples that a lasso selects
LARGEST_MESSAGE = 512 * 2**20
GESTURES = 5
WAIT = 120.0
HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, in which unit, against what it is held to."""

    what: str
    value: float
    unit: str
    budget: float

    @property
    def kept(self) -> bool:
        """Whether the budget is kept."""
        return self.value < self.budget


def write_run(root: Path, n: int) -> Run:
    """A complete run of n samples in two modalities: clusters in a plane, vectors near them."""
    rng = np.random.default_rng(0)
    run = Store(root).create(
        f"large-{n}", name=f"{n} points", variant="drawn", config={"data": {"n": n}}, seed=0, data_root="."
    )
    label = rng.integers(0, CLASSES, n)
    key = pd.array(np.char.add("k", np.arange(n).astype(str)), dtype="str")
    present = {f"present_{m}": True for m in MODALITIES} | dict.fromkeys(MODALITIES)
    labels = pd.Categorical.from_codes(label, [f"class {i}" for i in range(CLASSES)]).astype(str)
    points = {"key": key, "split": "test", "group": np.arange(n), "label": labels}
    run.write_points(pd.DataFrame({**points, "caption": key, **present}))
    turn = label / CLASSES * 2 * np.pi
    middle = 4 * np.column_stack([np.cos(turn), np.sin(turn)])
    frames = []
    for m in MODALITIES:
        xy = middle + rng.normal(size=(n, 2))
        frames.append(pd.DataFrame({"key": key, "modality": m, "x": xy[:, 0], "y": xy[:, 1], "trust": 1.0}))
        vectors = np.concatenate([xy, rng.normal(size=(n, DIM - 2))], axis=1).astype(np.float32)
        run.write_embedding(m, "final", vectors)
    run.write_projection("pca", "final", pd.concat(frames))
    run.complete()
    return run


class Server:
    """`panel serve dashboards` on a folder of runs."""

    def __init__(self, root: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            self.port = probe.getsockname()[1]
        environment = {**os.environ, "LABKIT_RUNS": str(root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "panel", "serve", "dashboards", "--port", str(self.port)]
        self._log = log.open("w")
        self.process = subprocess.Popen(
            command, cwd=HERE, env=environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self) -> None:
        """Until it answers, which it does once it is warm."""
        for _ in range(int(WAIT * 10)):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {Path(self._log.name).read_text()[-2000:]}")
            try:
                urlopen(f"http://localhost:{self.port}/static/js/bokeh.min.js", timeout=WAIT).close()
                return
            except URLError:
                time.sleep(0.1)
        raise RuntimeError("the server did not start")

    @property
    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def stop(self) -> None:
        """End it and what it started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=30)
        self._log.close()


@contextmanager
def served(root: Path) -> Iterator[Server]:
    """A server that is up."""
    server = Server(root, root.parent / f"{root.name}.log")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Sent(Serializable):
    """An event with all its values, as a browser sends it; bokeh's own classes send the model alone."""

    name: str
    values: dict[str, Any]

    def to_serializable(self, serializer: Serializer) -> dict[str, Any]:
        """What bokeh's protocol wants."""
        return {"type": "event", "name": self.name, "values": serializer.encode(self.values)}


class Visitor:
    """One session on the page Manifolds, without a screen."""

    def __init__(self, server: Server, run: str) -> None:
        query = {"run": run, "page": "Manifolds", "color": "label"}
        self._loop = IOLoop(make_current=False)
        started = time.perf_counter()
        self.session: ClientSession = pull_session(
            url=f"http://localhost:{server.port}/dashboards",
            arguments=query,
            io_loop=self._loop,
            max_message_size=LARGEST_MESSAGE,
        )
        self.document = self.session.document
        self.document.models.flush_synced()  # the server knows its own models: events name them only
        self.opened = time.perf_counter() - started
        self._send(Sent("document_ready", {}))  # until a browser says so, the server holds changes back
        plots: list[Any] = list(self.document.select({"type": Plot}))
        self.figures = [f for f in plots if f.select_one({"name": "marks"}) is not None]
        if len(self.figures) != len(MODALITIES) + 1:
            raise RuntimeError(f"{len(self.figures)} maps instead of {len(MODALITIES) + 1}")

    def lasso(self, radius: float, turn: float) -> float:
        """Seconds of a lasso of a circle in the joint map, until all maps show the selection."""
        angle = np.linspace(0, 2 * np.pi, 60)
        x, y = 4 * np.cos(turn) + radius * np.cos(angle), 4 * np.sin(turn) + radius * np.sin(angle)
        shape: Any = {"type": "poly", "x": x.tolist(), "y": y.tolist()}
        sources = [f.select_one({"name": "chosen"}).data_source for f in self.figures]
        return self._until(sources, Sent("selectiongeometry", {"model": self._joint, "geometry": shape, "final": True}))

    def zoom(self, share: float) -> float:
        """Seconds of a zoom to a part of the map, until all maps show it."""
        ranges = {"x0": -8 * share, "x1": 8 * share, "y0": -8 * share, "y1": 8 * share}
        bases = [_base(f).data_source for f in self.figures]
        return self._until(bases, Sent("rangesupdate", {"model": self._joint, **ranges}))

    def close(self) -> None:
        """Leave."""
        self.session.close()

    def _send(self, event: Sent) -> None:
        self.document.callbacks.trigger_on_change(MessageSentEvent(self.document, "bokeh_event", event))

    @property
    def _joint(self) -> Any:
        return next(f for f in self.figures if str(f.title.text).startswith("all"))

    def _until(self, sources: list[Any], event: Sent) -> float:
        """Seconds from an event to the last of the changes of the sources."""
        waiting = {source.id for source in sources}

        def arrived(source: Any) -> Callable[[str, Any, Any], None]:
            return lambda attr, old, new: waiting.discard(source.id)

        listeners = [(source, arrived(source)) for source in sources]
        for source, listener in listeners:
            source.on_change("data", listener)
        started = time.perf_counter()
        self._send(event)
        # the public `force_roundtrip` drops the changes that arrive before its answer
        loop, connection = self._loop, self.session._connection
        stop = loop.call_later(WAIT, loop.stop)
        connection._loop_until(lambda: not waiting)
        loop.remove_timeout(stop)
        took = time.perf_counter() - started
        for source, listener in listeners:
            source.remove_on_change("data", listener)
        if waiting:
            raise RuntimeError(f"no answer to {event.name} within {WAIT:.0f} s")
        return took


def _base(figure: Any) -> Any:
    """The picture of the points: the only one that has no name of ours."""
    ours = {"contours", "lines", "chosen", "links", "marks", "star"}
    return next(r for r in figure.renderers if r.name not in ours)


def measure(root: Path, n: int, sessions: int) -> list[Row]:
    """The budget of n points per modality."""
    run = write_run(root, n)
    million, size = n > 200_000, f"{n:,} points per modality"
    radius = 1.5  # a cluster of 12, and some of its neighbors
    with served(root) as server:
        first = Visitor(server, run.id)
        lassos = [first.lasso(radius, turn) for turn in np.arange(GESTURES + 1) * 2 * np.pi / CLASSES][1:]
        zooms = [first.zoom(share) for share in np.linspace(0.9, 0.3, GESTURES + 1)][1:]
        rows = [
            Row(f"{size}: first page after a warm start", first.opened, "s", 3.0),
            Row(f"{size}: lasso", statistics.median(lassos), "s", 0.5 if million else 0.2),
            Row(f"{size}: pan or zoom", statistics.median(zooms), "s", 0.3),
            Row(f"{size}: memory with the first session", server.memory, "MB", 2048),
        ]
        others, before = [], server.memory
        for _ in range(sessions - 1):
            others.append(Visitor(server, run.id))
            others[-1].lasso(radius, 0.0)
        if others:
            each = (server.memory - before) / len(others)
            rows.append(Row(f"{size}: memory of each further session", each, "MB", 200))
        if not million and others:
            with ThreadPoolExecutor(sessions) as pool:
                took = list(pool.map(lambda v: v.lasso(radius, 1.0), [first, *others]))
            rows.append(Row(f"{size}: lasso in {sessions} sessions at once, the slowest", max(took), "s", 2.0))
        for visitor in (first, *others):
            visitor.close()
    return rows


def main() -> None:
    """Print the table; exit with 1 if a budget is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100k points, 3 sessions")
    quick = parser.parse_args().quick
    rows = []
    for n, sessions in ((100_000, 3),) if quick else ((1_000_000, 3), (200_000, 10)):
        folder = Path(tempfile.mkdtemp(prefix="labkit-dashboard-"))
        try:
            rows += measure(folder / "runs", n, sessions)
        finally:
            shutil.rmtree(folder)
    print(f"{'measured':70} {'value':>9}     budget")
    for row in rows:
        verdict = "" if row.kept else "  EXCEEDED"
        print(f"{row.what:70} {row.value:9.3g} {row.unit:3} < {row.budget:g}{verdict}")
    if not all(row.kept for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
