"""The slow heads against the closed form of their average, the queue against a list."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit.encoders.heads import LinearHead
from labkit.variants._momentum import Queue, Slow


def heads() -> nn.ModuleDict:
    torch.manual_seed(0)
    features, present = torch.randn(10, 4), torch.ones(10, dtype=torch.bool)
    return nn.ModuleDict({m: LinearHead(features, present, dim=3, dropout=0.5) for m in ("image", "text")})


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.999])
def test_slow_heads_are_the_average_of_their_past(momentum):
    fast = heads()
    slow, seen = Slow(fast, momentum=momentum), [fast["image"].linear.weight.detach().clone()]
    for t in range(1, 8):
        fast["image"].linear.weight.data += torch.randn(3, 4)
        seen.append(fast["image"].linear.weight.detach().clone())
        slow.follow(fast)
        assert int(slow.steps) == t
    # unrolled: what is kept of step s is (1 - m_s) times all later m
    kept = [0.0, *(min(momentum, 1 - 1 / (t + 1)) for t in range(1, 8))]
    share = [(1 - kept[s]) * torch.tensor(kept[s + 1 :]).prod().item() for s in range(8)]
    assert sum(share) == pytest.approx(1)
    if momentum == 0.999:
        assert share == pytest.approx([1 / 8] * 8), "a short training is averaged evenly"
    expected = sum(w * v for w, v in zip(share, seen, strict=True))
    assert slow.heads["image"].linear.weight.allclose(expected, atol=1e-5)


def test_the_teacher_has_neither_gradient_nor_dropout():
    fast = heads().train()
    slow = Slow(fast, momentum=0.9).train()
    x = torch.randn(5, 4)
    found = slow.project("image", x)
    assert not found.requires_grad
    assert not any(p.requires_grad for p in slow.parameters())
    assert found.equal(slow.project("image", x)), "dropout would differ"
    assert found.norm(dim=1).allclose(torch.ones(5))
    fast["image"].linear.weight.data.zero_()
    assert found.equal(slow.project("image", x)), "a copy, not a view"


def test_the_queue_is_the_last_samples_in_their_order():
    """Against a Python list, over pushes that wrap around, exceed the room, and lack items."""
    torch.manual_seed(0)
    queue, past = Queue(("a", "b"), size=7, dim=2), []
    for n in (3, 2, 5, 1, 20, 7, 4):
        z = {m: torch.randn(n, 2) for m in ("a", "b")}
        present = {"a": torch.rand(n) > 0.3, "b": torch.rand(n) > 0.3}
        group = torch.randint(100, (n,))
        queue.push(z, present, group)
        past += [(z["a"][i], z["b"][i], int(group[i]), bool(present["a"][i] & present["b"][i])) for i in range(n)]
        x, y, groups = queue.both("a", "b")
        y2, x2, _ = queue.both("b", "a")
        assert x.equal(x2)
        assert y.equal(y2)
        wanted = [(g, *a.tolist(), *b.tolist()) for a, b, g, both in past[-7:] if both]
        found = zip(groups.tolist(), x.tolist(), y.tolist(), strict=True)
        assert sorted(wanted) == sorted((g, *a, *b) for g, a, b in found)
    assert int(queue.pushed) == 42


def test_the_oldest_gives_way_first():
    queue = Queue(("a", "b"), size=4, dim=1)
    for i in range(6):
        one = {m: torch.full((1, 1), float(i)) for m in ("a", "b")}
        queue.push(one, {m: torch.ones(1, dtype=torch.bool) for m in one}, torch.tensor([i]))
    assert queue.group.tolist() == [4, 5, 2, 3]
    assert queue.z[0, :, 0].tolist() == [4.0, 5.0, 2.0, 3.0]


def test_a_queue_without_room_stays_empty():
    queue = Queue(("a", "b"), size=0, dim=2)
    queue.push({m: torch.ones(3, 2) for m in "ab"}, {m: torch.ones(3).bool() for m in "ab"}, torch.arange(3))
    assert [len(v) for v in queue.both("a", "b")] == [0, 0, 0]


def test_both_go_through_a_state_dict():
    fast = heads()
    first, second = (
        nn.ModuleDict({"slow": Slow(fast, momentum=0.5), "queue": Queue(("a",), size=3, dim=2)}) for _ in range(2)
    )
    first["slow"].follow(heads())
    first["queue"].push({"a": torch.randn(2, 2)}, {"a": torch.ones(2).bool()}, torch.arange(2))
    second.load_state_dict(first.state_dict())
    assert int(second["slow"].steps) == 1
    assert int(second["queue"].pushed) == 2
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert a.equal(b)
