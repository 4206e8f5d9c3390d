"""Writers that are killed, compete or run out of space; a script, started by test_store_durability.py.

    python killed_writer.py MODE ROOT

The process only forks: each child is a writer that has labkit.store loaded already, so that hundreds of them take
seconds. Version v of everything that is written carries the number v.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.store import SCORE_COLUMNS, Run, Store, StoreError

N = 50
ATTEMPTS = 12


def create(root: str, run_id: str) -> Run:
    return Store(root).create(run_id, name="n", variant="v", config={"a": 1}, seed=0, data_root=".")


def write_points(run: Run) -> None:
    keys = [f"k{i}" for i in range(N)]
    run.write_points(
        pd.DataFrame(
            {"key": keys, "split": "test", "group": range(N), "label": "a", "image": None, "present_image": True}
        )
    )


def scores(version: int, seed: int = 0) -> pd.DataFrame:
    row = dict.fromkeys(SCORE_COLUMNS, 0) | dict.fromkeys(("metric", "source", "target", "split", "interval"), "x")
    row |= {"corrupted": "", "corruption": "none", "step": "final", "seed": seed, "value": version}
    return pd.DataFrame([row | {"higher_is_better": True}])


def write_all(run: Run, version: int) -> None:
    """Everything a run can hold; tables grow with the version, so that every file changes its size."""
    keys = [f"k{i}" for i in range(N)]
    run.write_scores(pd.concat([scores(version, seed) for seed in range(version % 7 + 1)]), replace={})
    condition = {"split": "test", "source": "a", "target": "b", "corrupted": "", "corruption": "none", "severity": 0}
    run.write_field("m", "final", pd.DataFrame({"key": keys, **condition, "value": float(version)}))
    run.write_embedding("image", "final", np.full((N, 2 + version % 5), float(version)))
    coupling = pd.DataFrame({"row_key": keys[: 3 + version % 9], "col_key": "k0", "mass": float(version)})
    run.write_coupling(
        "a", "b", "sinkhorn", 0.1, "final", coupling,
        {"converged": True, "marginal_error": 0.0, "mass_kept": 1.0, "version": version},
    )  # fmt: skip
    run.write_selection("s", keys[: version % 11])
    run.log({"step": version, "loss": 1.0})


def in_child(work: Callable[[], None]) -> int:
    """Fork, do `work` there; the child's process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  a forked child must not return into its parent's code
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return pid


def die_at_call(number: int) -> None:
    """Kill this process right before its `number`-th call that forces something to the disk or renames a file."""
    calls = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return called

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)


def every_call(root: str) -> None:
    """Kill a writer at every single change of the disk, while it replaces version 1 by version 2."""
    first = create(root, "run-0")
    write_points(first)
    write_all(first, 1)
    for number in range(1, 1000):
        folder = Path(shutil.copytree(first.folder, Path(root) / f"run-{number}"))

        def work(number: int = number, folder: Path = folder) -> None:
            die_at_call(number)
            write_all(Run(folder), 2)

        status = os.waitpid(in_child(work), 0)[1]
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))


def random_moments(root: str) -> None:
    """Kill writers of one run at random moments of their work, each taking up what the last one left."""
    rng = random.Random(0)
    log = Path(root) / "run" / "log.jsonl"
    for attempt in range(10 * ATTEMPTS):

        def work(attempt: int = attempt) -> None:
            run = create(root, "run")
            if not run.has("points"):
                write_points(run)
            for version in range(1000 * attempt, 1000 * (attempt + 1)):
                write_all(run, version)

        written = log.stat().st_size if log.exists() else 0
        pid = in_child(work)
        deadline = time.monotonic() + 20
        # the mark of the new attempt, then a whole version: it has begun
        while time.monotonic() < deadline and (not log.exists() or log.read_bytes()[written:].count(b"step") == 0):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            sys.exit("the writer ended before it was killed")
        if attempt + 1 >= ATTEMPTS and list(log.parent.rglob(".tmp-*")):
            return  # enough, and some kill hit the middle of a write


def competing(root: str) -> None:
    """Three processes write into one run."""
    run = create(root, "run")
    write_points(run)

    def work(writer: int) -> None:
        own = Store(root).open("run")
        for version in range(10):
            own.write_scores(scores(version, seed=100 * writer + version))
            own.write_selection(f"s{writer}", [f"k{version}"])
            own.log({"step": version, "writer": writer})

    pids = [in_child(lambda writer=writer: work(writer)) for writer in range(3)]
    sys.exit(max(os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in pids))


def out_of_space(root: str) -> None:
    """Files may not grow beyond 64 kB: the write itself fails half-way, as on a full disk."""
    run = create(root, "run")
    write_points(run)
    write_all(run, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    large = pd.concat([scores(2, seed) for seed in range(300)]).assign(
        interval=[f"{np.random.default_rng(i).bytes(300).hex()}" for i in range(300)]
    )
    for write in (
        lambda: run.write_embedding("image", "final", np.random.default_rng(0).normal(size=(N, 4000))),
        lambda: run.write_scores(large),
    ):
        try:
            write()
        except StoreError as error:
            sys.stdout.write(f"{error}\n")
        else:
            sys.exit("the write did not fail")


if __name__ == "__main__":
    modes = {f.__name__: f for f in (every_call, random_moments, competing, out_of_space)}
    modes[sys.argv[1]](str(Path(sys.argv[2])))
