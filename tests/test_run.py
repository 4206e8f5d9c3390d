"""One run from data to a complete folder, for every variant; and what a run does when something is wrong."""

from __future__ import annotations

import errno
import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from labkit import run as runs
from labkit import variants
from labkit.config import ConfigError, RunConfig
from labkit.registry import UnknownNameError
from labkit.store import Store, StoreError
from labkit.variants import VARIANTS

QUICK = {"training": {"epochs": 2}, "evaluation": {"corruptions": [], "bootstrap": 100}}
CURVES = {"corruptions": ["feature_noise", "missing_modality"], "corruption_seeds": 1, "bootstrap": 100}


def config(**values: object) -> RunConfig:
    return RunConfig.model_validate(QUICK | values)


def own(path: Path, **values: object) -> RunConfig:
    return config(data={"dataset": str(path), "modalities": ["a", "b"]}, **values)


def check_complete(run: runs.Run, modalities: list[str]) -> None:
    """Everything that notebooks and dashboards read is there and fits together."""
    assert run.status == "complete"
    points, n = run.points(), run.info["n"]
    assert run.info["modalities"] == modalities
    assert set(points["split"]) == {"train", "validation", "test"}
    test = set(points.loc[points["split"] == "test", "key"])
    for m in modalities:
        z = run.embedding(m)
        assert len(z) == len(run.embedding(m, "raw")) == n
        norms = np.linalg.norm(z.astype(np.float64), axis=1)[points[f"present_{m}"]]
        np.testing.assert_allclose(norms, 1.0, atol=5e-3)
    scores = run.scores()
    recall = scores[(scores["metric"] == "recall_at_10") & (scores["corruption"] == "none")]
    assert set(zip(recall["source"], recall["target"], strict=True)) == {
        (a, b) for a in modalities for b in modalities if a != b
    }
    assert recall["value"].between(0, 1).all()
    assert ((recall["low"] <= recall["value"]) & (recall["value"] <= recall["high"])).all()
    field = run.field("recall_at_10", where={"corruption": "none"})
    assert set(field["key"]) <= test
    for (a, b), rows in field.groupby(["source", "target"]):
        value = recall.loc[(recall["source"] == a) & (recall["target"] == b), "value"].iloc[0]
        assert rows["value"].mean() == pytest.approx(value, abs=1e-5)
    assert set(run.projection("pca")["modality"]) == set(modalities)
    aligner = variants.load(run.folder / "checkpoints" / "aligner")
    assert list(aligner.modalities) == modalities


def recall(run: runs.Run) -> float:
    scores = run.scores()
    return float(scores.loc[scores["metric"] == "recall_at_10", "value"].mean())


@pytest.mark.parametrize("variant", VARIANTS.names())
def test_three_modalities_with_missing_items(variant: str, tmp_path: Path) -> None:
    data = {"modalities": ["image", "text", "speech_fr"], "missing": 0.3}
    run = runs.execute(config(variant=variant, data=data), root=tmp_path)
    check_complete(run, data["modalities"])
    assert len(run.history()) == (2 if issubclass(variants.get(variant), variants.Trained) else 0)


@pytest.mark.parametrize(
    ("variant", "modalities"),
    [
        ("procrustes", ["speech_es", "text"]),
        ("gotma", ["text", "image"]),
        ("cca", ["image", "text", "speech_fr", "speech_es"]),
        ("rma", ["image", "text", "speech_fr", "speech_es"]),
    ],
)
def test_two_and_four_modalities(variant: str, modalities: list[str], tmp_path: Path) -> None:
    check_complete(runs.execute(config(variant=variant, data={"modalities": modalities}), root=tmp_path), modalities)


def test_too_few_modalities_for_a_variant_are_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = config(variant="triangle", data={"modalities": ["image", "text"]})
    with pytest.raises(ValueError, match="'triangle' aligns 3 or more modalities; got .*add another one"):
        runs.resolve(asked)


def test_own_arrays_with_curves(own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_file.parent)
    run = runs.execute(own(Path(own_file.name), variant="cca", evaluation=CURVES), root=tmp_path)
    check_complete(run, ["a", "b"])
    points = run.points()
    assert points["key"].tolist() == [str(i) for i in range(150)]
    assert points[["a", "b"]].isna().all(axis=None)
    assert points["label"].unique().tolist() == ["other"]
    assert run.data_root == own_file.parent
    assert run.config["data"]["dataset"] == str(own_file), "a relative path means another file elsewhere"
    assert run.item_path("3", "a") is None
    scores = run.scores()
    curve = scores[(scores["corruption"] == "feature_noise") & (scores["metric"] == "recall_at_10")]
    assert sorted(curve["severity"].unique()) == [1, 2, 3, 4, 5]
    assert curve.groupby("severity")["value"].mean().loc[5] < curve.groupby("severity")["value"].mean().loc[1]


def test_labels_of_own_arrays(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(40, 4))
    names = np.array(["left", "right"] * 20)
    for stem, labels, expected in (
        ("names", names, {"left", "right"}),
        ("codes", np.arange(40) % 3 - 1, {"other", "0", "1"}),
    ):
        np.savez(tmp_path / f"{stem}.npz", a=z, b=z, label=labels)
        run = runs.execute(own(tmp_path / f"{stem}.npz", variant="procrustes"), root=tmp_path / "runs")
        assert set(run.points()["label"]) == expected


def test_a_complete_run_is_returned_and_made_anew_on_request(own_file: Path, tmp_path: Path) -> None:
    asked = own(own_file, variant="cca")
    first = runs.execute(asked, root=tmp_path)
    before = (first.folder / "run.json").stat().st_mtime_ns
    again = runs.execute(own(own_file, variant="cca", options={"ridge": 0.1} | first.config["options"]), root=tmp_path)
    assert again.id == first.id, "defaults written out are the same run"
    assert (first.folder / "run.json").stat().st_mtime_ns == before
    first.write_selection("mine", ["3"])
    finished = first.info["finished"]
    anew = runs.execute(asked, root=tmp_path, rerun=True)
    assert anew.status == "complete"
    assert anew.selection("mine") == ["3"]
    assert anew.info["created"] > finished


def test_runs_are_repeatable(own_file: Path, tmp_path: Path) -> None:
    a, b = (runs.execute(own(own_file, variant="clip"), root=tmp_path / name) for name in ("a", "b"))
    assert a.id == b.id
    np.testing.assert_array_equal(a.embedding("a"), b.embedding("a"))
    assert a.scores().equals(b.scores())


def test_a_changed_file_is_not_answered_with_old_results(own_file: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.npz"
    mine.write_bytes(own_file.read_bytes())
    first = runs.execute(own(mine, variant="cca"), root=tmp_path / "runs")
    before = recall(first)
    with np.load(own_file) as old:
        np.savez(mine, a=old["a"][::-1], b=old["b"])
    with pytest.raises(ValueError, match=rf"has changed since run {first.id} was made; make the run anew with --rerun"):
        runs.execute(own(mine, variant="cca"), root=tmp_path / "runs")
    anew = runs.execute(own(mine, variant="cca"), root=tmp_path / "runs", rerun=True)
    assert recall(anew) < 0.5 * before, "the pairs are scrambled now"
    mine.unlink()
    assert runs.execute(own(mine, variant="cca"), root=tmp_path / "runs").id == first.id


def test_a_run_that_raises_is_marked_and_taken_up_again(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = own(own_file, variant="clip")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.execute(asked, root=tmp_path)
    half = Store(tmp_path).open("clip")
    assert half.status == "failed"
    assert half.info["error"].startswith("KeyboardInterrupt")
    assert half.has("embeddings", "a", "final"), "what was computed stays"
    assert not half.has("scores")
    done = runs.execute(asked, root=tmp_path)
    check_complete(done, ["a", "b"])
    assert done.info["attempts"] == 2
    assert done.history()["step"].is_monotonic_increasing


def test_a_full_disk_is_one_sentence_and_the_run_can_be_finished(
    own_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, fsync = [], os.fsync

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full: free some space"):
            runs.execute(own(own_file, variant="cca"), root=tmp_path)
    half = Store(tmp_path).open("cca")
    assert not half.is_alive
    assert half.files
    for name in half.files:
        assert half.path(name).is_file()
    check_complete(runs.execute(own(own_file, variant="cca"), root=tmp_path), ["a", "b"])


def test_what_does_not_exist_is_named_before_anything_is_made(own_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    wrong = [
        (config(variant="clipp"), UnknownNameError, "'clip'"),
        (config(data={"dataset": "stmaps"}), UnknownNameError, "'stamps'"),
        (config(data={"modalities": ["image", "smell"]}), ValueError, "no modality 'smell'; it has image, text"),
        (config(evaluation=QUICK["evaluation"] | {"corruptions": ["feature_nois"]}), UnknownNameError, "feature_noise"),
        (config(options={"ridge": 1}), ConfigError, "unknown field 'ridge'"),
        (config(data={"dataset": "nowhere.npz", "modalities": ["a", "b"]}), FileNotFoundError, "nowhere.npz does not"),
        (
            own(own_file).model_copy(update={"data": config(data={"modalities": ["a b", "b"]}).data}),
            ValueError,
            "'a b'",
        ),
    ]
    for asked, error, sentence in wrong:
        with pytest.raises(error, match=sentence):
            runs.execute(asked, root=root)
    with pytest.raises(ValueError, match="device 'cuda:77' is not available here; use cpu"):
        runs.execute(own(own_file), root=root, device="cuda:77")
    with pytest.raises(ValueError, match="device 'gpu' is not available"):
        runs.pick_device("gpu")
    assert not root.exists()


def test_the_record_says_how_it_was_made(small_runs: Store) -> None:
    run = small_runs.open("clip-s1")
    assert run.config == json.loads(runs.stored_config(small_runs, "clip-s1").model_dump_json())
    assert runs.resolve(runs.stored_config(small_runs, "clip-s1")).run_id == run.id
    assert run.info["environment"]["torch"] == metadata.version("torch")
    assert set(run.info["git"]) in ({"commit", "dirty"}, set())
    assert run.data_root.name == "stamps"
    points = run.points()
    first = points.loc[points["present_image"], "key"].iloc[0]
    assert run.item_path(first, "image").suffix == ".webp"
    for name in ("umap", "tsne"):
        assert not run.has("projections", name)


def test_umap_is_added_where_there_are_points_enough(own_file: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, a=np.eye(12), b=np.eye(12))
    small = runs.execute(own(few, variant="procrustes"), root=tmp_path / "runs")
    large = runs.execute(own(own_file, variant="procrustes"), root=tmp_path / "runs")
    runs.add_umap([small, large])
    assert not small.has("projections", "umap")
    frame = large.projection("umap")
    assert len(frame) == 300
    assert frame["trust"].between(0, 1).all()
    before = (large.folder / "run.json").stat().st_mtime_ns
    runs.add_umap([large])
    assert (large.folder / "run.json").stat().st_mtime_ns == before
