"""Evaluation: which rows there are, what their values and intervals are, and that corruption does what it should."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from labkit import imputation, variants
from labkit.conditions import canonical
from labkit.config import EvaluationConfig
from labkit.evaluate import CURVE_METRICS, FIELD_OF_CURVES, Evaluation, evaluate
from labkit.metrics import METRICS
from labkit.metrics.retrieval import recall_at_10
from labkit.store import FIELD_COLUMNS, SCORE_COLUMNS
from labkit.types import Embeddings

KEYS = ["metric", "source", "target", "corrupted", "corruption", "severity", "corruption_seed"]
NOT_DROPPED = [n for n in imputation.IMPUTATIONS if n not in ("others", "drop")]
FIELD_KEYS = ["key", "source", "target", "corrupted", "corruption", "severity"]


@pytest.fixture(scope="module")
def parts(shared_latent) -> tuple[Embeddings, Embeddings]:
    """Training and test samples of three modalities, two samples a caption group."""
    data = shared_latent(400, 3, group_size=2, noise=0.5)
    return data.take(range(280)), data.take(range(280, 400))


@pytest.fixture(scope="module")
def aligner(parts) -> variants.AlignerBase:
    """A closed form that aligns these samples well."""
    return variants.get("cca")({"dim": 8, "components": 24}).fit(parts[0], parts[0])


@pytest.fixture(scope="module")
def measured(aligner, parts) -> Evaluation:
    """Everything, on the clean and the corrupted test samples."""
    return evaluate(aligner, *parts, EvaluationConfig(corruption_seeds=2, bootstrap=200), seed=3)


def test_the_tables_are_those_of_the_store(measured):
    assert set(measured.scores.columns) == set(SCORE_COLUMNS)
    for field in measured.fields.values():
        assert set(field.columns) == set(FIELD_COLUMNS)
        assert not field.duplicated(FIELD_KEYS).any()
    assert not measured.scores.duplicated(KEYS).any()


def test_every_metric_is_measured_once_on_the_clean_samples(measured):
    clean = measured.scores[measured.scores["corruption"] == "none"]
    assert set(clean["metric"]) == set(METRICS.names())
    assert (clean["severity"] == 0).all()
    assert (clean["corrupted"] == "").all()
    directions = clean[clean["metric"] == "recall_at_10"]
    assert len(directions) == len(set(zip(directions["source"], directions["target"], strict=True))) == 6


def test_every_corruption_makes_its_curves(measured):
    curves = measured.scores[measured.scores["corruption"] != "none"]
    assert set(curves["metric"]) == set(CURVE_METRICS)
    # 3 corruptions x 3 modalities x 5 severities x 2 draws x 2 other modalities x 2 directions x metrics
    assert len(curves) == 3 * 3 * 5 * 2 * 2 * 2 * len(CURVE_METRICS)
    assert set(curves["severity"]) == {1, 2, 3, 4, 5}
    assert ((curves["source"] == curves["corrupted"]) | (curves["target"] == curves["corrupted"])).all()


def test_clean_values_are_those_of_the_metric(measured, aligner, parts):
    shared = aligner.embed(parts[1])
    clean = measured.scores[measured.scores["corruption"] == "none"].set_index(["metric", "source", "target"])
    for score in recall_at_10(shared, shared):
        row = clean.loc[("recall_at_10", score.source, score.target)]
        assert row["value"] == pytest.approx(score.value)
        assert (row["n"], row["chance"], row["higher_is_better"]) == (score.n, score.chance, True)
        assert row["value"] > 0.8, "the samples are easy"


def test_intervals_contain_the_value_and_say_what_they_are(measured):
    scores = measured.scores
    assert (scores["low"] <= scores["value"] + 1e-9).all()
    assert (scores["value"] <= scores["high"] + 1e-9).all()
    kinds = scores.groupby("metric")["interval"].agg(lambda kinds: set(kinds))
    assert kinds["recall_at_10"] == kinds["median_rank"] == {"95% bootstrap over groups"}
    assert kinds["cka"] == {"95% jackknife over 20 folds of groups"}
    assert (scores["low"] < scores["high"])[scores["metric"] == "cka"].all()


def test_the_interval_of_the_median_rank_is_no_point(aligner, parts):
    """A jackknife of a median is; the bootstrap moves over neighboring ranks."""
    train, test = parts
    noisy = test.with_z({m: z + 4 * torch.randn(z.shape, generator=seeded(1)) for m, z in test.z.items()})
    scores = evaluate(aligner, train, noisy, EvaluationConfig(corruptions=(), bootstrap=500), seed=0).scores
    ranks = scores[scores["metric"] == "median_rank"]
    assert len(ranks) == 6
    assert (ranks["low"] < ranks["value"]).all()
    assert (ranks["value"] < ranks["high"]).all()
    assert (ranks["high"] < 60).all()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mean_of_a_field_is_the_value(measured):
    scores = measured.scores.groupby(KEYS[:-1])["value"].mean()  # over the draws
    assert FIELD_OF_CURVES in measured.fields
    for name, field in measured.fields.items():
        center = "median" if name == "median_rank" else "mean"
        values = field.groupby(FIELD_KEYS[1:])["value"].agg(center)
        for where, value in values.items():
            assert value == pytest.approx(scores[(name, *where)], abs=2e-6), (name, where)
    assert set(measured.fields[FIELD_OF_CURVES]["severity"]) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("corruption", ["feature_noise", "feature_masking"])
def test_curves_fall(measured, corruption):
    rows = measured.scores.query("metric == 'mrr' and corruption == @corruption")
    curve = rows.groupby("severity")["value"].mean()
    assert curve[5] < 0.75 * curve[1]
    assert (curve.diff().dropna() < 0.03).all()


def test_equal_seeds_measure_alike_and_others_draw_other_corruptions(aligner, parts):
    config = EvaluationConfig(corruptions=("feature_noise",), corruption_seeds=1, bootstrap=100)
    first, again, other = (evaluate(aligner, *parts, config, seed=s).scores for s in (0, 0, 1))
    assert first.equals(again)
    noisy = first["corruption"] == "feature_noise"
    assert not first.loc[noisy, "value"].equals(other.loc[noisy, "value"])
    assert first.loc[~noisy, "value"].equals(other.loc[~noisy, "value"])


def test_no_corruptions_no_curves(aligner, parts):
    scores = evaluate(aligner, *parts, EvaluationConfig(corruptions=(), bootstrap=100), seed=0).scores
    assert set(scores["corruption"]) == {"none"}


def test_items_absent_from_the_start_are_neither_asked_nor_found(aligner, parts):
    train, test = parts
    partly = test.with_z(test.z, {**test.present, "text": torch.arange(120) >= 40})
    config = EvaluationConfig(corruptions=("missing_modality",), corruption_seeds=1, bootstrap=100)
    scores = evaluate(aligner, train, partly, config, seed=0).scores
    with_text = (scores["source"] == "text") | (scores["target"] == "text")
    recall = scores["metric"] == "recall_at_10"
    assert set(scores.loc[with_text & recall, "n"]) == {80}
    assert set(scores.loc[~with_text & recall, "n"]) == {120}


def test_severity_0_of_a_curve_would_be_the_clean_value(aligner, parts):
    """The curve asks the same samples of the same gallery, so it starts at the clean score."""
    shared = aligner.embed(parts[1])
    whole = imputation.others(shared)(shared, ("image", "text"))
    clean = {(s.source, s.target): s.value for s in recall_at_10(shared, shared)}
    for score in recall_at_10(whole, whole):
        assert score.value == clean[score.source, score.target]


@pytest.fixture(scope="module")
def imputed(aligner, parts) -> pd.DataFrame:
    """Recall@10 with half of the pictures lost, every imputation, and clean."""
    names = tuple(f"missing_modality+{name}" for name in imputation.IMPUTATIONS)
    config = EvaluationConfig(corruptions=tuple(map(canonical, names)), bootstrap=100)
    scores = evaluate(aligner, *parts, config, seed=3).scores
    return scores.query("metric == 'recall_at_10' and (corrupted == 'image' or corruption == 'none')")


def test_every_imputation_has_a_curve_of_the_same_samples(imputed):
    rows = imputed[(imputed["severity"] == 5) & (imputed["corruption"] != "missing_modality+drop")]
    assert set(rows["corruption"]) == {"missing_modality", *(f"missing_modality+{n}" for n in NOT_DROPPED)}
    assert set(rows["n"]) == {120}
    directions = rows.groupby("corruption")[["source", "target"]].apply(lambda r: set(r.itertuples(index=False)))
    assert len(set(map(frozenset, directions))) == 1
    mean = rows.groupby("corruption")["value"].mean()
    assert mean["missing_modality"] > mean["missing_modality+mean"] + 0.1
    assert mean["missing_modality+nearest"] > mean["missing_modality+mean"] + 0.1


def test_dropped_samples_shrink_n_and_the_gallery_and_raise_chance(imputed):
    """What is left are samples that have everything, and fewer to mistake one for."""
    dropped = imputed[imputed["corruption"] == "missing_modality+drop"]
    clean = imputed[imputed["corruption"] == "none"].set_index(["source", "target"])
    for direction, rows in dropped.groupby(["source", "target"]):
        rows = rows.sort_values("severity")
        assert (rows["n"].diff().dropna() < 0).all()
        assert 45 < rows["n"].iloc[-1] < 75
        assert (rows["chance"].diff().dropna() > 0).all()
        assert rows["chance"].iloc[-1] > 1.3 * clean.loc[direction, "chance"]
        assert (rows["value"] >= clean.loc[direction, "value"] - 0.02).all()


def test_a_lost_query_of_two_modalities_is_at_chance(shared_latent):
    """Nothing else is known of the sample, and its partner must not leak into the query."""
    data = shared_latent(300, 2)
    train, test = data.take(range(200)), data.take(range(200, 300))
    aligner = variants.get("cca")({"dim": 8, "components": 24}).fit(train, train)
    config = EvaluationConfig(corruptions=("missing_modality",), corruption_seeds=4, bootstrap=100)
    result = evaluate(aligner, train, test, config, seed=0)
    rows = result.scores.query("metric == 'recall_at_10' and corrupted == 'image' and source == 'image'")
    clean = result.scores.query("corruption == 'none' and metric == 'recall_at_10' and source == 'image'")[
        "value"
    ].item()
    for severity, share in ((1, 0.1), (3, 0.3), (5, 0.5)):
        found = rows[rows["severity"] == severity]["value"].mean()
        assert found == pytest.approx((1 - share) * clean + share * 0.1, abs=0.07)


def test_a_run_on_the_device_measures_alike(parts, device):
    train, test = parts
    config = EvaluationConfig(corruptions=("feature_noise",), corruption_seeds=1, bootstrap=100)
    there = variants.get("procrustes")({"dim": 8}, device=device).fit(train, train)
    here = variants.get("procrustes")({"dim": 8}).fit(train, train)
    first = evaluate(there, train.to(device), test.to(device), config, seed=0).scores
    second = evaluate(here, train, test, config, seed=0).scores
    assert all(math.isfinite(v) for v in first["value"])
    assert first["value"].to_numpy() == pytest.approx(second["value"].to_numpy(), abs=0.02)


@pytest.fixture(scope="module")
def with_tasks(aligner, parts) -> Evaluation:
    """Metrics and tasks, clean and under one corruption of features."""
    train, test = parts
    config = EvaluationConfig(corruptions=("feature_noise",), bootstrap=200)
    return evaluate(aligner, train, test, config, seed=3, validation=train.take(range(100)))


def test_tasks_are_measured_clean_and_corrupted(with_tasks):
    scores = with_tasks.scores
    for metric in (
        "fused_recall_at_10",
        "fused_mrr",
        "linear_probe_accuracy",
        "linear_probe_auc",
        "knn_probe_macro_f1",
    ):
        rows = scores[scores["metric"] == metric]
        assert set(rows["severity"]) == {0, 1, 2, 3, 4, 5}
        assert set(rows["corrupted"]) == {"", "image", "text", "speech_fr"}
    probe = scores[(scores["metric"] == "linear_probe_accuracy") & (scores["source"] == "image")]
    mean = probe[probe["corrupted"].isin(["", "text"]) & (probe["target"] == "text")].set_index("severity")["value"]
    assert mean[0] > mean[5]


def test_a_probe_is_scored_where_its_test_items_are_corrupted(with_tasks):
    rows = with_tasks.scores
    rows = rows[(rows["metric"] == "linear_probe_accuracy") & (rows["corrupted"] == "text")]
    everything = "image+text+speech_fr"
    assert set(zip(rows["source"], rows["target"], strict=True)) == {
        ("image", "text"), ("text", "text"), ("speech_fr", "text"), (everything, everything)
    }  # fmt: skip


def test_correctness_of_every_sample_is_kept(with_tasks):
    scores, field = with_tasks.scores, with_tasks.fields["linear_probe_accuracy"]
    where = {"source": "image", "target": "text", "corrupted": "text", "severity": 4}
    chosen = {c: (t[list(where)] == pd.Series(where)).all(axis=1) for c, t in (("s", scores), ("f", field))}
    (value,) = scores.loc[chosen["s"] & (scores["metric"] == "linear_probe_accuracy"), "value"]
    assert field.loc[chosen["f"], "value"].mean() == pytest.approx(value)


def test_without_validation_samples_there_are_no_tasks(measured):
    assert not measured.scores["metric"].str.contains("probe|fused").any()
