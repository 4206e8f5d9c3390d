"""One small adapter per peer, each at the tolerance with which it passes the gate.

POT stops on the L2 error of one marginal, so it gets gate / sqrt(n); its batched solver on the change of the scalings,
which takes gate / 10; OTT-JAX on the L1 error of one marginal, which with momentum takes gate / 4; mdot's error falls
with its temperature gamma as H / gamma^p, so p is set to end at the gate; regot on the L2 norm of the gradient, which
takes 1/2 (SSNS) and 1/4 (SPLR) of gate / sqrt(n); geomloss has no stopping rule and gets its schedule (`scaling`).
Packages are imported where they are used: one that is absent is skipped by the race.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.problems import Clouds, Spaces
from benchmarks.solvers import ITERATIONS, Loss, Prepared, Solver, differentiated, gate, itself

if TYPE_CHECKING:
    import jax


def _l2(task: Clouds) -> float:
    return gate(task) / math.sqrt(task.y.shape[-2])


def _pot(method: str) -> Callable[[Clouds, str], Prepared]:
    def prepare(task: Clouds, device: str) -> Prepared:
        import ot as pot

        task = task.to(device)
        epsilon = task.epsilon.reshape(-1).tolist()
        flat = [list(t.reshape(-1, *t.shape[-k:])) for t, k in ((task.a, 1), (task.b, 1), (task.cost, 2))]
        if device == "cpu":  # its numpy backend is the fastest there
            flat = [[t.numpy() for t in tensors] for tensors in flat]
        settings = {"method": method, "numItermax": ITERATIONS, "stopThr": _l2(task), "warn": False}

        def run() -> list[Any]:
            return [pot.sinkhorn(*problem, reg, **settings) for *problem, reg in zip(*flat, epsilon, strict=True)]

        return Prepared(run, lambda plans: torch.stack([torch.as_tensor(p) for p in plans]).reshape(task.cost.shape))

    return prepare


def _pot_batch(task: Clouds, device: str) -> Prepared:
    import ot.batch

    task = task.to(device)
    # it takes one strength for all problems: scale the costs instead
    cost = task.cost / task.epsilon[:, None, None]

    def run() -> Any:
        return ot.batch.solve_batch(
            cost, 1.0, task.a, task.b, max_iter=ITERATIONS, tol=gate(task) / 10, method="log_sinkhorn", grad="detach"
        )

    return Prepared(run, lambda result: result.plan)


def _regot(solver: str, ease: float = 1.0) -> Callable[[Clouds, str], Prepared]:
    def prepare(task: Clouds, device: str) -> Prepared:
        import regot

        cost, a, b = (t.double().reshape(-1, *t.shape[-k:]) for t, k in ((task.cost, 2), (task.a, 1), (task.b, 1)))
        problems = [
            (np.asfortranarray(c.numpy()), p.numpy(), q.numpy(), e)
            for c, p, q, e in zip(cost, a, b, task.epsilon.reshape(-1).tolist(), strict=True)
        ]
        solve, tolerance = getattr(regot, solver), ease * _l2(task)

        def run() -> list[Any]:
            return [solve(*problem, tol=tolerance, max_iter=ITERATIONS) for problem in problems]

        return Prepared(run, lambda found: torch.stack([torch.tensor(r.plan) for r in found]).reshape(task.cost.shape))

    return prepare


def _mdot(task: Clouds, device: str) -> Prepared:
    from mdot_tnt.batched import _batched_mdot
    from mdot_tnt.mdot import mdot

    task = task.to(device)
    scaled = task.cost / task.epsilon[..., None, None]
    gamma = float(scaled.max())
    cost = scaled / gamma
    entropy = float(-(task.a * task.a.log()).sum(-1).min())
    power = math.log(entropy / gate(task)) / math.log(gamma)
    solve = mdot if cost.ndim == 2 else _batched_mdot

    def run() -> tuple[Any, ...]:
        return solve(task.a, task.b, cost, gamma, p=power)

    return Prepared(run, lambda result: (result[0][..., :, None] + result[1][..., None, :] - scaled).exp())


def _ott(momentum: bool) -> Callable[[Clouds, str], Prepared]:
    def prepare(task: Clouds, device: str) -> Prepared:
        import jax

        arrays = _jax_arrays(task.cost, task.a, task.b, task.epsilon)
        solve = _ott_solve(gate(task) / (4 if momentum else 1), momentum)
        batched = jax.vmap(solve) if task.cost.ndim == 3 else solve
        compiled = jax.jit(batched).lower(*arrays).compile()

        def read(result: Any) -> Tensor:
            # OTT's potentials contain the logarithms of the weights
            f, g = (torch.tensor(np.asarray(p)) for p in result)
            return ((f[..., :, None] + g[..., None, :] - task.cost) / task.epsilon[..., None, None]).exp()

        return Prepared(lambda: jax.block_until_ready(compiled(*arrays)), read)

    return prepare


def _jax_arrays(*tensors: Tensor) -> list[jax.Array]:
    import jax

    # with 64 bits switched on, OTT's momentum mixes types in float32
    jax.config.update("jax_enable_x64", tensors[0].dtype == torch.float64)
    return [jax.numpy.asarray(t.numpy()) for t in tensors]


def _ott_solve(threshold: float, momentum: bool) -> Callable[..., tuple[Any, Any]]:
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    # adaptive over-relaxation (Lehmann et al. 2021), as OTT's documentation sets it up
    faster = acceleration.Momentum(start=100) if momentum else None

    def solve(cost: Any, a: Any, b: Any, epsilon: Any) -> tuple[Any, Any]:
        problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a=a, b=b)
        out = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=ITERATIONS, momentum=faster)(problem)
        return out.f, out.g

    return solve


def _pot_envelope_by_hand(task: Clouds, device: str) -> Prepared:
    import ot as pot

    task = task.to(device)
    epsilon, x, y = float(task.epsilon), task.x, task.y
    settings = {"numItermax": ITERATIONS, "stopThr": _l2(task), "warn": False}

    def run() -> Loss:
        cost = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
        if device == "cpu":
            plan = torch.from_numpy(pot.sinkhorn(task.a.numpy(), task.b.numpy(), cost.numpy(), epsilon, **settings))
        else:
            plan = pot.sinkhorn(task.a, task.b, cost, epsilon, **settings)
        gradient_x, gradient_y = 2 * (task.a[:, None] * x - plan @ y), 2 * (task.b[:, None] * y - plan.T @ x)
        return Loss(float((plan * cost).sum()), gradient_x, gradient_y)

    return Prepared(run, itself)


def _pot_envelope(task: Clouds, device: str) -> Prepared:
    import ot as pot

    a, b, epsilon = task.a.to(device), task.b.to(device), float(task.epsilon)
    settings = {"reg": epsilon, "reg_type": "KL", "max_iter": ITERATIONS, "tol": _l2(task), "grad": "envelope"}

    def value(x: Tensor, y: Tensor) -> Tensor:
        return pot.solve_sample(x, y, a, b, **settings).value

    return differentiated(value, task, device)


def _geomloss(scaling: float, debias: bool) -> Callable[[Clouds, str], Prepared]:
    def prepare(task: Clouds, device: str) -> Prepared:
        from geomloss import SamplesLoss

        a, b = task.a.to(device), task.b.to(device)
        # its cost is |x - y|^2 / 2 and its epsilon is blur^2
        blur = math.sqrt(float(task.epsilon) / 2)
        loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, debias=debias, backend="tensorized")
        return differentiated(lambda x, y: 2 * loss(a, x, b, y), task, device)

    return prepare


def _ott_loss(debias: bool) -> Callable[[Clouds, str], Prepared]:
    def prepare(task: Clouds, device: str) -> Prepared:
        import jax

        x, y, a, b = _jax_arrays(task.x, task.y, task.a, task.b)
        value = _ott_value(gate(task), float(task.epsilon), debias)
        compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1))).lower(x, y, a, b).compile()

        def read(result: Any) -> Loss:
            gradients = (torch.tensor(np.asarray(g)) for g in result[1])
            return Loss(float(result[0]), *gradients)

        return Prepared(lambda: jax.block_until_ready(compiled(x, y, a, b)), read)

    return prepare


def _ott_value(threshold: float, epsilon: float, debias: bool) -> Callable[..., Any]:
    from ott.geometry import pointcloud
    from ott.solvers import linear
    from ott.tools import sinkhorn_divergence

    settings = {"threshold": threshold, "max_iterations": ITERATIONS}

    def divergence(x: Any, y: Any, a: Any, b: Any) -> Any:
        return sinkhorn_divergence.sinkhorn_divergence(
            pointcloud.PointCloud, x, y, a=a, b=b, epsilon=epsilon, solve_kwargs=settings
        )[0]

    def transport(x: Any, y: Any, a: Any, b: Any) -> Any:
        return linear.solve(pointcloud.PointCloud(x, y, epsilon=epsilon), a, b, **settings).reg_ot_cost

    return divergence if debias else transport


def _flash(task: Clouds, device: str) -> Prepared:
    """flash-sinkhorn: streaming Triton kernels, float32 only; it stops on the change of the potentials."""
    from flash_sinkhorn import SamplesLoss

    task = task.to(device)
    epsilon = float(task.epsilon)
    solve = SamplesLoss(potentials=True, **_flash_settings(epsilon, gate(task)))

    def read(potentials: tuple[Tensor, Tensor]) -> Tensor:
        f, g = potentials
        return task.a[:, None] * task.b[None] * ((f[:, None] + g[None] - task.cost) / epsilon).exp()

    return Prepared(lambda: solve(task.a, task.x, task.b, task.y), read)


def _flash_loss(task: Clouds, device: str) -> Prepared:
    from flash_sinkhorn import SamplesLoss

    a, b = task.a.to(device), task.b.to(device)
    loss = SamplesLoss(**_flash_settings(float(task.epsilon), gate(task)))
    return differentiated(lambda x, y: loss(a, x, b, y), task, device)


def _flash_settings(epsilon: float, tolerance: float) -> dict[str, Any]:
    # a change of epsilon * delta in a potential moves the marginals by delta, relative
    fixed = {"backend": "alternating", "use_epsilon_scaling": False, "allow_tf32": False, "normalize": False}
    return {**fixed, "eps": epsilon, "n_iters": ITERATIONS, "threshold": epsilon * tolerance / 2}


def _pot_gromov(task: Spaces, device: str) -> Prepared:
    import ot as pot

    spaces = [d.to(device) if device == "cuda" else d.numpy() for d in (task.dx, task.dy)]

    def run() -> Any:
        return pot.gromov.entropic_gromov_wasserstein(*spaces, epsilon=task.epsilon, symmetric=True, warn=False)

    return Prepared(run, torch.as_tensor)


def _ott_gromov(task: Spaces, device: str) -> Prepared:
    import jax
    from ott.geometry import geometry
    from ott.solvers import quadratic

    arrays = _jax_arrays(task.dx, task.dy)
    inner = {"threshold": 1e-5, "max_iterations": ITERATIONS}

    def solve(dx: Any, dy: Any) -> Any:
        spaces = (geometry.Geometry(d) for d in (dx, dy))
        # its linearization is half of POT's and ours, so its epsilon is too
        out = quadratic.solve(
            *spaces, epsilon=task.epsilon / 2, threshold=1e-6, max_iterations=1000, linear_solver_kwargs=inner
        )
        return out.matrix

    compiled = jax.jit(solve).lower(*arrays).compile()
    return Prepared(lambda: jax.block_until_ready(compiled(*arrays)), lambda plan: torch.tensor(np.asarray(plan)))


SINKHORN = (
    Solver("POT", "ot", _pot("sinkhorn")),
    Solver("POT log", "ot", _pot("sinkhorn_log")),
    Solver("OTT", "ott", _ott(momentum=False), cuda=False),
    Solver("OTT momentum", "ott", _ott(momentum=True), cuda=False),
    Solver("mdot", "mdot_tnt", _mdot),
    Solver("regot SSNS", "regot", _regot("sinkhorn_ssns", ease=0.5), cuda=False),
    Solver("regot SPLR", "regot", _regot("sinkhorn_splr", ease=0.25), cuda=False),
)
SINKHORN_FLOAT32 = (*SINKHORN, Solver("flash-sinkhorn", "flash_sinkhorn", _flash, cpu=False))
BATCH = (
    Solver("POT loop", "ot", _pot("sinkhorn")),
    Solver("POT batch", "ot", _pot_batch),
    Solver("OTT vmap", "ott", _ott(momentum=False), cuda=False),
    Solver("OTT vmap momentum", "ott", _ott(momentum=True), cuda=False),
    Solver("mdot batched", "mdot_tnt", _mdot),
    Solver("regot SSNS loop", "regot", _regot("sinkhorn_ssns", ease=0.5), cuda=False),
)
BY_HAND = "POT by hand"
GEOMLOSS = "geomloss .99"
LOSS = (
    Solver(BY_HAND, "ot", _pot_envelope_by_hand),
    Solver("POT envelope", "ot", _pot_envelope),
    Solver("geomloss .9", "geomloss", _geomloss(0.9, debias=False)),
    Solver(GEOMLOSS, "geomloss", _geomloss(0.99, debias=False)),
    Solver("OTT", "ott", _ott_loss(debias=False), cuda=False),
    Solver("flash-sinkhorn", "flash_sinkhorn", _flash_loss, cpu=False),
)
DIVERGENCE = (
    Solver("geomloss .9", "geomloss", _geomloss(0.9, debias=True)),
    Solver(GEOMLOSS, "geomloss", _geomloss(0.99, debias=True)),
    Solver("OTT", "ott", _ott_loss(debias=True), cuda=False),
)
GROMOV = (
    Solver("POT", "ot", _pot_gromov),
    Solver("OTT", "ott", _ott_gromov, cuda=False),
)
