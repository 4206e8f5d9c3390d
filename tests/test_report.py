"""The report: one file, nothing fetched, text escaped, drawn in a real browser."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from labkit import report
from labkit.store import Store, StoreError

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>&amp; {{ 7 * 7 }}"
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


class References(HTMLParser):
    """What the tags of a page point at, and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._silent = tag in ("script", "style")
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless chromium; without it the tests are skipped, under CI they fail."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "chromium is not installed: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_file(small_runs: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = [r.id for r in small_runs.runs()]
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report.write(small_runs, ids, title=f"tiny {HOSTILE}", description=f"What? {HOSTILE}", path=path)


def test_nothing_is_fetched_and_text_is_escaped(page_file: Path, small_runs: Store) -> None:
    text = page_file.read_text(encoding="utf-8")
    found = References()
    found.feed(text)
    assert [t for t in found.targets if not t.startswith("#")] == []
    assert "link" not in found.tags
    assert "img" not in found.tags
    assert found.text.count(HOSTILE) == 3, "in <title>, the heading and the description"
    assert text.count("@import") == 0
    for run in small_runs.runs():
        assert run.id in found.text
    for heading in ("Recall@10", "Against the contrastive baseline", "Robustness: features", "Maps"):
        assert heading in found.text
    assert "4 runs: 2 variants, 2 seeds; 950 things as image, text." in found.text
    assert page_file.stat().st_size < 8e6


def test_the_numbers_are_those_of_the_store(page_file: Path, small_runs: Store) -> None:
    found = References()
    found.feed(page_file.read_text(encoding="utf-8"))
    scores = small_runs.scores()
    clean = scores[(scores["metric"] == "recall_at_10") & (scores["corruption"] == "none")]
    into_text = clean[clean["target"] == "text"].groupby("variant")["value"].mean()
    for variant, value in into_text.items():
        assert f"{variant}\n      {value:.3f}" in found.text


@pytest.mark.browser
def test_hostile_captions_stay_text(small_runs: Store, tmp_path: Path, browser: Browser) -> None:
    store = Store(tmp_path / "runs")
    shutil.copytree(small_runs.root, store.root)
    run = store.open("clip-s0")
    points = run.points()
    points["caption"] = HOSTILE
    run.write_points(points)
    path = report.write(store, [run.id], title="hostile")
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    assert page.title() == "labkit: hostile"
    page.close()


def test_an_older_report_survives_a_full_disk(
    small_runs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ids = [r.id for r in small_runs.runs()[:1]]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(StoreError, match=r"cannot write .*report.html: the disk is full"):
            report.write(small_runs, ids, title="new", path=path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="no complete runs to report"):
        report.write(small_runs, [], title="nothing")


@pytest.mark.browser
def test_the_report_in_a_browser(page_file: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    problems, requests = [], []
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("request", lambda r: requests.append(r.url))
    page.goto(page_file.as_uri())
    page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    assert problems == []
    assert requests == [page_file.as_uri()]
    assert page.title() == f"labkit: tiny {HOSTILE}"
    figures = page.locator("figure")
    # one board (into text), a curve of each of two modalities, and a map of each of two variants
    assert figures.count() == 5
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        canvas = figures.nth(i).locator("canvas").first
        size = canvas.bounding_box()
        assert size is not None
        assert size["width"] > 300
        assert size["height"] > 100
        colors = canvas.evaluate(
            "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
        )
        assert colors > 20, "an empty canvas"
    # no sideways scrolling, on a wide screen and on a narrow one
    for width in (1280, 480):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
