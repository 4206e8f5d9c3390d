"""A first matching: sources take their candidates by turns, what is left over is paired by bisection.

Bisection splits both clouds at their medians along one direction, again and again, and solves the small problems that
remain: it pairs any clouds in O(n log n), roughly where they are far apart and well where they nearly agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labkit.ot.refinement.search import Candidates
from labkit.ot.refinement.task import Task

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LEAF = 128
DIRECTION_SAMPLE = 1024
# Copies of a target of capacity > 1 that a source tries.
COPIES = 2


def to_slots(task: Task, candidates: Candidates, generator: torch.Generator) -> Candidates:
    """Candidates as slots: where a target has many, COPIES of them by chance for each source."""
    if task.capacity == 1:
        return candidates
    shape = (*candidates.index.shape, COPIES)
    copy = torch.randint(task.capacity, shape, generator=generator, dtype=torch.int32).to(candidates.index.device)
    slots = candidates.index[..., None] + task.m * copy
    return Candidates(slots.flatten(1), candidates.reduced.repeat_interleave(COPIES, 1))


def propose(task: Task, g: Tensor, slots: Candidates, generator: torch.Generator) -> Int[Tensor, " n"]:
    """The slot of each source by turns, completed by bisection; every slot that must be taken is taken."""
    match = _take_turns(task, slots)
    owned = torch.zeros(task.n_slots, dtype=torch.bool, device=match.device)
    owned[match[match >= 0]] = True
    optional = torch.zeros_like(owned)
    optional[task.n_required :] = True
    missing = (~owned & ~optional).nonzero()[:, 0]
    # More slots must be filled than sources are left: some sources give up what they took beyond need.
    excess = len(missing) - int((match < 0).sum())
    if excess > 0:
        beyond = (optional[match.clamp_min(0)] & (match >= 0)).nonzero()[:, 0]
        released = beyond[torch.randperm(len(beyond), generator=generator)[:excess].to(beyond.device)]
        owned[match[released]] = False
        match[released] = -1
    rest = (match < 0).nonzero()[:, 0]
    free = (~owned & optional).nonzero()[:, 0]
    free = free[torch.randperm(len(free), generator=generator).to(free.device)][: len(rest) - len(missing)]
    return pair_by_bisection(task, g, match, (rest, torch.cat([missing, free])), generator)


def _take_turns(task: Task, slots: Candidates) -> Int[Tensor, " n"]:
    """-1 where all candidates were taken; of several sources that want a slot, the one with most to lose gets it."""
    device = slots.index.device
    match = torch.full((task.n,), -1, dtype=torch.long, device=device)
    taken = torch.zeros(task.n_slots, dtype=torch.bool, device=device)
    active = torch.arange(task.n, device=device)
    for _ in range(slots.index.shape[1]):
        wanted = slots.index[active].long()
        reduced = torch.where(taken[wanted], torch.inf, slots.reduced[active])
        best = reduced.topk(min(2, reduced.shape[1]), 1, largest=False)
        able = best.values[:, 0].isfinite()
        active, slot = active[able], wanted.gather(1, best.indices[:, :1])[able, 0]
        if len(active) == 0:
            break
        regret = (best.values[:, -1] - best.values[:, 0])[able]
        most = torch.full((task.n_slots,), -1.0, device=device).scatter_reduce_(0, slot, regret, "amax")
        first = torch.full((task.n_slots,), task.n, device=device)
        at_most = regret == most[slot]
        first.scatter_reduce_(0, slot[at_most], active[at_most], "amin")
        won = first[slot] == active
        match[active[won]] = slot[won]
        taken[slot[won]] = True
        active = active[~won]
    return match


def pair_by_bisection(
    task: Task, g: Tensor, match: Tensor, rest: tuple[Tensor, Tensor], generator: torch.Generator
) -> Int[Tensor, " n"]:
    """`match` with the sources of `rest` put into its slots, of which there are as many."""
    sources, slots = rest
    if len(sources) == 0:
        return match
    targets = slots % task.m
    price = g if task.full else torch.zeros_like(g)
    for s, t in bisect((task.u[sources], task.v[targets]), LEAF, generator):
        cost = task.cost(task.u[sources[s]], task.v[targets[t]]) + (task.offset - price)[targets[t]]
        row, column = linear_sum_assignment(cost.cpu().numpy())
        match[sources[s[row]]] = slots[t[column]]
    return match


def bisect(
    clouds: tuple[Float[Tensor, "n d"], ...], size: int, generator: torch.Generator
) -> list[tuple[Int[Tensor, " k"], ...]]:
    """Split clouds of equal length at their own medians along common directions, down to parts of at most `size`."""
    device = clouds[0].device
    stack = [tuple(torch.arange(len(cloud), device=device) for cloud in clouds)]
    leaves = []
    while stack:
        parts = stack.pop()
        count = len(parts[0])
        if count <= size:
            leaves.append(parts)
            continue
        # A random direction, pulled by the covariance to where the points spread.
        sample = clouds[-1][parts[-1][torch.randint(count, (DIRECTION_SAMPLE,), generator=generator).to(device)]]
        sample = sample - sample.mean(0)
        direction = sample.mT @ (sample @ torch.randn(sample.shape[1], generator=generator).to(sample))
        orders = [
            part[(cloud[part] @ direction).argsort(stable=True)] for cloud, part in zip(clouds, parts, strict=True)
        ]
        stack += [tuple(order[: count // 2] for order in orders), tuple(order[count // 2 :] for order in orders)]
    return leaves
