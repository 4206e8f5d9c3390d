"""Claims: the shipped file, typos, effects by hand, and verdicts on synthetic tables with known truth."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from labkit import claims, results, study
from labkit.cli import app
from labkit.config import ConfigError
from labkit.evaluate import FIELDS_OF_CURVES
from labkit.metrics import METRICS
from labkit.stats import corrected_t_test
from labkit.stats.budget import MEASURES

SHARE = 0.3
ABOUT = {"id": "A-one", "proposal": "A", "section": "3", "words": "w", "hypothesis": "h", "study": "s", "margin": 0.02}
AGAINST_B = {"a": {"variant": "a"}, "b": {"variant": "b"}}


def one(**changes: Any) -> claims.Claims:
    given = {k: v for k, v in (ABOUT | changes).items() if v is not None}
    return claims.Claims.model_validate({"test_share": SHARE, "claims": [given]})


def scores(values: dict[str, np.ndarray], **about: Any) -> pd.DataFrame:
    """One row per method and seed, in two directions of which the second is 0.2 higher."""
    rows = []
    for (variant, column), (j, (a, b)) in product(values.items(), enumerate([("image", "text"), ("text", "image")])):
        for seed, value in enumerate(column):
            rows.append({"run": f"{variant}{seed}", "variant": variant, "metric": "recall_at_10", "source": a,
                         "target": b, "split": "test", "corrupted": "", "corruption": "none", "severity": 0.0,
                         "corruption_seed": 0, "seed": seed, "step": "final", "value": value + 0.2 * j, "n": 100 + seed,
                         "higher_is_better": True, **about})  # fmt: skip
    return pd.DataFrame(rows)


def row(stated: claims.Claims, table: pd.DataFrame) -> dict[str, Any]:
    return claims.evaluate(stated, {"s": table}).iloc[0].to_dict()


# ---------------------------------------------------------------- the shipped file


def test_the_shipped_claims_cover_the_three_proposals() -> None:
    shipped = claims.load()
    assert {c.proposal for c in shipped.claims} == {"A", "B", "C"}
    assert len(shipped.claims) >= 40
    assert shipped.test_share == pytest.approx(0.25 / 0.85, abs=1e-3)
    studies = {c.study for c in shipped.claims if c.study}
    assert {"baselines", "ablation-terms", "ablation-modalities", "few-pairs"} <= studies
    silent = [c for c in shipped.claims if c.not_tested]
    assert all(len(c.not_tested) > 15 for c in silent)


def test_without_results_nothing_is_tested() -> None:
    table = claims.evaluate(claims.load(), {})
    assert set(table["verdict"]) == {"not tested"}
    assert (table["reason"].str.len() > 10).all()


def foreseen(name: str, stated: claims.Claims) -> pd.DataFrame:
    """The score table that a shipped study will have, with random values: cells, axes, directions, corruptions."""
    planned = study.load(name)
    cells = study.cells(planned)
    modalities = sorted({m for p in planned.planned() for m in p.config.data.modalities})
    metrics = sorted({m for c in stated.claims if c.study == name for m in claims.metrics_of(c)})
    assert set(metrics) <= {*METRICS.names(), *MEASURES, *FIELDS_OF_CURVES}, f"no such metric among {metrics}"
    corrupted = (*planned.evaluation.corruptions, *planned.evaluation.attacks.names)
    fused = [("+".join(m for m in modalities if m != one), one) for one in modalities]
    conditions = [("none", 0.0), *((c, 3.0) for c in corrupted)]
    rest = [
        {"metric": m, "source": a, "target": b, "corruption": c, "severity": s, "corrupted": "" if c == "none" else b}
        for m, (c, s) in product(metrics, conditions)
        for a, b in (fused if m.startswith("fused") else permutations(modalities, 2))
    ]
    table = cells.merge(pd.DataFrame(rest), how="cross")
    about = {"chance": 0.01, "split": "test", "step": "final", "corruption_seed": 0, "n": 230, "higher_is_better": True}
    return table.assign(value=np.random.default_rng(0).uniform(0.1, 1, len(table)), **about)  # above chance


@pytest.mark.parametrize("name", sorted({c.study for c in claims.load().claims if c.study}))
def test_every_claim_finds_its_cells_in_the_study_it_names(name: str) -> None:
    stated = claims.load()
    table = claims.evaluate(stated, {name: foreseen(name, stated)})
    own = table[table["study"] == name]
    lost = own.loc[own["verdict"] == "not tested", ["id", "reason"]]
    assert lost.empty, lost.to_string()
    assert (own["seeds"] >= 5).all(), "fewer seeds than the design asks for"


# ---------------------------------------------------------------- effects by hand

RNG = np.random.default_rng(0)
A, B = RNG.normal(0.6, 0.02, size=6), RNG.normal(0.5, 0.02, size=6)


def test_a_difference_is_the_corrected_test_of_the_seeds() -> None:
    found = row(one(difference=AGAINST_B), scores({"a": A, "b": B}))
    test = corrected_t_test(A - B, test_share=SHARE)
    assert [found[c] for c in ("effect", "low", "high", "p")] == pytest.approx([test.mean, test.low, test.high, test.p])
    assert (found["verdict"], found["seeds"], found["n"]) == ("holds", 6, 100)
    assert found["effect_size"] == pytest.approx((A - B).mean() / (A - B).std(ddof=1))
    assert found["kind"] == "95% t over 6 seeds, corrected for overlapping splits"


def test_times_asks_for_more_than_equality() -> None:
    table = scores({"a": A, "b": B})
    found = row(one(difference=AGAINST_B | {"times": 1.1}), table)
    assert found["effect"] == pytest.approx(((A + 0.1) - 1.1 * (B + 0.1)).mean())


def test_directions_and_other_metrics() -> None:
    table = scores({"a": A, "b": B})
    table.loc[(table["variant"] == "a") & (table["source"] == "text"), "value"] += 5
    both = row(one(difference=AGAINST_B), table)["effect"]
    one_way = row(one(difference=AGAINST_B | {"measure": {"directions": [["image", "text"]]}}), table)["effect"]
    assert both - one_way == pytest.approx(2.5)


def test_not_worse_counts_so_that_more_is_better() -> None:
    stated = one(difference=AGAINST_B, expect="not worse")
    assert row(stated, scores({"a": A, "b": B}))["effect"] > 0
    lower = row(stated, scores({"a": A, "b": B}, higher_is_better=False))
    assert lower["effect"] == pytest.approx(-(A - B).mean())
    assert lower["verdict"] == "does not hold"


def test_share_of_clean_and_interaction() -> None:
    clean = scores({"a": A, "b": B})
    hurt = scores({"a": 0.5 * A, "b": 0.2 * B}, corruption="noise", severity=3.0, corrupted="image")
    table = pd.concat([clean, hurt], ignore_index=True)
    noise = {"corruption": "noise", "severity": 3}
    kept = row(one(difference=AGAINST_B | {"measure": noise | {"of_clean": True}}), table)["effect"]
    assert kept == pytest.approx(np.mean((0.5 * A + 0.1) / (A + 0.1) - (0.2 * B + 0.1) / (B + 0.1)))
    lead = row(one(interaction=AGAINST_B | {"here": noise, "there": {}}), table)["effect"]
    assert lead == pytest.approx(np.mean((0.5 * A - 0.2 * B) - (A - B)))


def test_what_is_kept_is_a_mean_over_curves() -> None:
    """Of v(0) = a over chance c, half is left at severity 1 and a quarter at 2: 9/16 of a curve, 1 of a flat one."""
    chance = 0.05
    c = {"chance": chance}
    parts = [scores({"a": A, "b": B}, **c)]
    for severity, left in ((1.0, 0.5), (2.0, 0.25)):
        for corruption, of_a in (("noise", left), ("blur", 1.0)):
            # the second direction is 0.2 higher, clean or not: scale what is above chance in both
            hurt = scores({"a": A, "b": B}, corruption=corruption, severity=severity, corrupted="image", **c)
            share = hurt["variant"].map({"a": of_a, "b": left})
            parts.append(hurt.assign(value=chance + share * (hurt["value"] - chance)))
    table = pd.concat(parts, ignore_index=True)
    found = row(one(difference=AGAINST_B | {"measure": {"kept_under": ["noise", "blur"]}}), table)
    assert found["effect"] == pytest.approx((9 / 16 + 1) / 2 - 9 / 16)
    assert row(one(difference=AGAINST_B | {"measure": {"kept_under": ["noise"]}}), table)["effect"] == pytest.approx(0)
    gone = row(one(difference=AGAINST_B | {"measure": {"kept_under": ["noise", "jpeg"]}}), table)
    assert (gone["verdict"], gone["reason"]) == ("not tested", "no curves under jpeg")
    with pytest.raises(ValueError, match="kept_under is over whole curves"):
        claims.Measure(kept_under=("noise",), severity=3)


def test_a_trend_is_the_slope_of_the_difference() -> None:
    levels = [1.0, 0.5, 0.1]
    parts = [scores({"a": A + 0.03 * i, "b": B}).assign(**{"data.pairs": p}) for i, p in enumerate(levels)]
    table = pd.concat(parts, ignore_index=True)
    found = row(one(trend=AGAINST_B | {"along": "data.pairs", "levels": levels}), table)
    assert found["effect"] == pytest.approx(0.03)
    alone = row(one(trend={"a": {"variant": "b"}, "along": "data.pairs", "levels": levels}), table)
    assert alone["effect"] == pytest.approx(0.0, abs=1e-12)
    gone = row(one(trend=AGAINST_B | {"along": "data.pairs", "levels": [*levels, 0.05]}), table)
    assert (gone["verdict"], gone["reason"]) == ("not tested", "no scores at data.pairs = 0.05")


def test_a_correlation_is_over_methods() -> None:
    rng = np.random.default_rng(0)
    quality = np.linspace(0, 1, 20)
    recall = {f"m{i:02d}": q + 0.02 * rng.normal(size=4) for i, q in enumerate(quality)}
    gap = {f"m{i:02d}": -q + 0.02 * rng.normal(size=4) for i, q in enumerate(quality)}
    table = pd.concat([scores(recall), scores(gap).assign(metric="modality_gap")], ignore_index=True)
    stated = {"correlation": {"x": {"metric": "modality_gap"}}, "margin": 0.3}
    found = row(one(**stated, expect="less"), table)
    truth = stats.spearmanr([v.mean() for v in gap.values()], [v.mean() for v in recall.values()]).statistic
    assert found["effect"] == pytest.approx(truth)
    assert (found["verdict"], found["methods"], found["seeds"]) == ("holds", 20, 4)
    assert row(one(**stated, expect="greater"), table)["verdict"] == "does not hold"
    left_out = {"correlation": {"x": {"metric": "modality_gap"}, "without": ["m00", "m19"]}}
    assert row(one(**stated | left_out, expect="less"), table)["methods"] == 18


# ---------------------------------------------------------------- what cannot be tested


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"study": "t"}, "study t has no results yet"),
        ({"difference": {"a": {"variant": "gram"}, "b": {"variant": "b"}}}, "no scores of 'recall_at_10' with variant"),
        ({"difference": AGAINST_B | {"measure": {"metric": "bleu"}}}, "no scores of 'bleu'; metrics are recall_at_10"),
        ({"difference": {"a": {"cell": "x"}, "b": {"cell": "y"}}}, "lacks the columns ['cell']"),
        ({"difference": None, "correlation": {"x": {"metric": "recall_at_10"}}}, "three or more methods"),
        ({"difference": None, "margin": None, "study": "", "not_tested": "needs people"}, "needs people"),
    ],
)
def test_reasons(changes: dict[str, Any], reason: str) -> None:
    found = row(one(**{"difference": AGAINST_B} | changes), scores({"a": A, "b": B}))
    assert found["verdict"] == "not tested"
    assert reason in found["reason"]


def test_one_seed_is_not_tested_and_never_undecided() -> None:
    found = row(one(difference=AGAINST_B), scores({"a": A[:1], "b": B}))
    assert (found["verdict"], found["reason"]) == (
        "not tested", "1 seed(s) have everything that is compared; two or more are needed"
    )  # fmt: skip


def test_untested_claims_do_not_count_in_the_family() -> None:
    tested = [ABOUT | {"id": f"A-{i}", "difference": AGAINST_B} for i in "pq"]
    silent = ABOUT | {"id": "A-r", "not_tested": "no such data in the lab"}
    silent = {k: v for k, v in silent.items() if k != "margin"}
    stated = claims.Claims.model_validate({"test_share": SHARE, "claims": [*tested, silent]})
    table = claims.evaluate(stated, {"s": scores({"a": A, "b": B})})
    np.testing.assert_allclose(table["p_holm"][:2], 2 * table["p"][:2])
    assert table["verdict"].tolist() == ["holds", "holds", "not tested"]


# ---------------------------------------------------------------- error rate and power


def simulated(effect: float, *, pairs: int = 40, seeds: int = 10) -> pd.DataFrame:
    """Verdicts of many pairs of methods whose true difference is `effect`, over overlapping splits of one data set."""
    rng = np.random.default_rng(0)
    rows = rng.random((seeds, 800)).argsort(axis=1)[:, :200]
    values: dict[str, np.ndarray] = {}
    for i in range(pairs):
        values[f"b{i}"] = rng.normal(0.5, 0.05, size=seeds)
        points = effect + 0.3 * rng.normal(size=800)
        values[f"a{i}"] = values[f"b{i}"] + points[rows].mean(axis=1) + 0.01 * rng.normal(size=seeds)
    stated = [
        ABOUT | {"id": f"A-{i}", "margin": 0.05, "difference": {"a": {"variant": f"a{i}"}, "b": {"variant": f"b{i}"}}}
        for i in range(pairs)
    ]
    file = claims.Claims.model_validate({"test_share": 0.294, "claims": stated})
    return claims.evaluate(file, {"s": scores(values)})


def test_error_rate_without_an_effect() -> None:
    table = simulated(0.0)
    assert (table["p"] < 0.05).mean() <= 0.05
    assert not (table["verdict"] == "holds").any(), "a family of 40 claims without effect"


def test_error_rate_against_an_effect_that_matters() -> None:
    table = simulated(0.05)
    assert not (table["verdict"] == "does not hold").any()


def test_power() -> None:
    assert (simulated(0.25)["verdict"] == "holds").mean() > 0.9
    assert (simulated(-0.2)["verdict"] == "does not hold").mean() > 0.9


# ---------------------------------------------------------------- files and command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margn": 1}, "unknown field 'claims.0.margn'; did you mean 'margin'"),
        ({"difference": {"a": {"variant": "a"}, "c": {}}}, "claims.0.difference.c"),
        ({"difference": AGAINST_B | {"measure": {"metrik": "mrr"}}}, "did you mean 'metric'"),
        ({"expect": "more"}, "field 'claims.0.expect' is 'more'"),
        ({"id": "B-one"}, "id begins with that letter"),
        ({"difference": None}, "needs a study, a margin and one of difference, interaction, trend, correlation"),
        ({"margin": None}, "needs a study, a margin"),
        ({"trend": AGAINST_B | {"along": "x", "levels": [1, 2]}}, "it has difference, trend"),
        ({"not_tested": "no data"}, "is not tested and has"),
        ({"margin": -1.0}, "claims.0.margin"),
    ],
)
def test_typos_are_answered_with_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {k: v for k, v in (ABOUT | {"difference": AGAINST_B} | changes).items() if v is not None}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"test_share": 0.3, "claims": [given]}))
    with pytest.raises(ConfigError, match="claims.yaml") as raised:
        claims.load(path)
    assert message in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file of claims .*nothing\.yaml"):
        claims.load(tmp_path / "nothing.yaml")
    path = tmp_path / "claims.yaml"
    path.write_text("- just\n- a list\n")
    with pytest.raises(ConfigError, match="must hold a mapping with the fields alpha, test_share, claims"):
        claims.load(path)
    path.write_text("a: [\n")
    with pytest.raises(ConfigError, match="is no valid YAML"):
        claims.load(path)
    twice = {"test_share": 0.3, "claims": [ABOUT | {"difference": AGAINST_B}] * 2}
    path.write_text(yaml.safe_dump(twice))
    with pytest.raises(ConfigError, match="two claims have the id 'A-one'"):
        claims.load(path)


def test_the_command_reads_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    table = scores({"a": A, "b": B})
    budgets = table.loc[table["source"] == "image", ["run", "variant", "seed"]].assign(
        train_seconds=2.0 + table["variant"].eq("a") + 0.01 * table["seed"], train_steps=10, epochs=2,
        peak_memory=1e6, parameters=5, earlier_seconds=0.0, total_seconds=3.0, best_epoch=1,
    )  # fmt: skip
    results.write("s", table, {"recall_at_10": table.assign(key="k", group=0)}, budgets=budgets)
    slower = {"id": "A-slower", "difference": AGAINST_B | {"measure": {"metric": "train_seconds"}}}
    silent = {k: v for k, v in ABOUT.items() if k != "margin"} | {"id": "A-people", "not_tested": "needs people"}
    path = tmp_path / "claims.yaml"
    content = [ABOUT | {"difference": AGAINST_B}, ABOUT | slower, silent]
    path.write_text(yaml.safe_dump({"test_share": 0.3, "claims": content}))
    done = CliRunner().invoke(app, ["claims", "--file", str(path)])
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.strip()}
    assert " holds " in lines["A-one"]
    assert f"{(A - B).mean():.3f}" in lines["A-one"]
    assert " 1.000 " in lines["A-slower"]
    assert "A-people: needs people" in done.output
    assert "2 holds, 1 not tested of 3 claims" in done.output
    assert "95% t over 6 seeds, corrected for overlapping splits" in done.output
    wrong = CliRunner().invoke(app, ["claims", "--proposal", "D"])
    assert wrong.exit_code == 2
    assert "--proposal is A, B or C; got 'D'" in wrong.output
