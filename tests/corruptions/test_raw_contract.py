"""What every corruption of raw items keeps, run over the registry."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from PIL import Image

from labkit.corruptions import SEVERITIES, raw
from labkit.corruptions.raw import RAW, Raw
from labkit.data import stamps
from labkit.registry import UnknownNameError

MODALITY = {"image": "image", "text": "text", "audio": "speech_fr"}
NAMES = RAW.names()


@pytest.fixture(scope="module")
def items() -> dict[str, list]:
    """Two real items of each kind."""
    keys = stamps.Stamps().points()["key"].tolist()
    return {kind: stamps.items(m, [keys[10], keys[500]]) for kind, m in MODALITY.items()}


def plain(item: object) -> object:
    """Something that can be compared."""
    return item if isinstance(item, str) else np.asarray(item).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_severity_0_is_the_item_itself(name, items):
    corruption = raw.get(name)
    for item in items[corruption.kind]:
        assert corruption(item, severity=0, key="duck") is item


@pytest.mark.parametrize("name", NAMES)
def test_results_are_items_of_the_same_type_and_the_given_one_stays(name, items):
    corruption = raw.get(name)
    for item in items[corruption.kind]:
        before = plain(item)
        for severity in SEVERITIES[1:]:
            changed = corruption(item, severity=severity, key="duck")
            assert plain(item) == before, "the item given was changed"
            if corruption.kind == "text":
                assert isinstance(changed, str)
                assert changed.strip()
            elif corruption.kind == "image":
                assert isinstance(changed, Image.Image)
                assert (changed.size, changed.mode) == (item.size, "RGB")
            else:
                assert (changed.dtype, changed.ndim) == (np.float32, 1)
                assert np.isfinite(changed).all()
                assert np.abs(changed).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_key_and_seed_alone(name, items):
    corruption = raw.get(name)
    item = items[corruption.kind][0]
    first = plain(corruption(item, severity=3, key="duck", seed=1))
    corruption(item, severity=5, key="goose", seed=2)  # draws in between change nothing
    assert plain(corruption(item, severity=3, key="duck", seed=1)) == first
    others = [plain(corruption(item, severity=3, key=f"key {i}", seed=1)) for i in range(6)]
    seeds = [plain(corruption(item, severity=3, key="duck", seed=i)) for i in range(2, 8)]
    assert any(o != first for o in others) == any(s != first for s in seeds), "key and seed count alike"
    assert any(o != first for o in others) == (name not in WITHOUT_CHANCE)


WITHOUT_CHANCE = {
    "band_limit", "brightness", "clipping", "contrast", "defocus_blur", "gain", "jpeg", "pixelate", "speed"
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_levels_lead_one_way_and_say_what_they_are(name):
    corruption = raw.get(name)
    steps = np.diff(corruption.levels)
    assert len(corruption.levels) == len(SEVERITIES)
    assert (steps > 0).all() or (steps < 0).all()
    assert corruption.unit
    assert corruption.apply.__doc__
    assert corruption.name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [-1, 6, 2.5])
def test_other_severities_are_refused(name, severity, items):
    corruption = raw.get(name)
    with pytest.raises(ValueError, match=rf"severity must be one of \(0, 1, 2, 3, 4, 5\); got {severity}"):
        corruption(items[corruption.kind][0], severity=severity, key="duck")


NOTHING = {
    "text": {"an empty sentence": ("", " \n")},
    "image": {"a picture without pixels": (Image.new("RGB", (0, 8)),)},
    "audio": {
        "a sound without samples": (np.zeros(0, dtype=np.float32),),
        "a sound with samples that are not finite": (np.full(8000, np.nan, dtype=np.float32),),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_items_without_content_are_refused_by_name(name):
    corruption = raw.get(name)
    for what, items in NOTHING[corruption.kind].items():
        for item in items:
            with pytest.raises(ValueError, match=f"the item of 'duck' is {what}: there is nothing to corrupt"):
                corruption(item, severity=1, key="duck")
            assert corruption(item, severity=0, key="duck") is item


def test_an_unknown_name_answers_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'gaussian_noise'"):
        raw.get("gausian_noise")


SHOUT = '''"""A file with one corruption."""

from labkit.corruptions.raw import raw


@raw("{name}", kind="text", levels=(0, 1, 2, 3, 4, 5), unit="words in capitals")
def shout(sentence, words, generator):
    """Louder."""
    return " ".join(w.upper() if i < words else w for i, w in enumerate(sentence.split()))
'''


@pytest.fixture
def add_file(tmp_path, monkeypatch):
    """Adds a file with a corruption of the given name to the package, as far as its look-up can tell."""
    monkeypatch.setattr(raw, "__path__", [*raw.__path__, str(tmp_path)])

    def add(name: str) -> None:
        (tmp_path / "shouting.py").write_text(SHOUT.format(name=name))
        importlib.invalidate_caches()
        monkeypatch.setattr(RAW, "_discovered", False)

    yield add
    RAW._entries.pop("shout", None)
    sys.modules.pop("labkit.corruptions.raw.shouting", None)
    RAW._discovered = True


def test_a_new_one_is_one_file(add_file):
    assert "shout" not in RAW
    add_file("shout")
    assert "shout" in raw.names("text")
    assert "shout" not in raw.names("image")
    assert isinstance(raw.get("shout"), Raw)
    assert raw.get("shout")("a small duck", severity=2, key="duck") == "A SMALL duck"
    assert "raw corruption shout -> labkit/corruptions/raw/shouting.py:6\n" in repr(RAW)


def test_a_name_that_is_taken_is_refused(add_file):
    jpeg = raw.get("jpeg")
    add_file("jpeg")
    with pytest.raises(ValueError, match=r"'jpeg' is already registered at labkit/corruptions/raw/image.py:\d+"):
        RAW.names()
    assert RAW._entries["jpeg"] is jpeg


def test_a_file_that_is_loaded_again_is_no_clash():
    before = raw.get("jpeg")
    importlib.reload(importlib.import_module("labkit.corruptions.raw.image"))
    assert raw.get("jpeg") is not before
    assert raw.get("jpeg").levels == before.levels
