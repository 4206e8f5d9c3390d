"""Adds the features of the French and Spanish captions to the bundled stamps, as `features-captions.safetensors`.

    python tools/caption_features.py

The encoder is that of the English captions, which knows little of other languages: these features are for testing what
a method does when captions come in a language it was not trained on. Needs the encoders of `encoders.txt`; takes
seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from labkit import encoders
from labkit.data.stamps import BUNDLE, MORE_MODALITIES, Stamps

FILE = "features-captions.safetensors"


def main(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle, which receives the features")] = BUNDLE,
) -> None:
    """Encode the captions, and write features and manifest."""
    stamps, tensors = Stamps(bundle), {}
    encoder = encoders.get(stamps.encoder_name("text"))
    for modality in MORE_MODALITIES:
        items = stamps.items(modality)
        present = torch.tensor([item is not None for item in items])
        tensors[modality] = torch.zeros(len(items), encoder.dim, dtype=torch.float16)
        tensors[modality][present] = encoder.encode([item for item in items if item is not None]).half()
        tensors[f"present_{modality}"] = present
    part = bundle / f"{FILE}.part"
    save_file(tensors, part)
    part.chmod(0o644)  # safetensors writes for the owner only
    os.replace(part, bundle / FILE)
    manifest = stamps.manifest()
    manifest["files"][FILE] = hashlib.sha256((bundle / FILE).read_bytes()).hexdigest()
    part = bundle / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, bundle / "manifest.json")


if __name__ == "__main__":
    typer.run(main)
