"""Missing items: the share is met, one item stays, classes lack what they should, and draws are nested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from labkit.data.missing import drop_items, weights_by_label
from labkit.types import Embeddings

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def made(n: int, modalities: str = "abc", *, classes: int = 5, seed: int = 0) -> Embeddings:
    """Complete samples of classes of unequal size, and some of none."""
    random = np.random.default_rng(seed)
    label = random.choice(classes, size=n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    label[random.random(n) < 0.1] = -1
    return Embeddings(
        key=np.arange(n).astype(str),
        z={m: torch.ones(n, 1) for m in modalities},
        label=torch.from_numpy(label),
        label_names=tuple(f"class {c}" for c in range(classes)),
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def there(data: Embeddings) -> torch.Tensor:
    return torch.stack(list(data.present.values()), dim=1)


@settings(max_examples=30, deadline=None)
@given(part=st.floats(0, 1), seed=st.integers(0, 99), by=st.sampled_from(["chance", "label"]))
def test_every_sample_keeps_an_item_and_none_comes_back(part: float, seed: int, by: str) -> None:
    """Of samples that lack items already, any part of what can be missing at most."""
    n = 60
    had = torch.rand(n, 3, generator=seeded(seed)) < 0.7
    had[:, 0] |= ~had.any(dim=1)
    whole = made(n, seed=seed)
    before = whole.with_z(whole.z, dict(zip("abc", had.T, strict=True)))
    share = part * (int(had.sum()) - n) / int(had.sum())
    after = drop_items(before, share, seeded(seed), by=by)
    left = there(after)
    assert left.any(dim=1).all()
    assert not (left & ~had).any()
    assert all((after.z[m][~after.present[m]] == 0).all() for m in "abc")
    assert int(had.sum()) - int(left.sum()) == round(share * int(had.sum()))


def test_more_than_can_be_missing_is_refused_with_the_largest_share() -> None:
    data = made(100, "ab")
    assert int(there(drop_items(data, 0.5, seeded())).sum()) == 100
    with pytest.raises(
        ValueError, match=r"data.missing is 0.7: 140 of 200 items .* that 100 can be; give a share up to 0.5"
    ):
        drop_items(data, 0.7, seeded())
    partly = data.with_z(data.z, {"a": data.present["a"], "b": torch.arange(100) < 80})
    with pytest.raises(
        ValueError, match=r"90 of 180 items .* so that 80 can be; give a share up to 0.444, or more mod"
    ):
        drop_items(partly, 0.5, seeded(), by="label")
    assert int(there(drop_items(partly, 0.444, seeded())).sum()) == 100


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("modalities", ["ab", "abc"])
def test_rates_by_chance_hit_the_share_in_every_modality_and_class(share: float, modalities: str) -> None:
    data = made(4000, modalities)
    after = drop_items(data, share, seeded(1))
    for m in modalities:
        for code in data.label.unique().tolist():
            rows = data.label == code
            lost, n = int((~after.present[m][rows]).sum()), int(rows.sum())
            assert binomtest(lost, n, share).pvalue > 1e-4, (m, code, lost / n)


def test_items_of_a_sample_are_lost_independently_but_for_the_one_that_stays() -> None:
    """With three items, of which one stays, two are lost as often as the formula of the keeper says."""
    share = 0.3
    lost = (~there(drop_items(made(20_000), share, seeded(2)))).sum(dim=1)
    assert int(lost.max()) == 2
    # independent draws q with q - q^3 / 3 = share: two or three lost ones leave one
    q = next(float(q) for q in np.linspace(0, 1, 100_001) if q - q**3 / 3 >= share)
    expected = np.array([(1 - q) ** 3, 3 * q * (1 - q) ** 2, 3 * q**2 * (1 - q) + q**3])
    found = np.bincount(lost.numpy(), minlength=3) / len(lost)
    np.testing.assert_allclose(found, expected, atol=0.012)


@pytest.mark.parametrize("by", ["chance", "label"])
def test_smaller_shares_are_nested_and_seeds_differ(by: str) -> None:
    data = made(300)
    one = [there(drop_items(data, share, seeded(3), by=by)) for share in SHARES]
    for less, more in zip(one, one[1:], strict=False):
        assert not (more & ~less).any()
    assert not one[2].equal(there(drop_items(data, 0.3, seeded(4), by=by)))
    assert one[2].equal(there(drop_items(data, 0.3, seeded(3), by=by)))
    assert drop_items(data, 0.0, seeded(3), by=by) is data


def test_weights_are_those_of_the_classes_in_order_and_average_to_one() -> None:
    data = made(500)
    partly = data.with_z(data.z, {m: torch.rand(500, generator=seeded(5)) < 0.8 for m in "abc"})
    for m in "abc":
        weight = weights_by_label(partly, m)
        has = partly.present[m]
        assert float(weight[has].mean()) == pytest.approx(1)
        assert (weight > 0).all()
        assert (weight < 2).all()
        by_class = {code: weight[partly.label == code].unique() for code in partly.label.unique().tolist()}
        assert all(len(values) == 1 for values in by_class.values())
        # the definition by loop: twice the share of the classes of lower weight and half of its own
        for code, value in by_class.items():
            lower = float((weight[has] < value - 1e-6).float().mean())
            own = float((partly.label[has] == code).float().mean())
            assert float(value) == pytest.approx(2 * (lower + own / 2), abs=1e-5)


def test_the_order_of_classes_is_that_of_their_names_and_differs_between_modalities() -> None:
    data = made(500)
    renamed = Embeddings(
        key=data.key,
        z=data.z,
        label=torch.where(data.label >= 0, 4 - data.label, -1),
        label_names=data.label_names[::-1],
    )
    assert torch.equal(weights_by_label(data, "a"), weights_by_label(renamed, "a"))
    of_each = [int((data.label == c).nonzero()[0]) for c in range(5)]
    orders = {tuple(weights_by_label(data, m)[of_each].argsort().tolist()) for m in "abc"}
    assert len(orders) > 1


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_rates_by_label_are_those_stated_where_items_are_many(share: float) -> None:
    """With eight modalities the last item of a sample is hardly ever at stake."""
    data = made(4000, "abcdefgh")
    after = drop_items(data, share, seeded(6), by="label")
    assert int((~there(after)).sum()) == round(share * 8 * 4000)
    for m in "abcdefgh":
        rate = share * weights_by_label(data, m)
        for code in data.label.unique().tolist():
            rows = data.label == code
            lost, n = int((~after.present[m][rows]).sum()), int(rows.sum())
            assert binomtest(lost, n, float(rate[rows][0])).pvalue > 1e-4, (m, code, lost / n)


def test_rates_by_label_differ_also_where_one_of_two_items_stays() -> None:
    data = made(4000, "ab")
    after = drop_items(data, 0.3, seeded(7), by="label")
    for m in "ab":
        weight, lost = weights_by_label(data, m), ~after.present[m]
        heavy = weight > weight.median()
        assert float(lost[heavy].float().mean()) > 1.5 * float(lost[~heavy].float().mean())


def test_missing_by_label_needs_labels() -> None:
    data = made(20)
    plain = Embeddings(key=data.key, z=data.z)
    with pytest.raises(ValueError, match=r"the samples have no labels; let them be missing by chance \(data.mis"):
        drop_items(plain, 0.3, seeded(), by="label")
    one = Embeddings(key=data.key, z=data.z, label=torch.zeros(20, dtype=torch.long))
    with pytest.raises(ValueError, match="the samples have one class only"):
        weights_by_label(one, "a")
