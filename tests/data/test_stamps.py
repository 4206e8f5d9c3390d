"""The bundled data set: complete, intact, licensed, split without leaks, and honest when damaged."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from labkit import data
from labkit.data import stamps as module
from labkit.data.stamps import BUNDLE, MODALITIES, CorruptBundleError, Stamps

DIMS = {"image": 1280, "text": 384, "speech_fr": 512, "speech_es": 512}
PRESENT = {"image": 950, "text": 950, "speech_fr": 925, "speech_es": 888}
TABLES = ("manifest.json", "points.parquet", "splits.parquet", "features.safetensors")


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    return Stamps().points()


@pytest.fixture
def copy(tmp_path):
    """A bundle of its own to damage: tables and two items."""
    for name in (*TABLES, "images/animals/birds/duck.webp", "speech_fr/animals/birds/duck.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUNDLE / name, tmp_path / name)
    return Stamps(tmp_path)


def test_counts_and_shapes():
    stamps = data.load("stamps")
    assert stamps.modalities == MODALITIES
    assert len(stamps) == 950
    assert len(set(stamps.groups.tolist())) == 774
    for modality in MODALITIES:
        z, present = stamps.z[modality], stamps.present[modality]
        assert z.shape == (950, DIMS[modality])
        assert z.dtype == torch.float32
        assert int(present.sum()) == PRESENT[modality]
        assert (z[~present] == 0).all()
        assert (z[present].norm(dim=1) > 0.5).all()
        assert len(torch.unique(z[present], dim=0)) > 700, "vectors must differ between things"


def test_modalities_are_selected_in_the_given_order():
    assert data.load("stamps", modalities=("text", "image")).modalities == ("text", "image")


def test_labels_are_the_categories_with_twenty_things(points):
    stamps = data.load("stamps", modalities=("text",))
    counts = points["category"].value_counts()
    assert set(stamps.label_names) == set(counts[counts >= 20].index)
    assert len(stamps.label_names) == 11
    named = [stamps.label_names[i] if i >= 0 else None for i in stamps.label.tolist()]
    expected = [c if counts[c] >= 20 else None for c in points["category"]]
    assert named == expected


def test_every_item_is_the_one_that_was_bundled(points):
    listed = set()
    for modality in ("image", "speech_fr", "speech_es"):
        rows = points.dropna(subset=[modality])
        for name, digest in zip(rows[modality], rows[f"{modality}_sha256"], strict=True):
            assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest, name
            listed.add(name)
    folders = ("images", "speech_fr", "speech_es")
    stored = {p.relative_to(BUNDLE).as_posix() for f in folders for p in (BUNDLE / f).rglob("*") if p.is_file()}
    assert stored == listed, "files that no row names, or rows without a file"


def test_tables_have_the_hashes_of_the_manifest():
    manifest = Stamps().manifest()
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest, name
    assert set(TABLES[1:]) <= set(manifest["files"])


def test_manifest_names_source_and_encoders(points):
    manifest = Stamps().manifest()
    assert manifest["source"]["package"] == "tuxpaint-stamps-default"
    assert len(manifest["source"]["deb_sha256"]) == 64
    assert manifest["counts"]["things"] == len(points)
    assert {m: e["dim"] for m, e in manifest["encoders"].items()} == DIMS
    assert all(len(e["weights_sha256"]) == 64 for e in manifest["encoders"].values())
    missing = [row for row in manifest["skipped"] if "no speech in" in row]
    assert len(missing) == (950 - 925) + (950 - 888)


def test_captions_groups_and_kinds(points):
    assert points["key"].is_unique
    assert points["caption_en"].str.len().min() > 1
    for language in ("fr", "es", "de", "ca", "ru"):
        assert points[f"caption_{language}"].notna().mean() > 0.9
    duck = points.set_index("key").loc["animals/birds/duck"]
    assert (duck["caption_en"], duck["caption_fr"], duck["caption_de"]) == ("A duck.", "Un canard.", "Eine Ente.")
    group = points.set_index("key")["group"]
    letters = "symbols/alphabets/english/"
    assert group[f"{letters}filled/uppercase/A_filled"] == group[f"{letters}outlined/lowercase/a_outline"]
    folded = points["caption_en"].str.casefold().str.strip(" .!")
    assert (points.groupby(folded)["group"].nunique() == 1).all(), "one caption in two groups"
    kind = points.set_index("key")["kind"]
    assert kind["animals/birds/duck"] == "photo"
    assert kind["animals/birds/cartoon/tux"] == "drawing"


@pytest.mark.parametrize("seed", range(10))
def test_stored_splits_are_those_of_the_function_and_leak_no_caption(seed, points):
    stored = Stamps().splits()
    assert stored["key"].tolist() == points["key"].tolist()
    stamps = data.load("stamps", modalities=("text",))
    rows = data.split(stamps, seed)
    for name, index in rows.items():
        assert (stored[f"seed_{seed}"].to_numpy()[index] == name).all()
    assert sorted(np.concatenate(list(rows.values()))) == list(range(950))
    groups = {name: set(stamps.groups[index].tolist()) for name, index in rows.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    shares = [len(rows[name]) / 950 for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.60, 0.15, 0.25], abs=0.01)


def test_pictures_decode_to_different_squares():
    pictures = module.items("image")
    assert {(p.mode, p.size) for p in pictures} == {("RGB", (128, 128))}
    assert min(np.asarray(p).std() for p in pictures) > 5, "an empty picture"
    assert len({p.tobytes() for p in pictures}) > 940


def test_speech_decodes_to_its_length_and_is_not_silent(points):
    rows = points.dropna(subset=["speech_es"]).iloc[::9]
    for wave, seconds in zip(module.items("speech_es", rows["key"]), rows["speech_es_seconds"], strict=True):
        assert wave.dtype == np.float32
        assert len(wave) / 16_000 == pytest.approx(seconds, abs=1e-3)
        assert 0.25 < seconds < 20
        assert np.sqrt(np.mean(wave**2)) > 0.005


def test_items_follow_the_keys_and_absent_ones_are_none(points):
    absent = points.loc[points["speech_fr"].isna(), "key"].iloc[0]
    assert module.items("text", ["animals/birds/owl", "animals/birds/duck"]) == ["An owl.", "A duck."]
    wave, nothing = module.items("speech_fr", ["animals/birds/duck", absent])
    assert nothing is None
    assert len(wave) > 4000


def test_batch_agrees_with_embeddings():
    keys = ["animals/birds/owl", "animals/birds/cartoon/pengwin"]
    batch = Stamps().batch(keys, ("image", "speech_fr"))
    assert batch.key.tolist() == keys
    assert batch.present["speech_fr"].tolist() == [True, False]
    stamps = data.load("stamps", modalities=("text",))
    assert [stamps.label_names[i] for i in batch.label.tolist()] == ["animals", "animals"]


def test_table_points_at_existing_items():
    table = data.table("stamps")
    assert {"key", "group", "label", "caption", "image", "text", "speech_fr", "speech_es"} <= set(table.columns)
    root = module.Path(table.attrs["data_root"])
    assert all((root / name).is_file() for name in table["image"])
    assert all((root / name).is_file() for name in table["speech_fr"].dropna())


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(KeyError, match="'animals/birds/duck'"):
        module.items("text", ["animals/birds/duk"])
    with pytest.raises(ValueError, match="speech_fr"):
        data.load("stamps", modalities=("image", "speech"))
    with pytest.raises(KeyError, match="did you mean 'stamps'"):
        data.load("stamp")


def test_features_of_another_encoder_are_read_where_they_are_named():
    stamps = Stamps()
    assert stamps.encoder_names("speech_fr") == ("whisper_base", "speech_small")
    assert stamps.encoder_names("image") == ("efficientnet_lite0",)
    usual = stamps.load()
    other = stamps.load(encoders={"speech_fr": "speech_small", "speech_es": "whisper_base"})
    assert other.z["speech_fr"].shape == (950, 384)
    for modality in ("image", "text", "speech_es"):
        assert torch.equal(other.z[modality], usual.z[modality])
    for modality in MODALITIES:
        assert torch.equal(other.present[modality], usual.present[modality])
    alone = stamps.load(("text",), encoders={"speech_fr": "speech_small"})
    assert alone.modalities == ("text",)


def test_features_that_are_not_bundled_are_refused():
    with pytest.raises(ValueError, match=r"'speech_fr' by the encoder 'speech_smal'; did you mean 'speech_small'\?"):
        Stamps().load(encoders={"speech_fr": "speech_smal"})
    with pytest.raises(ValueError, match=r"'image' by the encoder 'speech_small'; it has efficientnet_lite0"):
        Stamps().load(encoders={"image": "speech_small"})
    with pytest.raises(ValueError, match="no modality 'sound'"):
        Stamps().load(encoders={"sound": "speech_small"})


def test_damaged_features_of_another_encoder_are_named_and_spare_the_usual(copy):
    name = "features-speech_small.safetensors"
    with pytest.raises(CorruptBundleError, match=rf"{name} cannot be read.*git checkout -- "):
        copy.load(encoders={"speech_fr": "speech_small"})
    (copy.folder / name).write_bytes((BUNDLE / name).read_bytes()[:-100])
    with pytest.raises(CorruptBundleError, match=rf"{name} is damaged.*git checkout -- "):
        copy.load(encoders={"speech_fr": "speech_small"})
    assert len(copy.load()) == 950


@pytest.mark.parametrize("name", TABLES)
def test_a_truncated_table_is_named_with_the_remedy(copy, name):
    path = copy.folder / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptBundleError, match=rf"{name} is damaged.*git checkout -- "):
        copy.splits() if name == "splits.parquet" else copy.load()


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_table_is_named_with_the_remedy(copy, name):
    (copy.folder / name).unlink()
    with pytest.raises(CorruptBundleError, match=rf"{name} cannot be read.*git checkout -- "):
        copy.splits() if name == "splits.parquet" else copy.load()


def test_a_changed_or_missing_item_is_named(copy):
    path = copy.folder / "images/animals/birds/duck.webp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptBundleError, match=r"duck.webp is damaged.*git checkout"):
        copy.items("image", ["animals/birds/duck"])
    assert copy.items("speech_fr", ["animals/birds/duck"])[0] is not None
    with pytest.raises(CorruptBundleError, match=r"owl.ogg cannot be read"):
        copy.items("speech_fr", ["animals/birds/owl"])


def test_another_schema_is_refused(copy):
    path = copy.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(ValueError, match="schema 99, this labkit reads 1"):
        copy.load()


def test_loading_imports_no_encoder_and_no_codec():
    code = (
        "import sys, labkit.data; labkit.data.load('stamps'); labkit.data.table('stamps'); "
        "print(sorted({'transformers', 'PIL', 'soundfile', 'efficientnet_lite_pytorch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_size_license_and_attribution():
    size = sum(p.stat().st_size for p in BUNDLE.rglob("*") if p.is_file())
    assert size < 25e6
    assert "GNU GENERAL PUBLIC LICENSE" in (BUNDLE / "LICENSE").read_text()
    assert "Tux Paint" in (BUNDLE / "ATTRIBUTION.md").read_text()
    assert "CONTRIBUTORS" in (BUNDLE / "UPSTREAM-CHANGES.txt").read_text()


@pytest.mark.parametrize(("modality", "at_least"), [("image", 0.6), ("text", 0.6), ("speech_fr", 0.35)])
def test_neighbors_of_another_caption_share_the_category(modality, at_least):
    """Features carry meaning: chance of one category is .09 to .3 (the share of the largest)."""
    stamps = data.load("stamps", modalities=(modality,))
    stamps = stamps.take((stamps.present[modality] & (stamps.label >= 0)).numpy())
    z = torch.nn.functional.normalize(stamps.z[modality] - stamps.z[modality].mean(dim=0), dim=1)
    similarity = z @ z.T
    similarity[stamps.groups[:, None] == stamps.groups[None]] = -2
    hits = stamps.label[similarity.argmax(dim=1)] == stamps.label
    chance = float((torch.bincount(stamps.label).double() / len(stamps)).square().sum())
    assert float(hits.double().mean()) > max(at_least, 2 * chance)


@pytest.mark.parametrize(("modality", "language", "count"), [("text_fr", "fr", 950), ("text_es", "es", 949)])
def test_captions_of_other_languages_have_features_of_the_english_encoder(points, modality, language, count):
    stamps = data.load("stamps", modalities=("text", modality))
    z, there = stamps.z[modality], stamps.present[modality]
    assert z.shape == (950, DIMS["text"])
    assert int(there.sum()) == count
    assert (there.numpy() == points[f"caption_{language}"].notna().to_numpy()).all()
    assert (z[there].norm(dim=1) - 1).abs().max() < 2e-3
    source = data.dataset("stamps")
    assert modality not in source.modalities
    assert source.encoder_names(modality) == source.encoder_names("text")
    absent = points["key"][~there.numpy()].tolist()
    key = "animals/amphibians/frog"
    caption = {"fr": "Une grenouille.", "es": "Una rana."}[language]
    assert source.items(modality, [key, *absent]) == [caption, *(None for _ in absent)]
    # nearer to its own caption in English than to another one, if not by much: the encoder has learned English only
    own = (stamps.z["text"][there] * z[there]).sum(dim=1).mean()
    other = (stamps.z["text"][there].roll(7, dims=0) * z[there]).sum(dim=1).mean()
    assert own > other + 0.1
    assert own < 0.7
