"""What a contestant is, and labkit's own: the call a user would make, at the tolerance of the gate.

A contestant's `prepare(task, device)` converts the data and compiles; nothing of that is timed. `run()` is what is
timed, `read(result)` turns its result into what the gate looks at: a plan, or a value with gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.problems import Clouds, Spaces
from labkit import ot

GATE = {torch.float64: 1e-6, torch.float32: 1e-4}
ITERATIONS = 100_000


class Prepared(NamedTuple):
    """A call that is ready to be timed, and how to read its result."""

    run: Callable[[], Any]
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class Solver:
    """One contestant.

    Attributes:
        name: As printed.
        package: What has to be importable.
        prepare: Makes the timed call for a task on a device.
        cuda: Whether it can run on CUDA.
        cpu: Whether it can run on CPU.
    """

    name: str
    package: str
    prepare: Callable[[Any, str], Prepared]
    cuda: bool = True
    cpu: bool = True

    def available(self, device: str) -> bool:
        """Whether it is installed and runs on this kind of device."""
        return find_spec(self.package) is not None and (self.cuda if device == "cuda" else self.cpu)


class Loss(NamedTuple):
    """Value and gradients of a transport loss."""

    value: float
    x: Tensor
    y: Tensor


def gate(task: Clouds) -> float:
    """L1 marginal error, rows and columns together, that a result has to reach."""
    return GATE[task.x.dtype]


def leaves(task: Clouds, device: str) -> tuple[Tensor, Tensor]:
    """Points that gradients are asked for."""
    return task.x.to(device).clone().requires_grad_(), task.y.to(device).clone().requires_grad_()


def itself(result: Any) -> Any:
    """For solvers that return what is asked for."""
    return result


def differentiated(value: Callable[[Tensor, Tensor], Tensor], task: Clouds, device: str) -> Prepared:
    """Forward and backward of a loss of two clouds."""
    x, y = leaves(task, device)

    def run() -> Loss:
        loss = value(x, y)
        return Loss(float(loss.detach()), *torch.autograd.grad(loss, (x, y)))

    return Prepared(run, itself)


def _sinkhorn(task: Clouds, device: str) -> Prepared:
    task = task.to(device)
    geometry = ot.CostMatrix(task.cost)

    def run() -> ot.Coupling:
        return ot.sinkhorn(geometry, task.a, task.b, epsilon=task.r, tolerance=gate(task), max_iterations=ITERATIONS)

    return Prepared(run, lambda coupling: coupling.plan)


def _loss(task: Clouds, device: str) -> Prepared:
    tolerance = gate(task)
    a, b = task.a.to(device), task.b.to(device)

    def value(x: Tensor, y: Tensor) -> Tensor:
        clouds = ot.PointCloud(x, y)
        coupling = ot.sinkhorn(clouds, a, b, epsilon=task.r, tolerance=tolerance, max_iterations=ITERATIONS)
        return coupling.regularized_cost

    return differentiated(value, task, device)


def _divergence(task: Clouds, device: str) -> Prepared:
    tolerance = gate(task)

    def value(x: Tensor, y: Tensor) -> Tensor:
        return ot.sinkhorn_divergence(x, y, epsilon=task.r, tolerance=tolerance, max_iterations=ITERATIONS)

    return differentiated(value, task, device)


def _gromov(task: Spaces, device: str) -> Prepared:
    if task.x is None or task.y is None:
        first, second = (ot.CostMatrix(d.to(device)) for d in (task.dx, task.dy))
    else:
        first, second = (_with_itself(z.to(device)) for z in (task.x, task.y))

    def run() -> ot.Coupling:
        return ot.gromov_wasserstein(first, second, epsilon=task.r, tolerance=1e-5, max_iterations=1000)

    return Prepared(run, lambda coupling: coupling.plan)


def _with_itself(points: Tensor) -> ot.PointCloud:
    return ot.PointCloud(points, points)


OURS = "labkit"
SINKHORN = Solver(OURS, "labkit", _sinkhorn)
LOSS = Solver(OURS, "labkit", _loss)
DIVERGENCE = Solver(OURS, "labkit", _divergence)
GROMOV = Solver(OURS, "labkit", _gromov)
