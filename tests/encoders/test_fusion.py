"""The cross-encoder: one sample at a time, absent items unseen, and the formula of its one layer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from labkit.encoders.fusion import Fusion

WIDTHS = {"image": 5, "text": 7, "sound": 3}


def made(**changes) -> Fusion:
    torch.manual_seed(0)
    return Fusion(WIDTHS, **{"dim": 8, "heads": 2, **changes}).double()


def items(n: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(n, width, generator=generator, dtype=torch.float64) for m, width in WIDTHS.items()}


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_depend_on_its_batch_mates(training):
    fusion, x = made(layers=2).train(training), items()
    present = {m: torch.arange(6) % 3 != i for i, m in enumerate(WIDTHS)}
    whole = fusion(x, present)
    assert whole.shape == (6, 8)
    for i in range(6):
        alone = fusion({m: v[i : i + 1] for m, v in x.items()}, {m: v[i : i + 1] for m, v in present.items()})
        assert alone[0].allclose(whole[i], atol=1e-12)


def test_absent_items_are_not_looked_at():
    fusion, x = made(), items()
    present = {"text": torch.arange(6) > 2}
    other = {**x, "text": x["text"].clone()}
    other["text"][:3] = torch.nan
    found = fusion(other, present)
    assert found.equal(fusion(x, present))
    without = fusion({m: x[m][:3] for m in ("image", "sound")})
    assert found[:3].allclose(without, atol=1e-12), "a masked modality is as good as one that is not given"
    assert not found[:3].allclose(fusion(x)[:3], atol=1e-3)


def test_a_sample_without_items_is_a_finite_constant():
    fusion, x = made(), items()
    nothing = {m: torch.arange(6) >= 2 for m in WIDTHS}
    found = fusion(x, nothing)
    assert torch.isfinite(found).all()
    assert found[0].equal(found[1])
    found.sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in fusion.parameters())


def test_it_is_the_transformer_of_its_formula():
    """Pre-norm attention of all tokens and a feed-forward part, both residual, written out for one sample."""
    fusion, x = made(tokens=2, layers=2), {m: v[:1] for m, v in items().items()}
    tokens = [fusion.maps[m](v).view(2, 8) for m, v in x.items()]
    t = torch.cat([fusion.summary[None], *tokens])
    for layer in fusion.layers:
        h = F.layer_norm(t, (8,), layer.before.weight, layer.before.bias)
        q, k, v = (h @ layer.attention.in_proj_weight.T + layer.attention.in_proj_bias).split(8, dim=1)
        heads = []
        for a in (slice(0, 4), slice(4, 8)):
            heads.append((q[:, a] @ k[:, a].T / 2).softmax(dim=1) @ v[:, a])  # sqrt(4) of a head
        t = t + layer.attention.out_proj(torch.cat(heads, dim=1))
        h = F.layer_norm(t, (8,), layer.between.weight, layer.between.bias)
        t = t + layer.feed[2](F.gelu(layer.feed[0](h)))
    expected = F.layer_norm(t[0], (8,), fusion.norm.weight, fusion.norm.bias)
    assert fusion(x)[0].allclose(expected, atol=1e-10)


def test_every_modality_and_every_weight_has_a_gradient(device):
    fusion = made(layers=2).to(device)
    x = {m: v.to(device).requires_grad_() for m, v in items().items()}
    fusion(x).square().mul(torch.arange(8, device=device)).sum().backward()
    for v in (*x.values(), *fusion.parameters()):
        assert v.grad is not None
    assert all(float(v.grad.abs().max()) > 1e-6 for v in x.values() if v.grad is not None)


def test_wrong_modalities_and_sizes_get_a_sentence():
    with pytest.raises(ValueError, match="at least one modality"):
        Fusion({})
    with pytest.raises(ValueError, match="heads is 3, which does not divide dim, 8"):
        made(heads=3)
    for given in ({"smell": torch.zeros(2, 3)}, {}):
        with pytest.raises(ValueError, match=r"a fusion of \['image', 'text', 'sound'\] was given"):
            made()(given)
