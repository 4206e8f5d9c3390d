"""Raw items to `Embeddings`: whole data sets, or a batch that a corruption has changed.

    encode_dataset("stamps", ("image", "text"))       # the bundled features once more, from the bundled items
    encode_batch(noisy, {"image": encoder})

Features of stamps come out equal to the bundled ones up to float16 rounding (`difference_to_bundled` says how much).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from labkit import encoders
from labkit.data import dataset
from labkit.types import Batch, Embeddings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from labkit.encoders import Encoder


def encode_batch(batch: Batch, by_modality: Mapping[str, Encoder]) -> Embeddings:
    """Vectors of the raw items; rows of absent items are zero.

    Args:
        batch: raw items.
        by_modality: the encoder of each modality to encode.

    Raises:
        ValueError: a modality that the batch does not have.
    """
    unknown = sorted(set(by_modality) - set(batch.inputs))
    if unknown:
        raise ValueError(f"the batch has no modality {unknown}; it has {list(batch.inputs)}")
    z = {}
    for modality, encoder in by_modality.items():
        rows = batch.present[modality]
        items = [item for item, there in zip(batch.inputs[modality], rows.tolist(), strict=True) if there]
        z[modality] = torch.zeros(len(batch.key), encoder.dim)
        z[modality][rows] = encoder.encode(items)
    return Embeddings(key=batch.key, z=z, present={m: batch.present[m] for m in z}, label=batch.label)


def encode_dataset(
    name: str = "stamps",
    modalities: Sequence[str] = ("image", "text"),
    *,
    out: Path | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Float[Tensor, "n d"]]:
    """Features of a bundled data set, made anew from its raw items with the encoders that its manifest names.

    Args:
        name: of the data set.
        modalities: which ones.
        out: `.safetensors` file to write the features and their `present_<modality>` masks to.
        device: where the encoders run.

    Returns:
        modality -> float32 vectors in the order of `labkit.data.load(name)`; rows of absent items are zero.

    Raises:
        ValueError: no such modality, or one whose encoder is not part of labkit.
        MissingWeightsError: the weights are not installed.
        CorruptBundleError: a raw item is missing or damaged.
    """
    source = dataset(name)
    by_modality = {modality: _encoder(name, modality, device) for modality in modalities}
    bundled = source.load(tuple(modalities))
    inputs = {modality: source.items(modality) for modality in modalities}
    batch = Batch(key=bundled.key, inputs=inputs, present=bundled.present, label=bundled.label)
    features = encode_batch(batch, by_modality)
    if out is not None:
        masks = {f"present_{modality}": mask for modality, mask in features.present.items()}
        part = out.with_name(out.name + ".part")
        save_file({**features.z, **masks}, part)
        os.replace(part, out)
    return features.z


def difference_to_bundled(features: Mapping[str, Tensor], name: str = "stamps") -> dict[str, float]:
    """Largest absolute difference to the bundled features, per modality."""
    bundled = dataset(name).load(tuple(features))
    return {modality: float((z - bundled.z[modality]).abs().max()) for modality, z in features.items()}


def _encoder(name: str, modality: str, device: str | torch.device) -> Encoder:
    encoder = dataset(name).encoder_name(modality)
    if encoder not in encoders.ENCODERS:
        raise ValueError(
            f"{modality!r} of {name!r} was encoded by {encoder!r}, which is not part of labkit "
            f"(it has {', '.join(encoders.ENCODERS.names())}); take the bundled features, or rebuild with tools/"
        )
    return encoders.get(encoder, device)
