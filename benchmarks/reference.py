"""Converged float64 references, and the gate that a result has to pass before its time counts.

The reference of an entropic problem is made by a solver of its own: Newton's method on the semi-dual
    D(g) = sum_i a_i f_i(g) + sum_j b_j g_j,   f_i(g) = -epsilon log sum_j b_j exp((g_j - C_ij) / epsilon)
with epsilon scaling, in numpy and scipy. It is certified without reference to how it was found: the dual value is a
lower bound, a plan rounded to the marginals an upper bound, of the same strictly convex problem (Altschuler, Weed,
Rigollet 2017, algorithm 2). Every contestant that passes the gate confirms it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import logsumexp
from torch import Tensor

from benchmarks.problems import Clouds, Spaces, squared_distances
from benchmarks.solvers import GATE, Loss

COST_GATE = 1e-4
GRADIENT_GATE = 1e-5
# On a plan that is nearly sparse a float64 marginal cannot be much better than this.
CONVERGED = 1e-10
CERTIFIED = 1e-7
# Above this size the Newton system is solved by conjugate gradients instead of a factorization.
DENSE = 2048


class Entropic(NamedTuple):
    """A converged entropic plan: its transport cost, its gap between bounds (relative), and the potentials."""

    cost: float
    gap: float
    f: np.ndarray
    g: np.ndarray


class Verdict(NamedTuple):
    """Whether a result counts, and the numbers that decided: named errors, the first is the gate's own."""

    passed: bool
    errors: dict[str, float]


def entropic(cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> Entropic:
    """Solve one problem to machine precision and certify it.

    Raises:
        ArithmeticError: The bounds did not meet: there is no reference, so nothing may be compared.
    """
    matrix, rows, columns = (t.double().cpu().numpy() for t in (cost, a, b))
    rows, columns = rows / rows.sum(), columns / columns.sum()
    g = np.zeros_like(columns)
    level = max(float(matrix.mean()), epsilon)
    while True:
        last = level <= epsilon
        g = _newton(matrix, rows, columns, max(level, epsilon), g, CONVERGED if last else 1e-3)
        if last:
            break
        level /= 2.5
    f = _softmin(matrix, columns, g, epsilon)
    plan = _plan(matrix, rows, columns, f, g, epsilon)
    feasible = round_to_marginals(plan, rows, columns)
    lower = rows @ f + columns @ g
    upper = (feasible * matrix).sum() + epsilon * _relative_entropy(feasible, rows, columns)
    gap = (upper - lower) / abs(upper)
    if not abs(gap) < CERTIFIED:
        raise ArithmeticError(f"the reference is not converged: its bounds differ by {gap:.1e}, relative.")
    return Entropic(float((plan * matrix).sum()), float(gap), f, g)


def _softmin(cost: np.ndarray, weights: np.ndarray, g: np.ndarray, epsilon: float) -> np.ndarray:
    return -epsilon * logsumexp((g[None] - cost) / epsilon + np.log(weights)[None], axis=1)


def _plan(cost: np.ndarray, a: np.ndarray, b: np.ndarray, f: np.ndarray, g: np.ndarray, epsilon: float) -> np.ndarray:
    return np.exp((f[:, None] + g[None] - cost) / epsilon) * a[:, None] * b[None]


def _newton(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, g: np.ndarray, tolerance: float
) -> np.ndarray:
    """Maximize the semi-dual from g until the column marginal is within `tolerance` in L1; at most 300 steps.

    Every step begins with one of Sinkhorn's, which mends single points that are far off, where Newton's model fails.
    """
    for _ in range(300):
        f = _softmin(cost, b, g, epsilon)
        g = _softmin(cost.T, a, f, epsilon)
        f = _softmin(cost, b, g, epsilon)
        plan = _plan(cost, a, b, f, g, epsilon)
        columns = plan.sum(0)
        residual = b - columns
        error = np.abs(residual).sum()
        if error <= tolerance:
            break
        step = epsilon * _newton_step(plan, a, columns, residual, error)
        g = _line_search(cost, (a, b), epsilon, (f, g), step, residual @ step)
    return g


def _newton_step(plan: np.ndarray, a: np.ndarray, columns: np.ndarray, residual: np.ndarray, error: float):
    """Solve (diag(P^T 1) - P^T diag(1 / a) P + damping) s = residual, damped less and less."""
    m = len(columns)
    damping = columns * min(1e-3, error) + 1e-18
    if m <= DENSE:
        scaled = plan / np.sqrt(a)[:, None]
        system = -scaled.T @ scaled
        system[np.diag_indices(m)] += columns + damping
        system += 1 / m**2  # constants are in the kernel and do no harm
        return cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), residual)
    times = LinearOperator((m, m), matvec=lambda v: (columns + damping) * v - plan.T @ ((plan @ v) / a), dtype=float)
    jacobi = LinearOperator((m, m), matvec=lambda v: v / (columns + damping), dtype=float)
    return cg(times, residual, rtol=min(0.1, error), maxiter=2000, M=jacobi)[0]


def _line_search(
    cost: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    start: tuple[np.ndarray, np.ndarray],
    step: np.ndarray,
    slope: float,
) -> np.ndarray:
    """Halve the step until the semi-dual value grows as it should; stay where that does not happen."""
    (a, b), (f, g) = weights, start
    value = a @ f + b @ g
    size = 1.0
    while size > 1e-6:
        g_new = g + size * step
        # near the optimum the value is flat to rounding, and the full step is right
        gain = a @ _softmin(cost, b, g_new, epsilon) + b @ g_new - value
        if gain >= 1e-4 * size * slope - 1e-14 * abs(value):
            return g_new
        size /= 2
    return g


def _relative_entropy(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    product = a[:, None] * b[None]
    return float((plan * np.log(np.where(plan > 0, plan / product, 1.0)) - plan + product).sum())


def round_to_marginals(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The nearby plan that has the marginals exactly (Altschuler, Weed, Rigollet 2017, algorithm 2)."""
    plan = plan * np.minimum(1, a / np.maximum(plan.sum(1), 1e-300))[:, None]
    plan = plan * np.minimum(1, b / np.maximum(plan.sum(0), 1e-300))[None]
    rows, columns = a - plan.sum(1), b - plan.sum(0)
    missing = rows.sum()
    return plan + np.outer(rows, columns) / missing if missing > 0 else plan


def references(task: Clouds) -> list[Entropic]:
    """One reference for each problem of the task."""
    cost, a, b = (t.reshape(-1, *t.shape[-k:]) for t, k in ((task.cost, 2), (task.a, 1), (task.b, 1)))
    epsilons = task.epsilon.reshape(-1).tolist()
    return [entropic(*problem) for problem in zip(cost, a, b, epsilons, strict=True)]


def judge_plan(task: Clouds, reference: list[Entropic], plan: Tensor) -> Verdict:
    """The gate for plans: L1 marginal error and transport cost, the worst of the batch."""
    plan = torch.as_tensor(plan).detach().double().cpu().reshape(-1, *task.cost.shape[-2:])
    a, b = task.a.double(), task.b.double()
    marginal = (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)
    cost = (plan * task.cost.double()).sum((-2, -1))
    expected = torch.tensor([r.cost for r in reference], dtype=torch.float64)
    error, relative = float(marginal.max()), float(((cost - expected) / expected).abs().max())
    passed = error <= GATE[task.x.dtype] and relative <= COST_GATE
    return Verdict(passed, {"marginal": error, "cost": relative})


def loss_gradients(task: Clouds) -> Loss:
    """Value and gradients of entropic transport at the reference."""
    return _gradients((task.x, task.a), (task.y, task.b), float(task.epsilon))


def divergence_gradients(task: Clouds) -> Loss:
    """Value and gradients of the Sinkhorn divergence: the cross term minus half of each cloud with itself."""
    epsilon = float(task.epsilon)
    cross = loss_gradients(task)
    source, target = (_gradients(side, side, epsilon) for side in ((task.x, task.a), (task.y, task.b)))
    value = cross.value - (source.value + target.value) / 2
    return Loss(value, cross.x - (source.x + source.y) / 2, cross.y - (target.x + target.y) / 2)


def _gradients(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], epsilon: float) -> Loss:
    """With the plan held, 2 (a x - P y) and 2 (b y - P^T x)."""
    (x, a), (y, b) = ([t.double() for t in side] for side in (source, target))
    cost = squared_distances(x, y)
    solved = entropic(cost, a, b, epsilon)
    plan = torch.from_numpy(_plan(cost.numpy(), a.numpy(), b.numpy(), solved.f, solved.g, epsilon))
    value = float(a @ torch.from_numpy(solved.f) + b @ torch.from_numpy(solved.g))
    return Loss(value, 2 * (a[:, None] * x - plan @ y), 2 * (b[:, None] * y - plan.T @ x))


def judge_loss(task: Clouds, reference: Loss, result: Loss) -> Verdict:
    """The gate for losses: relative error of the gradients for both clouds together."""
    got, expected = (torch.cat([r.x.double().cpu(), r.y.double().cpu()]) for r in (result, reference))
    error = float((got - expected).norm() / expected.norm())
    return Verdict(error <= GRADIENT_GATE, {"gradient": error})


def gromov_objective(task: Spaces, plan: Tensor) -> tuple[float, float]:
    """Marginal error of a plan, and sum (dx - dy)^2 P P + epsilon KL(P | ab^T) of it rounded to the marginals."""
    values = torch.as_tensor(plan).detach().double().cpu().numpy()
    a, b = (np.full(k, 1 / k) for k in values.shape)
    error = np.abs(values.sum(1) - a).sum() + np.abs(values.sum(0) - b).sum()
    values = round_to_marginals(values, a, b)
    dx, dy = task.dx.numpy(), task.dy.numpy()
    distortion = a @ dx**2 @ a + b @ dy**2 @ b - 2 * ((dx @ values @ dy) * values).sum()
    return float(error), float(distortion + task.epsilon * _relative_entropy(values, a, b))


def judge_gromov(task: Spaces, reference: None, plan: Tensor) -> Verdict:
    """The gate for Gromov-Wasserstein at the accuracy that POT stops at; the objective is compared by the row."""
    error, objective = gromov_objective(task, plan)
    return Verdict(error <= 1e-3, {"marginal": error, "objective": objective})
