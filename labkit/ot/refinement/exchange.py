"""The best matching on the candidates of a group of sources, group by group.

In a group, every source keeps its slot as one more candidate, so that a matching exists and the best one is never
worse. It is found by shortest augmenting paths on the sparse graph (Jonker, Volgenant 1987, as in scipy), at a price
that grows faster than the group: groups are large where most sources agree already, small where many compete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from labkit.ot.refinement.pairing import bisect
from labkit.ot.refinement.task import Task

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

GROUP_RANGE = (512, 8192)
# Size of a group times the share of its sources whose slot is none of their candidates.
GROUP_WORK = 2048


def exchange(
    task: Task, g: Float[Tensor, " m"], match: Tensor, slots: Int[Tensor, "n k"], generator: torch.Generator
) -> Int[Tensor, " n"]:
    """A matching that is not worse than `match`, from the edges of `match` and `slots` within groups of neighbors."""
    # What all slots have in common changes nothing; where some stay empty, prices would.
    price = g if task.full else torch.zeros_like(g)
    strangers = 1 - float((slots == match[:, None]).any(1).float().mean())
    size = int(min(max(GROUP_WORK / max(strangers, 1e-3), GROUP_RANGE[0]), GROUP_RANGE[1]))
    groups = [rows for (rows,) in bisect((task.u,), size, generator)]
    group_of = torch.empty(task.n, dtype=torch.long, device=match.device)
    for number, rows in enumerate(groups):
        group_of[rows] = number
    home = torch.full((task.n_slots,), len(groups), device=match.device)
    if not task.full:
        # An empty slot is on offer in one of the groups that have it as a candidate.
        home.scatter_reduce_(0, slots.flatten().long(), group_of.repeat_interleave(slots.shape[1]), "amin")
    home[match] = -1
    empty = home.argsort(stable=True)[int((home < 0).sum()) :].split(
        torch.bincount(home[home >= 0], minlength=len(groups) + 1).tolist()
    )
    home[match] = group_of
    position = torch.zeros_like(home)
    match = match.clone()
    for number, rows in enumerate(groups):
        columns = torch.cat([match[rows], empty[number]])
        position[columns] = torch.arange(len(columns), device=columns.device)
        edges = torch.cat([match[rows, None], slots[rows].long()], 1)
        present = home[edges] == number
        weight = _weights(task, price, rows, edges)
        choice = _solve(position[edges], present, weight, len(columns))
        match[rows] = columns[choice.to(columns.device)]
    return match


def _weights(task: Task, price: Tensor, rows: Tensor, edges: Tensor) -> Float[Tensor, "n k"]:
    targets = edges % task.m
    weight = task.edge_cost(rows, targets) - price[targets]
    # Zeros would count as no edge.
    weight = (weight - weight.amin(1, keepdim=True)).double() + 1
    # To fill a slot that must be taken is worth more than all else in the group.
    return weight + len(rows) * weight.max() * (edges >= task.n_required)


def _solve(
    column: Int[Tensor, "n k"], present: Bool[Tensor, "n k"], weight: Float[Tensor, "n k"], width: int
) -> Int[Tensor, " n"]:
    """Column of each row in the lightest matching; of equal edges the first counts."""
    column = torch.where(present, column, width)
    column, order = column.sort(dim=1, stable=True)
    fresh = column < width
    fresh[:, 1:] &= column[:, 1:] != column[:, :-1]
    data = weight.gather(1, order)[fresh].cpu().numpy()
    index = column[fresh].int().cpu().numpy()
    start = np.zeros(len(column) + 1, dtype=np.int32)
    np.cumsum(fresh.sum(1).cpu().numpy(), out=start[1:])
    _, choice = min_weight_full_bipartite_matching(csr_matrix((data, index, start), (len(column), width)))
    return torch.from_numpy(choice).long()
