"""The URL: what is needed to see the same again, written out in full, for defaults may change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dashboards import frames
from dashboards.page import Page
from dashboards.session import Session

SHARED = ("run", "page", "step", "projection", "gap", "color")
_MOST = 200  # letters of a value that is taken from a URL


def written(session: Session, pages: Iterable[Page]) -> dict[str, str]:
    """What the URL says of a session and of the pages that were seen."""
    state = {name: str(getattr(session, name)) for name in SHARED}
    if session.content is not None and not session.projection:
        state["projection"] = next(iter(frames.methods(session.content)), "")
    if session.under:
        state["under"] = session.under
    if session.named:
        state["selection"] = session.named
    state["theme"] = "dark" if session.dark else "default"
    for page in pages:
        own = {f"{page.key}.{name}": str(getattr(page, name)) for name in page.keep}
        state |= {name: value for name, value in own.items() if value}
    return state


def restore(
    session: Session, kinds: Iterable[type[Page]], pages: Mapping[str, Page], query: Mapping[str, str]
) -> list[str]:
    """Bring back what a URL names, but for the run.

    Args:
        session: what all pages share.
        kinds: of pages that there are.
        pages: by title; those that the URL says nothing of are not asked for.
        query: the URL.

    Returns:
        What it names that does not exist.
    """
    unknown = []
    known = {"page": set(pages)}
    for name in ("page", "step", "projection", "gap", "color", "under"):
        value = query.get(name, "")[:_MOST]
        if not value:
            continue
        choices = known.get(name) or set(getattr(session.param[name], "objects", ()) or ()) or {value}
        if value in choices:
            setattr(session, name, value)
        else:
            unknown.append(f"{name} {value}")
    for kind in kinds:
        for name in kind.keep:
            asked = f"{kind.title.lower()}.{name}"
            if (text := query.get(asked, "")[:_MOST]) and not _set(pages[kind.title], name, text):
                unknown.append(f"{asked} {text}")
    return unknown


def _set(page: Page, name: str, text: str) -> bool:
    """Whether a page takes the text as the value of its parameter."""
    kind = type(getattr(page, name))
    try:
        setattr(page, name, text == "True" if kind is bool else kind(text))
    except ValueError:
        return False
    return True
