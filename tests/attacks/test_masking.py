"""Signs of masked gradients: none on a true attack, and one at least for each way of hiding the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from labkit.attacks import Features, Threat, masking_checks
from labkit.types import Embeddings
from tests.attacks.linear_aligners import Linear, least_squares, rounded, shattered


@dataclass(frozen=True)
class Setting:
    """What is attacked, and by what."""

    aligner: Linear
    other: Linear
    test: Embeddings
    inputs: Features
    threat: Threat

    def checked(self, before=lambda z: z, severity: int = 5):
        aligner = Linear(self.aligner.maps, before)
        return masking_checks(
            aligner, self.other, self.test, self.inputs, self.threat, modality="image", severity=severity
        )


@pytest.fixture(scope="module")
def setting(shared_latent) -> Setting:
    """Two aligners of 2 modalities, the other one fitted on few of the training samples."""
    data = shared_latent(260, 2, noise=0.4)
    train, test = data.take(range(180)), data.take(range(180, 260))
    inputs = Features.of(test, "image", train)
    threat = Threat("pgd", "l2", k=2, steps=8)
    return Setting(least_squares(train), least_squares(train.take(range(60))), test, inputs, threat)


def failed(masking) -> set[str]:
    return {verdict.check for verdict in masking.verdicts if not verdict.passed}


def test_a_true_attack_passes(setting):
    masking = setting.checked(severity=4)
    assert masking.passed, "\n".join(map(str, masking.verdicts))
    assert {"one step", "noise", "steps", "budget", "unbounded", "transfer", "start"} == {
        v.check for v in masking.verdicts
    }
    assert all(str(v).startswith("as expected: ") for v in masking.verdicts)
    table = masking.table.set_index(["check", "setting"])["success"]
    assert 0.2 < table["attack", "severity 4"] < 0.95
    assert len(masking.table.query("check == 'budget'")) == 5
    assert set(masking.table["n"]) == {int(masking.table["n"].iloc[0])}


@pytest.mark.parametrize(
    ("hide", "signs"),
    [(rounded, {"unbounded", "transfer"}), (shattered, {"transfer"})],
    ids=["rounded", "shattered"],
)
def test_hidden_gradients_are_found(hide, signs, setting):
    """Neither changes what is retrieved, so only the attack gets weaker."""
    open_, hidden = setting.checked(severity=4), setting.checked(hide, severity=4)
    share = lambda m: m.table.query("check == 'attack'")["success"].item()
    assert share(hidden) < share(open_) - 0.2
    assert not hidden.passed
    assert signs <= failed(hidden)
    assert any(str(v).startswith("SUSPECT: ") for v in hidden.verdicts)


def test_nothing_to_attack_is_said(setting):
    wrong = Linear({m: -v if m == "image" else v for m, v in setting.aligner.maps.items()})
    with pytest.raises(ValueError, match="no sample is found when clean, so there is nothing to attack"):
        masking_checks(
            wrong, setting.other, setting.test, setting.inputs.take(torch.tensor([0, 1])), Threat(k=1), modality="image"
        )


def test_gradients_of_what_hides_them_are_really_hidden(setting):
    """The premise: the features hardly move, their gradients vanish or point anywhere."""
    z = setting.test.z["image"][:20]
    for hide, moved in ((rounded, 0.051), (shattered, 1e-3)):
        x: Tensor = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(hide(x).sum(), x)
        assert float((hide(z) - z).abs().max()) < moved
        assert slope.abs().max() == 0 if hide is rounded else slope.std() > 10
