"""FGSM, PGD, APGD and random search: closed forms on linear losses, brute force on a retrieval, best point so far."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from labkit.attacks import ATTACKS, Ball, Retrieval, get
from labkit.attacks.apgd import checkpoints
from labkit.attacks.ball import NORMS
from labkit.registry import UnknownNameError

GRADIENT = ("fgsm", "pgd", "apgd")
KEYS = [f"key{i}" for i in range(8)]


def run(name: str, loss, x: Tensor, ball: Ball, *, steps: int = 40, restarts: int = 0, seed: int = 0) -> Tensor:
    starts = ball.starts(x, KEYS[: len(x)], seed=seed, count=restarts) or [torch.zeros_like(x)]
    return get(name)(loss, x, ball, starts, steps=steps)


@pytest.fixture
def slopes(generator) -> Tensor:
    return torch.randn(8, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("restarts", [0, 2])
def test_linear_losses_have_closed_forms(name, restarts, slopes, generator):
    """Linf: the sign corner, no other of the 64 is better; L2: along the gradient."""
    x = torch.randn(8, 6, dtype=torch.float64, generator=generator)
    if name == "fgsm" and restarts:
        pytest.skip("one step from a random place does not reach the optimum of an L2 ball")
    loss = lambda z: (z * slopes).sum(dim=1)
    delta = run(name, loss, x, Ball("linf", 0.3), restarts=restarts)
    corners = torch.tensor(list(itertools.product((-0.3, 0.3), repeat=6)), dtype=torch.float64)
    assert delta.allclose(0.3 * slopes.sign())
    assert (delta * slopes).sum(dim=1).allclose((corners @ slopes.T).amax(dim=0))
    delta = run(name, loss, x, Ball("l2", 0.3), restarts=restarts)
    if not restarts:  # from a random place it circles the optimum, where the loss is flat along the border
        assert delta.allclose(0.3 * slopes / slopes.norm(dim=1, keepdim=True), atol=1e-6)
    assert (delta * slopes).sum(dim=1).allclose(0.3 * slopes.norm(dim=1), rtol=2e-2)


@pytest.mark.parametrize("name", GRADIENT)
def test_corners_of_the_ball_and_of_the_range_of_inputs(name, slopes, generator):
    x = torch.rand(8, 6, dtype=torch.float64, generator=generator)
    delta = run(name, lambda z: (z * slopes).sum(dim=1), x, Ball("linf", 0.4, 0.0, 1.0))
    expected = torch.where(slopes > 0, (x + 0.4).clamp(max=1), (x - 0.4).clamp(min=0)) - x
    assert delta.allclose(expected)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_retrieval_by_a_linear_encoder_reaches_the_best_of_a_grid(name, norm, targeted, generator):
    """Two features, four items to be found: the loss is neither convex nor concave, 10 000 points cover the ball."""
    encoder = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    gallery = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    x = torch.randn(8, 2, dtype=torch.float64, generator=generator)
    relevant = torch.zeros(8, 4, dtype=torch.bool)
    relevant[torch.arange(8), torch.arange(8) % 4] = True
    goal = Retrieval(gallery, relevant, 2, targeted=targeted, temperature=0.05)
    side = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    grid = grid if norm == "linf" else grid[grid.norm(dim=1) <= 0.5]
    best = torch.stack([goal.take([i] * len(grid)).loss((x[i] + grid) @ encoder).amax() for i in range(8)])
    delta = run(name, lambda z: goal.loss(z @ encoder), x, Ball(norm, 0.5), restarts=4, steps=50)
    found = goal.loss((x + delta) @ encoder)
    assert (found > best - 1e-3).all()
    assert (found < best + 2e-2).all(), "nor is it outside the ball"


@pytest.mark.parametrize("name", list(ATTACKS))
@pytest.mark.parametrize("norm", NORMS)
def test_more_starts_and_what_is_found_never_get_worse(name, norm, slopes):
    """A wavy loss, whose gradient misleads: the best point so far is kept, the clean item being the first."""
    loss = lambda z: (z * slopes).sum(dim=1) + (20 * z).sin().sum(dim=1)
    x, ball = torch.zeros(8, 6, dtype=torch.float64), Ball(norm, 0.5)
    values = [loss(x)]
    for restarts in (1, 2, 4, 8):
        delta = run(name, loss, x, ball, restarts=restarts, steps=7)
        values.append(loss(x + delta))
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer).all()
    assert (values[-1] > values[1]).any()


@pytest.mark.parametrize("name", GRADIENT)
def test_a_loss_without_an_ascent_leaves_the_item_alone(name):
    x = torch.zeros(2, 3)
    for loss in (lambda z: -z.square().sum(dim=1), lambda z: (0 * z).sum(dim=1)):
        assert (run(name, loss, x, Ball("linf", 0.1)) == 0).all()


def test_roots_at_zero_have_no_gradient_and_do_no_harm():
    x = torch.zeros(1, 2)
    delta = run("pgd", lambda z: z[:, 0].abs().sqrt() + z[:, 1], x, Ball("linf", 0.1))
    assert torch.isfinite(delta).all()
    assert float(delta[0, 1]) == pytest.approx(0.1)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_rows_are_attacked_by_themselves(name, slopes):
    x, ball = torch.zeros(8, 6, dtype=torch.float64), Ball("l2", 0.5)
    loss_of = lambda rows: lambda z: (z * slopes[rows]).sum(dim=1) + (8 * z).cos().sum(dim=1)
    whole = get(name)(loss_of(range(8)), x, ball, ball.starts(x, KEYS, seed=0, count=2), steps=9)
    for i in (0, 5):
        alone = get(name)(loss_of([i]), x[[i]], ball, ball.starts(x[[i]], [KEYS[i]], seed=0, count=2), steps=9)
        assert alone[0].allclose(whole[i], atol=1e-12)


def test_apgd_beats_pgd_where_the_valley_is_narrow():
    """Momentum and halved steps, on a stretched quadratic whose optimum lies inside the ball."""
    optimum = torch.tensor([[0.31, -0.13]], dtype=torch.float64)
    weights = torch.tensor([1.0, 10.0], dtype=torch.float64)
    loss = lambda z: -(weights * (z - optimum).square()).sum(dim=1)
    x, ball = torch.zeros(1, 2, dtype=torch.float64), Ball("l2", 0.5)
    errors = {name: -float(loss(run(name, loss, x, ball, steps=20))) for name in ("fgsm", "pgd", "apgd")}
    assert 10 * errors["apgd"] < errors["pgd"] < errors["fgsm"]


def test_checkpoints_of_the_paper():
    """Croce and Hein, section 3: p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06)."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50) == [11, 21, 29, 35, 40, 44, 47, 50]
    assert checkpoints(1) == [1]


def test_unknown_attacks_name_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        get("pdg")
