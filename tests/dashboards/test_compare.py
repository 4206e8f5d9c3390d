"""Page Compare without a browser: differences of the same samples under the same seeds, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dashboards.app import App
from dashboards.session import Session
from labkit import stats
from labkit.config import DataConfig, EvaluationConfig, RunConfig
from labkit.run import execute
from labkit.store import Store

PLAIN = EvaluationConfig(corruptions=(), bootstrap=100)
BOTH = {"corruption": "none", "split": "test"}


def opened(root: Path, **query: str) -> App:
    return App(Session(Store(root)), {"page": "Compare", **query})


@pytest.fixture(scope="module")
def varied(runs_root, tmp_path_factory) -> Path:
    """The runs of the other tests, and runs on fewer pairs, on other test samples and on other data."""
    root = tmp_path_factory.mktemp("varied") / "runs"
    shutil.copytree(runs_root, root)
    others = (
        DataConfig(pairs=0.5, unpaired="dropped"),
        DataConfig(modalities=("image", "text"), domain={"test": "photo"}),
        DataConfig(dataset="redundancy", modalities=("first", "second"), options={"n": 200}),
    )
    for data in others:
        execute(RunConfig(variant="cca", data=data, evaluation=PLAIN), root=root, device="cpu")
    return root


@pytest.fixture
def app(runs_root) -> App:
    store = Store(runs_root)
    return opened(runs_root, run=store.open("cca-s0").id, **{"compare.other": store.open("procrustes-s0").id})


def named(root: Path, **data: object) -> str:
    """The run on data with these settings."""
    found = (r for r in Store(root).runs() if all(r.info["config"]["data"].get(k) == v for k, v in data.items()))
    return next(found).id


def test_differences_are_those_of_the_same_samples(app, runs_root):
    page = app.pages["Compare"]
    assert page.versus is not None
    assert page.versus.seeds == [0, 1]
    fields = Store(runs_root).fields("recall_at_10", where=BOTH)
    rows = page.versus.differences("recall_at_10").set_index("direction")
    assert len(rows) == 6
    for (source, target), own in fields.groupby(["source", "target"]):
        a, b = (own[own["variant"] == v] for v in ("cca", "procrustes"))
        wanted = stats.paired_difference(a, b)
        row = rows.loc[f"{source} → {target}"]
        assert row[["difference", "low", "high", "p", "n"]].tolist() == pytest.approx(
            [wanted.difference, wanted.low, wanted.high, wanted.p, wanted.n_keys]
        )
        assert row["A"] == pytest.approx(a.groupby("seed")["value"].mean().mean(), abs=1e-4)
        assert row["kind"] == wanted.kind
    shown = page._numbers.objects[1].value
    p = np.concatenate([page.versus.differences(metric)["p"].to_numpy(dtype=float) for metric in page.versus.metrics])
    assert shown["p_holm"].tolist() == pytest.approx(stats.holm(p).tolist(), nan_ok=True)
    assert set(page._metric.options.values()) == set(page.versus.metrics)
    drawn = page._effects.objects[0].object
    assert f"image → text (n = {rows.loc['image → text', 'n']})" in str(drawn.opts.get("plot").kwargs["yticks"])


def test_the_map_shows_who_is_better_on_each_sample(app, runs_root):
    page = app.pages["Compare"]
    fields = Store(runs_root).fields("recall_at_10", where={**BOTH, "source": "text"})
    wide = fields.pivot_table(index=["key", "seed"], columns="variant", values="value")[["cca", "procrustes"]].dropna()
    wanted = (wide["cca"] - wide["procrustes"]).groupby("key").mean()
    points = page.versus.points("recall_at_10").query("source == 'text'").set_index("key")
    shown = points["value"].astype(float).sort_index()
    pd.testing.assert_series_equal(shown, wanted.sort_index(), check_names=False, atol=1e-6)

    maps = page.better.maps
    names = list(maps.paint.coloring.categories)
    part = maps.frame.part("text")
    keys = page.content.points["key"].to_numpy()[maps.frame.row[part]]
    drawn = pd.Series([names[code] for code in maps.paint.values[part]], index=keys)
    assert set(drawn.index[drawn.str.startswith("A: ")]) == set(wanted.index[wanted > 0])
    assert set(drawn.index[drawn.str.startswith("B: ")]) == set(wanted.index[wanted < 0])
    assert set(drawn.index[drawn.str.endswith("more than 0.5")]) == set(wanted.index[wanted.abs() > 0.5])
    assert (drawn[~drawn.index.isin(wanted.index)] == "not measured").all()


def test_where_one_is_better_is_selected_everywhere(app):
    page = app.pages["Compare"]
    mean = page.versus.points("recall_at_10").groupby("key")["value"].mean()
    for letter, wanted in (("A", mean.index[mean > 0]), ("B", mean.index[mean < 0])):
        page.better._buttons[letter].clicks += 1
        keys = page.content.points["key"][page.session.selection.mask]
        assert set(keys) == set(wanted)
        assert f'data-n="{len(wanted)}"' in page.better._count.object
        assert str(len(wanted)) in page.better._buttons[letter].name
    row = int(np.flatnonzero(page.session.selection.mask)[0])
    page.better._click(row)
    told = page.better._card.object
    points = page.versus.points("recall_at_10")
    for own in points[points["key"] == page.content.points["key"][row]].itertuples():
        assert f"<td>{own.source}</td><td>{own.A:.3f}</td><td>{own.B:.3f}</td><td>{own.seeds}</td>" in told


def test_settings_that_differ_are_listed(app, runs_root):
    shown = app.pages["Compare"]._settings.objects[1].value.set_index("setting")
    first, second = (Store(runs_root).open(name).info["config"] for name in ("cca-s0", "procrustes-s0"))
    assert shown.loc["variant"].tolist() == ["cca", "procrustes"]
    for option in {*first["options"], *second["options"]}:
        a, b = (str(c["options"].get(option, "")) for c in (first, second))
        assert (f"options.{option}" in shown.index) == (a != b)
    assert not any(name == "seed" or name.startswith("data") for name in shown.index)


def test_one_seed_alone(app):
    page = app.pages["Compare"]
    page.seeds = "the shown run's"
    assert page.versus.seeds == [0]
    assert page.versus.differences("recall_at_10")["seeds"].eq(1).all()
    assert "seed 0" in page._head.object


def test_every_metric_can_be_shown(app):
    page = app.pages["Compare"]
    without = 0
    for metric in page.versus.metrics:
        page.metric = metric
        assert page._metric.value == metric
        assert page._effects.objects
        without += page.better.maps is None
    assert 0 < without < len(page.versus.metrics)  # CKA has no value per sample, recall has


def test_fewer_pairs_are_compared_on_the_same_test_samples(varied, runs_root):
    few = named(varied, pairs=0.5)
    app = opened(varied, run=Store(runs_root).open("cca-s0").id, **{"compare.other": few})
    page = app.pages["Compare"]
    assert "Trained on other data, tested on the same samples" in page._head.object
    assert page.versus.seeds == [0]
    a, b = (Store(varied).open(i).field("recall_at_10", where=BOTH) for i in (app.session.run, few))
    both = a.merge(b, on=["key", "source", "target"])
    both = both[(both["source"] == "image") & (both["target"] == "text")]
    row = page.versus.differences("recall_at_10").set_index("direction").loc["image → text"]
    assert row["difference"] == pytest.approx((both["value_x"] - both["value_y"]).mean())
    assert "data.pairs" in page._settings.objects[1].value["setting"].tolist()


def test_what_cannot_be_compared_is_told(varied, runs_root):
    run = Store(varied).open("procrustes-s0").id
    photos = named(varied, domain={"train": "", "test": "photo", "test_items": {}})
    for other, why in (
        (photos, "not tested on the same samples"),
        (named(varied, dataset="redundancy"), "their data are not the same"),
    ):
        page = opened(varied, run=run, **{"compare.other": other}).pages["Compare"]
        assert page.versus is None
        assert "not comparable" in page._head.object
        assert why in page._head.object
        assert not page._effects.objects
        assert not page.better.view.visible
        assert len(page._settings.objects[1].value)  # what differs is still told
    page = opened(varied, run=named(varied, pairs=0.5), **{"compare.other": Store(runs_root).open("cca-s1").id}).pages[
        "Compare"
    ]
    page.seeds = "the shown run's"
    assert page.versus is not None  # the method has seed 0, too


def test_methods_without_a_common_seed(runs_root, tmp_path):
    root = tmp_path / "runs"
    for name in ("cca-s0", "procrustes-s1"):
        folder = Store(runs_root).open(name).folder
        shutil.copytree(folder, root / folder.name)
    page = opened(root, run=Store(root).open("cca-s0").id).pages["Compare"]
    assert "no seed in common" in page._head.object
    assert "A has seed 0, B has seed 1" in page._head.object


def test_b_follows_the_shown_run_until_somebody_chooses(varied, runs_root):
    app = opened(varied, run=Store(varied).open("procrustes-s0").id)
    page = app.pages["Compare"]
    assert page._pick.value == "clip"
    app.session.run = named(varied, pairs=0.5)
    assert "no other method on these data" in page._head.object
    page._data.value = page._data.options["stamps · image, text, speech_fr"]
    assert page.versus is not None
    page._pick.value = "procrustes"
    assert page.other == Store(varied).open("procrustes-s1").id
    assert app.state["compare.other"] == page.other
    app.session.run = Store(runs_root).open("cca-s0").id
    assert page._pick.value == "procrustes"


def test_the_filter_finds_methods_by_their_words(app):
    page = app.pages["Compare"]
    page._find.value_input = "cli"
    assert page._pick.options == ["clip", "procrustes"]  # the chosen one stays
    assert "1 of 2 methods" in page._find.description
    page._find.value_input = "nothing like it"
    assert page._pick.options == ["procrustes"]


def test_an_unknown_run_in_the_address_is_told(runs_root):
    page = opened(runs_root, **{"compare.other": "gone-s0"}).pages["Compare"]
    assert "Run gone-s0 cannot be compared with" in page._head.object
    assert page.versus is not None


def test_a_single_run_and_hostile_texts(tmp_path, hostile_run, markup):
    hostile_run(tmp_path)
    page = opened(tmp_path).pages["Compare"]
    assert "no other method on these data" in page._head.object
    texts = [part.object for part in page.view.select() if isinstance(getattr(part, "object", None), str)]
    assert not any("<script" in t or "<img src=x" in t for t in texts)
    assert markup in next(iter(page._data.options))  # a select escapes its options


def test_a_run_that_was_measured_again_stands_for_its_seed(runs_root, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs_root, root)
    old = Store(root).open("cca-s0")
    again = EvaluationConfig(corruptions=("feature_masking",), bootstrap=100)
    new = execute(RunConfig(variant="cca", evaluation=again), root=root, device="cpu")
    assert new.id != old.id
    for run in (old.id, new.id):
        page = opened(root, run=run, **{"compare.other": Store(root).open("procrustes-s0").id}).pages["Compare"]
        assert page.versus is not None
        assert page.versus.seeds == [0, 1]
        assert run in page.a.ids
