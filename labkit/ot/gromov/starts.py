"""Where to start a descent that finds local optima only, and the best of several of them.

    given     `init_plan`; known pairs (i, j): the plan with mass on these only, whose linearization matches points by
              their distances to them
    product   a b^T, with epsilon lowered step by step from ANNEAL_START ("annealing")
    bounds    the couplings that attain the first and third lower bounds
    random    by turns a b^T times uniform noise, and three random pairs; annealed

Annealing follows the one optimum of a smooth problem down to the rough one. Solomon, Peyre, Kim, Sra 2016 (ACM Trans.
Graph. 35, annealing); Memoli 2011 (Found. Comput. Math. 11, bounds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.gromov.bounds import lower_bound_plans
from labkit.ot.gromov.descend import SINGLE_TOLERANCE, Descent, Method, descend, run
from labkit.ot.gromov.loop import relative_entropy
from labkit.ot.gromov.spaces import Spaces
from labkit.ot.potentials import Potentials, epsilon_schedule, extend_potentials

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# Epsilon, relative to the objective of the product coupling, at which there is but one optimum.
ANNEAL_START = 0.3
ANNEAL_TOLERANCE = 0.03
ANNEAL_ITERATIONS = 10
RANDOM_PAIRS = 3
# Entries of all plans that are descended from together: small problems are bound by calls, accelerators by launches.
BATCH_ENTRIES = {"cpu": 2**15}
LARGE_BATCH_ENTRIES = 2**26


@dataclass(frozen=True, eq=False)
class Starts:
    """From where and how often to start.

    Attributes:
        count: Number of starts.
        plan: A plan to begin with, or None.
        pairs: Indices (i, j) of points known to correspond, or None.
        seed: Of the random starts.

    Raises:
        ValueError: `count` is not positive.
    """

    count: int
    plan: Float[Tensor, "*batch n m"] | None
    pairs: Int[Tensor, "k 2"] | None
    seed: int

    def __post_init__(self) -> None:
        """Check the count."""
        if self.count < 1:
            raise ValueError(f"n_starts={self.count} must be at least 1.")


class Start(NamedTuple):
    """A plan, whose marginals may be rough, whether to come down to epsilon from above, and its number."""

    plan: Float[Tensor, "*batch n m"]
    annealed: bool
    index: int = 0


class Found(NamedTuple):
    """What a descent found, by problem of the batch; potentials and cost in units of `Spaces.unit`.

    Attributes:
        plan: The coupling.
        objective: F + epsilon KL(P | a b^T), for the proximal method F: what starts are compared by.
        value: F = alpha G + (1 - alpha) <M, P>.
        cost: Linearized cost.
        f: Source potential. g: target potential.
        epsilon: Of the last linearized problem.
        marginal_error: As in `Descent`.
        settled: Whether the plan stopped moving.
        assignment: For each source point the target that gets most of its mass.
    """

    plan: Float[Tensor, "*batch n m"]
    objective: Float[Tensor, "*batch"]
    value: Float[Tensor, "*batch"]
    cost: Float[Tensor, "*batch n m"]
    f: Float[Tensor, "*batch n"]
    g: Float[Tensor, "*batch m"]
    epsilon: Float[Tensor, "*batch"]
    marginal_error: Float[Tensor, "*batch"]
    settled: Bool[Tensor, "*batch"]
    assignment: Int[Tensor, "*batch n"]


class Search(NamedTuple):
    """The best of all starts, with the objective and the assignment of each, and steps in all."""

    best: Found
    objectives: Float[Tensor, "*batch starts"]
    assignments: Int[Tensor, "*batch starts n"]
    n_iterations: int


def search(spaces: Spaces, method: Method, starts: Starts) -> Search:
    """Descend from each start and keep the best, one by one or, where that is faster, several at a time."""
    entries = spaces.a.numel() * spaces.b.shape[-1]
    limit = BATCH_ENTRIES.get(spaces.a.device.type, LARGE_BATCH_ENTRIES)
    found, n_iterations = {}, 0
    best = None
    for group in _groups(_starts(spaces, starts), max(1, limit // entries)):
        # A batch of one would take the slower batched products.
        alone = len(group) == 1
        problem = spaces if alone else spaces.repeat(len(group))
        plans = group[0].plan if alone else torch.stack([start.plan for start in group])
        descent = (anneal if group[0].annealed else descend)(problem, plans, method)
        n_iterations += descent.n_iterations
        together = _found(problem, descent, method)
        for k, start in enumerate(group):
            one = together if alone else Found(*(field[k] for field in together))
            found[start.index] = one.objective, one.assignment
            best = one if best is None else _better(best, one)
    assert best is not None  # there is at least one start
    objectives, assignments = zip(*(found[k] for k in sorted(found)), strict=True)
    return Search(best, torch.stack(objectives, -1), torch.stack(assignments, -2), n_iterations)


def anneal(spaces: Spaces, plan: Float[Tensor, "*batch n m"], method: Method) -> Descent:
    """`descend`, after rough descents at larger epsilon that take at most half of the steps."""
    product = spaces.product_objective / spaces.unit
    levels = epsilon_schedule(ANNEAL_START * float(product.max()), method.epsilon)[:-1]
    rough = spaces.cast(torch.float32) if method.tolerance < SINGLE_TOLERANCE else spaces
    stage, budget = None, min(ANNEAL_ITERATIONS * len(levels), method.max_iterations // 2)
    for k, epsilon in enumerate(levels):
        left = budget - (0 if stage is None else stage.n_iterations)
        share = left // (len(levels) - k)
        if share < 1:
            continue
        level = Method(epsilon, "entropic", ANNEAL_TOLERANCE, share)
        start = plan.to(rough.a) if stage is None else stage.plan
        stage = run(rough, start, level, earlier=stage)
    if stage is None or not bool(torch.isfinite(stage.change + stage.marginal_error).all()):
        return descend(spaces, plan, method)
    return descend(spaces, stage.plan.to(plan), method, stage)


def _starts(spaces: Spaces, starts: Starts) -> Iterator[Start]:
    for index, start in zip(range(starts.count), _all_starts(spaces, starts), strict=False):
        yield start._replace(index=index)


def _all_starts(spaces: Spaces, starts: Starts) -> Iterator[Start]:
    """Without end; the lower bounds are computed when they are asked for."""
    if starts.plan is not None:
        yield Start(starts.plan, False)
    if starts.pairs is not None:
        yield Start(plan_of_pairs(starts.pairs, spaces), False)
    product = spaces.product()
    yield Start(product, True)
    for plan in lower_bound_plans(spaces):
        yield Start(plan, False)
    generator = torch.Generator().manual_seed(starts.seed)
    while True:
        noise = torch.rand(product.shape, generator=generator, dtype=product.dtype)
        yield Start(product * 2 * noise.to(product.device), True)
        yield Start(_random_pairs(spaces, generator), True)


def _groups(starts: Iterator[Start], size: int) -> Iterator[list[Start]]:
    """Starts of one kind, at most `size` at a time."""
    waiting: dict[bool, list[Start]] = {False: [], True: []}
    for start in starts:
        group = waiting[start.annealed]
        group.append(start)
        if len(group) == size:
            yield list(group)
            group.clear()
    yield from (group for group in waiting.values() if group)


def plan_of_pairs(pairs: Int[Tensor, "k 2"], spaces: Spaces) -> Float[Tensor, "*batch n m"]:
    """The mass of the spaces spread evenly over these pairs.

    Raises:
        ValueError: Not pairs of indices of points with mass.
    """
    if pairs.ndim != 2 or pairs.shape[-1] != 2 or len(pairs) == 0 or pairs.is_floating_point():
        raise ValueError(f"pairs has shape {tuple(pairs.shape)} and type {pairs.dtype}, expected integers [k, 2].")
    i, j = pairs.to(spaces.a.device).long().T
    n, m = spaces.a.shape[-1], spaces.b.shape[-1]
    if min(int(i.min()), int(j.min())) < 0 or int(i.max()) >= n or int(j.max()) >= m:
        raise ValueError(f"pairs has indices outside of the {n} and {m} points: pairs[:, 0] < {n}, pairs[:, 1] < {m}.")
    plan = torch.zeros_like(spaces.a[..., :, None] * spaces.b[..., None, :])
    plan[..., i, j] = 1
    plan = plan * (spaces.a > 0)[..., :, None] * (spaces.b > 0)[..., None, :]
    total = plan.sum((-2, -1), keepdim=True)
    if not bool((total > 0).all()):
        raise ValueError("pairs has no pair of points that both have a positive weight: at least one is needed.")
    return plan * (spaces.a.sum(-1)[..., None, None] / total)


def _random_pairs(spaces: Spaces, generator: torch.Generator) -> Tensor:
    """Random points of positive weight in pairs, others for each problem of the batch."""
    plan = torch.zeros_like(spaces.a[..., :, None] * spaces.b[..., None, :])
    size = min(RANDOM_PAIRS, *(int((w > 0).sum(-1).min()) for w in (spaces.a, spaces.b)))
    flat = plan.reshape(-1, *plan.shape[-2:])
    chosen = []
    for weights in (spaces.a, spaces.b):
        priority = torch.rand(weights.shape, generator=generator).to(weights.device).masked_fill(weights <= 0, -1)
        chosen.append(priority.topk(size, -1).indices.reshape(-1, size))
    problem = torch.arange(len(flat), device=flat.device)[:, None]
    flat[problem, chosen[0], chosen[1]] = 1 / size
    return flat.reshape(plan.shape) * spaces.a.sum(-1)[..., None, None]


def _found(spaces: Spaces, descent: Descent, method: Method) -> Found:
    plan, problem = descent.plan, descent.problem
    value = spaces.objective(plan)
    objective = value
    if method.name == "entropic":
        objective = value + method.epsilon * spaces.unit * relative_entropy(plan, spaces.a, spaces.b)
    f, g = descent.f, descent.g
    if problem.absent:
        f, g, _ = extend_potentials(problem, descent.cost, Potentials(f, g, descent.n_iterations))
    return Found(
        plan=plan,
        objective=objective,
        value=value,
        cost=descent.cost,
        f=f,
        g=g,
        epsilon=torch.full_like(value, problem.epsilon),
        marginal_error=descent.marginal_error,
        settled=descent.settled(method.tolerance),
        assignment=plan.argmax(-1),
    )


def _better(first: Found, second: Found) -> Found:
    """Problem by problem the one with the lower objective; one that settled before one that did not."""
    lower = second.objective < first.objective
    wins = torch.where(first.settled == second.settled, lower, second.settled)

    def choose(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(wins.reshape(wins.shape + (1,) * (one.ndim - wins.ndim)), other, one)

    return Found(*(choose(*fields) for fields in zip(first, second, strict=True)))


def others_as_good(search: Search, weights: Tensor, closeness: Tensor) -> Int[Tensor, "*batch"]:
    """Number of starts within `closeness` of the best objective that assign over a tenth of the mass otherwise."""
    near = search.objectives <= (search.best.objective + closeness)[..., None]
    share = weights / weights.sum(-1, keepdim=True)
    moved = (share[..., None, :] * (search.assignments != search.best.assignment[..., None, :])).sum(-1) > 0.1
    return (near & moved).sum(-1)
