"""The commands of docs/dashboard-serving.md, really started: login, path prefix, two processes, writing, bad runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from labkit.store import Store

pytestmark = pytest.mark.browser
SECRET = "a secret of the test, long enough"


@contextmanager
def served(root: Path, users: Path, log: Path, *options: str) -> Iterator[str]:
    """`panel serve dashboards` with options; its address, until the process group is ended."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "panel", "serve", "dashboards", "--port", str(port), *options]
    environment = {**os.environ, "LABKIT_RUNS": str(root), "LABKIT_USER_DIR": str(users), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
    try:
        for _ in range(900):
            assert server.poll() is None, log.read_text()
            try:
                socket.create_connection(("localhost", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def root(runs_root, hostile_run, failed_run, tmp_path_factory) -> Path:
    """A good run, a truncated one, one of an unknown schema, a failed one and a hostile one."""
    folder = tmp_path_factory.mktemp("team") / "runs"
    folder.mkdir()
    for name in ("cca-s0", "procrustes-s0"):
        found = Store(runs_root).open(name)
        shutil.copytree(found.folder, folder / found.id)
    path = Store(folder).open("procrustes").folder / "points.parquet"
    path.write_bytes(path.read_bytes()[:-99])
    (folder / "future").mkdir()
    (folder / "future" / "run.json").write_text('{"schema": 99, "labkit": "9.9"}')
    failed_run(folder)
    hostile_run(folder)
    return folder


def answer(address: str) -> tuple[int, str]:
    """Status and place of an address, redirects not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    try:
        with urllib.request.build_opener(Stay).open(address, timeout=30) as reply:
            return reply.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Location", "")


def watched(context, troubles: list[str]):
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("response", lambda r: troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("request", lambda r: None if r.url.startswith(("http://localhost", "data:", "blob:", "ws://localhost"))
            else troubles.append(f"outside {r.url}"))  # fmt: skip
    page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    return page


def log_in(page, address: str, user: str, password: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def select(page, text: str) -> str:
    """Search, and tell how many are selected."""
    page.get_by_label("search captions").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_selector(".lk-selected:not([data-n='0'])")
    return page.locator(".lk-selected").inner_text()


def save(page, name: str) -> None:
    page.get_by_text("Selection: save, load, export").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Save selection").click()
    page.get_by_text(f"{name}: ").wait_for()


def test_login_prefix_and_two_processes(browser, root, tmp_path):
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"ada": "one password", "bob": "another"}))
    options = ("--basic-auth", str(credentials), "--cookie-secret", SECRET, "--prefix", "/labkit", "--num-procs", "2",
               "--basic-login-template", "dashboards/login.html")  # fmt: skip
    run, troubles = Store(root).open("cca").id, []
    with served(root, tmp_path / "users", tmp_path / "log", *options) as host:
        address = f"{host}/labkit/dashboards?{urlencode({'run': run, 'projection': 'pca'})}"
        assert answer(address)[0] == 302
        assert "/login" in answer(address)[1]
        assert answer(f"{host}/dashboards")[0] == 404
        contexts = {user: browser.new_context(viewport={"width": 1280, "height": 900}) for user in ("ada", "bob")}
        pages = {user: watched(context, troubles) for user, context in contexts.items()}
        log_in(pages["ada"], address, "ada", "another")
        pages["ada"].get_by_text("Invalid username or password!").wait_for()
        troubles.clear()  # the refused password
        log_in(pages["ada"], address, "ada", "one password")
        log_in(pages["bob"], address, "bob", "another")
        for page in pages.values():
            page.goto(address)
            page.wait_for_selector(".lk-selected")
        chosen = select(pages["ada"], "bird")
        assert not chosen.startswith("0 of")
        assert pages["bob"].locator(".lk-selected").inner_text().startswith("0 of 950")
        save(pages["ada"], "birds")
        pages["ada"].wait_for_function("location.search.includes('selection=birds')")
        shared = pages["ada"].url
        folders = [f.parent.parent.parent.name for f in (tmp_path / "users").rglob("birds.json")]
        assert [name.split("-")[0] for name in folders] == ["ada"]
        assert not Store(root).open("cca").selections()
        for _ in range(3):  # whichever process answers
            pages["ada"].goto(shared)
            pages["ada"].wait_for_selector(".lk-selected")
            assert pages["ada"].locator(".lk-selected").inner_text() == chosen
        pages["bob"].goto(shared)
        pages["bob"].get_by_text("no saved selection 'birds' for you").wait_for()
        assert pages["bob"].locator(".lk-selected").inner_text().startswith("0 of 950")
        for context in contexts.values():
            context.close()
        assert not troubles
    told = (tmp_path / "log").read_text()
    assert told.count("Starting Bokeh server with process id") == 2 or told.count("process id") >= 2


def test_writing_bad_runs_and_no_file_by_address(browser, root, tmp_path):
    troubles: list[str] = []
    good, truncated = (Store(root).open(name).id for name in ("cca", "procrustes"))
    with served(root, tmp_path / "users", tmp_path / "log", "--args", "--write") as host:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = watched(context, troubles)
        page.goto(f"{host}/dashboards?{urlencode({'run': truncated})}")
        page.get_by_text("points.parquet is truncated or changed").first.wait_for()
        page.goto(f"{host}/dashboards?{urlencode({'run': 'future'})}")
        page.get_by_text("this labkit reads schema 1").first.wait_for()
        page.goto(f"{host}/dashboards?{urlencode({'run': 'broken-s0'})}")
        page.get_by_text("run broken-s0 is failed").wait_for()
        page.goto(f"{host}/dashboards?{urlencode({'run': good, 'projection': 'pca'})}")
        page.wait_for_selector(".lk-selected")
        chosen = select(page, "bird")
        save(page, "birds")
        keys = Store(root).open("cca").selection("birds")
        assert chosen.startswith(f"{len(keys)} of 950")
        assert not (tmp_path / "users").exists()
        other = watched(browser.new_context(), troubles)
        other.goto(page.evaluate("location.href"))
        other.wait_for_selector(".lk-selected")
        assert other.locator(".lk-selected").inner_text() == chosen
        other.context.close()
        context.close()
        assert not troubles
        for path in ("run.json", "../secret.png", "..%2fsecret.png", f"{good}/run.json", "static/../main.py", "app.py"):
            for base in ("dashboards", "dashboards/static", "static", "runs"):
                assert answer(f"{host}/{base}/{path}")[0] in (302, 403, 404), (base, path)
