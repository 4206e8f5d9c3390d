"""Attacks in the run store: by the configuration and by the command, resumed, honest in their samples, and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from labkit import attacked, robustness, stats
from labkit import run as runs
from labkit.attacked import Attacks, chosen_keys
from labkit.cli import app
from labkit.config import ConfigError, RunConfig
from labkit.encoders import ENCODERS
from labkit.encoders.raw_features import _loaded
from labkit.registry import UnknownNameError
from labkit.robustness import measure_attacks
from labkit.store import Run
from tests.toy_items import Toy

PIXELS, FEATURES = "pgd_linf_pixels", "pgd_linf_features"
QUICK: dict[str, Any] = {"severities": (1, 5)}


def config(variant: str = "cca", dataset: str = "toy_things", **attacks: Any) -> RunConfig:
    values = {
        "variant": variant,
        "data": {"dataset": dataset, "modalities": ["a", "b"] if dataset.endswith("npz") else ["image", "text"]},
        "evaluation": {"corruptions": [], "bootstrap": 100, "attacks": attacks},
    }
    return RunConfig.model_validate(values)


@pytest.fixture
def plain(toy: Toy, tmp_path: Path) -> Run:
    """A run without attacks: 23 test samples."""
    return runs.execute(config(), root=tmp_path / "runs")


@pytest.fixture
def labkit() -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["robustness", *(str(a) for a in arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def attacked_rows(run: Run, name: str):
    return run.scores().query("corruption == @name")


def test_the_configuration_and_the_command_store_the_same_rows(plain: Run, tmp_path: Path) -> None:
    """Pixels of pictures and features of words; each curve has its own severity 0, of the samples attacked."""
    whole = runs.execute(config(names=("pgd", "apgd_l2_features_targeted"), samples=9), root=tmp_path / "whole")
    found = measure_attacks(plain, ("pgd", "apgd_l2_features_targeted"), samples=9)
    assert (found.conditions, found.stored, found.skipped) == (4 * 3, 0, [])
    order = ["metric", "corruption", "corrupted", "severity"]
    by_command, by_run = (
        r.scores().query("corruption != 'none'").sort_values(order).reset_index(drop=True) for r in (plain, whole)
    )
    assert by_command["value"].to_numpy() == pytest.approx(by_run["value"].to_numpy(), abs=1e-6)
    assert by_command[order].equals(by_run[order])
    assert set(zip(by_run["corruption"], by_run["corrupted"], strict=True)) == {
        (PIXELS, "image"), (FEATURES, "text"), ("apgd_l2_features_targeted", "image"),
        ("apgd_l2_features_targeted", "text"),
    }  # fmt: skip
    assert set(by_run["severity"]) == {0, 1, 3, 5}
    assert set(by_run.query("metric == 'recall_at_10'")["n"]) == {9}
    assert (by_run["source"] == by_run["corrupted"]).all(), "the query is attacked, the gallery is clean"


def test_severity_0_is_the_clean_value_of_the_attacked_samples(plain: Run) -> None:
    found = measure_attacks(plain, [PIXELS], samples=5, **QUICK)
    clean = plain.field("recall_at_10", where={"corruption": "none", "source": "image"}).set_index("key")["value"]
    values = plain.field("recall_at_10", where={"corruption": PIXELS}).query("severity == 5")
    assert len(values) == 5
    expected = {0.0: clean[values["key"]].mean(), 5.0: values["value"].mean()}
    assert found.table.set_index("severity")["value"][[0.0, 5.0]].to_dict() == pytest.approx(expected)
    scores = plain.scores().assign(variant="cca", run=plain.id)
    curve = stats.seed_curves(scores, metric="recall_at_10", where={"corruption": PIXELS}).set_index("severity")
    assert curve["value"][[0.0, 5.0]].to_dict() == pytest.approx(expected)
    assert set(curve["n"]) == {5}
    fields = plain.field("recall_at_10").assign(variant="cca", seed=0, group=0)
    by_sample = stats.sample_curves(fields, where={"corruption": PIXELS})
    assert by_sample[0.0].mean() == pytest.approx(expected[0.0])


def test_what_is_there_is_not_measured_again_unless_of_fewer_samples(plain: Run, monkeypatch) -> None:
    measure_attacks(plain, [PIXELS], samples=6, **QUICK)
    before = attacked_rows(plain, PIXELS)
    made = []
    real = attacked.evaluate_attack
    monkeypatch.setattr(attacked, "evaluate_attack", lambda *a, **o: made.append(o["radii"]) or real(*a, **o))
    again = measure_attacks(plain, [PIXELS], samples=6, **QUICK)
    assert (again.conditions, again.stored, made) == (0, 2, [])
    assert measure_attacks(plain, [PIXELS], samples=4, **QUICK).stored == 2
    assert attacked_rows(plain, PIXELS).equals(before)
    more = measure_attacks(plain, [PIXELS], samples=6, severities=(1, 2))
    assert (more.conditions, more.stored, [len(radii) for radii in made]) == (1, 1, [2])
    measure_attacks(plain, [PIXELS], samples=8, severities=(3,))
    rows = attacked_rows(plain, PIXELS).query("metric == 'recall_at_10'")
    assert rows.set_index("severity")["n"].sort_index().to_dict() == dict.fromkeys((0.0, 1.0, 2.0, 3.0, 5.0), 8)


def test_an_interrupted_command_goes_on_where_it_was(plain: Run, monkeypatch) -> None:
    real, done = attacked.evaluate_attack, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(attacked, "evaluate_attack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_attacks(plain, [FEATURES], samples=6, **QUICK)
    monkeypatch.setattr(attacked, "evaluate_attack", real)
    found = measure_attacks(plain, [FEATURES], samples=6, **QUICK)
    assert (found.conditions, found.stored) == (2, 2)


def test_more_draws_are_other_starts_and_average_per_sample(plain: Run) -> None:
    measure_attacks(plain, ["pgd_l2_features"], samples=6, severities=(3,), modalities=["image"])
    found = measure_attacks(plain, ["pgd_l2_features"], samples=6, severities=(3,), draws=2, modalities=["image"])
    assert found.conditions == 2
    rows = attacked_rows(plain, "pgd_l2_features").query("metric == 'attack_success' and severity == 3")
    assert rows["corruption_seed"].tolist() == [0, 1]
    field = plain.field("attack_success").query("severity == 3")
    assert field["value"].mean() == pytest.approx(rows["value"].mean(), abs=1e-6)


def test_the_same_samples_are_attacked_whatever_the_variant_and_few_are_the_first_of_many(shared_latent) -> None:
    test = shared_latent(50, 2, missing=0.4)
    keys = chosen_keys(test, "image", 100)
    assert sorted(keys) == sorted(test.key[test.present["image"]])
    assert chosen_keys(test.take(np.arange(50)[::-1]), "image", 7) == keys[:7]


def test_pictures_that_cannot_be_read_are_left_out_and_told(plain: Run, toy: Toy) -> None:
    test = plain.points().query("split == 'test'")["key"].tolist()
    toy.damaged = set(test[:3])
    found = measure_attacks(plain, [PIXELS], **QUICK)
    assert set(found.table["n"]) == {len(test) - 3}
    assert [(one.modality, one.items) for one in found.skipped if one.items] == [("image", 3)]
    assert plain.info["skipped"][0]["items"] == 3


def test_without_raw_pictures_or_their_gradient_features_are_attacked_and_it_is_said(plain: Run, toy: Toy) -> None:
    _loaded.cache_clear()
    toy.missing = {"toy_pictures"}
    found = measure_attacks(plain, ["pgd"], samples=5, modalities=["image"], **QUICK)
    assert set(found.table["corruption"]) == {FEATURES}
    assert [(one.corruption, one.modality) for one in found.skipped] == [(PIXELS, "image")]
    with pytest.raises(ValueError, match=rf"nothing to measure of run .*{PIXELS} of image: .*weights"):
        measure_attacks(plain, [PIXELS], samples=5, modalities=["image"])


def test_an_encoder_without_a_gradient_is_named(plain: Run, monkeypatch) -> None:
    monkeypatch.delattr(ENCODERS.get("toy_pictures"), "features")
    with pytest.raises(ValueError, match=r"'toy_pictures' has no `features\(pixels\)`.* attack its features instead"):
        measure_attacks(plain, [PIXELS], samples=5)


def test_a_variant_without_a_gradient_is_skipped_and_told(plain: Run, monkeypatch) -> None:
    from labkit.variants.cca import CCA

    embed = CCA.embed
    monkeypatch.setattr(
        CCA, "embed", lambda self, data: embed(self, data.with_z({m: v.detach() for m, v in data.z.items()}))
    )
    with pytest.raises(ValueError, match=r"nothing to measure of run .*variant 'cca' has no gradient"):
        measure_attacks(plain, [FEATURES], samples=5, **QUICK)
    found = measure_attacks(plain, ["random_linf_features"], samples=5, **QUICK)
    assert found.conditions == 4, "noise needs none"


def test_own_features_are_attacked_without_raw_items(own_file: Path, tmp_path: Path) -> None:
    run = runs.execute(config(dataset=str(own_file), names=("pgd_l2",), samples=12), root=tmp_path)
    assert set(run.scores()["corruption"]) == {"none", "pgd_l2_features"}
    with pytest.raises(ConfigError, match=r"evaluation.attacks names pgd_linf_pixels, but .*mine.npz has no raw pict"):
        runs.resolve(config(dataset=str(own_file), names=("pgd_pixels",)))


def test_wrong_requests_are_answered(plain: Run) -> None:
    with pytest.raises(UnknownNameError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        measure_attacks(plain, ["pdg_l2"])
    with pytest.raises(UnknownNameError, match="unknown attack 'pdg'"):
        runs.resolve(config(names=("pdg",)))
    with pytest.raises(ValueError, match=r"asked to attack 500 samples, but 23 test samples of run .* of 'image'"):
        measure_attacks(plain, ["pgd"], samples=500)
    with pytest.raises(ValueError, match="severity must be one of .* got 0"):
        measure_attacks(plain, ["pgd"], severities=(0,))
    with pytest.raises(ValueError, match=r"nothing to measure .*text: its raw items are no pictures .*: pgd_linf_feat"):
        measure_attacks(plain, [PIXELS], modalities=["text"])


def test_samples_without_a_partner_are_not_counted(shared_latent) -> None:
    data = shared_latent(60, 2)
    lacking = data.with_z(data.z, {**data.present, "text": torch.arange(60) % 2 == 0})
    attacks = Attacks(data, lacking, samples=20)
    (condition,) = attacks.grid([FEATURES], severities=(1,), modalities=["image"])
    keys = set(chosen_keys(lacking, "image", 20))
    with_text = sum(bool(there) for key, there in zip(data.key, lacking.present["text"], strict=True) if key in keys)
    assert attacks.sizes(condition) == {"text": with_text}


def test_the_command_attacks_alone_or_beside_corruptions(plain: Run, labkit: Callable[..., Result]) -> None:
    where = ("--runs", plain.folder.parent)
    result = labkit("cca-s0", "--attack", "pgd,fgsm_l2_features", "--attacked", 6, "--severity", "2,4", *where)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["corruption", "corrupted", "direction", "0", "2", "4"]
    assert [line[:2] for line in lines[2:6]] == [
        [PIXELS, "image"], [FEATURES, "text"], ["fgsm_l2_features", "image"], ["fgsm_l2_features", "text"]
    ]  # fmt: skip
    assert "conditions: 8 measured, 0 stored before" in result.stdout
    both = labkit("cca-s0", "--attack", "pgd", "--attacked", 6, "--severity", 2, "--corruption", "toy_noise", *where)
    assert "conditions: 1 measured, 0 stored before" in both.stdout
    assert "conditions: 0 measured, 2 stored before" in both.stdout
    assert set(robustness._table(plain, [])["corruption"]) == set()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--attack", "pdg"), "unknown attack 'pdg'; did you mean 'pgd'"),
        (("--attacked", "5"), "--attacked is the number of samples of --attack; name an attack"),
        (("--attack", "pgd", "--attacked", "999"), "asked to attack 999 samples"),
        (("--attack", "pgd", "--severity", "9"), "severity must be one of"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, told, plain: Run, labkit: Callable[..., Result]) -> None:
    result = labkit("cca-s0", *arguments, "--runs", plain.folder.parent)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
