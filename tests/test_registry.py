"""Registries: names, aliases, clashes, near misses, places, and discovery of a new file."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from labkit.corruptions import CORRUPTIONS
from labkit.data import DATASETS
from labkit.losses import LOSSES
from labkit.metrics import METRICS
from labkit.registry import Registry, UnknownNameError
from labkit.variants import VARIANTS

LOSS = '''
from {package} import THINGS


@THINGS.register({name!r}, aliases={aliases!r})
def {function}(x):
    """A thing."""
    return x
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one registry and one module, on the import path."""
    name = f"things_of_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from labkit.registry import Registry\nTHINGS = Registry('thing', __name__)\n")
    write(folder, "first", "alpha", ("a", "first_letter"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[module]


def write(folder: Path, module: str, name: str, aliases: tuple[str, ...] = ()) -> None:
    text = LOSS.format(package=folder.name, name=name, aliases=aliases, function=f"make_{module}")
    (folder / f"{module}.py").write_text(text)


def things(folder: Path) -> Registry:
    importlib.invalidate_caches()
    return importlib.import_module(folder.name).THINGS


def test_a_new_file_is_found(package):
    write(package, "second", "beta")
    registry = things(package)
    assert registry.names() == ["alpha", "beta"]
    assert list(registry) == ["alpha", "beta"]
    assert registry.get("beta")(3) == 3
    assert "beta" in registry
    assert "gamma" not in registry


def test_aliases_lead_to_the_component_and_are_no_names(package):
    registry = things(package)
    assert registry.get("a") is registry.get("alpha") is registry.get("first_letter")
    assert registry.names() == ["alpha"]
    assert registry.canonical("a") == registry.canonical("alpha") == "alpha"
    assert "first_letter" in registry


def test_an_unknown_name_answers_with_the_nearest(package):
    write(package, "second", "betamax")
    registry = things(package)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("alhpa")
    assert str(caught.value) == "unknown thing 'alhpa'; did you mean 'alpha'?"
    with pytest.raises(UnknownNameError, match="known: a, alpha, betamax, first_letter"):
        registry.get("zzz")
    with pytest.raises(KeyError):
        registry.canonical("zzz")


@pytest.mark.parametrize(("name", "aliases"), [("alpha", ()), ("a", ()), ("beta", ("alpha",)), ("beta", ("a",))])
def test_a_name_that_is_taken_is_refused(package, name, aliases):
    write(package, "second", name, aliases)
    taken = name if name != "beta" else aliases[0]
    with pytest.raises(ValueError, match=rf"thing '{taken}' is already registered at {package.name}/first.py:\d"):
        things(package).names()


def test_a_module_that_fails_to_import_fails_every_look_up(package):
    (package / "broken.py").write_text("import a_module_that_is_not_there\n")
    registry = things(package)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
            registry.get("alpha")
    (package / "broken.py").write_text("")
    importlib.invalidate_caches()
    assert registry.names() == ["alpha"]


def test_a_reloaded_module_is_no_clash(package):
    registry = things(package)
    before = registry.get("alpha")
    importlib.reload(sys.modules[f"{package.name}.first"])
    assert registry.get("alpha") is not before
    assert registry.get("a") is registry.get("alpha")


def test_repr_says_where_each_component_is(package):
    assert repr(things(package)) == f"thing alpha -> {package.name}/first.py:5"


@pytest.mark.parametrize("registry", [LOSSES, VARIANTS, METRICS, CORRUPTIONS, DATASETS], ids=lambda r: r.kind)
def test_every_component_of_labkit_can_be_looked_up(registry):
    root = Path(importlib.import_module("labkit").__file__).parents[1]
    assert registry.names()
    for name, line in zip(registry, repr(registry).splitlines(), strict=True):
        assert registry.get(name) is not None
        found = re.fullmatch(rf"{registry.kind} {name} -> (labkit/[\w/]+\.py):(\d+)", line)
        assert found, line
        text = (root / found[1]).read_text().splitlines()[int(found[2]) - 1]
        assert "register(" in text, f"{line} does not lead to the registration"
