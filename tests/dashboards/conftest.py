"""Real small runs for the dashboard, and a run whose every text is an attack."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode, urlparse

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_limits

from labkit.config import EvaluationConfig, RunConfig, TrainingConfig
from labkit.diagnosis.stored import diagnose_run
from labkit.run import execute
from labkit.store import Run, Store

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
HOSTILE = "<script>window.hacked = 1</script>\"><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory) -> Path:
    """Two closed forms under two seeds with a robustness curve, and a short training, all on the bundled data."""
    root = tmp_path_factory.mktemp("runs")
    measured = EvaluationConfig(corruptions=("feature_noise",), bootstrap=100)
    plain = EvaluationConfig(corruptions=(), bootstrap=100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices: many threads on a busy machine are many times slower
    with threadpool_limits(1):
        execute(RunConfig(variant="clip", training=TrainingConfig(epochs=2), evaluation=plain), root=root, device="cpu")
        for variant in ("cca", "procrustes"):
            for seed in (0, 1):
                execute(RunConfig(variant=variant, seed=seed, evaluation=measured), root=root, device="cpu")
    torch.set_num_threads(threads)
    return root


def make_hostile(root: Path, *, n: int = 12, projected: bool = True) -> Run:
    """A complete run with markup in keys, captions and labels, an item outside the data folder and one that is gone."""
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    (root / "secret.png").write_bytes(b"not to be shown")
    run = Store(root).create(
        "hostile-s0", name=HOSTILE, variant="hostile", config={"data": HOSTILE}, seed=0, data_root=str(data)
    )
    points = pd.DataFrame(
        {
            "key": [f"{HOSTILE}{i}" for i in range(n)],
            "split": "test",
            "group": np.arange(n) // 2,
            "label": [HOSTILE, "plain"] * (n // 2),
            "caption": [HOSTILE] * (n - 1) + [None],
            "image": ["../secret.png", "gone.png"] * (n // 2),
            "text": HOSTILE,
            "present_image": True,
            "present_text": True,
        }
    )
    run.write_points(points)
    rng = np.random.default_rng(0)
    for modality in ("image", "text"):
        run.write_embedding(modality, "final", rng.normal(size=(n, 4)))
    if projected:
        keys, angle = points["key"], np.arange(n) / n * 2 * np.pi
        frames = [
            pd.DataFrame({"key": keys, "modality": m, "x": r * np.cos(angle), "y": r * np.sin(angle), "trust": np.nan})
            for m, r in (("image", 1.0), ("text", 0.5))
        ]
        run.write_projection("pca", "final", pd.concat(frames))
    run.complete()
    return run


def make_failed(root: Path) -> Run:
    """A run that failed with a hostile message."""
    run = Store(root).create("broken-s0", name="broken", variant="broken", config={}, seed=0, data_root=str(root))
    run.fail(f"ValueError: {HOSTILE}")
    return run


@pytest.fixture(scope="session")
def markup() -> str:
    """What hostile runs have in all their texts."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_run() -> Callable[..., Run]:
    """Makes a hostile run in a folder."""
    return make_hostile


@pytest.fixture(scope="session")
def failed_run() -> Callable[[Path], Run]:
    """Makes a failed run in a folder."""
    return make_failed


@pytest.fixture(scope="session")
def served_root(runs_root, hostile_run, failed_run, tmp_path_factory) -> Path:
    """The real runs, a hostile one and a failed one."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    shutil.copytree(runs_root, folder)
    hostile_run(folder)
    failed_run(folder)
    return folder


@pytest.fixture(scope="session")
def diagnosed(served_root) -> Run:
    """A served run with plans, topology and a measure per sample."""
    found = Store(served_root).open("procrustes-s0")
    diagnose_run(found, measures=("diagram_distance_h0",))
    return Store(served_root).open(found.id)


@pytest.fixture(scope="session")
def address(served_root):
    """`panel serve dashboards` on a free port, in its own process group."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    log = served_root.parent / "serve.log"
    command = [sys.executable, "-m", "panel", "serve", "dashboards", "--port", str(port)]
    environment = {**os.environ, "LABKIT_RUNS": str(served_root), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        _wait_for(port, server, log)
        yield f"http://localhost:{port}/dashboards"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
    told = log.read_text()
    # a page that closes while a message is on its way leaves a traceback of tornado's alone
    assert not re.search(r'File ".*/(dashboards|labkit|panel|holoviews|param)/', told), told
    assert "WARNING" not in told, told


@pytest.fixture(scope="module")
def browser():
    """Chromium, which continuous integration must have; its event loop would disturb the tests of other modules."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: continuous integration has to install it")
        pytest.skip("no chromium: install it to test the dashboard in a browser")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Opens the dashboard with a query; afterwards there must have been no console error and no outside request."""
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1500, "height": 1150}, accept_downloads=True)

    def watch_request(request) -> None:
        place = urlparse(request.url)
        if place.scheme not in ("data", "blob") and place.hostname != "localhost":
            troubles.append(f"outside request: {request.url}")

    def watch_console(message) -> None:
        if message.type == "error":
            troubles.append(f"console: {message.text}")

    def open_page(**query: str):
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", watch_request)
        page.on("console", watch_console)
        page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
        page.goto(f"{address}?{urlencode(query)}")
        page.wait_for_selector(".lk-states")
        return page

    yield open_page
    context.close()
    assert not troubles


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the server ended: {log.read_text()}")
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text()}")
