"""Hard negatives and the matching loss, against counts, hand-made cases and the loss written out."""

from __future__ import annotations

import math

import pytest
import torch

from labkit.variants._matching import FLOOR, Matching, exchanged, hard_negatives


def test_negatives_are_drawn_by_similarity_and_never_from_the_same_group():
    torch.manual_seed(0)
    similarity = torch.tensor([[9.0, 1.0, 0.0, 9.0], [0.0, 9.0, 2.0, 0.0], [0.0, 0.0, 9.0, 1.0], [9.0, 0.0, 0.0, 9.0]])
    group = torch.tensor([7, 8, 9, 7])  # the first and the last are one thing
    draws = torch.zeros(4, 4)
    for _ in range(4000):
        rows, found = hard_negatives(similarity, group)
        assert rows.tolist() == [0, 1, 2, 3]
        draws[rows, found] += 1 / 4000
    expected = similarity.masked_fill(group[:, None] == group, -torch.inf).softmax(dim=1)
    assert (draws - expected).abs().max() < 0.03
    assert draws[group[:, None] == group].eq(0).all()


def test_a_saturated_softmax_can_still_be_drawn_from():
    similarity = torch.tensor([[1e4, 1e4, -1e4], [0.0, 1e4, 0.0], [-1e4, -1e4, 1e4]])
    torch.manual_seed(0)
    found = torch.stack([hard_negatives(similarity, torch.arange(3))[1] for _ in range(200)])
    assert (found != torch.arange(3)).all()
    assert found[:, 0].eq(1).float().mean() > 1 - 20 * FLOOR
    assert set(found[:, 1].tolist()) == {0, 2}


@pytest.mark.parametrize(("group", "rows"), [([0, 0, 0], []), ([0, 0, 1], [0, 1, 2])])
def test_rows_without_another_group_are_left_out(group, rows):
    found, negatives = hard_negatives(torch.zeros(3, 3), torch.tensor(group))
    assert found.tolist() == rows
    assert len(negatives) == len(rows)


def test_true_tuples_come_first_and_either_side_is_exchanged():
    # second 1 is most like first 0, and so on: the negatives are certain
    similarity = torch.tensor([[0.0, 90.0, 0.0], [0.0, 0.0, 90.0], [90.0, 0.0, 0.0]])
    torch.manual_seed(0)
    first, second, label = exchanged(similarity, torch.arange(3))
    assert label.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [
        *[(0, 0), (1, 1), (2, 2)],
        *[(0, 1), (1, 2), (2, 0)],  # each first with another second
        *[(2, 0), (0, 1), (1, 2)],  # each second with another first
    ]


def test_nothing_is_exchanged_within_a_group():
    torch.manual_seed(0)
    group = torch.randint(4, (30,))
    first, second, label = exchanged(torch.randn(30, 30), group)
    assert (group[first] == group[second]).equal(label.bool())


def rows(n: int = 8, d: int = 6) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    z = {m: torch.randn(n, d, generator=generator) for m in ("image", "text", "sound")}
    return {"image": z["image"]}, {m: z[m] for m in ("text", "sound")}


def test_the_loss_is_the_cross_entropy_of_the_verdicts():
    torch.manual_seed(0)
    (first, second), group = rows(), torch.arange(8) // 2
    matching = Matching({"image": 6, "text": 6, "sound": 6})
    similarity = torch.randn(8, 8)
    torch.manual_seed(5)
    found = matching(first, second, similarity=similarity, group=group)
    torch.manual_seed(5)
    take_first, take_second, label = exchanged(similarity, group)
    total = 0.0
    for i, j, k in zip(take_first.tolist(), take_second.tolist(), label.tolist(), strict=True):
        joined = {"image": first["image"][[i]], "text": second["text"][[j]], "sound": second["sound"][[j]]}
        total -= matching.verdict(matching.fusion(joined))[0].log_softmax(dim=0)[k].item()
    assert found.item() == pytest.approx(total / len(label), rel=1e-5)


def test_knowing_nothing_costs_the_entropy_of_one_in_three():
    first, second = rows()
    matching = Matching({"image": 6, "text": 6, "sound": 6})
    torch.nn.init.zeros_(matching.verdict.weight)
    matching.verdict.bias.data = torch.tensor([math.log(2), 0.0])
    value = matching(first, second, similarity=torch.zeros(8, 8), group=torch.arange(8))
    assert value.item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2), rel=1e-5)


def test_it_can_be_learned_and_a_batch_of_one_thing_has_no_negatives():
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    matching = Matching({"a": 6, "b": 6})
    optimizer = torch.optim.Adam(matching.parameters(), lr=0.01)
    values = []
    for _ in range(60):
        value = matching({"a": x}, {"b": x}, similarity=x @ x.T, group=torch.arange(64))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0], "whether two vectors are equal"
    alone = matching({"a": x[:4]}, {"b": x[:4]}, similarity=torch.zeros(4, 4), group=torch.zeros(4).long())
    assert alone.item() >= 0
