"""The code in README and CONTRIBUTING does what the text around it says."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from labkit import run, variants
from labkit.cli import app
from labkit.config import ConfigError, RunConfig, TrainingConfig
from labkit.data.pairing import unpair
from labkit.losses import LOSSES
from labkit.store import Store
from labkit.variants import VARIANTS

ROOT = Path(__file__).parents[2]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.S)


def _section(heading: str) -> str:
    """The README from a heading to the next of its rank."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^{heading}$(.*?)(?=^## |\Z)", text, flags=re.S | re.M)[1]


def test_readme_aligns_two_arrays_of_ones_own(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    latent = random.normal(size=(200, 8))
    np.save(tmp_path / "image.npy", latent @ random.normal(size=(8, 40)))
    np.save(tmp_path / "text.npy", latent @ random.normal(size=(8, 30)))
    monkeypatch.chdir(tmp_path)
    block, *_ = python_blocks("README.md")
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["image -> text", "text -> image"]
    assert all(float(re.search(r": ([\d.]+)", line)[1]) > 0.8 for line in lines)
    assert len(block.strip().splitlines()) <= 10


def test_readme_transports_two_clouds(capsys):
    _, block, _ = python_blocks("README.md")
    torch.manual_seed(0)
    exec(compile(block, "README.md", "exec"), {})
    solved, mapped, loss = capsys.readouterr().out.splitlines()
    assert solved.startswith("converged: True")
    assert float(re.search(r"error (\S+),", solved)[1]) <= 1e-5
    assert mapped.endswith("(10, 8)")
    # both clouds are normal with equal spread, one apart in each of 8 axes: 8 in theory, more in samples of this size
    assert 7 < float(re.search(r"divergence ([\d.]+)", loss)[1]) < 11
    assert len(block.strip().splitlines()) <= 10


def test_readme_diagnoses_a_turned_copy(capsys):
    *_, block = python_blocks("README.md")
    exec(compile(block, "README.md", "exec"), {})
    found = capsys.readouterr().out.splitlines()
    assert found[0].startswith("Copy up to rotation, shift and scale: text is image up to rotation")
    assert len(block.strip().splitlines()) <= 10


def test_readme_runs_on_data_that_is_worse(tmp_path):
    (block,) = re.findall(r"```sh\n(.*?)```", _section("## Robustness"), flags=re.S)
    for line in block.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "labkit"
        quick = ["--training", "epochs=1"] if "ot" in arguments else []
        result = CliRunner().invoke(app, [*arguments, *quick, "--runs", str(tmp_path)])
        assert result.exit_code == 0, result.output
    by_label, unbalanced, shifted = (Store(tmp_path).open(name) for name in ("cca", "ot", "procrustes"))
    assert set(by_label.scores()["corruption"]) >= {"missing_modality", "missing_modality+barycentric"}
    assert by_label.config["data"]["missing_by"] == "label"
    assert unbalanced.config["data"]["shuffled"] == 0.2
    assert unbalanced.config["options"]["tau"] == 0.5
    kinds = shifted.points().groupby("split")["kind"].unique().map(list).to_dict()
    assert kinds == {"train": ["drawing"], "validation": ["drawing"], "test": ["photo"]}


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """The files of CONTRIBUTING.md in a folder where the registries discover them; gone afterwards."""
    added = {LOSSES: "labkit.losses", VARIANTS: "labkit.variants"}
    for (registry, package), block in zip(added.items(), python_blocks("CONTRIBUTING.md"), strict=True):
        assert f"saved as `{package.replace('.', '/')}/energy.py`" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
        folder = tmp_path / package
        folder.mkdir()
        (folder / "energy.py").write_text(block, encoding="utf-8")
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
        monkeypatch.setattr(registry, "_discovered", False)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    yield
    for package in added.values():
        sys.modules.pop(f"{package}.energy", None)
        vars(sys.modules[package]).pop("energy", None)


def test_contributing_adds_a_loss_in_one_file(grown):
    energy = LOSSES.get("energy")
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert energy(x, x) == 0
    mean = lambda a, b: np.mean([np.linalg.norm(u - v) for u in a.numpy() for v in b.numpy()])
    expected = 2 * mean(x, 2 * x) - mean(x, x) - mean(2 * x, 2 * x)
    assert float(energy(x, 2 * x)) == pytest.approx(expected)


def test_contributing_adds_a_variant_in_one_file_that_trains_and_is_evaluated(grown, own_file, tmp_path):
    values = {
        "data": {"dataset": str(own_file), "modalities": ["a", "b"]},
        "variant": "energy",
        "options": {"w_energy": 2.0, "dim": 16},
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.02},
        "evaluation": {"corruptions": [], "bootstrap": 100},
    }
    stored = run.execute(RunConfig.model_validate(values), root=tmp_path / "runs")
    assert stored.status == "complete"
    assert {"contrastive", "energy", "validation"} <= set(stored.history())
    scores = stored.scores()
    recall = scores[scores["metric"] == "recall_at_10"]
    assert (recall["value"] > recall["chance"] + 0.3).all()


def test_contributing_says_which_table_of_the_contract_its_variant_joins(grown, shared_latent):
    data = shared_latent(60)
    alone = data.with_z(data.z, {"image": torch.arange(60) < 30, "text": torch.arange(60) >= 30})
    energy = variants.get("energy")({"dim": 8}, training=TrainingConfig(epochs=1)).fit(alone, data)
    assert set(energy.terms(alone)) == {"energy"}
    with pytest.raises(ConfigError, match=r"variant 'energy': w_contrastive is 0.*allow_collapse"):
        variants.get("energy")({"w_contrastive": 0})


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [t for t in targets if not (ROOT / t).exists()] == []


def variant_rows() -> dict[str, list[str]]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Variants\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_readme_lists_every_variant_and_no_other():
    assert sorted(variant_rows()) == VARIANTS.names()


@pytest.mark.filterwarnings("ignore::labkit.train.CollapseWarning")  # after one epoch
def test_readme_says_who_learns_without_pairs(shared_latent):
    data, told = shared_latent(60, 3), variant_rows()
    for name in VARIANTS.names():
        aligner = variants.get(name)(training=TrainingConfig(epochs=1))
        try:
            aligner.fit(unpair(data, 0, seed=0), data)
        except ValueError:
            assert told[name][2] == "no", name
        else:
            assert told[name][2] in ("yes", "–"), name


def test_the_results_in_the_readme_are_the_committed_ones():
    from labkit import results, stats

    scores, fields = results.read("quickstart")
    text = _section("## Results")
    table = {
        line.split("|")[1].strip(" `"): line.split("|") for line in text.splitlines() if "], " in line or "] |" in line
    }
    for column, source in ((2, "image"), (3, "speech_fr")):
        board = stats.leaderboard(scores, fields, metric="recall_at_10", source=source, target="text")
        assert set(board["variant"]) == set(table)
        for row in board.itertuples():
            told = f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
            assert table[str(row.variant)][column].strip() == told


def test_the_claims_in_the_readme_have_the_verdicts_of_the_committed_results():
    from labkit import claims

    text = _section("## Claims")
    stated = claims.load()
    found = claims.evaluate(stated, claims.committed(stated)).set_index("id")
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) >= 8
    for _, name, _, verdict, effect, _ in rows:
        row = found.loc[name.strip("`")]
        assert (verdict, effect) == (row["verdict"], f"{row.effect:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"), name
    counts = found["verdict"].value_counts()
    told = re.findall(r"(\d+) (hold|do not hold|are undecided|are not tested)", text)
    verdicts = {"hold": "holds", "do not hold": "does not hold", "are undecided": "undecided"}
    assert {verdicts.get(words, "not tested"): int(n) for n, words in told} == counts.to_dict()


def test_what_is_kept_in_the_readme_is_what_the_committed_curves_give():
    from labkit import results, stats
    from labkit.claims import load

    share = load().test_share
    scores = stats.fully_measured(results.read("robustness")[0])
    scores = scores[~scores["corruption"].str.startswith("missing")]
    numbers = stats.curve_numbers(stats.seed_curves(scores, metric="recall_at_10"))
    kept = stats.over_all(numbers)[["corruption", "corrupted", "method", "seed", "kept"]]
    means = stats.summarize_numbers(kept, test_share=share).set_index("method")
    found = stats.compare_numbers(numbers, number="kept", baseline="clip", by=(), test_share=share).set_index("method")
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in _section("## Robustness").splitlines()]
    rows = [row for row in rows if len(row) == 7 and row[1] in means.index]
    assert {row[1] for row in rows} == set(means.index)
    for _, method, _, told, difference, seeds, _ in rows:
        mean = means.loc[method]
        assert (told, int(seeds)) == (f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]", mean.seeds), method
        if method != "clip":
            d = found.loc[method]
            assert difference == f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", method


def test_the_study_uses_the_best_of_the_recorded_search():
    import pandas as pd

    from labkit import study

    recorded = pd.read_csv(ROOT / "results" / "tuning" / "quickstart.csv")
    assert recorded.groupby("variant").size().nunique() == 1  # one budget
    best = study.best(recorded)
    used = {cell.variant: cell for cell in study.load("quickstart").variants}
    assert set(best) == set(used)
    for variant in set(used) - {"identity"}:
        assert (used[variant].options, used[variant].training) == (best[variant].options, best[variant].training)


def test_what_the_dashboard_costs_is_what_the_committed_benchmark_measured():
    found = pd.read_csv(ROOT / "results" / "benchmarks" / "dashboard.csv")
    million = found[found["run"].str.startswith("1,000,000")].set_index("what")["value"]
    told = f"takes {million['lasso']:.2f} s and the server {million['memory with the first session'] / 1000:.1f} GB"
    assert told in " ".join((ROOT / "README.md").read_text().split())
    table = (ROOT / "docs" / "benchmarks.md").read_text()
    for row in found.itertuples():
        verdict = "met" if row.value < row.budget else "NOT MET"
        line = f"| {row.run} | {row.what} | {row.value:.3g} {row.unit} | < {row.budget:g} {row.unit} | {verdict} |"
        assert line in table
