"""Datasets as `Embeddings`: bundled ones by name, the user's own arrays or `.npz` files by path.

    stamps = labkit.data.load("stamps", modalities=("image", "text"))
    mine = labkit.data.from_arrays({"image": x, "text": y})
    mine = labkit.data.read_embeddings(["image.npy", "text.npy"], pairs="pairs.csv")
    rows = labkit.data.split(stamps, seed=0)          # {"train": ..., "validation": ..., "test": ...}

A dataset is a class registered in `DATASETS` that follows the protocol `Dataset`; one new file adds one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import BaseModel, ConfigDict

from labkit.config import ConfigError, parse
from labkit.data.files import read_embeddings
from labkit.data.precomputed import from_arrays, from_npz
from labkit.data.splits import SPLITS, split, split_groups
from labkit.registry import Registry
from labkit.types import Embeddings

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DATASETS",
    "SPLITS",
    "Dataset",
    "DatasetOptions",
    "check_encoders",
    "check_options",
    "dataset",
    "from_arrays",
    "from_npz",
    "load",
    "read_embeddings",
    "split",
    "split_groups",
    "table",
]

DATASETS = Registry("dataset", __name__)


class DatasetOptions(BaseModel):
    """Parameters of a dataset; unknown ones are refused. A generated dataset has a subclass as its `Options`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Dataset(Protocol):
    """What a registered dataset offers; its constructor takes the fields of its `Options`, none where it has none."""

    modalities: tuple[str, ...]

    def load(self, modalities: Sequence[str] | None = None, encoders: Mapping[str, str] | None = None) -> Embeddings:
        """Frozen features of the given modalities, all by default; `encoders` as `check_encoders` returns them."""
        ...

    def table(self) -> pd.DataFrame:
        """One row per sample: key, group, label, caption, one raw-item column per modality; attrs["data_root"]."""
        ...

    def items(self, modality: str, keys: Sequence[str] | None = None) -> list[Any]:
        """Raw items (`PIL.Image`, `str`, mono 16 kHz float32 waveform), of all keys by default; None where absent."""
        ...

    def encoder_name(self, modality: str) -> str:
        """Name of the encoder that made the features of a modality."""
        ...

    def encoder_names(self, modality: str) -> tuple[str, ...]:
        """All encoders whose features of a modality are there, that of `encoder_name` first."""
        ...

    def digest(self) -> str:
        """Hash of the keys and raw items, "" where there are no raw items."""
        ...


def check_options(name: str | Path, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every parameter of a dataset written out.

    Raises:
        UnknownNameError: no such dataset.
        ConfigError: a parameter that the dataset does not have, or a value that it does not accept.
    """
    cls = DatasetOptions if _is_file(name) else getattr(DATASETS.get(str(name)), "Options", DatasetOptions)
    return parse(cls, dict(options or {}), what=f"data.options of data set {str(name)!r}").model_dump()


def check_encoders(
    name: str | Path,
    encoders: Mapping[str, str],
    *,
    modalities: Sequence[str],
    options: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The encoders of `encoders` that are not those the data set starts with.

    Raises:
        ConfigError: a modality that is not chosen, an encoder whose features are not there, or a file of features.
    """
    if not encoders:
        return {}
    if _is_file(name):
        raise ConfigError(f"data.encoders is {dict(encoders)}, but {name} holds features of its own; leave it out")
    source = dataset(str(name), options)
    for modality, encoder in encoders.items():
        if modality not in modalities:
            raise ConfigError(f"data.encoders names {modality!r}, which is not among the modalities {list(modalities)}")
        known = source.encoder_names(modality)
        if encoder not in known:
            near = difflib.get_close_matches(encoder, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{name} has no features of {modality!r} by the encoder {encoder!r}; {hint}it has {', '.join(known)}"
            )
    return {m: encoder for m, encoder in encoders.items() if encoder != source.encoder_name(m)}


def dataset(name: str, options: Mapping[str, Any] | None = None) -> Dataset:
    """The bundled or generated dataset called `name`.

    Raises:
        UnknownNameError: no such dataset; the message names the nearest ones.
        ConfigError: see `check_options`.
    """
    make = cast("type[Dataset]", DATASETS.get(name))
    return make(**check_options(name, options))


def load(
    name: str | Path,
    *,
    modalities: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    encoders: Mapping[str, str] | None = None,
) -> Embeddings:
    """Embeddings of a dataset, or of an `.npz` file of your own (see `from_npz`).

    Args:
        name: a registered dataset, or the path of an `.npz` file.
        modalities: which ones, in that order; all by default.
        options: parameters of a generated dataset.
        encoders: modality -> encoder, where not the one the dataset starts with.

    Raises:
        UnknownNameError: no such dataset.
        ConfigError: see `check_options` and `check_encoders`.
        FileNotFoundError: no such file.
        CorruptBundleError: a bundled file is missing or damaged.
        ValueError: no such modality, or arrays that do not fit together.
    """
    checked = check_options(name, options)
    if _is_file(name):
        check_encoders(name, encoders or {}, modalities=modalities or ())
        embeddings = from_npz(Path(name))
        return embeddings if modalities is None else embeddings.select(modalities)
    source = dataset(str(name), checked)
    chosen = tuple(source.modalities if modalities is None else modalities)
    return source.load(chosen, check_encoders(name, encoders or {}, modalities=chosen, options=checked))


def table(name: str, options: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row per sample of a dataset, in the order of `load`; `.attrs["data_root"]` is its folder.

    Columns: key, group, label (class name), caption, then per modality the raw item: a path relative to
    `data_root` for pictures and sound, the words themselves for text; null where absent.
    """
    return dataset(name, options).table()


def _is_file(name: str | Path) -> bool:
    return str(name).endswith(".npz")
