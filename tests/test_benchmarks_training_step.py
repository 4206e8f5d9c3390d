"""The benchmark of training steps does what the training loop does, and its table says what was measured."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from benchmarks import steps, training_step
from benchmarks.training_step import Timed
from labkit import variants
from labkit.config import TrainingConfig

TINY = replace(steps.SETTINGS[0], name="tiny", batch=24, features=12, dim=8, batches=2)
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", steps.trained())
@pytest.mark.parametrize("modalities", [2, 3])
def test_every_trained_variant_can_be_measured(name, modalities):
    if modalities < variants.get(name).min_modalities:
        pytest.skip(f"{name} is defined for {variants.get(name).min_modalities} modalities")
    with steps.prepared(name, replace(TINY, modalities=modalities), 0, CPU) as step:
        step()
        step()


def test_all_trained_variants_are_measured_clip_first():
    names = steps.trained()
    assert names[0] == "clip"
    assert {"gotma", "rma", "ot", "vicreg"} <= set(names)
    assert not {"cca", "procrustes", "identity"} & set(names)


def test_a_step_is_one_of_the_training_loop(monkeypatch):
    """The same weights after it, dropout aside."""
    seen: list = []
    monkeypatch.setattr(steps.variants, "get", lambda name: _recording(variants.VARIANTS.get(name), seen))
    with steps.prepared("gotma", TINY, 0, CPU) as step:
        (aligner,) = seen
        before = {k: v.clone() for k, v in aligner.network.state_dict().items()}
        batch = steps.samples(TINY, 0).take(range(24))
        aligner.network.eval()  # no dropout
        optimizer = torch.optim.AdamW(aligner.network.parameters(), lr=1e-3)
        step()
        after = {k: v.clone() for k, v in aligner.network.state_dict().items()}
        aligner.network.load_state_dict(before)
        optimizer.zero_grad()
        torch.stack(list(aligner.terms(batch).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(aligner.network.parameters(), 1.0)
        optimizer.step()
        for k, v in aligner.network.state_dict().items():
            assert v.allclose(after[k], atol=1e-6), k
            assert k.endswith((".mean", ".scale")) or not v.equal(before[k])


def _recording(cls, seen):
    def make(*args, **kwargs):
        seen.append(cls(*args, **kwargs))
        return seen[-1]

    make.Options = cls.Options
    return make


def test_trained_encoders_are_part_of_the_step(monkeypatch):
    made: list[steps.Encoder] = []

    class Kept(steps.Encoder):
        def __init__(self, tokens, width):
            super().__init__(tokens, width)
            made.append(self)

    monkeypatch.setattr(steps, "Encoder", Kept)
    with steps.prepared("clip", replace(TINY, tokens=4), 0, CPU) as step:
        before = [encoder.position.detach().clone() for encoder in made]
        step()
    assert len(made) == 2
    for encoder, position in zip(made, before, strict=True):
        assert not encoder.position.equal(position)
        assert encoder(torch.randint(steps.VOCABULARY, (5, 4))).shape == (5, 12)


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path, capsys):
    output = tmp_path / "new" / "training_step.csv"
    options = ["--quick", "--rounds", "3", "--output", str(output)]
    assert training_step.main(options, [TINY, replace(TINY, name="tiny with encoders", tokens=4)]) == 0
    printed = capsys.readouterr().out.splitlines()
    table = [[c.strip() for c in line.strip("|").split("|")] for line in printed if line.startswith("| tiny")]
    assert [row[:2] for row in table if row[1] == "clip"] == [["tiny", "clip"], ["tiny with encoders", "clip"]]
    for row in table:
        assert float(row[2]) > 0
        assert len(row) == len(training_step.TABLE_HEAD[0].strip("|").split("|"))
        assert ("met" in row[5].lower()) == (row[1] == "gotma")
    with output.open() as file:
        written = list(csv.DictReader(file))
    assert [(m["setting"], m["variant"], m["rounds"]) for m in written] == [
        (s, v, "3") for s in ("tiny", "tiny with encoders") for v in ("clip", "gotma")
    ]
    assert all(float(m["low"]) <= float(m["times_clip"]) <= float(m["high"]) for m in written)


def test_ratios_are_those_of_each_round():
    slow_machine_at_first = Timed("tiny", "clip", (2.0, 1.0, 1.0)), Timed("tiny", "gotma", (6.0, 3.0, 3.5))
    low, middle, high = training_step.ratios(slow_machine_at_first[1], slow_machine_at_first[0])
    assert (low, middle, high) == (3.0, 3.0, 3.25)
    assert training_step.ratios(Timed("", "", (6.0,)), Timed("", "", (2.0,))) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(("seconds", "verdict"), [((3.9, 4.0, 9.0), "<= 4: met"), ((4.1, 4.2, 1.0), "<= 4: NOT MET")])
def test_the_goal_is_about_the_median_of_gotma(seconds, verdict):
    found = [Timed("tiny", "clip", (1.0, 1.0, 1.0)), Timed("tiny", "gotma", seconds), Timed("tiny", "rma", seconds)]
    first, *rest = training_step.lines(TINY, found).splitlines()
    assert "| clip | 1000.0 | 1.00 |" in first
    assert sum(verdict in line for line in rest) == 1


def test_a_variant_that_does_not_take_a_setting_says_why(monkeypatch, capsys):
    def refuse(*_):
        raise ValueError("needs three modalities")

    monkeypatch.setattr(variants.get("gotma"), "prepare", refuse)
    assert training_step.main(["--quick", "--rounds", "1"], [TINY]) == 1
    assert "| tiny | gotma | - | - | needs three modalities |" in capsys.readouterr().out


def test_a_setting_outside_the_definition_of_a_variant_is_no_failure(capsys):
    assert training_step.main(["--variants", "triangle", "--rounds", "1"], [TINY]) == 0
    assert "| tiny | triangle | - | - | defined for 3 or more modalities |" in capsys.readouterr().out


def test_the_command_says_which_settings_there_are():
    with pytest.raises(SystemExit, match="linear heads, batch 512, 2 modalities; "):
        training_step.main(["--settings", "nonsense"])


def test_the_settings_are_those_of_the_goals():
    goals = {(s.batch, s.modalities, s.dim, bool(s.tokens)): s.goal for s in steps.SETTINGS}
    assert goals[512, 2, 128, False] == 4
    assert goals[256, 3, 128, False] == 6
    assert goals[256, 2, 128, True] == 1.2
    assert TrainingConfig().gradient_clip == 1.0, "as in a step of the benchmark"
