"""What the options of transport and of the Riemannian terms do to the terms of gotma, rma and ot."""

from __future__ import annotations

import typing

import pytest
import torch

from labkit import losses, variants
from labkit.config import TrainingConfig
from labkit.losses.distances import Distance
from labkit.losses.transport import Cost
from labkit.variants import Trained
from labkit.variants._transport import Solver

QUICK = {"dim": 16, "dropout": 0.0, "neighbors": 5}
SOLVERS = typing.get_args(Solver)
DISTANCES = typing.get_args(Distance)


def terms(name: str, data, **options) -> dict[str, torch.Tensor]:
    """The terms of a variant whose heads are those of its first epoch, on all samples at once."""
    aligner = variants.get(name)(QUICK | options, training=TrainingConfig(epochs=1, learning_rate=1e-9))
    aligner.fit(data, data)
    assert isinstance(aligner, Trained)
    torch.manual_seed(0)
    return aligner.terms(data)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_gives_a_term_that_trains_on_clouds_of_other_sizes(solver, shared_latent):
    data = shared_latent(80, missing=0.3)
    assert len({int(p.sum()) for p in data.present.values()}) == 2
    value = terms("ot", data, solver=solver)["ot"]
    assert torch.isfinite(value)
    assert value.requires_grad
    assert value > 0


def test_the_solver_is_the_loss_of_its_name(shared_latent):
    data = shared_latent(80)
    found = {solver: terms("ot", data, solver=solver)["ot"].item() for solver in SOLVERS}
    aligner = variants.get("ot")(QUICK, training=TrainingConfig(epochs=1, learning_rate=1e-9)).fit(data, data)
    x, y = aligner.embed(data).z.values()
    torch.manual_seed(0)
    for solver, loss in (
        ("divergence", losses.sinkhorn_divergence),
        ("entropic", losses.entropic_ot),
        ("unbalanced", losses.unbalanced_divergence),
        ("exact", losses.exact_ot),
        ("low_rank", losses.low_rank_divergence),
        ("lower_bound", losses.third_lower_bound),
        ("sliced", losses.sliced_wasserstein),
    ):
        assert found[solver] == pytest.approx(loss(x, y).item(), rel=2e-2), solver
    assert len({round(v, 6) for v in found.values()}) == len(SOLVERS)


@pytest.mark.parametrize("cost", typing.get_args(Cost))
def test_the_cost_of_transport_is_the_one_that_is_named(cost, shared_latent):
    data = shared_latent(60)
    value = terms("ot", data, solver="exact", cost=cost)["ot"].item()
    aligner = variants.get("ot")(QUICK, training=TrainingConfig(epochs=1, learning_rate=1e-9)).fit(data, data)
    assert value == pytest.approx(losses.exact_ot(*aligner.embed(data).z.values(), cost=cost).item(), rel=1e-3)


@pytest.mark.parametrize(("name", "term"), [("gotma", "rc"), ("rma", "rma")])
def test_every_distance_gives_another_riemannian_term(name, term, shared_latent):
    data = shared_latent(60)
    values = {distance: terms(name, data, distance=distance)[term] for distance in DISTANCES}
    literal = terms(name, data, literal=True)[term]
    assert all(torch.isfinite(v) and v > 0 and v.requires_grad for v in (*values.values(), literal))
    assert len({round(v.item(), 6) for v in (*values.values(), literal)}) == len(DISTANCES) + 1
    default = "sphere" if name == "gotma" else "euclidean"
    assert terms(name, data)[term].item() == values[default].item()


def test_curvature_is_a_term_where_the_batch_is_large_enough(shared_latent):
    data = shared_latent(60)
    assert "curvature" not in terms("gotma", data)
    value = terms("gotma", data, w_curvature=0.1)["curvature"]
    assert torch.isfinite(value)
    assert value.requires_grad
    assert value > 0
    assert "curvature" not in terms("gotma", data.take(range(12)), w_curvature=0.1)


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("gotma", {"w_ot": 0}, {"rc", "contrastive"}),
        ("gotma", {"w_rc": 0}, {"ot", "contrastive"}),
        ("gotma", {"w_cl": 0, "allow_collapse": True}, {"ot", "rc"}),
        ("rma", {"w_ot": 0, "w_rma": 0}, {"retrieve"}),
        ("rma", {"w_retrieve": 0, "allow_collapse": True}, {"ot", "rma"}),
        ("ot", {"w_contrastive": 0, "allow_collapse": True}, {"ot"}),
        ("ot", {"w_ot": 0}, {"contrastive"}),
    ],
)
def test_a_weight_of_zero_spares_its_term(name, options, left, shared_latent):
    assert set(terms(name, shared_latent(60), **options)) == left
