"""The benchmark of the dashboard drives the served app, and its table says what was measured."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks import dashboard
from benchmarks.dashboard import Row


def test_a_lasso_is_answered_by_every_map_with_what_it_caught(tmp_path):
    run = dashboard.write_run(tmp_path / "runs", 30_000)
    with dashboard.served(tmp_path / "runs") as server:
        visitor = dashboard.Visitor(server, run.id)
        assert 0 < visitor.lasso(1.5, 0.0) < dashboard.WAIT
        frame = run.projection("pca", "final")
        caught = frame["key"][np.hypot(frame["x"] - 4, frame["y"]) < 1.5].nunique()
        shown = visitor.selected
        assert shown == pytest.approx(caught, rel=0.02)  # the lasso is a polygon
        for figure in visitor.figures:
            picture = figure.select_one({"name": "chosen"}).data_source.data["image"][0]
            assert 0 < np.count_nonzero(picture) < picture.size / 4
        assert 0 < visitor.zoom(0.5) < dashboard.WAIT
        extents = {figure.select_one({"name": "chosen"}).data_source.data["dw"][0] for figure in visitor.figures}
        assert extents == {8.0}
        visitor.close()


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path, capsys):
    output = tmp_path / "new" / "dashboard.csv"
    code = dashboard.main(["--quick", "--output", str(output)])
    printed = capsys.readouterr().out
    with output.open() as file:
        written = list(csv.DictReader(file))
    assert [row["what"] for row in written] == [
        "first page after a warm start", "lasso", "pan or zoom", "memory with the first session",
        "memory of each further session", "lasso in 2 sessions at once, the slowest",
    ]  # fmt: skip
    assert {row["run"] for row in written} == {"30,000 points per modality"}
    timed = {row["what"]: float(row["value"]) for row in written if row["unit"] == "s"}
    assert 0 < timed["lasso"] < timed["first page after a warm start"] < dashboard.WAIT
    kept = [float(row["value"]) < float(row["budget"]) for row in written]
    assert printed.count("NOT MET") == kept.count(False)
    assert code == (0 if all(kept) else 1)


def test_a_budget_that_is_not_kept_is_said():
    rows = [Row("r", "lasso", 0.1, "s", 0.2), Row("r", "zoom", 0.4, "s", 0.3)]
    first, second = dashboard.table(rows).splitlines()[2:]
    assert first == "| r | lasso | 0.1 s | < 0.2 s | met |"
    assert second == "| r | zoom | 0.4 s | < 0.3 s | NOT MET |"
