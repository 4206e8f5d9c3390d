"""What the pages say of a run, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from dashboards import content as contents
from dashboards.catalog import Catalog
from dashboards.comparison import comparable
from dashboards.items import card, neighbors, partner_table, partners
from labkit.config import EvaluationConfig, RunConfig
from labkit.run import execute
from labkit.store import NotComputedError, Store


@pytest.fixture(scope="module")
def store(runs_root):
    return Store(runs_root)


@pytest.fixture(scope="module")
def content(store):
    return contents.load(store, "cca-s0")


@pytest.mark.parametrize("step", ["final", "raw"])
@pytest.mark.parametrize("modality", ["image", "speech_fr"])
def test_nearest_equals_sklearn(content, modality, step):
    rows = content.present(modality)
    vectors = np.asarray(content.run.embedding(modality, step), dtype=np.float64)[rows]
    index = NearestNeighbors(n_neighbors=9, metric="cosine").fit(vectors)
    for at in (0, 17, len(rows) - 1):
        distance, wanted = index.kneighbors(vectors[[at]])
        found = content.nearest(int(rows[at]), modality, step=step, k=8)
        assert rows[at] not in found
        # equal vectors (one caption under several keys) may come in any order, so distances are compared
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        own = 1 - unit[np.searchsorted(rows, found)] @ unit[at]
        others = np.delete(distance[0], np.flatnonzero(wanted[0] == at)[:1])[:8]
        np.testing.assert_allclose(own, others, atol=1e-5)


def test_nearest_of_an_absent_item_is_empty(content):
    absent = np.setdiff1d(np.arange(len(content.points)), content.present("speech_fr"))
    assert len(absent) > 0
    assert len(content.nearest(int(absent[0]), "speech_fr", step="final", k=5)) == 0


@pytest.mark.parametrize(("source", "target"), [("image", "text"), ("text", "speech_fr")])
def test_partner_ranks_equal_brute_force(content, source, target):
    x = np.asarray(content.run.embedding(source), dtype=np.float64)
    y = np.asarray(content.run.embedding(target), dtype=np.float64)
    group, gallery = content.points["group"].to_numpy(), content.present(target)
    rows = np.arange(0, len(content.points), 7)
    found = content.partner_ranks(rows, source, target)
    ranks, distances = found.rank, found.distance
    wanted_ranks, wanted_distances = [], []
    for i in rows:
        if i not in gallery or i not in content.present(source):
            continue
        cosine = {j: x[i] @ y[j] / np.linalg.norm(x[i]) / np.linalg.norm(y[j]) for j in gallery}
        rivals = [j for j in gallery if group[j] != group[i] and cosine[j] >= cosine[i] - 1e-6]
        wanted_ranks.append(1 + len(rivals))
        wanted_distances.append(1 - cosine[i])
    assert (np.abs(ranks - wanted_ranks) <= 1).all()  # half precision may turn two near ties
    assert (ranks == wanted_ranks).mean() > 0.99
    np.testing.assert_allclose(distances, wanted_distances, atol=1e-5)


def _tiny(tmp_path, z, group):
    n = len(group)
    run = Store(tmp_path).create("tiny", name="t", variant="t", config={"data": 1}, seed=0, data_root=str(tmp_path))
    points = {"key": [f"k{i}" for i in range(n)], "split": "test", "group": group, "label": "a"}
    items = {"image": None, "text": None, "present_image": True, "present_text": True}
    run.write_points(pd.DataFrame({**points, **items}))
    for m, vectors in z.items():
        run.write_embedding(m, "final", vectors)
    run.complete()
    return contents.load(Store(tmp_path), "tiny")


def test_a_collapsed_space_earns_the_last_rank(tmp_path):
    content = _tiny(tmp_path, {m: np.ones((6, 3)) for m in ("image", "text")}, list(range(6)))
    found = content.partner_ranks(np.arange(6), "image", "text")
    ranks, distances = found.rank, found.distance
    assert ranks.tolist() == [6] * 6
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_samples_of_the_same_group_are_no_competitors(tmp_path):
    content = _tiny(tmp_path, {m: np.ones((6, 3)) for m in ("image", "text")}, [0, 0, 0, 1, 1, 2])
    ranks = content.partner_ranks(np.arange(6), "image", "text").rank
    assert ranks.tolist() == [4, 4, 4, 5, 5, 6]
    assert content.partner_ranks(np.array([0]), "image", "text").last == 4


def test_overlap_and_partner_numbers_are_shown(content):
    shown = neighbors(content, 5, step="final", k=8)
    found = {m: set(content.nearest(5, m, step="final", k=8).tolist()) for m in content.modalities}
    assert f"image–text <b>{len(found['image'] & found['text'])} of 8</b>" in shown
    assert shown.count("lk-row") == sum(map(len, found.values()))
    every = [row for rows in found.values() for row in rows]
    assert shown.count("lk-shared") == sum(every.count(row) > 1 for row in every)
    ranks = content.partner_ranks(np.arange(950), "image", "text").rank
    cells = f"<td>image → text</td><td>{len(ranks)}</td><td>{np.median(ranks):.0f} of"
    assert cells in partner_table(content, partners(content, np.arange(950)))


def test_card_shows_the_picture_and_sound_of_the_sample(content):
    row = int(content.present("speech_fr")[3])
    shown = card(content, row)
    assert shown.count("data:image/webp;base64,") == 1
    assert shown.count("data:audio/ogg;base64,") == 1
    assert content.points["key"].iloc[row] in shown


def test_fields_of_pairs_count_for_both_modalities(content):
    one_way = content.run.field("neighborhood_preservation", where={"corruption": "none"})
    field = content.field("neighborhood_preservation")
    assert set(field["source"]) == {"image", "text", "speech_fr"}
    assert len(field) == 2 * len(one_way)
    directed = content.field("recall_at_10")
    assert len(directed) == len(content.run.field("recall_at_10", where={"corruption": "none"}))
    with pytest.raises(NotComputedError, match="labkit run"):
        content.field("no_such_metric")


def test_content_is_read_once_until_the_folder_changes(tmp_path):
    content = _tiny(tmp_path, {m: np.eye(3) for m in ("image", "text")}, [0, 1, 2])
    assert contents.load(Store(tmp_path), "tiny") is content
    content.run.write_selection("some", ["k0"])
    assert contents.load(Store(tmp_path), "tiny") is not content


def test_comparable_takes_one_configuration_of_each_variant_the_shown_one_first(tmp_path):
    settings = EvaluationConfig(corruptions=(), bootstrap=100)
    small = {"data": {"dataset": "stamps", "modalities": ("image", "text")}, "evaluation": settings}
    old = execute(RunConfig(variant="procrustes", **small), root=tmp_path, device="cpu")
    new = execute(RunConfig(variant="procrustes", options={"dim": 16}, **small), root=tmp_path, device="cpu")
    other = execute(RunConfig(variant="identity", evaluation=settings), root=tmp_path, device="cpu")
    store = Store(tmp_path)
    assert old.id != new.id
    for shown in (old, new):
        assert comparable(Catalog(store.root).listing(), shown.id).ids == (shown.id,)
    assert comparable(Catalog(store.root).listing(), other.id).ids == (other.id,)
    assert comparable(Catalog(store.root).listing(), "unknown").ids == ()


def test_comparison_equals_the_statistics_of_the_store(store):
    from labkit import stats

    runs = comparable(Catalog(store.root).listing(), store.open("cca-s0").id)
    assert len(runs.ids) == 5
    fields = store.fields("recall_at_10", runs.ids, where={"corruption": "none"})
    wanted = stats.leaderboard(store.scores(runs.ids), fields, metric="recall_at_10", source="image", target="text")
    pd.testing.assert_frame_equal(runs.leaderboard("recall_at_10", "image", "text"), wanted)
