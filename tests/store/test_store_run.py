"""What one run stores comes back, and pandas alone can read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labkit
from labkit.store import FIELD_COLUMNS, SCORE_COLUMNS, NotComputedError, Run
from labkit.store.names import check_name, check_step, resolve_inside

META = {"converged": False, "marginal_error": 0.2, "mass_kept": 0.75}
HOSTILE = ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "a b", "a\n", "é", "a@b", "-a", "C:"]


def test_points_come_back(run: Run, points: pd.DataFrame) -> None:
    run.write_points(points)
    read = run.points()
    assert read["key"].tolist() == points["key"].tolist()
    assert read["group"].tolist() == points["group"].tolist()
    assert read["image"].isna().tolist() == points["image"].isna().tolist()
    assert read["present_image"].dtype == bool
    assert run.info["n"] == len(points)
    assert run.info["modalities"] == ["image", "text"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop(columns="group"), "lacks .*'group'"),
        (lambda p: p.drop(columns="image"), "lacks .*'image'"),
        (lambda p: p.drop(columns=["present_image", "present_text"]), "present_<modality>"),
        (lambda p: p.assign(key="k"), "'k' occurs more than once"),
        (lambda p: p.assign(present_text=1), "present_text.*boolean"),
        (lambda p: p.iloc[:0], "empty"),
    ],
)
def test_bad_points_are_refused(
    run: Run, points: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run.write_points(change(points))
    assert not run.has("points")


def test_scores_merge_by_identity(run: Run, score: Callable[..., pd.DataFrame]) -> None:
    run.write_scores(pd.concat([score(value=0.1), score(metric="recall_at_1", value=0.2)]))
    run.write_scores(pd.concat([score(value=0.3), score(step=120, value=0.4), score(seed=1, value=0.5)]))
    read = run.scores()
    assert tuple(read.columns) == SCORE_COLUMNS
    assert dict(zip(zip(read["metric"], read["step"], read["seed"], strict=True), read["value"], strict=True)) == {
        ("recall_at_1", "final", 0): 0.2,
        ("mrr", "final", 0): 0.3,
        ("mrr", "120", 0): 0.4,
        ("mrr", "final", 1): 0.5,
    }
    assert read["chance"].isna().all()


def test_replace_drops_what_an_earlier_command_wrote(run: Run, score: Callable[..., pd.DataFrame]) -> None:
    noise = {"corruption": "noise", "corrupted": "image"}
    run.write_scores(pd.concat([score(), *(score(**noise, severity=s) for s in (1, 2, 3))]))
    run.write_scores(score(**noise, severity=1, value=0.9), replace={"corruption": "noise"})
    assert run.scores()[["corruption", "severity", "value"]].values.tolist() == [["none", 0, 0.5], ["noise", 1, 0.9]]
    run.write_scores(score(metric="new"), replace={})
    assert run.scores()["metric"].tolist() == ["new"]
    with pytest.raises(ValueError, match="no column"):
        run.write_scores(score(), replace={"kind": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns=["n", "chance"]), r"lacks \['n', 'chance'\]"),
        (lambda s: s.assign(extra=1), "unknown .*'extra'"),
        (lambda s: pd.concat([s, s]), "occur twice"),
        (lambda s: s.assign(severity=2), "neither clean"),
        (lambda s: s.assign(corrupted="image"), "neither clean"),
        (lambda s: s.assign(corruption="noise"), "neither clean"),
        (lambda s: s.assign(value="high"), "'value' of scores must be float64"),
        (lambda s: s.assign(seed=0.5), "'seed' of scores must be int64"),
        (lambda s: s.assign(n=None), "'n' of scores must be int64"),
    ],
)
def test_bad_scores_are_refused(
    run: Run,
    score: Callable[..., pd.DataFrame],
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    run.write_scores(score())
    with pytest.raises(ValueError, match=message):
        run.write_scores(change(score(metric="recall_at_1")))
    assert run.scores()["metric"].tolist() == ["mrr"]


def test_fields_merge_by_condition(run: Run, field: Callable[..., pd.DataFrame]) -> None:
    run.write_field("mrr", "final", pd.concat([field(0.1), field(0.2, "noise", 1)]))
    run.write_field("mrr", "final", pd.concat([field(0.3, "noise", 1).head(2), field(0.4, "noise", 2)]))
    read = run.field("mrr")
    assert tuple(read.columns) == FIELD_COLUMNS
    assert read.groupby("severity")["value"].agg(["count", "mean"]).round(3).values.tolist() == [
        [6, 0.1],
        [2, 0.3],
        [6, 0.4],
    ]
    assert len(run.field("mrr", where={"corruption": "noise", "severity": 1})) == 2
    with pytest.raises(ValueError, match="no column"):
        run.field("mrr", where={"level": 1})
    with pytest.raises(ValueError, match="occur twice"):
        run.write_field("mrr", "final", pd.concat([field(), field()]))


def test_the_last_step_is_read_unless_another_is_asked_for(run: Run, field: Callable[..., pd.DataFrame]) -> None:
    for step, value in ((20, 0.2), (100, 1.0), ("final", 0.5)):
        run.write_field("mrr", step, field(value))
        assert run.field("mrr")["value"].iloc[0] == value
    assert run.field("mrr", 20)["value"].iloc[0] == np.float32(0.2)
    assert run.steps("fields") == {"mrr": ["20", "100", "final"]}
    assert run.has("fields", "mrr", 100)
    assert not run.has("fields", "mrr", 101)
    assert not run.has("fields", "recall")


@pytest.mark.parametrize("float16", [True, False])
def test_embeddings_come_back_memory_mapped(run: Run, points: pd.DataFrame, float16: bool) -> None:
    run.write_points(points)
    vectors = np.random.default_rng(0).normal(size=(len(points), 4)).astype(np.float32)
    run.write_embedding("image", "raw", vectors, float16)
    read = run.embedding("image", "raw")
    assert isinstance(read, np.memmap)
    assert read.dtype == (np.float16 if float16 else np.float32)
    np.testing.assert_allclose(read, vectors, rtol=2**-10 if float16 else 0)
    assert (run.folder / "embeddings" / "image@raw.npy").is_file()
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1.0
    assert not isinstance(run.embedding("image", "raw", mmap_mode=None), np.memmap)


def test_values_too_large_for_half_precision_stay_finite(run: Run, points: pd.DataFrame) -> None:
    run.write_points(points)
    vectors = np.full((len(points), 2), 1e5)
    run.write_embedding("image", "final", vectors)
    np.testing.assert_array_equal(run.embedding("image"), vectors)


def test_rows_of_an_embedding_must_be_the_points(run: Run, points: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="write the points"):
        run.write_embedding("image", "final", np.ones((6, 2)))
    run.write_points(points)
    for wrong in (np.ones((5, 2)), np.ones(6), np.ones((6, 2), dtype=int), np.full((6, 2), None)):
        with pytest.raises(ValueError, match=r"floats of shape \[6, d\]"):
            run.write_embedding("image", "final", wrong)


def test_projections_couplings_and_selections_come_back(run: Run, points: pd.DataFrame) -> None:
    picture = pd.DataFrame({"key": points["key"], "modality": "image", "x": 1.5, "y": 2.5, "trust": np.nan})
    run.write_projection("pca", 10, picture)
    pd.testing.assert_frame_equal(run.projection("pca"), picture, check_dtype=False)
    coupling = pd.DataFrame({"row_key": ["k0", "k1"], "col_key": ["k1", "k0"], "mass": [0.25, 0.5]})
    run.write_coupling("image", "text", "sinkhorn", 1e-5, "final", coupling, META)
    run.write_coupling("image", "text", "sinkhorn", 0.05, "final", coupling, META)
    table, meta = run.coupling("image", "text", "sinkhorn", 0.05)
    pd.testing.assert_frame_equal(table, coupling, check_dtype=False)
    assert meta == META | {"source": "image", "target": "text", "solver": "sinkhorn", "epsilon": 0.05, "step": "final"}
    assert sorted(run.couplings()["epsilon"]) == [1e-5, 0.05]
    with pytest.raises(ValueError, match="meta of a coupling lacks .*'converged'"):
        run.write_coupling("image", "text", "sinkhorn", 0.05, "final", coupling, {})
    with pytest.raises(ValueError, match="cannot have '-'"):
        run.write_coupling("image-x", "text", "sinkhorn", 0.05, "final", coupling, META)
    run.write_selection("fails.at-3", ["k3", "k1"])
    assert run.selection("fails.at-3") == ["k3", "k1"]
    assert run.selections() == ["fails.at-3"]


def test_what_is_absent_names_the_command(run: Run) -> None:
    readers = (
        run.points, run.scores, run.history, lambda: run.field("mrr"), lambda: run.embedding("image"),
        lambda: run.projection("umap"), lambda: run.coupling("a", "b", "s", 0.1), lambda: run.selection("x"),
        lambda: run.path("report.ipynb"),
    )  # fmt: skip
    for read in readers:
        with pytest.raises(NotComputedError, match="still running"):
            read()
    run.complete()
    for read in readers:
        with pytest.raises(NotComputedError, match=f"not computed: `labkit (run|project|diagnose) {run.id}"):
            read()
    with pytest.raises(NotComputedError, match=f"its projections: none.; not computed: `labkit project {run.id}`"):
        run.projection("umap")
    with pytest.raises(NotComputedError, match=f"scores.parquet; not computed: `labkit run {run.id} --rerun`"):
        run.scores()
    assert run.couplings().empty
    assert run.selections() == []


def test_the_log_keeps_the_last_attempt_of_a_step(run: Run, start: Callable[..., Run]) -> None:
    for step in range(4):
        run.log({"step": step, "loss": np.float32(1.0), "attempt": 1})
    run.fail("interrupted")
    again = start()
    again.log({"step": 2, "loss": float("nan"), "attempt": 2})
    again.log({"step": 3, "loss": 0.5, "attempt": 2})
    history = again.history()
    assert history[["step", "attempt"]].values.tolist() == [[0, 1], [1, 1], [2, 2], [3, 2]]
    assert np.isnan(history["loss"].iloc[2])
    with pytest.raises(TypeError, match="cannot store object"):
        again.log({"step": 5, "loss": object()})


def test_registered_files_are_listed(run: Run, tmp_path: Path) -> None:
    file = run.checkpoint_path("aligner.safetensors")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run.register(file)
    file.write_bytes(b"weights")
    assert not run.has("checkpoints")
    run.register(file)
    assert run.path("checkpoints/aligner.safetensors").read_bytes() == b"weights"
    (run.folder / "report.ipynb").write_text("{}")
    run.register("report.ipynb")
    assert run.has("report.ipynb")
    outside = tmp_path / "secret"
    outside.write_text("x")
    (run.folder / "link").symlink_to(outside)
    for path in (outside, "../../secret", run.folder / "link"):
        with pytest.raises(ValueError, match="leads out of"):
            run.register(path)


def test_items_stay_below_the_data_folder(run: Run, points: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (run.folder / "pictures").mkdir()
    (run.folder / "pictures" / "0.webp").write_bytes(b"picture")
    (run.folder / "pictures" / "link.webp").symlink_to(tmp_path / "secret")
    items = ["pictures/0.webp", "../../secret", str(tmp_path / "secret"), "pictures/link.webp", "pictures/gone", None]
    run.write_points(points.assign(image=items))
    path = run.item_path("k0", "image")
    assert path is not None
    assert path.read_bytes() == b"picture"
    for key in ("k1", "k2", "k3"):
        with pytest.raises(ValueError, match="leads out of"):
            run.item_path(key, "image")
    with pytest.raises(FileNotFoundError, match="put the data back"):
        run.item_path("k4", "image")
    assert run.item_path("k5", "image") is None
    with pytest.raises(ValueError, match="no sample 'k9'"):
        run.item_path("k9", "image")
    with pytest.raises(ValueError, match="no modality 'sound'.*'image', 'text'"):
        run.item_path("k0", "sound")


def test_bundled_data_are_found_wherever_labkit_is(run: Run) -> None:
    with run._manifest.change() as info:
        info["data_root"] = "bundle:stamps"
    assert run.data_root == Path(labkit.__file__).parent / "data" / "bundles" / "stamps"
    with run._manifest.change() as info:
        info["data_root"] = "bundle:../../secrets"
    with pytest.raises(ValueError, match="cannot be a file name"):
        _ = run.data_root


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(
    run: Run, points: pd.DataFrame, field: Callable[..., pd.DataFrame], name: str
) -> None:
    run.write_points(points)
    before = sorted(run.folder.parent.rglob("*"))
    for use in (
        lambda: run.write_embedding(name, "final", np.ones((6, 2))),
        lambda: run.embedding(name),
        lambda: run.write_field(name, "final", field()),
        lambda: run.write_selection(name, ["k0"]),
        lambda: run.selection(name),
        lambda: run.checkpoint_path(name),
        lambda: run.projection(name, "final"),
    ):
        with pytest.raises(ValueError, match="cannot be a file name"):
            use()
    after = [p for p in sorted(run.folder.parent.rglob("*")) if p.name != "checkpoints"]
    assert after == before


@pytest.mark.parametrize("step", ["last", "", "-1", -1, "1.5", 1.5, True, "../1", None])
def test_unknown_steps_are_refused(step: object) -> None:
    with pytest.raises(ValueError, match="step .* is unknown"):
        check_step(step)  # type: ignore[arg-type]


@given(st.text(max_size=12))
def test_a_name_is_one_plain_part_of_a_path(name: str) -> None:
    root = Path("/somewhere")
    try:
        check_name(name, "name")
    except ValueError:
        return
    path = Path(f"{root}/{name}@final.npy")
    assert path.parent == root
    assert not path.name.startswith(".")
    assert name.isascii()


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "/", ""]), max_size=8))
def test_a_resolved_item_is_below_its_root(parts: list[str]) -> None:
    root = Path("/somewhere/data")
    try:
        path = resolve_inside(root, "/".join(parts))
    except ValueError:
        return
    assert path == root or root in path.parents


def test_pandas_and_json_alone_read_a_run(
    run: Run, points: pd.DataFrame, score: Callable[..., pd.DataFrame], field: Callable[..., pd.DataFrame]
) -> None:
    run.write_points(points)
    run.write_scores(score())
    run.write_field("mrr", "final", field())
    run.write_embedding("text", "final", np.ones((6, 2)))
    record = json.loads((run.folder / "run.json").read_text())
    assert [entry["name"] for entry in record["files"]] == [
        "embeddings/text@final.npy", "fields/mrr@final.parquet", "points.parquet", "scores.parquet",
    ]  # fmt: skip
    assert all((run.folder / e["name"]).stat().st_size == e["size"] for e in record["files"])
    assert len(pd.read_parquet(run.folder / "points.parquet")) == 6
    assert pd.read_parquet(run.folder / "scores.parquet")["value"].tolist() == [0.5]
    assert len(pd.read_parquet(run.folder / "fields" / "mrr@final.parquet")) == 6
    assert np.load(run.folder / "embeddings" / "text@final.npy").shape == (6, 2)
