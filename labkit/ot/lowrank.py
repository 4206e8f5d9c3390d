"""Transport through a few clusters: plans of low nonnegative rank, in linear time and memory.

    min <C, P> - epsilon (H(Q) + H(R) + H(g)),   P = Q diag(1 / g) R^T,   Q in Pi(a, g),  R in Pi(b, g),
    H(p) = -sum p (log p - 1)

By mirror descent with a step relative to the size of the gradient, each step followed by a projection on the
marginals: Newton's method on its dual in 2 rank unknowns, in place of the paper's Dykstra iterations. Steps that do
not descend are taken back and halved. The problem is not convex: the result is a local optimum, started from pairs of
points that a coarse entropic plan matches.
Scetbon, Cuturi, Peyre 2021 (ICML, algorithm 3); Scetbon & Cuturi 2022 (NeurIPS, step size, initialization).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from labkit.ot.cost import CostMatrix, Geometry, PointCloud, full_precision
from labkit.ot.coupling import warn_unless
from labkit.ot.envelope import with_envelope_gradient
from labkit.ot.factors import CostFactors, factorize
from labkit.ot.function import CostFunction
from labkit.ot.lowrank_coupling import LowRankCoupling
from labkit.ot.problem import Scale, Settings, check_weights, cost_scale, match_mass
from labkit.ot.sinkhorn import solve

if TYPE_CHECKING:
    from jaxtyping import Float

# A step changes a logarithm by at most this much.
STEP = 10.0
LEAST_STEP = 1e-4
# The projection on the marginals: its tolerance, as a fraction of the mass, and the bounds of its Newton steps.
INNER_TOLERANCE = 1e-9
NEWTON_STEPS = 50
BACKTRACKS = 12
SUFFICIENT = 0.1
# A projection that misses the marginals by more, as a fraction of the mass, has failed.
PROJECTED = 1e-6
LONGEST = 10.0
RIDGE = 1e-12
# Clusters of less than this fraction of the mass are not told apart from empty ones.
LEAST_SHARE = 1e-12
# Accepted steps whose descent is the criterion.
WINDOW = 10
# Softness of the first clusters, relative to the mean cost.
START_SOFTNESS = 0.1
START_POINTS = 1024

NOT_CONVERGED = (
    "low-rank Sinkhorn did not reach tolerance={tolerance} in max_iterations={max_iterations}: raise max_iterations or "
    "accept a larger tolerance; `marginal_error` and `cost` say how far it got."
)


class _State(NamedTuple):
    """Logarithms of Q and R up to a constant in each row, with rows that sum to 1, and g."""

    source: Float[Tensor, "n rank"]
    target: Float[Tensor, "m rank"]
    g: Float[Tensor, " rank"]


class _Problem(NamedTuple):
    factors: CostFactors
    a: Tensor
    b: Tensor
    epsilon: float
    scale: float


def sinkhorn_low_rank(
    geometry: Geometry,
    a: Float[Tensor, " n"] | None = None,
    b: Float[Tensor, " m"] | None = None,
    *,
    rank: int,
    epsilon: float = 0.0,
    scale_cost: Scale = "mean",
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> LowRankCoupling:
    """Solve balanced transport over plans of nonnegative rank at most `rank`.

    Args:
        geometry: Without batch dimensions. Squared Euclidean and cosine costs are exact in linear memory, others if
            their matrix is small; large ones are interpolated between landmarks, see `cost_error`.
        a: Source weights >= 0, uniform by default. Points of weight zero have no influence.
        b: Target weights, of the same total.
        rank: Number of clusters; the cost falls with it towards that of exact transport.
        epsilon: Strength of the entropy of the factors, relative to the scaled cost; 0 for none.
        scale_cost: As in `sinkhorn`.
        tolerance: The descent of the scaled objective in ten accepted steps, and the marginal error, at which to stop.
        max_iterations: Steps of mirror descent.

    Returns:
        The coupling. `regularized_cost` has the gradient of <C, P> in the points (or the matrix) with P held: that of
        the value at the local optimum, by the envelope theorem. A second derivative raises.

    Raises:
        TypeError: Input that is not a floating-point tensor.
        ValueError: Input that makes no problem; the message says what to change.

    Warns:
        NotConvergedWarning: `max_iterations` were not enough.
    """
    _check(geometry, rank, epsilon, tolerance, max_iterations)
    with full_precision(geometry.device):
        # The dual of the projection is flat to rounding in single precision; double is affordable in linear time.
        factors = factorize(geometry).double()
        with torch.no_grad():
            fixed = factors.detached()
            like, (n, m) = fixed.left, geometry.shape
            a = check_weights(a, (n,), like, "a")
            b = match_mass(a, check_weights(b, (m,), like, "b"))
            scale = _scale(fixed, a, b, scale_cost)
            problem = _Problem(fixed, a, b, float(epsilon), float(scale))
            state, iterations, descent = _descend(problem, _start(problem, rank), tolerance, max_iterations)
            source, target = state.source.exp(), state.target.exp()
            q, r = a[:, None] * source, b[:, None] * target
            error = _marginal_error(q, r, state.g, a, b)
            objective = _objective(problem, state)
        linear = ((factors.transposed_times(q) * r).sum(0) / state.g).sum()
    sources = [t for t in _sources(geometry) if t.requires_grad and torch.is_grad_enabled()]
    partials = torch.autograd.grad(linear, sources) if sources else ()
    value = with_envelope_gradient(objective * scale, *zip(sources, partials, strict=True))
    converged = descent <= tolerance and bool(error <= tolerance)
    warn_unless(converged, NOT_CONVERGED.format(tolerance=tolerance, max_iterations=max_iterations))
    dtype = geometry.dtype
    return LowRankCoupling(
        geometry=geometry,
        a=a.to(dtype),
        b=b.to(dtype),
        source=source.to(dtype),
        target=target.to(dtype),
        g=state.g.to(dtype),
        epsilon=problem.epsilon,
        epsilon_absolute=(scale * problem.epsilon).to(dtype),
        cost=linear.detach().to(dtype),
        cost_error=fixed.error / problem.scale,
        regularized_cost=value.to(dtype),
        marginal_error=error.to(dtype),
        tolerance=tolerance,
        n_iterations=iterations,
        converged=converged,
    )


def _check(geometry: Geometry, rank: int, epsilon: float, tolerance: float, max_iterations: int) -> None:
    if len(geometry.shape) != 2 or not isinstance(geometry, PointCloud | CostMatrix | CostFunction):
        raise ValueError(
            f"low-rank transport got a {type(geometry).__name__} of shape {geometry.shape}, expected one problem "
            "[n, m] of a PointCloud, CostMatrix or CostFunction: solve a batch one by one."
        )
    if not 1 <= rank <= min(geometry.shape):
        raise ValueError(f"rank={rank} must be between 1 and the smaller number of points, {min(geometry.shape)}.")
    if not epsilon >= 0 or not math.isfinite(epsilon):
        raise ValueError(f"epsilon={epsilon} must be zero or positive: 0 leaves the rank as the only smoothing.")
    if not tolerance > 0 or max_iterations < 1:
        raise ValueError(f"tolerance={tolerance} must be positive and max_iterations={max_iterations} at least 1.")


def _sources(geometry: Geometry) -> tuple[Tensor, ...]:
    """What the value is differentiated in."""
    if isinstance(geometry, PointCloud):
        return geometry.x, geometry.y
    return (geometry.values,) if isinstance(geometry, CostMatrix) else ()


def _scale(factors: CostFactors, a: Tensor, b: Tensor, scale_cost: Scale) -> Tensor:
    if scale_cost == "max":
        raise ValueError(
            "scale_cost='max' needs all costs, and low-rank transport has factors: use 'mean' or a number."
        )
    mean = (a / a.sum()) @ factors.times((b / b.sum())[:, None])
    return cost_scale(mean[None], mean.new_ones(1), mean.new_ones(1), scale_cost)


def _start(problem: _Problem, rank: int) -> _State:
    """Clusters around pairs of points that a coarse entropic plan matches, drawn apart from each other (k-means++)."""
    generator = torch.Generator().manual_seed(0)
    count = max(START_POINTS, 4 * rank)
    rows, columns = (_some(w, count, generator) for w in (problem.a, problem.b))
    cost = problem.factors.some_rows(rows)[:, columns] / problem.scale
    coarse = solve(CostMatrix(cost), None, None, Settings(START_SOFTNESS, None, 1.0, 1.0, 1e-2, 100))
    match = coarse.top(1).index[:, 0]
    nearest, anchors = torch.ones_like(cost[:, 0]), []
    for _ in range(min(rank, len(rows))):
        chance = nearest.clamp_min(torch.finfo(cost.dtype).tiny).double().cpu()
        anchors.append(int(torch.multinomial(chance, 1, generator=generator)))
        from_here = (cost[:, match[anchors[-1]]] - cost[anchors[-1], match[anchors[-1]]]).clamp_min(0)
        nearest = from_here if len(anchors) == 1 else torch.minimum(nearest, from_here)
    anchors = torch.tensor(anchors, device=cost.device)
    anchors = anchors.repeat(-(-rank // len(anchors)))[:rank]
    softness = problem.scale * START_SOFTNESS
    source = -problem.factors.some_columns(columns[match[anchors]]) / softness
    target = -problem.factors.some_rows(rows[anchors]).mT / softness
    g = (problem.a.sum() / rank).expand(rank)
    while (start := _project(problem, _State(source, target, g))) is None:
        # Softer clusters are easier to project; at the latest those of the product coupling are their own projection.
        source, target = source / 2, target / 2
    return start


def _some(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Up to `count` points with mass, each at most once."""
    massive = (weights > 0).nonzero()[:, 0]
    return massive[torch.randperm(len(massive), generator=generator)[:count].to(massive.device)]


def _descend(problem: _Problem, state: _State, tolerance: float, max_iterations: int) -> tuple[_State, int, float]:
    """Mirror descent from `state`: the last state, the iterations, and the descent over the last accepted steps.

    The descent counts as 0 when not even a tiny step descends: that is a stationary point.
    """
    step, values, descent = STEP, [float(_objective(problem, state))], math.inf
    for iteration in range(1, max_iterations + 1):
        proposal = _project(problem, _stepped(problem, state, step))
        value = math.inf if proposal is None else float(_objective(problem, proposal))
        if proposal is None or not value <= values[-1]:
            # A rejected step says nothing about convergence, so it is not one of those that the descent is taken over.
            step /= 2
            if step < LEAST_STEP:
                return state, iteration, 0.0
            continue
        state = proposal
        values.append(value)
        if len(values) > WINDOW:
            descent = values[-1 - WINDOW] - value
            if descent <= tolerance:
                return state, iteration, descent
    return state, max_iterations, descent


def _stepped(problem: _Problem, state: _State, step: float) -> _State:
    """One step against the gradient in logarithms; constants in a row do not matter, the projection removes them."""
    epsilon, (source, target, g) = problem.epsilon, state
    q, r = problem.a[:, None] * source.exp(), problem.b[:, None] * target.exp()
    of_q = problem.factors.times(r) / (problem.scale * g)
    of_r = problem.factors.transposed_times(q) / (problem.scale * g)
    of_g = -(of_q * q).sum(0) / g
    of_q, of_r, of_g = (
        gradient - gradient.mean(-1, keepdim=True)
        for gradient in (of_q + epsilon * source, of_r + epsilon * target, of_g + epsilon * g.log())
    )
    size = max(float(part.abs().max()) for part in (of_q[problem.a > 0], of_r[problem.b > 0], of_g))
    gamma = step / size if size > 0 else 0.0
    return _State(source - gamma * of_q, target - gamma * of_r, g * torch.exp(-gamma * of_g))


def _project(problem: _Problem, state: _State) -> _State | None:
    """The nearest factors, in KL, with the marginals a and b and a common inner marginal; None if they were not found.

    They are softmax(source + s), softmax(target + t) and g exp(-s - t), where (s, t) minimizes the smooth convex
        sum_i a_i logsumexp(source_i + s) + sum_j b_j logsumexp(target_j + t) + sum_k g_k exp(-s_k - t_k):
    a few Newton steps in 2 rank unknowns, where alternating projections on sharp clusters take thousands.
    """
    rank, total = len(state.g), problem.a.sum()
    log_g = state.g.clamp_min(LEAST_SHARE * total).log()
    shifts = torch.zeros(2, rank, dtype=log_g.dtype, device=log_g.device)

    def moved(by: Tensor) -> tuple[Tensor, _State]:
        source, target, g = state.source + by[0], state.target + by[1], torch.exp(log_g - by.sum(0))
        sums = torch.logsumexp(source, 1), torch.logsumexp(target, 1)
        value = problem.a @ sums[0] + problem.b @ sums[1] + g.sum()
        return value, _State(source - sums[0][:, None], target - sums[1][:, None], g)

    value, found = moved(shifts)
    rounding = 4 * torch.finfo(log_g.dtype).eps
    for _ in range(NEWTON_STEPS):
        slopes, curvature = _derivatives(problem, found)
        if bool(slopes.abs().sum() <= INNER_TOLERANCE * total):
            break
        direction = -torch.linalg.solve(curvature, slopes.flatten()).reshape(2, rank)
        direction = direction * (LONGEST / direction.abs().max()).clamp_max(1.0)
        slope = (slopes * direction).sum()
        for halvings in range(BACKTRACKS):
            candidate = shifts + direction / 2**halvings
            new, there = moved(candidate)
            # A fair share of what the slope promises: mere descent lets long steps leap to and fro across the valley.
            if bool(new <= value + SUFFICIENT * slope / 2**halvings + rounding * value.abs()):
                shifts, value, found = candidate, new, there
                break
        else:
            break
    slopes = _derivatives(problem, found)[0]
    return found if bool(slopes.abs().sum() <= PROJECTED * total) else None


def _derivatives(problem: _Problem, state: _State) -> tuple[Tensor, Tensor]:
    """First derivatives [2, rank] and second [2 rank, 2 rank] of what `_project` minimizes."""
    rank, slopes = len(state.g), []
    curvature = state.g.diag().repeat(2, 2)
    for side, (weights, logits) in enumerate(((problem.a, state.source), (problem.b, state.target))):
        shares = logits.exp()
        mass = weights @ shares
        slopes.append(mass - state.g)
        here = slice(side * rank, (side + 1) * rank)
        curvature[here, here] += mass.diag() - shares.mT @ (weights[:, None] * shares)
    # A constant that moves from s to t changes nothing: give that direction some curvature of its own.
    flat = torch.cat((torch.ones_like(state.g), -torch.ones_like(state.g)))
    total = problem.a.sum()
    curvature += torch.outer(flat, flat) * (total / rank)
    curvature.diagonal().add_(RIDGE * total / rank)
    return torch.stack(slopes), curvature


def _objective(problem: _Problem, state: _State) -> Tensor:
    """The objective in scaled units."""
    q, r = problem.a[:, None] * state.source.exp(), problem.b[:, None] * state.target.exp()
    value = ((problem.factors.transposed_times(q) * r).sum(0) / state.g).sum() / problem.scale
    if problem.epsilon:
        value = value - problem.epsilon * sum(torch.special.entr(part).sum() + part.sum() for part in (q, r, state.g))
    return value


def _marginal_error(q: Tensor, r: Tensor, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    rows, columns = q @ (r.sum(0) / g), r @ (q.sum(0) / g)
    return ((rows - a).abs().sum() + (columns - b).abs().sum()) / a.sum()
