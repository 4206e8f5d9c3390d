"""Every page in both themes and at both widths: complete, within its window, named, and reachable without a mouse.

That nothing was written to the console and nothing was asked of another machine is checked by the fixture `visit`.
"""

from __future__ import annotations

import pytest

from dashboards.app import PAGES

pytestmark = pytest.mark.browser

# all elements, also those within the shadow roots of components
DEEP = """
const all = (root) => [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])])
const seen = (e) => e.checkVisibility({checkVisibilityCSS: true}) && e.getClientRects().length > 0
const named = (e) => {
  const root = e.getRootNode()
  const by = e.getAttribute("aria-labelledby")
  const inside = e.tagName === "BUTTON" ? [e, ...all(e)].map((c) => (c.shadowRoot ?? c).textContent).join("") : ""
  const texts = [e.getAttribute("aria-label"), e.title, by && root.getElementById(by)?.textContent,
    ...[...(e.labels ?? [])].map((label) => label.textContent), inside,
    e.closest("label")?.textContent, ["button", "submit"].includes(e.type) ? e.value : ""]
  return texts.find((text) => text?.trim()) ?? ""
}
"""
UNNAMED = f"""() => {{ {DEEP}
  const controls = all(document).filter((e) => ["INPUT", "BUTTON", "SELECT", "TEXTAREA"].includes(e.tagName))
  return controls.filter((e) => e.type !== "hidden" && seen(e) && !named(e)).map((e) => e.outerHTML.slice(0, 200))
}}"""
NO_ALT = f"() => {{ {DEEP} return all(document).filter((e) => e.tagName === 'IMG' && !e.alt).map((e) => e.outerHTML) }}"
WIDE = f"""() => {{ {DEEP}
  const wide = all(document).filter((e) => seen(e) && e.getBoundingClientRect().right > innerWidth + 1)
  const scrolls = (e) => e && (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)
    || scrolls(e.parentElement ?? e.getRootNode().host))
  return wide.filter((e) => !scrolls(e.parentElement ?? e.getRootNode().host)).map((e) => e.outerHTML.slice(0, 200))
}}"""
FOCUSED = f"""() => {{ {DEEP}
  let e = document.activeElement
  while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement
  return e ? named(e).trim() : ""
}}"""
WIDTHS = (1280, 1920)
FAILED = ("failed; the server's log", "Traceback")


def text_of(page) -> str:
    """All visible text, also that within components."""
    parts = (
        f"() => {{ {DEEP} return all(document).filter(seen).map((e) => e.shadowRoot?.textContent ?? '').join(' ') }}"
    )
    return page.evaluate(parts)


@pytest.mark.parametrize("theme", ["default", "dark"])
def test_every_page_is_complete_named_and_within_the_window(visit, theme):
    page = visit(theme=theme, page=PAGES[0].title)
    troubles: dict[str, list] = {}
    for kind in PAGES:
        page.locator(".bk-tab", has_text=kind.title).first.click()
        page.wait_for_function("title => new URLSearchParams(location.search).get('page') === title", arg=kind.title)
        page.wait_for_load_state("networkidle")
        told = text_of(page)
        checks = {
            "unnamed": page.evaluate(UNNAMED), "no alt": page.evaluate(NO_ALT),
            "failed": [words for words in FAILED if words in told],
        }  # fmt: skip
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(400)  # figures are laid out anew
            checks[f"too wide at {width}"] = page.evaluate(WIDE)
            scrolled = page.evaluate("document.documentElement.scrollWidth")
            checks[f"scrolls at {width}"] = [scrolled] if scrolled > width else []
        troubles |= {f"{kind.title}: {what}": found for what, found in checks.items() if found}
    assert not troubles
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(v) for v in background.removeprefix("rgb(").removesuffix(")").split(",")) > 384
    assert light == (theme == "default")


def test_the_keyboard_reaches_the_controls(visit):
    page = visit(page="Manifolds")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    wanted = ["Run", "Find", "Reload runs", "Projection", "Gap", "Color", "Search captions", "Clear selection", "Undo"]
    found = [next((i for i, name in enumerate(reached) if name.startswith(want)), None) for want in wanted]
    assert None not in found, dict(zip(wanted, found, strict=True)) | {"reached": reached}
    assert found == sorted(found), "in the order in which they are read"
