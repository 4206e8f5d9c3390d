"""For every source the targets of least reduced cost c_ij - g_j, in linear memory.

Targets are put into cells by k-means; a source looks into the cells whose center has the least reduced cost for it.
At the optimum a source's own target has the least reduced cost of all (complementary slackness), so these are the
targets worth trying.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.refinement.potential import Potential
from labkit.ot.refinement.task import Task

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CELL = 512
# A cell may grow to so many times the average; of what exceeds it a random part is looked at.
CROWD = 4
PROBES = 8
# Candidates from one cell. More would make torch sort whole rows: topk is fast up to 1 in 64.
WIDTH = CELL // 64
CENTER_SAMPLE = 32
CENTER_STEPS = 4
# Sources that are looked after together: so many for each cell, and not fewer than ROWS.
ROWS_PER_CELL = 32
ROWS = 2**14
BLOCK = 4096


class Candidates(NamedTuple):
    """Targets worth trying, in rising order of reduced cost."""

    index: Int[Tensor, "n k"]
    reduced: Float[Tensor, "n k"]


class _Cells(NamedTuple):
    members: list[Int[Tensor, " c"]]
    center: Float[Tensor, "cells d"]
    g: Float[Tensor, " cells"]


def find_candidates(task: Task, potential: Potential, k: int, generator: torch.Generator) -> Candidates:
    """The k best targets of each source among the cells that it looks into (fewer if there are fewer targets)."""
    cells = _make_cells(task, potential, generator)
    price = potential.g - task.offset
    step = max(ROWS, ROWS_PER_CELL * len(cells.g))
    parts = [_search(task, cells, price, rows, min(k, task.m)) for rows in torch.arange(task.n).split(step)]
    return Candidates(torch.cat([p.index for p in parts]), torch.cat([p.reduced for p in parts]))


def _search(task: Task, cells: _Cells, price: Tensor, rows: Tensor, k: int) -> Candidates:
    rows = rows.to(task.u.device)
    probes = min(PROBES, len(cells.g))
    width = min(k, WIDTH, max(len(members) for members in cells.members))
    value = price.new_full((len(rows) * probes, width), torch.inf)
    index = torch.zeros(value.shape, dtype=torch.int32, device=value.device)
    asked = torch.cat(
        [(task.cost(task.u[part], cells.center) - cells.g).topk(probes, 1, False).indices for part in rows.split(BLOCK)]
    ).flatten()
    order = asked.argsort(stable=True)
    counts = torch.bincount(asked, minlength=len(cells.g)).tolist()
    for members, question in zip(cells.members, order.split(counts), strict=True):
        target, bonus = task.v[members], price[members]
        for part in question.split(BLOCK):
            reduced = task.cost(task.u[rows[part // probes]], target).sub_(bonus)
            best = reduced.topk(min(width, len(members)), 1, largest=False, sorted=False)
            value[part, : best.values.shape[1]] = best.values
            index[part, : best.values.shape[1]] = members[best.indices].int()
    value, index = value.view(len(rows), -1), index.view(len(rows), -1)
    best = value.topk(min(k, value.shape[1]), 1, largest=False)
    return Candidates(index.gather(1, best.indices), best.values)


def _make_cells(task: Task, potential: Potential, generator: torch.Generator) -> _Cells:
    v, n_cells = task.v, -(-task.m // CELL)
    sample = v[torch.randperm(task.m, generator=generator)[: CENTER_SAMPLE * n_cells].to(v.device)]
    center = sample[:n_cells].clone()
    for _ in range(CENTER_STEPS):
        label = _nearest(sample, center)
        size = torch.bincount(label, minlength=n_cells)[:, None]
        total = torch.zeros_like(center).index_add_(0, label, sample)
        center = torch.where(size > 0, total / size.clamp_min(1), center)
    label = _nearest(v, center)
    shuffled = torch.randperm(task.m, generator=generator).to(v.device)
    order = shuffled[label[shuffled].argsort(stable=True)]
    size = torch.bincount(label, minlength=n_cells)
    kept = size > 0
    offset = torch.zeros(n_cells, device=v.device).index_add_(0, label, task.offset)[kept] / size[kept]
    members = [cell[: CROWD * CELL] for cell in order.split(size[kept].tolist())]
    return _Cells(members, center[kept], potential.at(center[kept], offset) - offset)


def _nearest(points: Tensor, center: Tensor) -> Tensor:
    bias = center.square().sum(1) / -2
    return torch.cat([torch.addmm(bias, part, center.mT).argmax(1) for part in points.split(BLOCK)])
