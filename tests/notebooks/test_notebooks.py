"""What every committed notebook keeps to, and that a broken metric makes one of them fail."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
CHECKED = "nbval-check-output"
ABSOLUTE = re.compile(r"""(?<![\w./:])(?:/(?:home|root|work|tmp|Users|mnt|usr|opt|var|data)/|[A-Z]:\\)""")
TOKEN = re.compile(r"(?i)\b(?:hf|ghp|gho|glpat|sk|xox[a-z])[_-][A-Za-z0-9]{10,}|\b[A-Fa-f0-9]{40,}\b|api_?key|password")
PLOTTING = {"labkit", "holoviews", "matplotlib"}

# what a kernel does before anything else, when this folder leads its path
MUTANT = """
import sys
if any("ipykernel" in word for word in sys.orig_argv):
    import torch
    import labkit.metrics.retrieval as retrieval
    retrieval.recall_at_k = lambda similarity, relevant, k: torch.zeros(len(similarity))
"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def printed(cell: NotebookNode) -> str:
    """The text of a cell's outputs, pictures left out."""
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [text for o in cell.outputs for kind, text in o.get("data", {}).items() if kind.startswith("text/")]
    return re.sub(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+", "", "\n".join("".join(p) for p in parts))


def test_there_are_notebooks_and_they_are_run_by_the_suite() -> None:
    assert [p.name[:3] for p in NOTEBOOKS] == [f"{i:02d}_" for i in range(len(NOTEBOOKS))]
    assert len(NOTEBOOKS) >= 3
    options = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "notebooks" in options["testpaths"]
    assert {"--nbval-lax", "--nbval-current-env"} <= set(options["addopts"].split())


def test_form(path: Path, notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 300_000
    cells = code(notebook)
    assert len(cells) <= 12
    assert sum(len(cell.source.splitlines()) for cell in cells) <= 60
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert "papermill" not in notebook.metadata


def test_the_first_code_cell_holds_the_parameters_as_literals(notebook: NotebookNode) -> None:
    first, *others = code(notebook)
    assert "parameters" in tags(first)
    assert not any("parameters" in tags(cell) for cell in others)
    for statement in ast.parse(first.source).body:
        assert isinstance(statement, ast.Assign), f"{ast.unparse(statement)} is no parameter"
        ast.literal_eval(statement.value)


def test_code_calls_labkit_and_draws(notebook: NotebookNode) -> None:
    for cell in code(notebook):
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            assert not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= PLOTTING
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] in PLOTTING


def test_checked_cells(notebook: NotebookNode) -> None:
    checked = [cell for cell in code(notebook) if CHECKED in tags(cell)]
    assert checked, "nbval in lax mode passes a notebook without checked cells, whatever it does"
    for cell in checked:
        assert "keep_output" in tags(cell)
        assert not cell.source.rstrip().endswith(";")
        assert not re.search(r"\btqdm\b|\btime\b|\bseconds\b", cell.source)
        assert cell.outputs, "run the notebook before it is committed: without an output there is nothing to compare"
        assert {o.output_type for o in cell.outputs} <= {"stream", "execute_result"}
        assert re.search(r"\d", printed(cell)), "a summary has numbers"
        assert not re.search(r"\d\.\d{5}", printed(cell)), "numbers are rounded, or they differ between machines"
        assert " at 0x" not in printed(cell)


def test_nothing_of_the_machine_is_left_in_it(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        text = cell.source + (printed(cell) if cell.cell_type == "code" else "")
        assert not ABSOLUTE.search(text), ABSOLUTE.search(text)
        assert not TOKEN.search(text), TOKEN.search(text)
        if cell.cell_type == "code":
            assert not any(o.output_type == "error" for o in cell.outputs)
            assert not any(o.get("name") == "stderr" for o in cell.outputs)


def nbval(folder: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300", "-p", "no:cacheprovider", "-q"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), "-c", os.devnull, name]
    merged = os.environ | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=merged, check=False)


@pytest.mark.slow
def test_a_broken_metric_fails_the_tour(tmp_path: Path) -> None:
    tour = REPOSITORY / "notebooks" / "00_tour.ipynb"
    shutil.copy(tour, tmp_path / tour.name)
    mutant = tmp_path / "mutant"
    mutant.mkdir()
    (mutant / "sitecustomize.py").write_text(MUTANT)
    played = nbval(tmp_path, tour.name, PYTHONPATH=str(mutant))
    assert played.returncode == 1, played.stdout
    failed = re.findall(rf"FAILED .*{tour.name}::Cell (\d+)", played.stdout)
    checked = [i for i, cell in enumerate(code(nbformat.read(tour, as_version=4))) if CHECKED in tags(cell)]
    assert failed, played.stdout
    assert {int(i) for i in failed} <= set(checked), "it is the numbers that fail, not the code"
    assert "recall@10 0.00" in played.stdout


def test_notebooks_under_test_keep_off_the_runs(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "notebooks" / "conftest.py", tmp_path / "conftest.py")
    source = (
        "import os, pathlib\nwhere = os.environ['LABKIT_RUNS']\nprint(where != 'mine', pathlib.Path(where).is_dir())"
    )
    cell = nbformat.v4.new_code_cell(
        source,
        metadata={"tags": [CHECKED]},
        execution_count=1,
        outputs=[nbformat.v4.new_output("stream", name="stdout", text="True True\n")],
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "where.ipynb")
    played = nbval(tmp_path, "where.ipynb", LABKIT_RUNS="mine")
    assert played.returncode == 0, played.stdout
    (tmp_path / "conftest.py").unlink()
    assert nbval(tmp_path, "where.ipynb", LABKIT_RUNS="mine").returncode == 1, "the check above cannot fail"
