"""Runs on data that lacks items, is paired wrongly or shifts from training to test: from configuration to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from labkit import robustness, samples
from labkit import run as runs
from labkit.config import ConfigError, RunConfig
from labkit.registry import UnknownNameError
from labkit.store import Run, Store


def config(*, variant: str = "cca", corruptions: tuple[str, ...] = (), **data: Any) -> RunConfig:
    values = {
        "variant": variant,
        "data": {"modalities": ["image", "text"]} | data,
        "training": {"epochs": 3},
        "evaluation": {"corruptions": corruptions, "bootstrap": 100},
    }
    return RunConfig.model_validate(values)


def recall(run: Run, corruption: str = "none") -> pd.Series:
    scores = run.scores().query("metric == 'recall_at_10' and corruption == @corruption")
    return scores.groupby("severity")["value"].mean()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs that several tests look at; a complete one is not computed again."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On two modalities as they are, with items lost by label and two ways to go on."""
    names = ("missing_by_label+mean", "missing_by_label+drop")
    return runs.execute(config(corruptions=names), root=tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "data",
    [
        {"shuffled": 0.5},
        {"domain": {"train": "drawing", "test": "photo"}},
        {"domain": {"test_items": {"text": "text_fr"}}},
    ],
)
def test_what_makes_pairs_or_domains_worse_makes_retrieval_worse(data: dict[str, Any], root: Path) -> None:
    as_it_is = {"domain": {"train": "photo", "test": "photo"}} if "train" in data.get("domain", {}) else {}
    worse, better = (runs.execute(config(**d), root=root) for d in (data, as_it_is))
    assert float(recall(worse)[0]) < float(recall(better)[0]) - 0.1
    clean = {run.id: run.scores().query("metric == 'recall_at_10'")["chance"].to_list() for run in (worse, better)}
    assert clean[worse.id] == pytest.approx(clean[better.id], abs=2e-3), "the same test samples are asked"
    assert runs.resolve(runs.stored_config(Store(root), worse.id)).run_id == worse.id


def test_a_run_is_made_of_the_samples_of_its_domain(root: Path) -> None:
    run = runs.execute(config(domain={"train": "drawing", "test": "photo"}), root=root)
    points = run.points()
    kinds = points.groupby("split")["kind"].unique()
    assert {split: list(kind) for split, kind in kinds.items()} == {
        "train": ["drawing"],
        "validation": ["drawing"],
        "test": ["photo"],
    }
    assert len(run.embedding("text")) == len(points) == run.info["n"] < 950


def test_training_items_go_missing_by_label_and_validation_items_too() -> None:
    content = samples.load(config(missing=0.3, missing_by="label"))
    whole = samples.load(config())
    for name in ("train", "validation"):
        part, complete = getattr(content, name), getattr(whole, name)
        lost = sum(int((complete.present[m] & ~part.present[m]).sum()) for m in part.modalities)
        assert lost == round(0.3 * sum(int(p.sum()) for p in complete.present.values()))
    assert all(torch.equal(content.test.present[m], whole.test.present[m]) for m in whole.test.modalities)
    by_chance = samples.load(config(missing=0.3))
    assert not torch.equal(by_chance.train.present["image"], content.train.present["image"])


def test_missing_by_label_without_labels_is_refused_before_a_run_is_made(own_file: Path, tmp_path: Path) -> None:
    asked = config(dataset=str(own_file), modalities=["a", "b"], missing=0.2, missing_by="label")
    with pytest.raises(ValueError, match="items cannot be missing by label: the samples have no labels"):
        runs.execute(asked, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_shuffled_pairs_are_those_of_training_alone() -> None:
    content, whole = samples.load(config(shuffled=0.4)), samples.load(config())
    moved = (content.train.z["text"] != whole.train.z["text"]).any(dim=1)
    # things with one caption have one vector, and may have changed places
    assert 0.35 < float(moved.float().mean()) <= 0.4 + 1 / len(moved)
    assert torch.equal(content.train.z["image"], whole.train.z["image"])
    for name in ("validation", "test"):
        assert torch.equal(getattr(content, name).z["text"], getattr(whole, name).z["text"])


def test_few_pairs_are_cut_first_and_those_that_are_left_are_shuffled() -> None:
    cut, both = (samples.load(config(pairs=0.5, shuffled=s)).train for s in (0.0, 0.5))
    paired = cut.present["image"] & cut.present["text"]
    moved = (cut.z["text"] != both.z["text"]).any(dim=1)
    assert not (moved & ~paired).any()
    assert float(moved[paired].float().mean()) == pytest.approx(0.5, abs=0.06)


def test_curves_of_what_stands_in_for_lost_items_are_stored(plain: Run) -> None:
    mean, dropped = recall(plain, "missing_by_label+mean"), recall(plain, "missing_by_label+drop")
    assert set(mean.index) == set(dropped.index) == {1, 2, 3, 4, 5}
    assert (mean.diff().dropna() < 0).all()
    assert mean[5] < float(recall(plain)[0]) - 0.15, "nothing is known of the half that is lost"
    assert dropped[5] > mean[5] + 0.15, "complete samples in a smaller gallery are easier"
    fields = plain.field("recall_at_10")
    counts = fields.query("severity == 5").groupby("corruption")["key"].nunique()
    assert counts["missing_by_label+drop"] < counts["missing_by_label+mean"] == 238


def test_imputations_are_added_to_a_stored_run(plain: Run) -> None:
    names = ("missing_by_label+token", "missing_by_label+barycentric")
    found = robustness.measure(plain, names, severities=(3,), modalities=("image",))
    assert found.conditions == 2
    assert set(found.table["corruption"]) == set(names)
    assert set(plain.scores()["corruption"]) == {"none", "missing_by_label+mean", "missing_by_label+drop", *names}
    again = robustness.measure(plain, names, severities=(3,), modalities=("image",))
    assert (again.conditions, again.stored) == (0, 2)


def test_names_that_there_are_not_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown imputation 'barycentre'; did you mean 'barycentric'"):
        runs.resolve(config(corruptions=("missing_modality+barycentre",)))
    with pytest.raises(ConfigError, match=r"'feature_noise\+mean' names an imputation, but feature_noise loses no"):
        runs.resolve(config(corruptions=("feature_noise+mean",)))


def test_corrupted_raw_items_are_not_mixed_with_those_that_stand_in_at_test(tmp_path: Path) -> None:
    asked = config(domain={"test_items": {"text": "text_fr"}}, corruptions=("word_drop",))
    with pytest.warns(UserWarning, match="test samples have items of 'text_fr' for 'text' here"):
        run = runs.execute(asked, root=tmp_path)
    assert set(run.scores()["corruption"]) == {"none"}
    (skipped,) = run.info["skipped"]
    assert (skipped["modality"], skipped["items"]) == ("text", 0)


def test_ids_of_runs_that_ask_for_none_of_this_are_as_before() -> None:
    plainest = config()
    said = config(missing_by="chance", shuffled=0.0, domain={"train": "", "test": "", "test_items": {}})
    assert said.run_id == plainest.run_id
    assert "domain" not in plainest.model_dump(mode="json")["data"]
    # made before these fields and the option `tau` existed
    for variant, digest in (("ot", "31393e4246"), ("gotma", "4a40a9f0bc"), ("clip", "0ef13bfd3b")):
        assert runs.resolve(RunConfig(variant=variant)).run_id == f"{variant}-s0-{digest}"
    assert len({config(variant="ot", missing_by=by, missing=0.1).run_id for by in ("chance", "label")}) == 2
    relaxed = RunConfig(variant="ot", options={"solver": "unbalanced", "tau": 0.5})
    assert runs.resolve(relaxed).options["tau"] == 0.5
