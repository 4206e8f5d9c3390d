"""The transport benchmark says the truth: problems are what they claim, the gate holds, peers pass it, races end.

Every row of the benchmark runs here at a small size as a test of correctness, never of time.
"""

from __future__ import annotations

import csv
import functools
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from benchmarks import budget, limit, peers, problems, race, reference, rows, solvers, transport

N = 40
SMALL = functools.partial(problems.gmm, N, 0.1, seed=3)


@pytest.fixture(scope="module", autouse=True)
def tolerate_jax():
    """JAX warns that a process with threads forks; the children of a race import it themselves."""
    os.environ["JAX_PLATFORMS"] = "cpu"


def small(row: rows.Race) -> tuple[object, object]:
    """A small problem of the kind of a row, and its reference."""
    task = row.tiny()
    return task, row.refer(task)


# problems


def test_the_mixture_is_normalized_and_weights_are_uniform():
    task = problems.gmm(200, 0.05, seed=0)
    torch.testing.assert_close(task.x.norm(dim=1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(task.y.norm(dim=1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(task.a, torch.full((200,), 1 / 200, dtype=torch.float64))
    assert not torch.equal(task.x, problems.gmm(200, 0.05, seed=1).x)
    torch.testing.assert_close(task.x, problems.gmm(200, 0.05, seed=0).x)


def test_the_anisotropic_clouds_are_heavy_tailed_shifted_and_weighted():
    task = problems.aniso(500, 0.05, seed=0)
    deviation = task.x.std(0)
    assert deviation.max() > 10 * deviation.min()
    kurtosis = ((task.x - task.x.mean(0)) / deviation).pow(4).mean(0)
    assert kurtosis.mean() > 4  # 3 for a normal
    assert (task.x.mean(0) - task.y.mean(0)).norm() > 1
    assert float(task.a.sum()) == pytest.approx(1)
    assert task.a.max() > 3 * task.a.mean()


@pytest.mark.parametrize("make", [problems.gmm, problems.aniso])
def test_epsilon_is_relative_to_the_mean_cost_and_costs_are_squared_distances(make):
    task = make(N, 0.05, seed=0)
    expected = cdist(task.x, task.y, "sqeuclidean")
    np.testing.assert_allclose(task.cost, expected, rtol=1e-10)
    assert float(task.epsilon) == pytest.approx(0.05 * float(task.a.numpy() @ expected @ task.b.numpy()))


def test_a_batch_holds_different_problems_with_their_own_epsilon():
    task = problems.gmm(N, 0.05, seed=0, batch=3)
    assert task.cost.shape == (3, N, N)
    assert len(set(task.epsilon.tolist())) == 3


@pytest.mark.parametrize("make", [problems.features, problems.geodesic])
def test_spaces_are_distances_of_mean_one(make):
    task = make(N, 0.05, seed=0)
    for distances in (task.dx, task.dy):
        torch.testing.assert_close(distances, distances.T)
        assert float(distances.mean()) == pytest.approx(1)
        assert (distances.diagonal() == 0).all()
        assert torch.isfinite(distances).all()
    uniform = np.full(N, 1 / N)
    product = ((task.dx.numpy()[:, None, :, None] - task.dy.numpy()[None, :, None, :]) ** 2).mean()
    assert task.epsilon == pytest.approx(0.05 * product)
    assert uniform.sum() == pytest.approx(1)


def test_features_give_the_distances_they_stand_for():
    task = problems.features(N, 0.05, seed=0)
    expected = cdist(task.x, task.x, "sqeuclidean")
    np.testing.assert_allclose(task.dx, expected / expected.mean(), rtol=1e-9, atol=1e-12)
    assert task.x.shape[1] != task.y.shape[1]


def test_the_known_optimum_is_the_optimum():
    task = problems.convex(300, seed=0)
    cost = cdist(task.x, task.y, "sqeuclidean")
    row, column = linear_sum_assignment(cost)
    assert cost[row, column].mean() == pytest.approx(task.optimum, rel=1e-5)
    np.testing.assert_array_equal(column, task.match)
    assert task.gap(task.match) == 0
    assert task.product == pytest.approx(cost.mean(), rel=1e-5)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert task.gap(shuffled) == pytest.approx(1, abs=0.15)


# references and gates


@pytest.mark.parametrize("make", [problems.gmm, problems.aniso])
@pytest.mark.parametrize("r", [0.2, 0.08])
def test_the_reference_agrees_with_another_solver(make, r):
    import ot as pot

    task = make(N, r, seed=1)
    (solved,) = reference.references(task)
    a, b, cost = task.a.numpy(), task.b.numpy(), task.cost.numpy()
    plan = pot.sinkhorn(a, b, cost, float(task.epsilon), method="sinkhorn_log", numItermax=5_000, stopThr=1e-9)
    assert solved.cost == pytest.approx((plan * cost).sum(), rel=1e-6)
    assert abs(solved.gap) < 1e-10


def test_the_reference_of_large_problems_is_the_same(monkeypatch):
    task = SMALL()
    direct = reference.references(task)
    monkeypatch.setattr(reference, "DENSE", 1)
    assert reference.references(task)[0].cost == pytest.approx(direct[0].cost, rel=1e-9)


def test_a_reference_that_did_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr(reference, "_newton", lambda cost, a, b, epsilon, g, tolerance: g)
    with pytest.raises(ArithmeticError, match="not converged"):
        reference.references(SMALL())


def test_rounding_gives_the_marginals_exactly():
    random = np.random.default_rng(0)
    a, b = random.dirichlet(np.ones(5)), random.dirichlet(np.ones(7))
    plan = reference.round_to_marginals(random.random((5, 7)) / 35, a, b)
    np.testing.assert_allclose(plan.sum(1), a)
    np.testing.assert_allclose(plan.sum(0), b)
    assert (plan >= 0).all()


def test_the_gate_rejects_wrong_plans():
    task = SMALL()
    solved = reference.references(task)
    right = torch.from_numpy(
        reference._plan(
            task.cost.numpy(), task.a.numpy(), task.b.numpy(), solved[0].f, solved[0].g, float(task.epsilon)
        )
    )
    assert reference.judge_plan(task, solved, right).passed
    product = task.a[:, None] * task.b[None]  # right marginals, wrong cost
    verdict = reference.judge_plan(task, solved, product)
    assert not verdict.passed
    assert verdict.errors["marginal"] < 1e-12
    assert verdict.errors["cost"] > 0.01
    off = right.clone()
    off[0, 0] += 3e-6  # right cost, wrong marginals
    verdict = reference.judge_plan(task, solved, off)
    assert not verdict.passed
    assert verdict.errors["marginal"] == pytest.approx(6e-6, rel=1e-3)
    assert not reference.judge_plan(task, solved, right * float("nan")).passed


@pytest.mark.parametrize("refer", [reference.loss_gradients, reference.divergence_gradients])
def test_reference_gradients_are_finite_differences_of_the_value(refer):
    task = problems.gmm(12, 0.1, seed=0)
    found = refer(task)
    h = 1e-5
    # the strength must stay what it was while a point moves: scale r by the change of the mean cost
    for side, gradient in (("x", found.x), ("y", found.y)):
        values = []
        for sign in (1, -1):
            points = getattr(task, side).clone()
            points[2, 5] += sign * h
            shifted = replace(task, **{side: points})
            values.append(refer(replace(shifted, r=float(task.r * task.epsilon / shifted.epsilon))).value)
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(gradient[2, 5]), rel=1e-4)
    wrong = solvers.Loss(found.value, found.x * 1.0001, found.y)
    assert reference.judge_loss(task, found, found).passed
    assert not reference.judge_loss(task, found, wrong).passed


def test_the_objective_of_a_gromov_plan_is_the_sum_it_stands_for():
    task = problems.geodesic(15, 0.05, seed=0)
    plan = torch.from_numpy(reference.round_to_marginals(np.eye(15) / 15, np.full(15, 1 / 15), np.full(15, 1 / 15)))
    error, objective = reference.gromov_objective(task, plan)
    difference = (task.dx[:, None, :, None] - task.dy[None, :, None, :]).square()
    entropy = float((plan[plan > 0] * (plan[plan > 0] * 225).log()).sum())
    assert error < 1e-12
    assert objective == pytest.approx(
        float(torch.einsum("ijkl,ij,kl->", difference, plan, plan)) + task.epsilon * entropy
    )


# every row, every contestant


RACES = [row for row in rows.ROWS if isinstance(row, rows.Race)]
ENTRIES = [pytest.param(row, solver, id=f"{row.name}-{solver.name}") for row in RACES for solver in row.solvers]
KINDS = {(row.judge, row.refer, solver): param for param in ENTRIES for row, solver in [param.values]}
INACCURATE = {"geomloss .9", peers.GEOMLOSS}  # no stopping rule: the gate has to see that


@pytest.mark.parametrize(("row", "solver"), KINDS.values())
def test_contestants_pass_the_gate(row, solver):
    if not solver.available("cpu"):
        pytest.skip(f"{solver.name} is not installed or needs CUDA")
    task, known = small(row)
    prepared = solver.prepare(task, "cpu")
    verdict = row.judge(task, known, prepared.read(prepared.run()))
    assert verdict.passed is (solver.name not in INACCURATE), verdict


def test_the_memory_row_counts_kernel_matrices():
    figures = budget.isolated(budget.loss_memory, 1024, 0, "cpu")
    assert 0.5 < figures["matrices"] < 12


def test_the_row_of_large_clouds_matches_every_point_once_near_the_optimum():
    figures = budget.isolated(budget.refine, 2500, 0, "cpu")
    assert figures["unmatched"] == 0
    assert -1e-6 < figures["gap"] < 0.02
    assert 0.05 < figures["gigabytes"] < 4
    assert figures["seconds"] > 0


def test_the_limit_is_a_time():
    assert 0 < limit.loss_limit(64, 16, "cpu") < 1


# races


def tiny_row(*contestants: solvers.Solver, claims: tuple = (rows.faster_than_best(1),)) -> rows.Race:
    row = rows.sinkhorn(problems.gmm, N, 0.1, 1)
    return replace(row, name="tiny", solvers=(solvers.SINKHORN, *contestants), claims=claims)


def forever(task: problems.Clouds, device: str) -> solvers.Prepared:
    def run() -> None:
        while task.x.shape[0] == N:  # not on the problem to warm up on
            pass

    return solvers.Prepared(run, solvers.itself)


def product_plan(task: problems.Clouds, device: str) -> solvers.Prepared:
    return solvers.Prepared(lambda: task.a[:, None] * task.b[None], solvers.itself)


def broken(task: problems.Clouds, device: str) -> solvers.Prepared:
    raise RuntimeError("no such thing")


def test_a_peer_that_takes_too_long_is_stopped_and_the_race_goes_on():
    row = tiny_row(solvers.Solver("slow", "torch", forever), solvers.Solver("POT", "ot", peers._pot("sinkhorn")))
    summary = rows.summarize(row.run([0, 1], "cpu"))
    assert {name: e.status for name, e in summary.items()} == {"labkit": "ok", "slow": "DNF", "POT": "ok"}
    assert rows.best_peer(summary) == "POT"


def test_what_misses_the_gate_or_raises_has_no_time_in_the_table():
    row = tiny_row(solvers.Solver("wrong", "torch", product_plan), solvers.Solver("broken", "torch", broken))
    found = row.run([0], "cpu")
    summary = rows.summarize(found)
    assert summary["wrong"].status == "fails"
    assert summary["broken"].status == "error"
    assert "no such thing" in summary["broken"].note
    assert rows.best_peer(summary) is None
    line = transport._lines(row, found, "cpu")
    assert "wrong fails (cost" in line
    assert "no peer passed" in line


def test_the_kernel_ends_compiled_code_too():
    code = os.fork()
    if code == 0:
        race.with_limit(0.2, "cpu")
        matrix = torch.ones(600, 600)
        start = time.monotonic()
        while time.monotonic() < start + 60:
            matrix = matrix @ matrix
        os._exit(0)
    _, status = os.waitpid(code, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGPROF


def entry(status: str, seconds: float, **errors: float) -> rows.Entry:
    return rows.Entry(status, seconds, errors, "")


def test_claims_say_what_was_found():
    summary = {
        "labkit": entry("ok", 2.0, gap=0.01, objective=1.0),
        "quick but wrong": entry("fails", 0.1, cost=0.5),
        "right": entry("ok", 9.0, objective=0.9),
        "endless": entry("DNF", 40.0),
    }
    assert rows.faster_than_best(4)(summary, "cpu") == ("4.50 x", ">= 4 x the best peer", True)
    assert rows.faster_than_best(5)(summary, "cpu").met is False
    assert rows.faster_than("quick but wrong", 8)(summary, "cpu").met is False
    assert rows.faster_than("endless", 8)(summary, "cpu") == ("> 20.00 x", ">= 8 x endless", True)
    assert rows.faster_than("absent", 8)(summary, "cpu").met is None
    assert rows.at_most("gap", 0.02)(summary, "cpu").met
    assert not rows.at_most("gap", 0.005)(summary, "cpu").met
    assert rows.not_above("right")(summary, "cpu").met is False
    alone = {name: e for name, e in summary.items() if name != "right"}
    assert rows.faster_than_best(4)(alone, "cpu") == ("> 20 x", ">= 4 x the best peer", True)
    failing = summary | {"labkit": entry("fails", 2.0, gap=0.01)}
    assert rows.faster_than_best(1)(failing, "cpu").met is False
    assert rows.at_most("gap", 1)(failing, "cpu").met is False


# the command


def test_the_command_prints_a_table_and_writes_every_measurement(tmp_path, capsys):
    pot = solvers.Solver("POT", "ot", peers._pot("sinkhorn"))
    absent = solvers.Solver("nobody", "no_such_package", broken)
    chosen = (tiny_row(pot, absent), replace(tiny_row(pot), name="another"))
    output = tmp_path / "new" / "transport.csv"
    options = ["--rows", "tiny", "--seeds", "2", "--first-seed", "7", "--output", str(output)]
    assert transport.main(options, chosen) == 0
    printed = capsys.readouterr().out
    assert "skipped: nobody" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("| tiny")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert len(cells) == len(transport.TABLE_HEAD[0].strip("|").split("|"))
    assert cells[1] == "2"
    assert cells[2].endswith(" s")
    assert cells[4].startswith("POT ")
    assert cells[7] in ("yes", "NO")
    with output.open() as file:
        written = list(csv.DictReader(file))
    assert [(m["seed"], m["solver"], m["status"]) for m in written] == [
        (seed, solver, "ok") for seed in ("7", "8") for solver in ("labkit", "POT")
    ]
    assert all(float(m["marginal"]) <= 1e-6 for m in written)


def test_the_command_says_which_rows_there_are():
    with pytest.raises(SystemExit, match="gmm 1024 r=0.05"):
        transport.main(["--rows", "nonsense"])


def test_quick_leaves_out_the_largest_rows():
    left_out = {row.name for row in rows.ROWS if not row.quick}
    assert {"gmm 4096 r=0.05", "refine 1048576", "refine 65536"} <= left_out
    assert {"gmm 1024 r=0.001", "loss 1024", "batch 64 x 256"}.isdisjoint(left_out)
