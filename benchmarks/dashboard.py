"""The dashboard against its interaction budget: drives the served app as a browser does, over its websocket.

    taskset -c 0,1 python benchmarks/dashboard.py       # 1M points per modality, and 200k with 10 sessions
    python benchmarks/dashboard.py --quick              # 30k points, 2 sessions

A run of two modalities with drawn coordinates is written with the run store, `panel serve dashboards` is started on it
in a process of its own, and sessions send the events of a lasso and of a zoom. A gesture's time ends when the server
has sent the last change that it causes on the maps; numbers that are computed beside it are not waited for. Medians of
several gestures; memory is the server's resident set. The first page is what the server has to send for it, of the
newest run, which a warm start draws; what a browser needs to draw it comes on top. `--output
results/benchmarks/dashboard.csv` is how the file there was made.
"""

from __future__ import annotations

import argparse
import csv
import html
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd
from bokeh.client import ClientSession, pull_session
from bokeh.core.serialization import Serializable, Serializer
from bokeh.document.events import MessageSentEvent
from bokeh.models import Plot
from panel.models import browser, location, reactive_html, tabulator, widgets  # noqa: F401  classes of models
from panel.models.markup import HTML
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
    """A line of the table: of which run, what was measured, in which unit, against what it is held to."""

    run: str
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

    @property
    def selected(self) -> int:
        """How many samples the page says are selected."""
        texts = (str(model.text) for model in cast(list[Any], list(self.document.select({"type": HTML}))))
        return next(int(found[1]) for text in texts if (found := re.search(r'data-n="(\d+)"', html.unescape(text))))

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
    ours = {"contours", "lines", "chosen", "links", "flows", "marks", "star"}
    return next(r for r in figure.renderers if r.name not in ours)


def measure(root: Path, n: int, sessions: int) -> list[Row]:
    """The budget of n points per modality."""
    run = write_run(root, n)
    million, of = n > 200_000, f"{n:,} points per modality"
    radius = 1.5  # a cluster of 12, and some of its neighbors
    with served(root) as server:
        first = Visitor(server, run.id)
        # the first gesture of a kind is not counted
        lassos = [first.lasso(radius, turn) for turn in np.arange(GESTURES + 1) * 2 * np.pi / CLASSES][1:]
        zooms = [first.zoom(share) for share in np.linspace(0.9, 0.3, GESTURES + 1)][1:]
        rows = [
            Row(of, "first page after a warm start", first.opened, "s", 3.0),
            Row(of, "lasso", statistics.median(lassos), "s", 0.5 if million else 0.2),
            Row(of, "pan or zoom", statistics.median(zooms), "s", 0.3),
            Row(of, "memory with the first session", server.memory, "MB", 2048),
        ]
        others, before = [], server.memory
        for _ in range(sessions - 1):
            others.append(Visitor(server, run.id))
            others[-1].lasso(radius, 0.0)
        each = (server.memory - before) / len(others)
        rows.append(Row(of, "memory of each further session", each, "MB", 200))
        if not million:
            with ThreadPoolExecutor(sessions) as pool:
                took = list(pool.map(lambda v: v.lasso(radius, 1.0), [first, *others]))
            rows.append(Row(of, f"lasso in {sessions} sessions at once, the slowest", max(took), "s", 2.0))
        for visitor in (first, *others):
            visitor.close()
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| run | measured | found | budget | |", "|---|---|---|---|---|"]
    for row in rows:
        found, limit = f"{row.value:.3g} {row.unit}", f"< {row.budget:g} {row.unit}"
        lines.append(f"| {row.run} | {row.what} | {found} | {limit} | {'met' if row.kept else 'NOT MET'} |")
    return "\n".join(lines)


def write(rows: Sequence[Row], output: Path) -> None:
    """The rows as csv."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Row)])
        writer.writerows((row.run, row.what, f"{row.value:.4g}", row.unit, f"{row.budget:g}") for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a budget is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="30k points per modality, 2 sessions")
    parser.add_argument("--output", type=Path, help="csv file for the figures")
    asked = parser.parse_args(argv)
    rows = []
    for n, sessions in ((30_000, 2),) if asked.quick else ((1_000_000, 3), (200_000, 10)):
        folder = Path(tempfile.mkdtemp(prefix="labkit-dashboard-"))
        try:
            rows += measure(folder / "runs", n, sessions)
        finally:
            shutil.rmtree(folder)
    print(table(rows))
    if asked.output:
        write(rows, asked.output)
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
