"""Pages Runs and Compare in a real browser: shown numbers, sorting, curves, claims, the way from one to the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from labkit import claims, stats
from labkit.store import Store
from tests.dashboards.screen import FIGURES, drag, to_pixels

pytestmark = pytest.mark.browser

WHERE = {"corruption": "none", "split": "test"}
TABLES = """() => Array.from(Bokeh.documents[0]._all_models.values()).map(m => Bokeh.index.find_one(m))
  .filter(v => v && v.tabulator && v.el.isConnected && v.el.offsetHeight > 0)
  .map(v => ({heads: Array.from(v.shadow_el.querySelectorAll(".tabulator-col-title")).map(e => e.innerText),
    rows: Array.from(v.shadow_el.querySelectorAll(".tabulator-row")).map(
      r => Array.from(r.querySelectorAll(".tabulator-cell")).map(c => c.innerText))}))"""


def table(page, head: str) -> pd.DataFrame:
    """What a table with this column shows, once it has rows."""
    page.wait_for_function(f"({TABLES})().some(t => t.heads.includes({head!r}) && t.rows.length)")
    found = next(t for t in page.evaluate(TABLES) if head in t["heads"])
    return pd.DataFrame(found["rows"], columns=found["heads"])


def figures(page, selector: str = "m.title.text.includes('during the training')") -> list[dict]:
    """Data of the lines of drawings."""
    return page.evaluate(f"""() => Array.from(Bokeh.documents[0]._all_models.values())
      .filter(m => m.type === "Figure" && {selector})
      .map(m => ({{title: m.title.text, lines: m.renderers.filter(r => r.data_source).map(r => Object.fromEntries(
        Object.entries(r.data_source.data).map(([k, v]) => [k, Array.from(v)])))}}))""")


def test_the_leaderboard_shows_the_stored_numbers_and_is_sorted(visit, served_root):
    store = Store(served_root)
    page = visit(run=store.open("cca-s0").id, page="Runs", **{"runs.baseline": "cca"})
    shown = table(page, "rank").set_index("method")
    fields = store.fields("recall_at_10", where={**WHERE, "source": "image", "target": "text"})
    means = fields.groupby(["variant", "seed"])["value"].mean().groupby("variant").mean()
    assert set(shown.index) == set(means.index)
    assert {name: float(value) for name, value in shown["mean"].items()} == pytest.approx(means.to_dict(), abs=6e-4)
    assert (
        shown["n"].astype(int).to_dict()
        == fields.groupby(["variant", "seed"]).size().groupby("variant").min().to_dict()
    )
    assert all("seed" in kind for kind in shown["interval"])
    assert shown["rank"].tolist() == ["1", "2", "3"]
    assert page.locator(".lk-runs").get_attribute("data-n") == "5"

    paired = table(page, "difference").set_index("method")
    a, b = (fields[fields["variant"] == v] for v in ("procrustes", "cca"))
    wanted = stats.paired_difference(a, b)
    row = paired.loc["procrustes"]
    told = [float(row[c]) for c in ("difference", "low", "high", "p")]
    assert told == pytest.approx([wanted.difference, wanted.low, wanted.high, wanted.p], abs=6e-4)
    assert row["interval and test"] == wanted.kind
    assert int(row["n"].replace(",", "")) == wanted.n_keys

    page.locator(".tabulator-col-title", has_text="mean").first.click()
    page.wait_for_function(f"({TABLES})().find(t => t.heads.includes('rank')).rows[0][1] === '3'")

    history = next(r for r in store.runs() if r.info["variant"] == "clip").history()
    (drawn,) = figures(page)
    assert drawn["lines"][0]["validation"] == pytest.approx(history["validation"].tolist())

    listed = table(page, "reason")
    assert listed["state"][0] == "failed"
    assert "<script>" in listed["reason"][0]  # as text
    page.get_by_text("Claims of the proposals").click()
    stated = claims.load()
    page.wait_for_selector(f".lk-claims[data-n='{len(stated.claims)}']")
    made = claims.evaluate(stated, claims.committed(stated)).set_index("id")
    judged = table(page, "verdict").set_index("claim")
    assert judged["verdict"].tolist() == made.loc[judged.index, "verdict"].tolist()


def test_a_row_leads_to_a_comparison_whose_map_selects_everywhere(visit, served_root):
    store = Store(served_root)
    run = store.open("cca-s0")
    page = visit(run=run.id, page="Runs", projection="pca")
    table(page, "rank")
    page.locator(".tabulator-row", has_text="procrustes").first.locator(".tabulator-cell").nth(1).click()
    page.wait_for_selector(".lk-ab")
    page.wait_for_function(f"({FIGURES})().length === 3 && ({FIGURES})().every(f => f.width > 100)")
    assert "procrustes" in page.locator(".lk-ab").inner_text()
    assert "seeds 0, 1" in page.locator(".lk-ab").inner_text()

    fields = store.fields("recall_at_10", where=WHERE)
    (drawn,) = figures(page, "m.title.text.includes('A less B')")
    dots = next(line for line in drawn["lines"] if "row" in line and "effect" in line)
    assert len(dots["row"]) == 6
    for name, effect, low, high in list(zip(*(dots[c] for c in ("row", "effect", "low", "high")), strict=True))[:3]:
        source, target = name.split(" (n = ")[0].split(" → ")
        own = fields[(fields["source"] == source) & (fields["target"] == target)]
        wanted = stats.paired_difference(*(own[own["variant"] == v] for v in ("cca", "procrustes")))
        assert (effect, low, high) == pytest.approx((wanted.difference, wanted.low, wanted.high))
        assert f"(n = {wanted.n_keys})" in name
    assert len(table(page, "A less B"))

    both = fields.pivot_table(index=["key", "source", "target", "seed"], columns="variant", values="value")
    difference = (both["cca"] - both["procrustes"]).dropna().groupby(["key", "source"]).mean().groupby("key").mean()
    better = set(difference.index[difference > 1e-9])
    page.get_by_role("button", name="where A is better").click()
    page.wait_for_selector(f".lk-selected[data-n='{len(better)}']")
    frame = run.projection("pca")
    shown = {f["title"].split(" · ")[0]: f for f in page.evaluate(FIGURES)}
    for modality in ("image", "text", "speech_fr"):
        there = frame[(frame["modality"] == modality) & frame["key"].isin(better)]
        assert sorted(shown[modality]["marks"]["x"]) == pytest.approx(sorted(there["x"]))

    turns = np.linspace(0, 2 * np.pi, 25)
    page.locator(".lk-selected").scroll_into_view_if_needed()
    shown = {f["title"].split(" · ")[0]: f for f in page.evaluate(FIGURES)}
    places = to_pixels(shown["text"], frame.loc[frame["modality"] == "text", ["x", "y"]].to_numpy())
    drag(page, np.median(places, axis=0) + 40 * np.column_stack([np.cos(turns), np.sin(turns)]))
    page.wait_for_selector(f".lk-selected:not([data-n='{len(better)}'])")
    counted = int(page.locator(".lk-selected").get_attribute("data-n"))
    assert 5 < counted < 900
    page.get_by_text("Manifolds", exact=True).click()
    page.locator(f".lk-selected[data-n='{counted}'] >> visible=true").wait_for()
