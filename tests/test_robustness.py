"""Corruptions added to stored runs: the rows that an evaluation with them would have, once, and only what was asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from labkit import report, robustness
from labkit import run as runs
from labkit.cli import app
from labkit.config import ConfigError, RunConfig
from labkit.corruptions.raw import RAW
from labkit.data import DATASETS
from labkit.encoders.raw_features import _loaded
from labkit.registry import UnknownNameError
from labkit.robustness import measure
from labkit.store import Run, Store
from tests.toy_items import NOISE, Toy

ROOT = Path(__file__).parents[1]
STUDY = """
import json, sys
import pytest
from labkit import run
from labkit.config import RunConfig
from tests.toy_items import registered
toy = registered(pytest.MonkeyPatch())
run.execute(RunConfig.model_validate_json(sys.argv[1]), root=sys.argv[2])
print(json.dumps(toy.encoded))
"""
ORDER = ["metric", "source", "target", "corrupted", "corruption", "severity", "corruption_seed"]
BOTH = ("toy_noise", "toy_lost_words")


def config(variant: str = "cca", *, data: dict[str, Any] | None = None, **evaluation: Any) -> RunConfig:
    values = {
        "variant": variant,
        "data": {"dataset": "toy_things", "modalities": ["image", "text"]} | (data or {}),
        "training": {"epochs": 3, "batch_size": 32},
        "evaluation": {"corruptions": [], "bootstrap": 100} | evaluation,
    }
    return RunConfig.model_validate(values)


def rows(run: Run) -> pd.DataFrame:
    return run.scores().sort_values(ORDER).reset_index(drop=True)


def fields(run: Run) -> pd.DataFrame:
    field = run.field("recall_at_10")
    return field.sort_values([c for c in field.columns if c != "value"]).reset_index(drop=True)


@pytest.fixture
def plain(toy: Toy, tmp_path: Path) -> Run:
    """A run without curves."""
    return runs.execute(config(), root=tmp_path / "runs")


@pytest.fixture
def labkit() -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["robustness", *(str(a) for a in arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.mark.parametrize("variant", ["cca", "clip"])
def test_a_run_gets_the_rows_that_it_would_have_been_made_with(variant: str, toy: Toy, tmp_path: Path) -> None:
    names = ("feature_noise", *BOTH)
    whole = runs.execute(config(variant, corruptions=names), root=tmp_path / "whole")
    run = runs.execute(config(variant), root=tmp_path / "runs")
    found = measure(run, names)
    assert (found.conditions, found.stored, found.skipped) == (4 * 5, 0, [])
    pd.testing.assert_frame_equal(rows(run), rows(whole), rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(fields(run), fields(whole))
    curve = found.table.query("corruption == 'toy_noise' and source == 'image'").set_index("severity")["value"]
    clean = run.scores().query("metric == 'recall_at_10' and corruption == 'none' and source == 'image'")["value"]
    assert curve.loc[0.0] == clean.item(), "severity 0 is the clean result"
    assert curve.loc[5.0] < curve.loc[0.0]


def test_by_default_all_raw_corruptions_that_fit(plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RAW.names():
        if name not in BOTH:
            monkeypatch.delitem(RAW._entries, name)
    found = measure(plain)
    assert set(zip(found.table["corruption"], found.table["corrupted"], strict=True)) == {
        ("toy_noise", "image"),
        ("toy_lost_words", "text"),
    }
    assert set(measure(plain, modalities=["text"]).table["corruption"]) == {"toy_lost_words"}


def test_what_is_there_is_not_measured_again(plain: Run, toy: Toy) -> None:
    measure(plain, BOTH, severities=(2, 4))
    before, toy.encoded = rows(plain), {}
    again = measure(plain, BOTH, severities=(2, 4))
    assert (again.conditions, again.stored) == (0, 4)
    more = measure(plain, BOTH, severities=(2, 3))
    assert (more.conditions, more.stored) == (2, 2)
    n_test = int((plain.points()["split"] == "test").sum())
    # 4 clean items at each call tell whether the encoder is the right one
    assert toy.encoded == {"toy_pictures": n_test + 8, "toy_words": n_test + 8}
    after = rows(plain)
    pd.testing.assert_frame_equal(after[after["severity"] != 3].reset_index(drop=True), before)


def test_more_draws_average_per_sample(plain: Run, toy: Toy, tmp_path: Path) -> None:
    measure(plain, ["toy_noise", "feature_noise"], severities=(3,))
    found = measure(plain, ["toy_noise", "feature_noise"], severities=(3,), draws=3)
    assert found.conditions == 9
    two = runs.execute(config(corruptions=("toy_noise", "feature_noise"), corruption_seeds=3), root=tmp_path / "other")
    at = lambda run: fields(run).query("severity == 3").reset_index(drop=True)  # noqa: E731
    pd.testing.assert_frame_equal(at(plain), at(two))
    assert measure(plain, ["toy_noise"], severities=(3,), draws=1).conditions == 0


def test_an_interrupted_command_goes_on_where_it_was(plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = robustness.curves, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(robustness, "curves", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(plain, BOTH)
    monkeypatch.setattr(robustness, "curves", real)
    found = measure(plain, BOTH)
    assert (found.conditions, found.stored) == (5, 5)


def test_the_run_says_what_was_left_out_until_it_is_measured(plain: Run, toy: Toy) -> None:
    _loaded.cache_clear()
    toy.missing, toy.damaged = {"toy_words"}, set(plain.points().query("split == 'test'")["key"][:2])
    found = measure(plain, BOTH)
    assert set(found.table["corruption"]) == {"toy_noise"}
    n_test = int((plain.points()["split"] == "test").sum())
    assert set(found.table.query("severity > 0")["n"]) == {n_test - 2}
    told = {(one["corruption"], one["modality"]): one["items"] for one in plain.info["skipped"]}
    assert told == {("", "text"): 0, ("toy_noise", "image"): 2}
    toy.missing = set()
    assert measure(plain, BOTH).skipped == []
    assert [one["modality"] for one in plain.info["skipped"]] == ["image"]


def test_a_corruption_of_which_no_item_can_be_read_has_no_rows(plain: Run, toy: Toy) -> None:
    toy.damaged = set(plain.points().query("split == 'test'")["key"])
    found = measure(plain, BOTH, severities=(1, 2))
    assert set(found.table["corruption"]) == {"toy_lost_words"}
    assert [(one.corruption, one.items) for one in found.skipped] == [("toy_noise", len(toy.damaged))]


def test_the_report_draws_curves_of_the_modalities_that_were_corrupted(plain: Run) -> None:
    measure(plain, BOTH, severities=(1, 5))
    page = report.write(Store(plain.folder.parent), [plain.id], title="toy", description="").read_text()
    assert "Robustness: other" in page
    assert "toy noise" in page
    assert "toy lost words" in page


def test_a_run_with_raw_corruptions_goes_on_without_a_modality_it_cannot_encode(toy: Toy, tmp_path: Path) -> None:
    toy.missing = {"toy_words"}
    with pytest.warns(UserWarning, match=r"corruptions of raw items of text: .*data\.encoders: \{text: toy_letters\}"):
        run = runs.execute(config(corruptions=BOTH), root=tmp_path)
    assert run.status == "complete"
    assert set(run.scores()["corruption"]) == {"none", "toy_noise"}
    assert run.info["skipped"][0]["modality"] == "text"


def test_processes_of_a_study_share_what_they_encode(tmp_path: Path) -> None:
    configs = [config(variant, corruptions=BOTH).model_dump_json() for variant in ("cca", "procrustes")]
    processes = [
        subprocess.Popen([sys.executable, "-c", STUDY, one, str(tmp_path / "runs")], stdout=subprocess.PIPE, cwd=ROOT)
        for one in configs
    ]
    encoded = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    done = Store(tmp_path / "runs").runs()
    assert {run.status for run in done} == {"complete"}
    n_test = int((done[0].points()["split"] == "test").sum())
    for name in ("toy_pictures", "toy_words"):
        checks = 2 * 4  # each process looks whether the encoder is the one that made the clean features
        assert sum(counts[name] for counts in encoded) == checks + 5 * n_test
    assert len(list((tmp_path / "labkit-cache").rglob("about.json"))) == 2 * 5


def test_runs_name_their_encoders_and_defaults_do_not_change_the_id(plain: Run, tmp_path: Path) -> None:
    assert plain.info["environment"]["encoders"] == {"image": "toy_pictures", "text": "toy_words"}
    assert "encoders" not in plain.config["data"]
    written = config(data={"encoders": {"text": "toy_words", "image": "toy_pictures"}})
    assert runs.resolve(written).run_id == plain.id
    letters = runs.execute(config(data={"encoders": {"text": "toy_letters"}}), root=tmp_path / "runs")
    assert letters.id != plain.id
    assert letters.info["environment"]["encoders"] == {"image": "toy_pictures", "text": "toy_letters"}
    assert not np.array_equal(letters.embedding("text", "raw"), plain.embedding("text", "raw"))
    assert measure(letters, ["toy_lost_words"], severities=(1,)).conditions == 1
    wrong = config(data={"encoders": {"text": "toy_leters"}})
    with pytest.raises(ConfigError, match=r"no features of 'text' by the encoder 'toy_leters'; did you mean 'toy_let"):
        runs.resolve(wrong)
    with pytest.raises(ConfigError, match=r"names 'sound', which is not among the modalities"):
        runs.resolve(config(data={"encoders": {"sound": "toy_letters"}}))


def test_a_run_of_other_features_is_refused(plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    things = DATASETS.get("toy_things")
    with monkeypatch.context() as patched:
        patched.setattr(things, "encoder_name", lambda _, m: {"image": "toy_pictures", "text": "toy_letters"}[m])
        with pytest.raises(ValueError, match="features of different encoders are not mixed: make the run anew"):
            measure(plain, ["toy_noise"])
    with monkeypatch.context() as patched:
        load = things.load
        patched.setattr(things, "load", lambda *a: (e := load(*a)).with_z({m: 2 * z for m, z in e.z.items()}))
        with pytest.raises(ValueError, match=r"has changed since it was made \(other features of 'image'\).*--rerun"):
            measure(plain, ["toy_noise"])
    monkeypatch.setattr(things.__init__, "__defaults__", (80,))
    with pytest.raises(ValueError, match=r"has changed since it was made \(90 samples then, 80 now"):
        measure(plain, ["toy_noise"])


def test_wrong_requests_are_answered(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'toy_noise'"):
        measure(plain, ["toy_nois"])
    with pytest.raises(ValueError, match="severity must be one of .* got 7"):
        measure(plain, ["toy_noise"], severities=(7,))
    with pytest.raises(ValueError, match="nothing to measure .*no modality of text has image items"):
        measure(plain, ["toy_noise"], modalities=["text"])
    half = Store(tmp_path).create("clip-s0-aa", name="clip", variant="clip", config={}, seed=0, data_root=".")
    with pytest.raises(ValueError, match="run clip-s0-aa is running; complete it first"):
        measure(half, ["toy_noise"])


def test_own_features_have_corruptions_of_features_alone(own_file: Path, tmp_path: Path, toy: Toy) -> None:
    data = {"dataset": str(own_file), "modalities": ["a", "b"]}
    with pytest.raises(ConfigError, match="names toy_noise, but .*mine.npz has no raw items to corrupt"):
        runs.resolve(config(data=data, corruptions=("toy_noise",)))
    run = runs.execute(config(data=data), root=tmp_path)
    assert measure(run, ["feature_masking"], severities=(5,)).conditions == 2
    with pytest.raises(ValueError, match="no raw items to corrupt: name corruptions of features"):
        measure(run)
    with pytest.raises(ValueError, match="nothing to measure .*no raw items to corrupt"):
        measure(run, ["toy_noise"])


def test_the_command_prints_curves_and_what_it_left_out(plain: Run, toy: Toy, labkit: Callable[..., Result]) -> None:
    toy.damaged = set(plain.points().query("split == 'test'")["key"][:1])
    where = ("--runs", plain.folder.parent)
    arguments = ("cca-s0", "--corruption", "toy_noise,feature_noise", "--severity", "1,5", *where)
    result = labkit(*arguments)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][0] == f"{plain.id}:"
    assert lines[1] == ["corruption", "corrupted", "direction", "0", "1", "5"]
    row = next(line for line in lines if line[:5] == ["toy_noise", "image", "image", "->", "text"])
    stored = plain.scores().query(
        "corruption == 'toy_noise' and source == 'image' and metric == 'recall_at_10' and severity == 5"
    )
    assert float(row[-1]) == pytest.approx(stored["value"].item(), abs=1e-3)
    assert "conditions: 6 measured, 0 stored before" in result.stdout
    assert "skipped: toy_noise of image: 1 item(s) left out: " in result.stderr
    assert "0 measured, 6 stored before" in labkit(*arguments).stdout


def test_the_command_goes_on_with_the_other_runs(plain: Run, labkit: Callable[..., Result], tmp_path: Path) -> None:
    other = runs.execute(config("procrustes"), root=tmp_path / "runs")
    shutil.rmtree(other.folder / "checkpoints")
    (other.folder / "scores.parquet").write_bytes(b"")
    asked = ("--corruption", "toy_noise", "--severity", "1", "--runs", tmp_path / "runs")
    result = labkit("procrustes-s0", "cca-s0", *asked)
    assert result.exit_code == 1
    assert "conditions: 1 measured" in result.stdout
    assert "scores.parquet is truncated or changed" in result.stderr
    assert "1 of 2 runs could not be measured" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), "no run 'nothing'"),
        (("cca-s0", "--corruption", "toy_noize"), "did you mean 'toy_noise'"),
        (("cca-s0", "--severity", "hard"), "--severity is 'hard'; give whole numbers from 1 to 5"),
        (("cca-s0", "--severity", "0"), "severity must be one of"),
        (("cca-s0", "--device", "abacus"), "device 'abacus' is not available here"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: tuple[str, ...], told: str, plain: Run, labkit: Callable[..., Result]
) -> None:
    result = labkit(*arguments, "--runs", plain.folder.parent)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_says_where_the_cache_is(labkit: Callable[..., Result]) -> None:
    told = " ".join(labkit("--help").stdout.replace("│", " ").split())
    assert "kept in $LABKIT_CACHE, or in labkit-cache/ beside the folder of the runs" in told


@pytest.mark.slow
def test_stored_runs_of_real_items(small_runs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RAW.names()
    monkeypatch.setitem(RAW._entries, "toy_noise", NOISE)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(small_runs.root, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    first = measure(store.open("cca-s0"), ["toy_noise"], severities=(5,))
    second = measure(store.open("clip-s0"), ["toy_noise"], severities=(5,))
    for found in (first, second):
        curve = found.table.query("source == 'image'").set_index("severity")["value"]
        assert curve.loc[5.0] < curve.loc[0.0]
    assert len(list((tmp_path / "cache").rglob("about.json"))) == 1, "encoded once for both variants"
