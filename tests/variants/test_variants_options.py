"""What the options of every registered variant keep: checked, documented, fit to be searched."""

from __future__ import annotations

import inspect
import json

import pytest

from labkit import variants
from labkit.config import ConfigError
from labkit.variants import VARIANTS, Options

NAMES = list(VARIANTS)


@pytest.mark.parametrize("name", NAMES)
def test_options_survive_json_and_refuse_what_they_do_not_know(name):
    cls = variants.get(name)
    options = cls.Options()
    assert cls.Options.model_validate(json.loads(json.dumps(options.model_dump(mode="json")))) == options
    for field in cls.Options.model_fields:
        with pytest.raises(ConfigError, match=rf"options of variant '{name}'.*'{field}x'; did you mean '{field}'"):
            cls({f"{field}x": 8})
        with pytest.raises(ConfigError, match=rf"options of variant '{name}'.*'{field}' is \[\]"):
            cls({field: []})


WEIGHTED = [n for n in NAMES if any(f.startswith("w_") for f in variants.get(n).Options.model_fields)]


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_that_are_all_zero_are_refused(name):
    weights = [f for f in variants.get(name).Options.model_fields if f.startswith("w_")]
    with pytest.raises(ConfigError, match=rf"options of variant '{name}': .*{weights[0]}"):
        variants.get(name)(dict.fromkeys(weights, 0))


@pytest.mark.parametrize("name", NAMES)
def test_what_tuning_searches_are_valid_options(name):
    cls = variants.get(name)
    assert cls.search, "tuning needs something to search"
    for field, values in cls.search.items():
        assert field in cls.Options.model_fields
        assert len(set(values)) == len(values) > 1
        for value in values:
            assert getattr(cls({field: value}).options, field) == value


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented_with_its_source_and_every_option(name):
    cls = variants.get(name)
    assert cls.__doc__
    assert "Source:" in cls.__doc__
    assert len((inspect.getmodule(cls).__doc__ or "").split()) > 10
    explained = "".join(inspect.getdoc(c) or "" for c in cls.Options.__mro__ if issubclass(c, Options))
    for field in cls.Options.model_fields:
        assert f"\n    {field}: " in explained, f"option {field} is not explained"


def test_names_and_aliases():
    assert VARIANTS.canonical("geometric") == "rma"
    assert variants.get("gcca").name() == "cca"


def test_a_class_that_is_not_registered_has_a_name():
    class Mine(variants.get("clip")):
        """A user's own variant."""

    assert Mine({"dim": 4}).name() == "Mine"
