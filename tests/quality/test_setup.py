"""pyproject, constraints, environment.yml and the Makefile tell one story; the core stays light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def required() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]
    return [r for r in map(Requirement, every) if r.name != "labkit"]


@pytest.mark.parametrize("requirement", required(), ids=lambda r: r.name)
def test_every_requirement_is_pinned_to_a_version_it_allows(requirement):
    version = pinned().get(canonicalize_name(requirement.name))
    assert version is not None
    assert requirement.specifier.contains(version)


def test_no_constraint_has_a_local_version_or_an_address():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"\+\w+|://| @ ", text)


def test_all_is_all_but_the_peers_of_the_benchmarks_and_what_needs_a_compiler():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all", "benchmarks", "keops"}


def test_conda_users_get_what_make_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    (install,) = re.findall(r"pip install .*-q (-c .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert " ".join(pip) == install.replace("'", "")
    (python,) = [d for d in environment["dependencies"] if str(d).startswith("python=")]
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(python.removeprefix("python="))


def test_encoders_are_installed_by_make_and_named_in_the_environment():
    assert "--no-deps -r encoders.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--no-deps -r encoders.txt" in (ROOT / "environment.yml").read_text(encoding="utf-8")
    lines = (ROOT / "encoders.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_ci_runs_the_same_tests_as_a_user():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
{code}
"""


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCK.format(blocked=blocked, code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_optimal_transport_needs_torch_numpy_and_scipy_only():
    others = {canonicalize_name(r.name).replace("-", "_") for r in required()} - {"torch", "numpy", "scipy"}
    others |= {"sklearn", "yaml", "PIL", "ot"}
    code = "import torch, labkit.ot as t; x = torch.rand(5, 2); print(t.sinkhorn(t.PointCloud(x, x)).converged)"
    done = run_without(others, code)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("module", ["store", "stats", "views", "results", "report"])
def test_readers_of_runs_do_without_torch(module):
    done = run_without({"torch", "sklearn", "transformers", "umap"}, f"import labkit.{module}; print('light')")
    assert done.stdout.strip() == "light", done.stderr


def test_help_answers_without_heavy_imports():
    code = (
        "from typer.testing import CliRunner; from labkit.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).exit_code)"
    )
    done = run_without({"torch", "pandas", "panel", "holoviews", "sklearn", "scipy"}, code)
    assert done.stdout.strip() == "0", done.stderr
