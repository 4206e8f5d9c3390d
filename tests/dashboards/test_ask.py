"""Page Ask and uploads: what is found, what is refused and with which sentence."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from dashboards import queries
from dashboards.app import App
from dashboards.queries import QueryError
from dashboards.session import Session
from labkit.store import Store


def opened(root, **query: str) -> App:
    own = {f"ask.{name}": value for name, value in query.items()}
    return App(Session(Store(root)), {"run": Store(root).open("cca-s0").id, "page": "Ask", **own})


@pytest.fixture
def page(runs_root):
    return opened(runs_root).pages["Ask"]


def npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def png(mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, "PNG")
    return content.getvalue()


def damaged_png() -> bytes:
    """The first half of a picture that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()[: len(content.getvalue()) // 2]


def told(page) -> str:
    return " ".join(str(pane.object) for pane in page._message.objects)


def nearest(content, vector: np.ndarray, modality: str, k: int) -> list[int]:
    """By brute force over the stored file."""
    stored = np.asarray(content.run.embedding(modality), dtype=np.float32)
    norms = np.linalg.norm(stored, axis=1)
    similarity = np.where(norms > 0, stored @ vector / np.where(norms > 0, norms, 1), -2)
    return np.argsort(-similarity, kind="stable")[:k].tolist()


def test_a_text_finds_what_is_nearest_in_every_modality(page):
    page._text.value = "a red sports car"
    vector = page.model.seen("text", "a red sports car").vector
    for modality, (rows, similarity) in page.answer.near.items():
        assert rows.tolist() == nearest(page.content, vector, modality, 8)
        assert f"{similarity[0]:.2f}" in page._near.object
    captions = page.content.points["caption"].iloc[page.answer.near["text"][0]]
    assert captions.str.contains("car").mean() > 0.5
    assert page.maps.panes["all modalities"]._data["star"]["x"] == [page.answer.place[0]]


def test_the_address_brings_a_query_back(runs_root):
    app = opened(runs_root, query="a yellow bird", k="3")
    page = app.pages["Ask"]
    assert page._text.value == "a yellow bird"
    assert {len(rows) for rows, _ in page.answer.near.values()} == {3}
    assert app.state["ask.query"] == "a yellow bird"


def test_what_was_found_is_selected_everywhere(page):
    page._text.value = "a tree"
    page._see()
    found = {int(r) for rows, _ in page.answer.near.values() for r in rows}
    assert set(np.flatnonzero(page.session.selection.mask)) == found
    assert page.session.page == "Manifolds"


def test_a_picture_of_the_data_finds_itself(page):
    page._kind.value = "a picture"
    assert list(page._modality.options.values()) == ["image"]
    row = 10
    path = page.content.run.item_path(page.content.points["key"].iloc[row], "image")
    page._file.value = {"seen.webp": path.read_bytes()}
    page.ask()
    rows, similarity = page.answer.near["image"]
    assert rows[0] == row
    assert similarity[0] > 0.99


def test_a_row_of_the_stored_features_finds_itself(page):
    page._kind.value = "a row of an array"
    page._modality.value = "text"
    page._file.value = {"features.npy": npy(np.asarray(page.content.run.embedding("text", "raw")[20:23]))}
    page._row.value = 2
    page.ask()
    rows, similarity = page.answer.near["text"]
    assert similarity[0] > 0.999
    assert page.content.points["caption"].iloc[rows[0]] == page.content.points["caption"].iloc[22]


@pytest.mark.parametrize(
    ("kind", "content", "sentence"),
    [
        ("a picture", b"no picture", "no picture that can be read"),
        ("a picture", damaged_png(), "damaged"),
        ("a row of an array", b"no array", "no .npy file"),
        ("a row of an array", npy(np.zeros((2, 7), np.float32)), "7 numbers; features of text have 384"),
        ("a row of an array", npy(np.full((1, 384), np.nan, np.float32)), "not finite"),
        ("a row of an array", b"", "Choose a file first"),
    ],
)
def test_a_bad_upload_is_refused_with_a_sentence(page, kind, content, sentence):
    page._text.value = "a tree"
    page._kind.value = kind
    page._file.value = {"<script>.npy": content}
    page.ask()
    assert sentence in told(page)
    assert page.answer is None
    assert page._select.disabled


def test_file_names_and_texts_are_escaped(page, markup):
    page._text.value = markup
    assert "<script>" not in page._query.object
    page._kind.value = "a row of an array"
    page._file.value = {f"{markup}.npy": npy(np.ones((1, 384), np.float32))}
    page.ask()
    assert page.answer is not None
    assert "<script>" not in page._query.object


def test_a_text_that_is_empty_or_too_long_is_refused(page):
    page._text.value = "   "
    page.ask()
    assert "Write what you look for" in told(page)
    page._text.value = "a" * 2_000
    assert "at most 1,000" in told(page)


def test_uploads_are_bounded_before_they_are_decoded(monkeypatch):
    with pytest.raises(QueryError, match="at most 10,000,000"):
        queries.picture(bytes(10_000_001))
    with pytest.raises(QueryError, match="at most 10,000,000"):
        queries.array(bytes(10_000_001))
    monkeypatch.setattr(queries, "MOST_PIXELS", 63)
    with pytest.raises(QueryError, match="8 x 8 pixels"):
        queries.picture(png())


def test_an_array_cannot_smuggle_objects_or_announce_more_than_it_has():
    with pytest.raises(QueryError, match="holds object"):
        queries.array(npy(np.array([{"a": 1}], dtype=object)))
    with pytest.raises(QueryError, match=r"no \.npy file"):
        queries.array(pickle.dumps([1, 2]))
    huge = npy(np.zeros((2, 3), np.float32)).replace(b"(2, 3)", b"(9, 3)")
    with pytest.raises(QueryError, match="damaged"):
        queries.array(huge)
    with pytest.raises(QueryError, match="3 dimensions"):
        queries.array(npy(np.zeros((2, 2, 2))))
    with pytest.raises(QueryError, match="empty"):
        queries.array(npy(np.zeros((0, 4))))
    with pytest.raises(QueryError, match="holds <U1"):
        queries.array(npy(np.array(["a"])))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_does(order):
    values = np.asarray(np.arange(6).reshape(2, 3), order=order)
    np.testing.assert_array_equal(queries.array(npy(values)), values)
    np.testing.assert_array_equal(queries.array(npy(values[0].copy())), values[:1])


def test_rows_outside_an_array_are_refused():
    with pytest.raises(QueryError, match="rows 0 to 1"):
        queries.row_of(np.zeros((2, 3)), 2, 3, "image")


def test_transparent_pictures_stand_on_white():
    assert queries.picture(png("RGBA")).getpixel((0, 0)) == (255, 255, 255)


def test_a_run_that_cannot_be_encoded_with_says_why(tmp_path, hostile_run):
    made = hostile_run(tmp_path)
    app = App(Session(Store(tmp_path)), {"run": made.id, "page": "Ask"})
    notice = app._places["Ask"].objects[0].object
    assert "labkit run hostile-s0 --rerun" in notice
    app.pages["Ask"].ask()
    assert app.pages["Ask"].answer is None
