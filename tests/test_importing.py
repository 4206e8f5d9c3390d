"""`labkit import`: a round trip of a stored run, what is refused, and that nothing is left half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from labkit import frames
from labkit.cli import app
from labkit.config import EvaluationConfig, RunConfig
from labkit.diagnosis.stored import diagnose_run
from labkit.importing import LARGEST, import_run
from labkit.run import execute
from labkit.store import NotComputedError, Store, StoreError

N, D = 40, 6


def written(folder: Path, *, n: int = N, seed: int = 0, **columns: object) -> dict[str, Path]:
    """Files of two modalities and their points."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(n, D)).astype(np.float32)
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", image + rng.normal(size=(n, D)).astype(np.float32))
    table = pd.DataFrame({"key": [f"k{i}" for i in range(n)]}).assign(**columns)
    table.to_parquet(folder / "points.parquet")
    return {"image": folder / "image.npy", "text": folder / "text.npy"}


def imported(tmp_path: Path, files: dict[str, Path], **options: object):
    return import_run(files, tmp_path / "in" / "points.parquet", root=tmp_path / "runs", **options)


def refused(tmp_path: Path, files: dict[str, Path], match: str, kind: type[Exception] = ValueError) -> None:
    """The import is refused with a sentence, and leaves nothing."""
    with pytest.raises(kind, match=match):
        imported(tmp_path, files)
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    settings = EvaluationConfig(corruptions=(), bootstrap=100)
    data = {"dataset": "stamps", "modalities": ("image", "text")}
    return execute(
        RunConfig(variant="procrustes", data=data, evaluation=settings),
        root=tmp_path_factory.mktemp("runs"),
        device="cpu",
    )


def test_round_trip_of_a_stored_run(original, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    points = original.points()
    for m in ("image", "text"):
        np.save(folder / f"{m}.npy", original.embedding(m))
    points[["key", "split", "group", "label", "caption", "image"]].to_parquet(folder / "points.parquet")
    command = ["import", str(folder / "image.npy"), f"text={folder / 'text.npy'}", "--points"]
    command += [str(folder / "points.parquet"), "--name", "mine", "--root", str(original.data_root)]
    done = CliRunner().invoke(app, [*command, "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    run = Store(tmp_path / "runs").open("mine-")
    assert run.id in done.output
    kept = ["key", "split", "label", "caption", "image", "present_image", "present_text"]
    pd.testing.assert_frame_equal(run.points()[kept], points[kept], check_dtype=False)
    assert (
        run.points().groupby("group")["caption"].nunique().max() == points.groupby("group")["caption"].nunique().max()
    )
    key = points["key"].iloc[7]
    assert run.item_path(key, "image") == original.item_path(key, "image")
    columns = ["metric", "source", "target", "value", "n"]
    own, theirs = (r.scores().query("corruption == 'none'")[columns] for r in (run, original))
    both = own.merge(theirs, on=["metric", "source", "target"], suffixes=("", "_original"))
    measured = set(own["metric"])
    assert {"recall_at_10", "median_rank", "cka", "neighborhood_preservation"} <= measured == set(both["metric"])
    np.testing.assert_allclose(
        both["value"], both["value_original"], atol=5e-3
    )  # of half precision, and folds of groups
    assert (both["n"] == both["n_original"]).all()
    assert "neighborhood_kept" not in measured
    pd.testing.assert_frame_equal(
        run.field("recall_at_10").drop(columns="value"), original.field("recall_at_10").drop(columns="value")
    )


def test_other_commands_work_on_an_import(tmp_path):
    run = imported(tmp_path, written(tmp_path / "in", label=["a", "b"] * (N // 2)))
    frames.add_frames([run], ("umap",), ("raw", "centered"))
    assert {"pca", "umap", "umap-centered"} <= set(run.steps("projections"))
    diagnose_run(run, measures=["mutual_knn"])
    assert run.couplings()["converged"].all()
    assert run.has("topology", "image", "final")
    for command in (["run", run.id], ["robustness", run.id]):
        told = CliRunner().invoke(app, [*command, "--runs", str(run.folder.parent)])
        assert told.exit_code == 2
        assert "was imported: it has vectors, but no model" in told.output
    with pytest.raises(NotComputedError, match="was imported, and this takes a model"):
        run.embedding("image", "raw")


def test_the_same_import_is_stored_once_and_repaired(tmp_path):
    files = written(tmp_path / "in")
    run = imported(tmp_path, files)
    made = run.info["created"]
    assert imported(tmp_path, files).info["created"] == made
    other = imported(tmp_path, written(tmp_path / "in", seed=1))
    assert other.id != run.id
    assert other.config["data"] == run.config["data"]  # of the same samples: pages compare them
    table = run.folder / "scores.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(StoreError, match="labkit import image=") as error:
        run.scores()
    written(tmp_path / "in")
    words = str(error.value).split("`")[1].split()
    assert CliRunner().invoke(app, [*words[1:], "--runs", str(tmp_path / "runs")]).exit_code == 0
    assert len(Store(run.folder.parent).open(run.id).scores()) > 10
    assert sorted(f.name for f in run.folder.parent.iterdir()) == sorted([run.id, other.id])


def test_keys_say_which_rows_belong_together(tmp_path):
    files = written(tmp_path / "in")
    values = np.load(files["text"])
    order = np.random.default_rng(3).permutation(N)[: N - 5]
    table = pd.DataFrame(values[order], columns=[f"d{i}" for i in range(D)]).assign(key=[f"k{i}" for i in order])
    table.to_parquet(tmp_path / "in" / "text.parquet")
    run = imported(tmp_path, {**files, "text": tmp_path / "in" / "text.parquet"})
    present = run.points()["present_text"].to_numpy()
    assert set(np.flatnonzero(present)) == set(order.tolist())
    np.testing.assert_allclose(run.embedding("text")[present], values[present], atol=1e-2)
    lists = pd.DataFrame({"key": [f"k{i}" for i in range(N)], "vector": list(values)})
    lists.to_parquet(tmp_path / "in" / "text.parquet")
    again = imported(tmp_path, {**files, "text": tmp_path / "in" / "text.parquet"})
    np.testing.assert_allclose(again.embedding("text"), values, atol=1e-2)


def test_absent_items_and_unmeasured_sizes(tmp_path):
    present = np.arange(N) % 4 > 0
    run = imported(tmp_path, written(tmp_path / "in", present_text=present))
    scores = run.scores().set_index(["metric", "source", "target"])
    assert scores.loc[("recall_at_10", "image", "text"), "n"] == present.sum()
    tiny = imported(tmp_path, written(tmp_path / "in", n=3))
    assert tiny.status == "complete"
    assert tiny.has("projections", "pca", "final")


def test_a_large_import_is_measured_on_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("labkit.importing.LARGEST", 20)
    assert LARGEST == 5_000
    run = imported(tmp_path, written(tmp_path / "in"))
    assert set(run.scores().query("metric == 'recall_at_10'")["n"]) == {20}
    assert len(run.points()) == N


def spoiled(values: np.ndarray, how: str, path: Path) -> None:
    """Write vectors that cannot be used."""
    if how == "nan":
        values[3, 2] = np.nan
    if how == "object":
        np.save(path, np.array([[{"a": 1}]] * len(values), dtype=object), allow_pickle=True)
        return
    changed = {"text": values.astype(str), "short": values[:-1], "flat": values[:, 0], "width": values[:, :-1],
               "complex": values + 1j, "empty": values[:0]}.get(how, values)  # fmt: skip
    np.save(path, changed)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    if how == "gone":
        path.unlink()


BAD_VECTORS = {
    "nan": (ValueError, "NaN, infinite or too large values in 1 rows, the first is row 3, column 2"),
    "object": (ValueError, "cannot be read as .npy .*allow_pickle=False"),
    "text": (TypeError, "must hold real numbers"),
    "complex": (TypeError, "must hold real numbers"),
    "short": (ValueError, "has 39 rows but there are 40 points"),
    "flat": (ValueError, r"must have shape \[n, d\]"),
    "empty": (ValueError, r"must have shape \[n, d\]"),
    "width": (ValueError, "5 dimensions but .* 6: an import shows one space"),
    "truncated": (ValueError, "cannot be read as .npy"),
    "gone": (FileNotFoundError, "does not exist"),
}


@pytest.mark.parametrize("how", BAD_VECTORS)
def test_vectors_that_do_not_fit_are_refused(tmp_path, how):
    files = written(tmp_path / "in")
    spoiled(np.load(files["text"]), how, files["text"])
    kind, match = BAD_VECTORS[how]
    refused(tmp_path, files, match, kind)


BAD_POINTS = {
    "twice": ({"key": ["k1", "k1", *(f"k{i}" for i in range(2, N))]}, "key 'k1' occurs twice"),
    "missing key": ({"key": [None, *(f"k{i}" for i in range(1, N))]}, "'key' has 1 missing values, the first in row 0"),
    "empty key": ({"key": ["", *(f"k{i}" for i in range(1, N))]}, "key of row 0 is empty"),
    "split": ({"split": "dev"}, "split 'dev' is not one of train, validation, test"),
    "no test": ({"split": "train"}, "no sample of the split 'test'"),
    "group": ({"group": [None, *range(1, N)]}, "'group' has 1 missing values"),
    "present": ({"present_text": ["yes"] * N}, "'present_text' must be boolean"),
    "unknown present": ({"present_audio": True}, "'present_audio', but there are embeddings of image, text only"),
    "lists": ({"extra": [[1, 2]] * N}, "'extra' holds ndarray in row 0"),
    "bytes": ({"image": [b"png"] * N}, "'image' holds bytes in row 0"),
    "outside": ({"image": "../secret.png"}, "leads out of the folder"),
    "absolute": ({"image": "/etc/secret.png"}, "leads out of the folder"),
}


@pytest.mark.parametrize("how", BAD_POINTS)
def test_points_that_do_not_fit_are_refused(tmp_path, how):
    columns, match = BAD_POINTS[how]
    (tmp_path / "secret.png").write_bytes(b"not to be shown")
    refused(tmp_path, written(tmp_path / "in", **columns), match)


def test_missing_pictures_and_links_that_lead_out_are_refused(tmp_path):
    files = written(tmp_path / "in", image="a.png")
    refused(tmp_path, files, "40 of 40 files in column 'image' do not exist .* name their folder", FileNotFoundError)
    (tmp_path / "secret.png").write_bytes(b"not to be shown")
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "secret.png")
    refused(tmp_path, files, "leads out of the folder")


def test_damaged_points_and_unknown_suffixes_are_refused(tmp_path):
    files = written(tmp_path / "in")
    refused(tmp_path, {"image": files["image"]}, "two or more modalities")
    refused(tmp_path, {**files, "key": files["text"]}, "cannot be called 'key'")
    refused(tmp_path, {**files, "a-b": files["text"]}, "cannot have '-'")
    refused(tmp_path, {**files, "text": tmp_path / "in" / "text.pkl"}, "suffix '.pkl' is not one of")
    points = tmp_path / "in" / "points.parquet"
    points.write_bytes(points.read_bytes()[:-20])
    refused(tmp_path, files, "cannot be read as .parquet")
    with pytest.raises(ValueError, match="cannot be a file name"):
        imported(tmp_path, files, name="../up")


def test_an_import_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    files = written(tmp_path / "in")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        refused(tmp_path, files, "the disk is full", StoreError)
    assert imported(tmp_path, files).status == "complete"


values = st.one_of(
    st.none(), st.text(max_size=8), st.integers(-9, 9), st.floats(allow_nan=True), st.booleans(), st.binary(max_size=4)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.sampled_from(["key", "split", "group", "label", "caption", "image", "present_image", "other"]),
    cells=st.lists(values, min_size=5, max_size=5),
)
def test_any_column_is_stored_or_refused_with_a_sentence(tmp_path_factory, column, cells):
    tmp_path = tmp_path_factory.mktemp("any")
    files = written(tmp_path / "in", n=5)
    table = pd.DataFrame({"key": [f"k{i}" for i in range(5)]}).assign(**{column: pd.Series(cells, dtype=object)})
    try:
        table.to_parquet(tmp_path / "in" / "points.parquet")
    except (ValueError, TypeError, OverflowError, pa.ArrowException):  # there is no column of such a mixture
        return
    run, told = None, ""
    try:
        run = imported(tmp_path, files)
    except (ValueError, FileNotFoundError) as error:
        told = str(error)
    if run is None:
        assert str(tmp_path / "in" / "points.parquet") in told
        assert not list((tmp_path / "runs").glob("*"))
    else:
        assert run.points()["key"].is_unique
        assert len(run.points()) == 5
