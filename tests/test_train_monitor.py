"""Collapse is seen in the log and said aloud; memory is that of the training; precision is what was asked for."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from labkit import run as runs
from labkit import variants
from labkit.config import RunConfig, TrainingConfig
from labkit.metrics import rankme
from labkit.train import CollapseWarning, full_precision
from labkit.train.monitor import Memory, spread
from labkit.types import Embeddings


def cloud(*z: torch.Tensor, **present: torch.Tensor) -> Embeddings:
    return Embeddings(key=np.arange(len(z[0])).astype(str), z=dict(zip("abc", z, strict=False)), present=present)


def test_spread_is_that_of_the_narrowest_modality(generator, device):
    wide = torch.randn(300, 16, generator=generator)
    cone = wide[:, :5] @ torch.randn(5, 16, generator=generator) + 4
    found = spread(cloud(wide, cone).to(device))
    assert found.effective_rank == pytest.approx(rankme(F.normalize(cone, dim=1)), rel=1e-5)
    unit = F.normalize(cone, dim=1)
    assert found.embedding_std == pytest.approx(math.sqrt(16) * unit.std(dim=0).mean().item(), rel=1e-5)
    assert spread(cloud(wide)).embedding_std == pytest.approx(1, abs=0.05), "isotropic rows fill the sphere"
    assert spread(cloud(wide[:8], wide[:8])).effective_rank == pytest.approx(rankme(F.normalize(wide[:8], dim=1)))


@pytest.mark.parametrize(
    ("rows", "collapsed"),
    [
        (torch.ones(50, 8), True),
        (torch.ones(50, 8) + 1e-3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), True),
        (torch.sign(torch.randn(50, 1, generator=torch.Generator().manual_seed(0))) * torch.ones(50, 8), True),
        (torch.eye(8).repeat(6, 1), False),
        (F.pad(torch.eye(3).repeat(16, 1), (0, 5)), False),
    ],
    ids=["point", "nearly a point", "line", "all axes", "three axes"],
)
def test_points_and_lines_are_collapsed(rows, collapsed):
    assert spread(cloud(rows)).collapsed is collapsed


def test_absent_items_do_not_count(generator):
    z = torch.randn(40, 6, generator=generator)
    some = torch.arange(40) < 25
    assert spread(cloud(z, a=some)) == spread(cloud(z[:25]))
    one = torch.arange(40) < 1
    assert spread(cloud(z, z, b=one)) == spread(cloud(z)), "one sample has no spread"
    with pytest.raises(ValueError, match=r"no modality of \['a'\] has 2 validation samples"):
        spread(cloud(z, a=one))


class Shrinking(variants.get("clip")):
    """Pulls all rows together."""

    def pair_terms(self, pair):
        return {"width": 100 * (pair.x.var(dim=0).sum() + pair.y.var(dim=0).sum())}


def test_the_log_shows_a_collapse_and_the_kept_weights_are_those_before_it(shared_latent):
    data, records = shared_latent(120), []
    training = TrainingConfig(epochs=40, batch_size=60, learning_rate=0.1, weight_decay=0.0, patience=40)
    aligner = Shrinking({"dim": 8, "dropout": 0.0}, training=training, log=records.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        aligner.fit(data, data)
    assert records[0]["embedding_std"] > 0.5
    assert records[-1]["embedding_std"] < 0.1
    assert records[-1]["effective_rank"] < records[0]["effective_rank"] - 2
    assert aligner.fitted is not None
    kept = records[aligner.fitted.best_epoch - 1]
    assert kept["effective_rank"] == aligner.fitted.spread.effective_rank
    assert spread(aligner.embed(data)).effective_rank == pytest.approx(kept["effective_rank"])


def test_kept_weights_that_have_collapsed_are_warned_of(shared_latent):
    data = shared_latent(60)
    cls = type("Constant", (variants.get("clip"),), {"prepare": lambda self, train: _flatten(self.network)})
    with pytest.warns(CollapseWarning, match="the shared space has collapsed: effective rank 1.00"):
        cls({"dim": 4}, training=TrainingConfig(epochs=1, learning_rate=1e-9)).fit(data, data)


def _flatten(network):
    for head in network.heads.values():
        torch.nn.init.constant_(head.linear.weight, 1e-6)
        torch.nn.init.ones_(head.linear.bias)


def test_memory_is_that_since_the_start(device):
    def use(megabytes: int) -> None:
        torch.ones(megabytes * 2**18, device=device).sum().item()

    use(400)
    first = Memory(device)
    base = first.peak
    use(200)
    assert first.peak - base > 150 * 2**20
    second = Memory(device)
    if device.type == "cuda" or torch.sys.platform == "linux":
        assert second.peak < first.peak or second.peak - base < 100 * 2**20
    assert base > 0


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_what_full_precision_does(precision, shared_latent, device):
    if precision == "float16" and device.type != "cuda":
        pytest.skip("float16 needs CUDA")
    data, scores, dtypes = shared_latent(200).to(device), {}, set()
    for name in ("float32", precision):
        training = TrainingConfig(epochs=15, batch_size=64, learning_rate=0.02, precision=name)
        aligner = variants.get("gotma")({"dim": 8, "neighbors": 5, "dropout": 0.1}, training=training, device=device)
        aligner.fit(data, data)
        assert aligner.fitted is not None
        scores[name] = aligner.fitted.best_score
        dtypes |= {v.dtype for v in aligner.state().values()}
    assert scores[precision] == pytest.approx(scores["float32"], abs=0.05)
    assert scores[precision] > 0.8
    assert dtypes == {torch.float32}, "weights stay in float32"


def test_float16_without_cuda_is_refused_before_anything_is_trained(shared_latent, tmp_path):
    records: list = []
    training = TrainingConfig(precision="float16")
    with pytest.raises(ValueError, match="precision 'float16' needs CUDA, training runs on cpu; use 'bfloat16' or"):
        variants.get("clip")({"dim": 4}, training=training, log=records.append).fit(
            shared_latent(60), shared_latent(60)
        )
    assert records == []
    asked = RunConfig.model_validate({"training": {"precision": "float16"}})
    with pytest.raises(ValueError, match="precision 'float16' needs CUDA"):
        runs.execute(asked, root=tmp_path, device="cpu")
    assert list(tmp_path.iterdir()) == [], "no run was started"


@pytest.mark.parametrize("name", ["clip", "gotma", "rma", "structure", "vicreg"])
def test_heads_run_in_16_bits_and_losses_in_32(name, shared_latent, device):
    data = shared_latent(60).to(device)
    training = TrainingConfig(epochs=1, batch_size=30)
    aligner = variants.get(name)({"dim": 8, "dropout": 0.0}, training=training, device=device)
    aligner.fit(data, data)
    assert isinstance(aligner, variants.Trained)
    exact = aligner.terms(data)
    with torch.autocast(device.type, torch.bfloat16):
        assert aligner.network.heads["image"](data.z["image"]).dtype == torch.bfloat16
        rounded = aligner.terms(data)
        with full_precision(device):
            assert (data.z["image"] @ data.z["image"].T).dtype == torch.float32
    assert {v.dtype for v in rounded.values()} == {torch.float32}
    for term, value in exact.items():
        assert not rounded[term].equal(value), "the heads were rounded"
        assert rounded[term].isclose(value, rtol=0.05), term
