"""Domain shift: test samples of another kind than the training samples, or with items of another modality.

    everything, split = shifted(everything, split, config.data)

Train on drawings and test on photographs; train with captions in English and test with captions in French. The split by
group is made before, on all samples, so that what is tested after a shift is tested without it, too, and by every
shift: curves and differences are paired.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from labkit import data
from labkit.config import ConfigError, DataConfig
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool


def shifted(everything: Embeddings, split: np.ndarray, config: DataConfig) -> tuple[Embeddings, np.ndarray]:
    """The samples that take part in a run under `config.domain`, and their splits.

    Args:
        everything: all samples of the data set, in the modalities of `config`.
        split: of each: "train", "validation" or "test".
        config: names the data set and the shift.

    Raises:
        ConfigError: a kind or a modality that there is not, a data set without kinds, or a modality of another encoder.
    """
    if config.domain.test_items:
        everything = _with_test_items(everything, split == "test", config)
    if config.domain.train or config.domain.test:
        rows = _of_their_kind(everything, split, config)
        everything, split = everything.take(rows), split[rows]
    return everything, split


def _of_their_kind(everything: Embeddings, split: np.ndarray, config: DataConfig) -> Bool[np.ndarray, " n"]:
    """Which samples are of the kind that their split asks for."""
    table = data.table(config.dataset, config.options) if config.dataset in data.DATASETS else None
    if table is None or "kind" not in table:
        raise ConfigError(
            f"data.domain asks for samples of a kind, but {config.dataset} has no column 'kind'; leave "
            "data.domain.train and data.domain.test out"
        )
    kind = table.set_index("key")["kind"].loc[everything.key].to_numpy(dtype=str)
    rows = np.ones(len(kind), dtype=bool)
    for field, splits in (("train", ("train", "validation")), ("test", ("test",))):
        if wanted := getattr(config.domain, field):
            _check_known(wanted, np.unique(kind), f"data.domain.{field}", f"a kind of {config.dataset}")
            rows &= ~np.isin(split, splits) | (kind == wanted)
    for name in np.unique(split):
        if not (rows & (split == name)).any():
            wanted = config.domain.test if name == "test" else config.domain.train
            raise ConfigError(
                f"data.domain leaves no {name} sample: none of the {int((split == name).sum())} of this split is of "
                f"the kind {wanted!r}; take another seed or kind"
            )
    return rows


def _with_test_items(everything: Embeddings, rows: Bool[np.ndarray, " n"], config: DataConfig) -> Embeddings:
    """The samples with the test items of some modalities exchanged for those of others."""
    z, present, at = dict(everything.z), dict(everything.present), torch.from_numpy(rows)
    for modality, other in config.domain.test_items.items():
        _check_known(modality, config.modalities, "data.domain.test_items", "one of data.modalities")
        found = _items_of(other, modality, config)
        if found.z[other].shape[1] != z[modality].shape[1]:
            raise ConfigError(
                f"data.domain.test_items has {other!r} with {found.z[other].shape[1]} features stand for {modality!r} "
                f"with {z[modality].shape[1]}: they must come from the same encoder"
            )
        z[modality] = torch.where(at[:, None], found.z[other].to(z[modality]), z[modality])
        present[modality] = torch.where(at, found.present[other], present[modality])
    return everything.with_z(z, present)


def _items_of(other: str, modality: str, config: DataConfig) -> Embeddings:
    """The modality `other`, by the encoder that made the features of `modality`."""
    if config.dataset not in data.DATASETS:
        whole = data.load(config.dataset)
        _check_known(other, whole.modalities, "data.domain.test_items", f"a modality of {config.dataset}")
        return whole.select([other])
    source = data.dataset(config.dataset, config.options)
    more = getattr(source, "more_modalities", ())
    _check_known(other, (*source.modalities, *more), "data.domain.test_items", f"a modality of {config.dataset}")
    encoder = config.encoders.get(modality) or source.encoder_name(modality)
    if encoder not in source.encoder_names(other):
        raise ConfigError(
            f"data.domain.test_items has {other!r} stand for {modality!r}, but {config.dataset} has no features of it "
            f"by the encoder {encoder!r}; it has {', '.join(source.encoder_names(other))}"
        )
    return source.load([other], {other: encoder})


def _check_known(name: str, known: Iterable[str], field: str, what: str) -> None:
    names = [str(one) for one in known]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"{field} names {name!r}, which is not {what}; {hint}there are {', '.join(names)}")
