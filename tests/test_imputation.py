"""Imputations: what stands in for an absent item, by loop and closed form, and that no answer is given away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from labkit import imputation, ot
from labkit.imputation import IMPUTATIONS
from labkit.types import Embeddings

NAMES = ("image", "text", "sound", "touch")


def made(n: int, *, seed: int, missing: float = 0.0, dim: int = 12) -> Embeddings:
    """Unit vectors of four modalities that see one direction each, with noise."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n, dim, generator=generator)
    z = {m: F.normalize(common + 0.5 * torch.randn(n, dim, generator=generator), dim=1) for m in NAMES}
    present = {m: torch.rand(n, generator=generator) >= missing for m in NAMES}
    return Embeddings(key=np.array([f"{seed}-{i}" for i in range(n)]), z=z, present=present, group=torch.arange(n) // 2)


TRAIN = made(80, seed=0, missing=0.2)
TEST = made(40, seed=1, missing=0.3)


@pytest.fixture(scope="module", params=list(IMPUTATIONS))
def impute(request: pytest.FixtureRequest) -> imputation.Imputation:
    return imputation.fit(request.param, TRAIN)


def stand_in(name: str, i: int, m: str, asked: tuple[str, ...]) -> torch.Tensor:
    """The definition for one sample, for imputations with a closed form."""
    mean = TRAIN.z[m][TRAIN.present[m]].mean(dim=0)
    parts = []
    for k in NAMES:
        if k in asked or not TEST.present[k][i]:
            continue
        if name in ("others", "drop"):
            parts.append(TEST.z[k][i])
        elif name == "nearest":
            rows = [j for j in range(len(TRAIN)) if TRAIN.present[k][j] and TRAIN.present[m][j]]
            best = max(rows, key=lambda j: float(TRAIN.z[k][j] @ TEST.z[k][i]))
            parts.append(TRAIN.z[m][best])
    return F.normalize(torch.stack(parts).sum(dim=0), dim=0) if parts else mean


@pytest.mark.parametrize("name", ["others", "drop", "nearest", "mean"])
@pytest.mark.parametrize("asked", [("image", "text"), ("touch", "sound", "text"), ("image",)])
def test_what_stands_in_is_what_the_definition_says(name: str, asked: tuple[str, ...]) -> None:
    whole = imputation.fit(name, TRAIN)(TEST, asked)
    assert whole.modalities == asked
    for m in asked:
        assert bool(whole.present[m].all())
        for i in range(len(TEST)):
            expected = TEST.z[m][i] if TEST.present[m][i] else stand_in(name, i, m, asked)
            torch.testing.assert_close(whole.z[m][i], expected)


@pytest.mark.parametrize("asked", [("image", "text"), ("text", "image"), ("sound", "touch", "text")])
def test_no_asked_modality_is_used_for_another(impute: imputation.Imputation, asked: tuple[str, ...]) -> None:
    """Whatever the other side of the question holds, the stand-in is the same."""
    for m in asked:
        others = [a for a in asked if a != m]
        changed = TEST.with_z({**TEST.z, **{a: F.normalize(torch.randn(40, 12), dim=1) for a in others}})
        gone = TEST.with_z(TEST.z, {**TEST.present, **{a: torch.zeros(40, dtype=torch.bool) for a in others}})
        absent = ~TEST.present[m]
        assert absent.any()
        for other in (changed, gone):
            assert impute(other, asked).z[m][absent].equal(impute(TEST, asked).z[m][absent])


def test_present_items_stay_and_nothing_is_changed_in_place(impute: imputation.Imputation) -> None:
    before = {m: z.clone() for m, z in TEST.z.items()}
    whole = impute(TEST, ("image", "touch"))
    for m in ("image", "touch"):
        assert whole.z[m][TEST.present[m]].equal(TEST.z[m][TEST.present[m]])
        assert bool(whole.z[m].isfinite().all())
    assert all(TEST.z[m].equal(before[m]) for m in NAMES)
    assert whole.groups.equal(TEST.groups)


def test_a_sample_without_anything_else_gets_the_constant(impute: imputation.Imputation) -> None:
    nobody = torch.zeros(40, dtype=torch.bool)
    alone = TEST.with_z(TEST.z, {**TEST.present, "image": nobody, "sound": nobody, "touch": nobody})
    rows = impute(alone, ("image", "text")).z["image"]
    assert rows.unique(dim=0).shape[0] == 1
    torch.testing.assert_close(rows[0], impute.constant["image"])


def permuted(n: int = 60, seed: int = 3) -> tuple[Embeddings, torch.Tensor]:
    """Two clouds that are the same but for the order and a turn by a little: the best plan is that permutation."""
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(n, 24, generator=generator), dim=1)
    order = torch.randperm(n, generator=generator)
    y = torch.empty_like(x)
    y[order] = F.normalize(x + 0.02 * torch.randn(n, 24, generator=generator), dim=1)
    key = np.arange(n).astype(str)
    return Embeddings(key=key, z={"sound": x, "image": y}, group=torch.arange(n)), order


def test_barycentric_projection_equals_the_closed_form_where_the_coupling_is_a_permutation() -> None:
    trained, order = permuted()
    x, y = trained.z["sound"], trained.z["image"]
    rows, columns = linear_sum_assignment((1 - x @ y.T).numpy())
    assert (columns[rows] == order.numpy()).all(), "the best assignment"
    coupling = ot.sinkhorn(ot.PointCloud(x, y, "cosine"), epsilon=imputation.EPSILON)
    assert coupling.round().equal(order)
    gone = trained.with_z(trained.z, {"sound": trained.present["sound"], "image": torch.zeros(60, dtype=torch.bool)})
    whole = imputation.fit("barycentric", trained)(gone, ("image",))
    torch.testing.assert_close(whole.z["image"], y[order], atol=1e-3, rtol=0)


def test_barycentric_projection_is_the_row_of_the_plan_where_it_is_none() -> None:
    trained = made(50, seed=5)
    gone = trained.with_z(trained.z, {**trained.present, "image": torch.zeros(50, dtype=torch.bool)})
    found = imputation.fit("barycentric", trained)(gone, ("image", "text", "touch")).z["image"]  # from sound alone
    plan = ot.sinkhorn(ot.PointCloud(trained.z["sound"], trained.z["image"], "cosine"), epsilon=0.05).plan
    expected = F.normalize(plan @ trained.z["image"] / plan.sum(dim=1, keepdim=True), dim=1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_imputations_by_training_samples_do_not_need_what_they_do_not_use() -> None:
    """Without a single pair the coupling still maps one cloud to the other; a neighbor has no partner to lend."""
    n = 60
    first = torch.arange(n) < 30
    unpaired = made(n, seed=6).select(["image", "sound"])
    unpaired = unpaired.with_z(unpaired.z, {"image": first, "sound": ~first})
    asked = made(10, seed=7).select(["image", "sound"])
    none = torch.zeros(10, dtype=torch.bool)
    asked = asked.with_z(asked.z, {"image": none, "sound": ~none})
    mean = unpaired.z["image"][first].mean(dim=0)
    assert imputation.fit("nearest", unpaired)(asked, ("image",)).z["image"].allclose(mean.expand(10, -1))
    token = imputation.fit("token", unpaired)(asked, ("image",)).z["image"]
    assert token.allclose(F.normalize(mean, dim=0).expand(10, -1))
    mapped = imputation.fit("barycentric", unpaired)(asked, ("image",)).z["image"]
    assert len(mapped.unique(dim=0)) == 10


def test_a_token_is_learned_the_same_every_time_and_does_better_than_its_start() -> None:
    trained = made(120, seed=8)
    first, again = (imputation.fit("token", trained).constant for _ in range(2))
    for m in NAMES:
        assert first[m].equal(again[m])
        assert float(first[m].norm()) == pytest.approx(1, abs=1e-5)
    start = {m: F.normalize(mean, dim=0) for m, mean in imputation.fit("mean", trained).constant.items()}

    def loss(token: torch.Tensor, m: str) -> float:
        """InfoNCE of the modality with the others in float64 numpy, a share of its items replaced, over many draws."""
        random, values = np.random.default_rng(0), []
        for _ in range(20):
            lost = random.random((120, 1)) < imputation.LOST
            x = np.where(lost, token.double().numpy(), trained.z[m].double().numpy())
            positive = trained.groups.numpy()[:, None] == trained.groups.numpy()
            for k in NAMES:
                if k != m:
                    logits = x @ trained.z[k].double().numpy().T / imputation.TEMPERATURE
                    for s in (logits, logits.T):
                        p = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
                        values.append(-(p * positive / positive.sum(axis=1, keepdims=True)).sum(axis=1).mean())
        return float(np.mean(values))

    for m in NAMES:
        assert loss(first[m], m) < loss(start[m], m) - 0.005


def test_what_is_known_of_a_sample_helps() -> None:
    """Nearest and barycentric stand-ins are nearer to the lost item than the mean; the others are nearest of all."""
    trained, test = made(300, seed=9), made(100, seed=10)
    gone = test.with_z(test.z, {**test.present, "image": torch.zeros(100, dtype=torch.bool)})
    near = {
        name: float((imputation.fit(name, trained)(gone, ("image",)).z["image"] * test.z["image"]).sum(dim=1).mean())
        for name in ("mean", "nearest", "barycentric", "others")
    }
    assert near["others"] > near["barycentric"] > near["mean"] + 0.2
    assert near["nearest"] > near["mean"] + 0.2
