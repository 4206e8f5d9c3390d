"""What a run works on: a data set loaded and split by group, items missing and pairs cut as its configuration says.

    content = labkit.samples.load(config)
    content.train, content.validation, content.test

The same configuration always gives the same samples: whatever is drawn is drawn by the run's seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from labkit import data
from labkit.config import RunConfig
from labkit.data.domains import shifted
from labkit.data.missing import drop_items
from labkit.data.pairing import unpair
from labkit.data.shuffling import shuffle_pairs
from labkit.store.names import check_name
from labkit.types import Embeddings


@dataclass(frozen=True, eq=False)
class Samples:
    """What a run works on.

    Attributes:
        all: every sample that takes part, in the order of the run's `points.parquet`.
        train: training samples, with the configured shares of their items missing, of their pairs cut and of the others
            paired wrongly.
        validation: validation samples, with the same share of their items missing.
        test: test samples, complete.
        split: name of the split of each sample.
    """

    all: Embeddings
    train: Embeddings
    validation: Embeddings
    test: Embeddings
    split: np.ndarray


def load(config: RunConfig) -> Samples:
    """Load, split by group, drop items, cut and shuffle pairs, all by the run's seed.

    Raises:
        UnknownNameError, FileNotFoundError, ValueError: the data set is not there or not usable.
        ConfigError: a domain that the data set does not have.
    """
    for m in config.data.modalities:
        check_name(m, "modality")  # refused now, not after the training
    everything = data.load(
        config.data.dataset,
        modalities=config.data.modalities,
        options=config.data.options,
        encoders=config.data.encoders,
    )
    everything, split = shifted(everything, data.split_groups(everything.groups.numpy(), config.seed), config.data)
    generator = torch.Generator().manual_seed(config.seed)
    parts = {name: everything.take(split == name) for name in data.SPLITS}
    for name in ("train", "validation"):
        parts[name] = drop_items(parts[name], config.data.missing, generator, by=config.data.missing_by)
    parts["train"] = unpair(
        parts["train"], config.data.pairs, seed=config.seed, keep_unpaired=config.data.unpaired == "kept"
    )
    parts["train"] = shuffle_pairs(parts["train"], config.data.shuffled, seed=config.seed)
    _check_items(parts)
    return Samples(everything, parts["train"], parts["validation"], parts["test"], split)


def _check_items(parts: dict[str, Embeddings]) -> None:
    for name, part in parts.items():
        empty = [m for m in part.modalities if not bool(part.present[m].any())]
        if empty:
            raise ValueError(
                f"no {name} sample has an item of {' or '.join(map(repr, empty))}; leave it out of data.modalities, or "
                "lower data.missing"
            )


def points(config: RunConfig, content: Samples) -> pd.DataFrame:
    """One row per sample, as `Run.write_points` takes it: key, split, group, label, raw items, what is present."""
    everything = content.all
    if config.data.dataset in data.DATASETS:
        known = data.table(config.data.dataset, config.data.options).set_index("key").loc[everything.key]
    else:
        known = pd.DataFrame(index=everything.key)
    table = pd.DataFrame({"key": everything.key, "split": content.split, "group": everything.groups.numpy()})
    table["label"] = _labels(everything)
    for column in ("caption", "kind"):
        if column in known:
            table[column] = known[column].to_numpy()
    for m in everything.modalities:
        at_test = config.data.domain.test_items.get(m, m)
        items = np.where(content.split == "test", *(known.get(c) for c in (at_test, m)))
        table[m] = items if m in known else None
        table[f"present_{m}"] = everything.present[m].numpy()
    return table


def _labels(everything: Embeddings) -> np.ndarray:
    """Name of each sample's class, its number where classes have no names."""
    codes = np.full(len(everything), -1) if everything.label is None else everything.label.numpy()
    names = np.array([*everything.label_names, "other"])
    return names[codes] if everything.label_names else np.where(codes < 0, "other", codes.astype(str))


def canonical(name: str) -> str:
    """Name of a data set with an alias resolved, or the absolute path of a user's file.

    Raises:
        UnknownNameError: no such data set.
    """
    return str(Path(name).resolve()) if name.endswith(".npz") else data.DATASETS.canonical(name)


def digest(dataset: str) -> str:
    """Hash of a user's file; bundled data checks its own."""
    if dataset in data.DATASETS:
        return ""
    with Path(dataset).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_names(config: RunConfig) -> dict[str, str]:
    """Modality -> the encoder whose features are aligned; empty for a user's file."""
    if config.data.dataset not in data.DATASETS:
        return {}
    source = data.dataset(config.data.dataset, config.data.options)
    return {m: config.data.encoders.get(m) or source.encoder_name(m) for m in config.data.modalities}


def has_raw_items(config: RunConfig) -> bool:
    """Whether the data set has pictures, sentences or sounds behind its features."""
    known = config.data.dataset in data.DATASETS
    return known and bool(data.dataset(config.data.dataset, config.data.options).digest())


def data_root(config: RunConfig) -> str:
    """Folder that the item paths of `points` are relative to."""
    if config.data.dataset in data.DATASETS:
        return f"bundle:{config.data.dataset}"  # generated data has no such folder, and no items to look up
    return str(Path(config.data.dataset).parent)
