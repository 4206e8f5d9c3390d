"""Matchings between clouds of up to millions of points, in linear memory, with a bound on what is missing.

    min over sigma of (1 / n) sum_i c(x_i, y_sigma(i)),   every target taken floor(n / m) or ceil(n / m) times

Small problems are solved exactly. Large ones in sweeps: dual potentials of a sample name for every source the targets
of least reduced cost; sources and targets are matched on this sparse graph, by turns at first, then by shortest
augmenting paths in groups of neighbors. No sweep makes the matching worse. The same potentials bound the cost of the
best matching from below (weak duality; Peyre, Cuturi 2019, Computational Optimal Transport, section 2.5), so that the
gap is known without knowing the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labkit.ot.cost import PointCloud, full_precision
from labkit.ot.refinement.exchange import exchange
from labkit.ot.refinement.pairing import propose, to_slots
from labkit.ot.refinement.potential import Potential, Slack, bound_slack
from labkit.ot.refinement.search import find_candidates
from labkit.ot.refinement.task import Task, make_task, matching_cost

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Up to so many pairs of source and slot the problem is solved exactly, which takes about a second.
EXACT_PAIRS = 2**21
# Up to so many pairs of source and target the bound is computed from all; from the second number of pairs beyond.
CERTIFIED_PAIRS = 2**28
ESTIMATED_PAIRS = 2**30
# Sources that decide whether to go on.
LOOK = 1024
CANDIDATES = 20
# Groupings of the sources that are tried with the same candidates.
GROUPINGS = 3


@dataclass(frozen=True, eq=False)
class Assignment:
    """A matching of every source with one target, and how far it may be from the best one.

    Attributes:
        match: Target of each source: a permutation where n = m, distinct where n < m; else every target is
            taken floor(n / m) or ceil(n / m) times.
        cost: Mean cost of the matched pairs, in the cost's units; lower is nearer.
        lower_bound: No matching costs less; if not `certified`, an unbiased estimate of such a bound.
        lower_bound_error: Standard error of `lower_bound`; 0 if certified, or if the search had missed
            nothing for any source of the sample.
        certified: Whether `lower_bound` takes all pairs into account.
        product_cost: Mean cost over all pairs, which is that of matching by chance (estimated for "euclidean").
        gap: (cost - lower_bound) / (product_cost - lower_bound): 0 is optimal, 1 is chance. At least the true gap
            if certified. An estimate can be too small by more than its error where a few sources miss much.
        n_sweeps: Sweeps made; 0 where the problem was solved exactly.
    """

    match: Int[Tensor, " n"]
    cost: float
    lower_bound: float
    lower_bound_error: float
    certified: bool
    product_cost: float
    gap: float
    n_sweeps: int


def refine(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    cost: str = "sqeuclidean",
    tolerance: float = 1e-3,
    max_sweeps: int = 5,
    seed: int = 0,
    on_sweep: Callable[[int, float], None] | None = None,
) -> Assignment:
    """Match every source with a target, each target equally often, at nearly the least cost.

    Memory is linear in n + m, time nearly so. Exact on a line with n a multiple of m, and for small clouds. The
    coordinates are used in float32; costs are reported in float64.

    Args:
        x: Source points.
        y: Target points, as many or not.
        cost: "sqeuclidean", "euclidean" or "cosine".
        tolerance: Stop when the estimated gap, or what a sweep took off it, is not above this.
        max_sweeps: Stop after so many.
        seed: Of all that is random: equal seeds give equal matchings on the same machine.
        on_sweep: Called after each sweep with the number of sweeps done and the mean cost, to show progress.

    Returns:
        The matching with its cost and bound. It has no gradients: use its pairs in a loss of your own.

    Raises:
        TypeError: x or y is not a floating-point tensor.
        ValueError: NaN, infinite or empty input, batches, different numbers of features, an unknown cost, a
            negative tolerance, or max_sweeps < 1.
    """
    if not tolerance >= 0 or max_sweeps < 1:
        raise ValueError(f"tolerance={tolerance} must be at least 0 and max_sweeps={max_sweeps} at least 1.")
    cloud = PointCloud(x, y, cost)
    if cloud.x.ndim != 2 or cloud.y.ndim != 2:
        raise ValueError(f"x and y have shapes {tuple(x.shape)} and {tuple(y.shape)}, expected [points, features].")
    with torch.no_grad(), full_precision(cloud.device):
        cloud = PointCloud(cloud.x.detach(), cloud.y.detach(), cost)
        task = make_task(cloud)
        if task.n * task.n_slots <= EXACT_PAIRS:
            return _exact(task, cloud, _solve(task, cloud))
        if task.full and cloud.x.shape[1] == 1:
            return _exact(task, cloud, _sort(task))
        generator = torch.Generator().manual_seed(seed)
        return _sweep_until_good(task, cloud, (tolerance, max_sweeps), generator, on_sweep)


def _solve(task: Task, cloud: PointCloud) -> Int[Tensor, " n"]:
    """The best matching from the whole cost matrix."""
    cost = PointCloud(cloud.x.double(), cloud.y.double(), cloud.cost).matrix().cpu()
    cost = (cost / cost.max() if cost.max() > 0 else cost).repeat(1, task.capacity)
    # A slot that must be taken saves more than all the rest could cost.
    cost[:, : task.n_required] -= 2 * task.n if not task.full else 0
    _, slot = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(slot).to(cloud.device) % task.m


def _sort(task: Task) -> Int[Tensor, " n"]:
    """On a line the least sources go to the least targets, for any convex cost."""
    match = torch.empty(task.n, dtype=torch.long, device=task.u.device)
    order = task.v[:, 0].argsort(stable=True).repeat_interleave(task.capacity)
    match[task.u[:, 0].argsort(stable=True)] = order
    return match


def _sweep_until_good(
    task: Task,
    cloud: PointCloud,
    limits: tuple[float, int],
    generator: torch.Generator,
    on_sweep: Callable[[int, float], None] | None,
) -> Assignment:
    tolerance, max_sweeps = limits
    potential, slots, cost, n_sweeps = Potential(task), None, math.inf, 0
    while True:
        potential.add(generator)
        slots, known = _sweep(task, potential, slots, generator)
        before, cost, n_sweeps = cost, matching_cost(cloud, slots % task.m), n_sweeps + 1
        if on_sweep is not None:
            on_sweep(n_sweeps, cost)
        missing = _slack(task, potential, (slots, known), LOOK, generator).mean * task.unit
        if n_sweeps == max_sweeps or min(missing, before - cost) <= tolerance * (task.product - cost + missing):
            break
    count = task.n if task.n * task.m <= CERTIFIED_PAIRS else max(LOOK, ESTIMATED_PAIRS // task.m)
    slack = _slack(task, potential, (slots, known), count, generator)
    return _assignment(task, slots % task.m, cost, slack, count >= task.n, n_sweeps)


def _sweep(
    task: Task, potential: Potential, slots: Tensor | None, generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Slots of all sources, at a cost that is not higher than before, and the least reduced costs that were seen."""
    candidates = to_slots(task, find_candidates(task, potential, CANDIDATES, generator), generator)
    proposed = propose(task, potential.g, candidates, generator)
    edges = candidates.index
    if slots is None:
        slots = proposed
    else:
        other = proposed
        new, old = (task.matched_cost(taken % task.m).double().sum() for taken in (proposed, slots))
        if new < old:
            slots, other = proposed, slots
        edges = torch.cat([edges, other[:, None].to(edges.dtype)], 1)
    for _ in range(GROUPINGS):
        slots = exchange(task, potential.g, slots, edges, generator)
    return slots, candidates.reduced[:, 0]


def _slack(
    task: Task, potential: Potential, swept: tuple[Tensor, Tensor], count: int, generator: torch.Generator
) -> Slack:
    (slots, known), rows = swept, None
    if count < task.n:
        rows = torch.randperm(task.n, generator=generator)[:count].to(slots.device)
    return bound_slack(task, potential.g, slots % task.m, known, rows)


def _exact(task: Task, cloud: PointCloud, match: Tensor) -> Assignment:
    return _assignment(task, match, matching_cost(cloud, match), Slack(0.0, 0.0), True, 0)


def _assignment(task: Task, match: Tensor, cost: float, slack: Slack, certified: bool, n_sweeps: int) -> Assignment:
    # No cost is negative, so 0 is a bound as well.
    bound = min(max(cost - slack.mean * task.unit, 0.0), cost)
    gap = (cost - bound) / (task.product - bound) if task.product > bound else 0.0
    return Assignment(
        match=match,
        cost=cost,
        lower_bound=bound,
        lower_bound_error=slack.standard_error * task.unit,
        certified=certified,
        product_cost=task.product,
        gap=gap,
        n_sweeps=n_sweeps,
    )
